// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// statuses steps the machine once a status is due and says whether those that it sends may wait.
func (l *lab) statuses() (n int, later bool) {
	l.now += statusEvery
	l.step(Tick{})
	for _, a := range l.out {
		if s, ok := a.(Send); ok && s.Env.Status != nil {
			n++
			later = s.Later
		}
	}
	return n, later
}

// Only the status of a node at rest, that says nothing new, waits for company; what a failover hangs on never does.
func TestStatusWaitsOnlyAtRest(t *testing.T) {
	l := newLab(t, 2, healthy(), nil)
	renewed := func() {
		l.from(1, cluster.Envelope{Renew: &cluster.Renew{Epoch: 2, LeaseMS: 2000, Config: 1}})
		l.from(1, cluster.Envelope{Status: &cluster.Status{Role: cluster.RoleServing, Epoch: 2, Serving: true}})
	}
	expect := func(what string, want bool) {
		t.Helper()
		if n, later := l.statuses(); n == 0 || later != want {
			t.Fatalf("%s: %d statuses, may wait: %v", what, n, later)
		}
	}
	renewed()
	expect("not following yet", false)
	l.m.task, l.m.pg = nil, Facts{Running: true, Streaming: true}
	l.m.node.disk, l.m.node.system, l.m.node.attached, l.m.node.confirmed = cluster.DiskPresent, 7, 2, true
	renewed()
	expect("the first one at rest", false)
	heard := map[cluster.Incarnation]int{}
	for range 8 {
		renewed()
		expect("at rest", true)
		for _, to := range []cluster.Incarnation{1, 3} {
			heard[to] += len(l.sent(to, func(e cluster.Envelope) bool { return e.Status != nil }))
		}
	}
	if heard[1] != 8 || heard[3] != 2 {
		t.Fatalf("in 0.8 s at rest the leader and another hear %v statuses", heard)
	}
	l.step(LinkUp{Inc: 3, Name: "c", Boot: cluster.Boot{Number: 2, ID: 9}, Out: true})
	l.step(LinkUp{Inc: 3, Name: "c", Boot: cluster.Boot{Number: 2, ID: 9}})
	if n := len(l.sent(1, func(e cluster.Envelope) bool { return e.Status != nil })); n != 1 {
		t.Fatalf("a new link: %d statuses at once", n)
	}
	for _, a := range l.out {
		if s, ok := a.(Send); ok && s.Later {
			t.Fatalf("what is new waits: %+v", s)
		}
	}
	l.now += time.Second // nobody renews: the leader counts the age of the last grant (PROTOCOL 5.1.a)
	expect("a lease that is not renewed", false)
}
