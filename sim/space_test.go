// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// crowded is a cluster whose disks are all full, and whose primary is killed.
func crowded(t *testing.T, change func(*node)) (w *World, primary *node) {
	t.Helper()
	w = newWorld(t, Options{Seed: 7, Data: 3, Clients: 3})
	w.startAll()
	healthy(t, w, 30*time.Second)
	ok, err := w.Until(10*time.Second, func() bool {
		for _, n := range w.nodes {
			if !n.vol.disk.ballast {
				return false
			}
		}
		return true
	})
	if err != nil || !ok {
		t.Fatalf("no ballast: %v\n%s", err, w.Tail())
	}
	primary = w.serving()
	for _, n := range w.nodes {
		n.vol.disk.crowd(0, time.Hour)
		change(n)
	}
	if err := w.Run(2 * time.Second); err != nil { // everybody has looked
		t.Fatal(err)
	}
	primary.kill()
	return w, primary
}

// TestPromotionOnAFullDisk: with its ballast a node whose disk is full takes over, and with its own another one follows, so
// that commits are acknowledged; it is made again once there is room (PROTOCOL 5.6.a, 12.5).
func TestPromotionOnAFullDisk(t *testing.T) {
	w, old := crowded(t, func(*node) {})
	at := w.now
	ok, err := w.Until(3*time.Second, func() bool { return w.serving() != nil && w.check.lastAck > at+time.Millisecond })
	if err != nil || !ok {
		t.Fatalf("no failover: %v\n%s", err, w.Tail())
	}
	t.Logf("first write after %s", w.check.lastAck-at)
	now := w.serving()
	if d := now.vol.disk; d.ballast || d.free() != cluster.BallastSize {
		t.Errorf("%s has %d MB free, ballast %v", now.name, d.free()>>20, d.ballast)
	}
	for _, n := range w.nodes {
		if n != old && n.vol.disk.ballast {
			t.Errorf("%s kept its ballast, and has no room for the new timeline", n.name)
		}
		n.vol.disk.heal()
	}
	old.start()
	healthy(t, w, 30*time.Second)
	if ok, err := w.Until(2*time.Minute, func() bool { return now.vol.disk.ballast }); err != nil || !ok {
		t.Errorf("not made again: %v\n%s", err, w.Tail())
	}
}

// TestNobodyHasRoom: without a ballast nobody on a full disk is elected, and the first that has room is (PROTOCOL 5.4.d).
func TestNobodyHasRoom(t *testing.T) {
	w, old := crowded(t, func(n *node) {
		n.vol.disk.ballast = false // as if its volume were too small for one
	})
	was := w.check.newest.Epoch().Epoch
	if err := w.Run(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	if e := w.check.newest.Epoch().Epoch; e != was || w.serving() != nil {
		t.Fatalf("epoch %d after %d: elected without room\n%s", e, was, w.Tail())
	}
	next := w.nodes[(old.idx+1)%3]
	next.vol.disk.heal()
	ok, err := w.Until(3*time.Second, func() bool {
		return w.check.newest.Primary() == next.vol.inc && w.check.newest.Phase == cluster.PhasePromoted
	})
	if err != nil || !ok {
		t.Fatalf("%s has room, and is not promoted: %v\n%s", next.name, err, w.Tail())
	}
	w.nodes[(old.idx+2)%3].vol.disk.heal() // without room for the new timeline it acknowledges nothing
	at := w.now
	if ok, err := w.Until(10*time.Second, func() bool { return w.check.lastAck > at+time.Millisecond }); err != nil || !ok {
		t.Fatalf("no write: %v\n%s", err, w.Tail())
	}
}
