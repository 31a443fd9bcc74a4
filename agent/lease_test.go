// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// TestRestartedVoterAssumesTheLongestLease: a voter that granted under a large L and restarts reads, up to its own
// Register, a log in which L was made large and small again. It reports the large one (PROTOCOL 4.2).
func TestRestartedVoterAssumesTheLongestLease(t *testing.T) {
	l := newLab(t, 2, healthy(), func(o *Options) { o.Boot.Number = 2 })
	l.apply(cluster.Command{SetLease: &cluster.SetLease{LeaseMS: 10000}})
	l.apply(cluster.Command{SetLease: &cluster.SetLease{LeaseMS: 1500}})
	l.apply(cluster.Command{Register: &cluster.Register{Inc: 2, Boot: cluster.Boot{Number: 2, ID: 2}, Boots: []cluster.Boot{bootOf(2)}}})
	r := l.reportAfterFence()
	if r.Lease() != 10*time.Second || r.GrantAge() > 100*time.Millisecond {
		t.Fatalf("reports a grant of %s, %s ago", r.Lease(), r.GrantAge())
	}
}

// TestVoterRemembersItsOwnGrants: once registered, a voter knows what it granted: a longer L that nobody asked it for
// makes nobody wait.
func TestVoterRemembersItsOwnGrants(t *testing.T) {
	l := newLab(t, 2, healthy(), nil)
	l.now += 5 * time.Second
	l.from(1, cluster.Envelope{Renew: &cluster.Renew{Epoch: 2, T0: 1, LeaseMS: 2000, Config: 1}})
	if len(l.sent(1, func(e cluster.Envelope) bool { return e.Grant != nil })) != 1 {
		t.Fatal("no grant")
	}
	l.apply(cluster.Command{SetLease: &cluster.SetLease{LeaseMS: 10000}})
	if r := l.reportAfterFence(); r.Lease() != 2*time.Second {
		t.Fatalf("reports a grant of %s", r.Lease())
	}
}

// reportAfterFence opens an election and returns the report that b sends to the leader, a.
func (l *lab) reportAfterFence() cluster.Report {
	l.t.Helper()
	l.elect(cluster.CauseLeaseLapsed)
	l.step(PromiseSaved{Epoch: l.st.Election.Epoch})
	got := l.sent(1, func(e cluster.Envelope) bool { return e.Report != nil })
	if len(got) != 1 {
		l.t.Fatalf("%d reports; rule %s: %s", len(got), l.m.rule, l.m.decision.Why)
	}
	return *got[0].Report
}

// TestWatchdogIsArmedFirst: the deadline of the first lease is on its way to the watchdog before the task that makes
// Postgres write is started, and a watchdog that comes back hears it at once (PROTOCOL 4.5.c).
func TestWatchdogIsArmedFirst(t *testing.T) {
	l := serving(t)
	at, task := -1, -1
	for i, a := range l.all {
		if d, ok := a.(Deadline); ok && d.At != 0 && at < 0 {
			at = i
		}
		if r, ok := a.(Run); ok && r.Task.Kind == TaskPrimary {
			task = i
		}
	}
	if at < 0 || at > task {
		t.Fatalf("deadline is action %d, start of postgres action %d", at, task)
	}
	l.step(WatchdogChanged{})
	for _, a := range l.step(WatchdogChanged{Alive: true}) {
		if d, ok := a.(Deadline); ok && d.At == l.m.deadline && d.At != 0 {
			return
		}
	}
	t.Fatal("a new watchdog holds no deadline")
}
