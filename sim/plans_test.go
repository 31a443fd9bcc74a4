// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/agent"
)

// A whole stack that is told to stop ends in order: the primary while it has its lease, and before those who can renew
// it lose their patience (PROTOCOL 10.3).
func TestWholeStackStops(t *testing.T) {
	for seed := uint64(1); seed <= 8; seed++ {
		w := newWorld(t, Options{Seed: seed, Data: 3, Clients: 4})
		w.startAll()
		healthy(t, w, 30*time.Second)
		if err := w.Run(3 * time.Second); err != nil {
			t.Fatal(err)
		}
		for _, n := range w.nodes {
			w.after(w.between(0, 100*time.Millisecond), func() { n.life.post(agent.StopAsked{}) })
		}
		at := w.now
		ok, err := w.Until(4*time.Second, func() bool {
			for _, n := range w.nodes {
				if n.life != nil {
					return false
				}
			}
			return true
		})
		if err != nil || !ok {
			t.Errorf("seed %d: not all have ended after %s: %v\n%s", seed, w.now-at, err, w.Tail())
		}
		t.Logf("seed %d: all have ended after %s", seed, w.now-at)
	}
}

// The best position belongs to a node that may not be primary: the other one takes the rest of the WAL from it first
// (PROTOCOL 5.4.c).
func TestCatchUp(t *testing.T) {
	for seed := uint64(1); seed <= 8; seed++ {
		w := newWorld(t, Options{Seed: seed, Data: 3, Clients: 4})
		never := w.nodes[2]
		never.never = true
		w.startAll()
		healthy(t, w, 30*time.Second)
		if err := w.Run(3 * time.Second); err != nil {
			t.Fatal(err)
		}
		p := w.serving()
		late := w.nodes[1-p.idx]
		w.net.cutPG[p.idx][late.idx], w.net.cutPG[late.idx][p.idx] = true, true
		if err := w.Run(500 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
		p.kill()
		at := w.now
		ok, err := w.Until(3*time.Second, func() bool { return w.serving() == late && w.check.lastAck > at })
		if err != nil || !ok {
			t.Fatalf("seed %d: %s does not serve after %s: %v\n%s", seed, late.name, w.now-at, err, w.Tail())
		}
		t.Logf("seed %d: %s serves after %s", seed, late.name, w.now-at)
		w.net.heal()
		p.start()
		healthy(t, w, 30*time.Second)
	}
}
