// SPDX-License-Identifier: Apache-2.0

package raft

import (
	"testing"
	"time"
)

// A node that is given its ticks has no timer of its own: without a tick it never campaigns, with enough of them it leads.
func TestNodeTakesItsTicksFromOutside(t *testing.T) {
	s, err := NewMemStore([]uint64{1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ticks := make(chan struct{})
	roles := make(chan RoleChanged, 16)
	n, err := Start(NodeOptions{
		Core:   Options{ID: 1, Store: s, FSM: &listFSM{}, Logger: quiet()},
		Sender: deafSender{}, Tick: time.Millisecond, Ticks: ticks, OnRole: func(r RoleChanged) { roles <- r },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	select {
	case r := <-roles:
		t.Fatalf("a role without a tick: %v", r)
	case <-time.After(100 * time.Millisecond): // five times the longest election timeout in ticks of its own
	}
	for range 21 { // raft draws from 10 to 20
		ticks <- struct{}{}
	}
	select {
	case <-roles:
	case <-time.After(10 * time.Second):
		t.Fatal("no role after 21 ticks")
	}
}
