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

// TestLeaseCountsFromTheRequest: a grant that was long on its way ends as early as any other: at t0 + L, on the clock of who
// asked (PROTOCOL 4.1).
func TestLeaseCountsFromTheRequest(t *testing.T) {
	l := serving(t)
	l.now += 450 * time.Millisecond
	l.step(Tick{})
	asked := l.sent(2, func(e cluster.Envelope) bool { return e.Renew != nil })
	if len(asked) != 1 {
		t.Fatalf("%d renewals", len(asked))
	}
	r := *asked[0].Renew
	l.now += 800 * time.Millisecond
	for _, i := range []cluster.Incarnation{2, 3} {
		g := cluster.Grant(r)
		l.from(i, cluster.Envelope{Grant: &g})
	}
	ends := time.Duration(r.T0) + 2*time.Second - cluster.KillMargin
	if l.m.deadline != ends {
		t.Fatalf("kills at %s, not at %s", l.m.deadline, ends)
	}
	l.now = ends - 2*time.Millisecond
	if l.step(Tick{}); l.task(TaskKill) != nil {
		t.Fatal("killed too early")
	}
	if l.step(Tick{}); l.task(TaskKill) == nil {
		t.Fatal("not killed")
	}
}

// TestPauseSuspendsNothing: while failover is paused a primary without a lease is killed all the same, one that has to wait
// for the flush of others waits, and an election by an operator fences (PROTOCOL 4.8).
func TestPauseSuspendsNothing(t *testing.T) {
	l := serving(t)
	l.apply(cluster.Command{Pause: &cluster.Pause{Paused: true}})
	l.now += 2 * time.Second
	if l.step(Tick{}); l.task(TaskKill) == nil {
		t.Error("a paused primary goes on without a lease")
	}

	st := healthy()
	st.Paused = true
	p := newLab(t, 1, st, func(o *Options) { o.LastServed = true })
	p.done(TaskLook, Result{Disk: cluster.DiskPresent, System: 7, DiskTL: 2, HighestTL: 2, Known: true, Position: cluster.Position{Timeline: 2, LSN: 0x3000}})
	if p.task(TaskPrimary) != nil {
		t.Error("a paused primary starts without a lease")
	}
	p.grants()
	p.done(TaskPrimary, Result{Flush: 0x3100})
	if p.task(TaskAdmit) != nil {
		t.Error("a paused primary admits before the flush of others")
	}

	s := newLab(t, 2, st, nil)
	s.elect(cluster.CauseOperator)
	if s.m.promiseNow != 3 {
		t.Error("a paused standby does not promise")
	}
	s.from(1, cluster.Envelope{Renew: &cluster.Renew{Epoch: 2, T0: 1, LeaseMS: 2000, Config: 1}})
	if s.sent(1, func(e cluster.Envelope) bool { return e.Grant != nil }) != nil {
		t.Error("and grants")
	}
}

// TestNoWatchdogNoLease: nobody would kill if PID 1 hung: a node without a watchdog asks for no lease, and what it has runs
// out (PROTOCOL 4.5.c).
func TestNoWatchdogNoLease(t *testing.T) {
	asks := func(l *lab) bool { return l.sent(2, func(e cluster.Envelope) bool { return e.Renew != nil }) != nil }
	l := newLab(t, 1, healthy(), func(o *Options) { o.LastServed, o.Watchdog = true, false })
	l.done(TaskLook, Result{Disk: cluster.DiskPresent, System: 7, DiskTL: 2, HighestTL: 2, Known: true, Position: cluster.Position{Timeline: 2, LSN: 0x3000}})
	l.now += time.Second
	if l.step(Tick{}); asks(l) || l.task(TaskPrimary) != nil {
		t.Fatal("a lease without a watchdog")
	}
	if l.step(WatchdogChanged{Alive: true}); !asks(l) {
		t.Fatal("no lease with one")
	}

	s := serving(t)
	until := s.m.deadline
	s.step(WatchdogChanged{})
	s.now += time.Second
	if s.step(Tick{}); asks(s) {
		t.Error("renewed without a watchdog")
	}
	s.now = until
	if s.step(Tick{}); s.task(TaskKill) == nil {
		t.Error("goes on without a watchdog")
	}
}

// TestLeaseOfTheVotersBefore: until the newest voters are confirmed the lease of those before counts, and from then on it does
// not: a primary that the newest voters have not granted one any more is killed at once (PROTOCOL 4.6.a).
func TestLeaseOfTheVotersBefore(t *testing.T) {
	l := serving(t)
	ends := l.m.deadline
	st := l.m.st.Clone()
	st.Configs = append(st.Configs, cluster.VoterConfig{Index: 90, Voters: []cluster.Incarnation{1, 2}})
	l.step(Applied{Index: 90, State: st})
	if l.step(Tick{}); l.m.deadline != ends || l.task(TaskKill) != nil {
		t.Fatalf("kills at %s, not at %s", l.m.deadline, ends)
	}
	st = st.Clone()
	st.Configs = st.Configs[1:]
	l.step(Applied{Index: 91, State: st})
	if l.task(TaskKill) == nil {
		t.Fatal("not killed")
	}
}
