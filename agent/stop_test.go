// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// serving is the primary a, let in, with b and c streaming.
func serving(t *testing.T) *lab {
	t.Helper()
	l := newLab(t, 1, healthy(), func(o *Options) { o.LastServed = true })
	l.done(TaskLook, Result{
		Disk: cluster.DiskPresent, System: 7, DiskTL: 2, HighestTL: 2, Known: true, Position: cluster.Position{Timeline: 2, LSN: 0x3000},
	})
	l.grants()
	l.done(TaskPrimary, Result{Flush: 0x3100})
	for _, i := range []cluster.Incarnation{2, 3} {
		l.from(i, cluster.Envelope{Flushed: &cluster.Flushed{Epoch: 2, Timeline: 2, LSN: 0x3100}})
		l.from(i, cluster.Envelope{Status: &cluster.Status{Role: cluster.RoleFollowing, Epoch: 2, Eligible: true, Streaming: true, Known: true}})
	}
	l.done(TaskAdmit, Result{})
	if !l.m.node.serving {
		t.Fatalf("not serving: rule %s %s", l.m.rule, l.m.decision.Why)
	}
	return l
}

// grants answers every renewal that was sent so far.
func (l *lab) grants() {
	for _, a := range l.all {
		if s, ok := a.(Send); ok && s.Env.Renew != nil {
			g := cluster.Grant(*s.Env.Renew)
			l.from(s.To, cluster.Envelope{Grant: &g})
		}
	}
}

// facts is what Postgres says of itself while it streams to these nodes.
func (l *lab) facts(to ...cluster.Incarnation) {
	f := Facts{Running: true, ReadWrite: true, Position: cluster.Position{Timeline: 2, LSN: 0x3100}}
	for _, i := range to {
		f.Senders = append(f.Senders, cluster.Sender{App: cluster.SyncName(l.st.NameOf(i), i, 2), Flush: 0x3100, State: "streaming"})
	}
	l.step(Observed{PG: f})
}

// TestSwitchoverWhileSettling: a change of durability that waits for a standby lets this standby attach although a
// switchover has been asked for, and the switchover that cannot begin is given up.
func TestSwitchoverWhileSettling(t *testing.T) {
	l := serving(t)
	l.facts(2, 3)
	l.apply(cluster.Command{ChangeD: &cluster.ChangeD{Epoch: 2, D: l.st.D.Without(3), Rule: "M210"}})
	if l.task(TaskSettle) == nil {
		t.Fatal("the change is not carried out")
	}
	l.step(Requested{Request: cluster.Request{ID: 1, Op: "switchover"}})
	l.from(2, cluster.Envelope{Attach: &cluster.Attach{Epoch: 2, Claim: cluster.Position{Timeline: 2, LSN: 0x3000}}})
	if l.task(TaskVet) == nil {
		t.Fatal("the standby that the change waits for may not attach")
	}
	for range 40 {
		l.now += 200 * time.Millisecond
		l.step(Tick{})
		l.grants()
	}
	for _, a := range l.all {
		if x, ok := a.(Answer); ok && !x.Response.OK {
			return
		}
	}
	t.Fatal("the switchover neither begins nor ends")
}

// TestHouseIsKeptWhileSettling: a change of durability may wait for a member that has lost its data. It can only be cloned
// once the primary's first checkpoint is done.
func TestHouseIsKeptWhileSettling(t *testing.T) {
	l := serving(t)
	l.apply(cluster.Command{ChangeD: &cluster.ChangeD{Epoch: 2, D: l.st.D.Without(3), Rule: "M210"}})
	if !l.m.taskIs(TaskSettle) {
		t.Fatal("the change is not carried out")
	}
	if l.task(TaskKeepHouse) != nil {
		l.done(TaskKeepHouse, Result{})
	}
	l.m.node.checkpoint, l.all = false, nil
	l.now += houseEvery
	if l.step(Tick{}); l.task(TaskFirstChkpt) == nil || l.task(TaskKeepHouse) == nil {
		t.Fatal("neither checkpoint nor housekeeping before the change is settled")
	}
}

// TestTakenBackWhileItWasSettled: a change whose barrier has come may have been taken back by then. The primary carries
// the taking back out, too (PROTOCOL 3.3.d).
func TestTakenBackWhileItWasSettled(t *testing.T) {
	l := serving(t)
	l.facts(2, 3)
	l.apply(cluster.Command{ChangeD: &cluster.ChangeD{Epoch: 2, D: l.st.D.Without(3), Rule: "M210"}})
	l.done(TaskSettle, Result{Barrier: 0x3200})
	first := l.task(TaskSettle).ID
	l.apply(cluster.Command{RevertD: &cluster.RevertD{Epoch: 2, Rule: "M120"}})
	l.step(Tick{})
	if l.task(TaskSettle).ID == first {
		t.Fatalf("the taking back is not carried out: rule %s: %s", l.m.rule, l.m.decision.Why)
	}
	l.done(TaskSettle, Result{Barrier: 0x3300})
	l.now += time.Second
	l.grants()
	l.step(Tick{})
	for _, a := range l.all {
		if p, ok := a.(Propose); ok && p.Command.SettleD != nil && p.Command.SettleD.X.Equal(l.st.D) {
			return
		}
	}
	t.Fatal("it is not settled")
}

// TestLeaseLostInHandover: a hand-over that is killed half-way has no way back. The primary that neither serves nor
// gives up would hold the cluster for ever: its lease goes on as soon as it is granted again.
func TestLeaseLostInHandover(t *testing.T) {
	l := serving(t)
	l.facts(2, 3)
	l.step(Requested{Request: cluster.Request{ID: 1, Op: "switchover", Target: "b"}})
	l.done(TaskPreparePlan, Result{})
	l.facts(2, 3)
	if l.task(TaskHandover) == nil {
		t.Fatal("no hand-over began")
	}
	l.now += 5 * time.Second
	l.step(Tick{})
	l.done(TaskKill, Result{})
	l.grants()
	l.step(PromiseSaved{Epoch: 3})
	l.step(Tick{})
	if d := l.m.lead.down; d == nil || !d.Killed { // it leads raft itself: no message
		t.Fatalf("it does not give up: rule %s %s, plan %d", l.m.rule, l.m.decision.Why, l.m.plan.phase)
	}
}

// TestNobodyAttachesDuringAHandover: the shutdown record is for the target. The other standbys are sent away before the stop,
// and not let in again (PROTOCOL 10.1.d).
func TestNobodyAttachesDuringAHandover(t *testing.T) {
	l := serving(t)
	l.facts(2, 3)
	l.step(Requested{Request: cluster.Request{ID: 1, Op: "switchover", Target: "b"}})
	prepare := l.task(TaskPreparePlan)
	l.all = nil
	l.step(Done{ID: prepare.ID})
	var sent []cluster.Incarnation
	for _, a := range l.all {
		switch x := a.(type) {
		case Send:
			if x.Env.Detach != nil {
				sent = append(sent, x.To)
			}
		case Run:
			if x.Task.Kind == TaskHandover && (len(sent) != 1 || sent[0] != 3 || x.Task.Slot != cluster.SlotName(2)) {
				t.Fatalf("the stop begins, sent away: %v, kept: %s", sent, x.Task.Slot)
			}
		}
	}
	if l.task(TaskHandover) == nil {
		t.Fatal("no hand-over began")
	}
	l.from(3, cluster.Envelope{Attach: &cluster.Attach{Epoch: 2, Claim: cluster.Position{Timeline: 2, LSN: 0x3000}}})
	no := l.sent(3, func(e cluster.Envelope) bool { return e.Diverged != nil && e.Diverged.Retry })
	if l.task(TaskVet) != nil || len(no) != 1 {
		t.Fatalf("let in again during the stop: %+v", no)
	}
}

// TestLeaseEndsAStop: a primary that is stopping when others begin an election keeps its deadline. A stop that takes long
// must not leave two Postgres that write (PROTOCOL 4.5, I2).
func TestLeaseEndsAStop(t *testing.T) {
	l := serving(t)
	for _, i := range []cluster.Incarnation{2, 3} {
		l.from(i, cluster.Envelope{Leaving: &cluster.Leaving{}})
	}
	l.step(StopAsked{})
	l.step(Tick{})
	if l.task(TaskStop) == nil {
		t.Fatalf("no stop in place: rule %s: %s", l.m.rule, l.m.decision.Why)
	}
	l.elect(cluster.CauseTimeout)
	if l.m.deadline == 0 {
		t.Error("the election takes the deadline away")
	}
	l.now += 3 * time.Second
	l.step(Tick{})
	if l.task(TaskKill) == nil {
		t.Fatal("not killed at the end of its lease")
	}
}

// TestStackThatStops: a standby stays for a primary that leaves too, which needs its grants; a primary that has handed over
// leaves when nobody stays who could be elected (PROTOCOL 10.3).
func TestStackThatStops(t *testing.T) {
	l := following(t)
	l.from(1, cluster.Envelope{Leaving: &cluster.Leaving{Primary: true}})
	l.step(StopAsked{})
	l.now += standbyWait
	if l.step(Tick{}); l.task(TaskStop) != nil {
		t.Error("leaves before the primary")
	}
	l.now += stackWait - standbyWait
	if l.step(Tick{}); l.task(TaskStop) == nil {
		t.Error("waits longer than a stop of Docker's takes")
	}

	p := serving(t)
	p.facts(2, 3)
	p.step(StopAsked{})
	p.done(TaskPreparePlan, Result{})
	p.facts(2, 3)
	p.done(TaskHandover, Result{Known: true, Position: cluster.Position{Timeline: 2, LSN: 0x3100}})
	exits := func() bool { return slices.ContainsFunc(p.all, func(a Action) bool { _, ok := a.(Exit); return ok }) }
	if p.step(Tick{}); exits() {
		t.Error("leaves before another is elected")
	}
	for _, i := range []cluster.Incarnation{2, 3} {
		p.from(i, cluster.Envelope{Leaving: &cluster.Leaving{}})
	}
	if p.step(Tick{}); !exits() {
		t.Error("waits for a successor that nobody can be")
	}
}

// TestGoodbyeAfterPostgres: PID 1 leaves, and says so, when Postgres has ended, however that is brought about (PROTOCOL 6.1).
func TestGoodbyeAfterPostgres(t *testing.T) {
	l := following(t)
	leaves := func() bool {
		for _, a := range l.all {
			if _, ok := a.(Exit); ok {
				return true
			}
		}
		return false
	}
	l.step(StopAsked{})
	l.now += standbyWait
	l.step(Tick{})
	stop := l.task(TaskStop)
	if stop == nil || leaves() {
		t.Fatalf("stop %+v, leaves: %v", stop, leaves())
	}
	l.step(Done{ID: stop.ID, Err: errors.New("postgres does not end")})
	l.step(Tick{})
	if l.task(TaskKill) == nil || leaves() {
		t.Fatalf("kill %+v, leaves: %v", l.task(TaskKill), leaves())
	}
	l.step(Killed{ID: l.task(TaskKill).ID})
	if leaves() {
		t.Fatal("leaves while processes may still be there")
	}
	if l.done(TaskKill, Result{}); !leaves() {
		t.Fatal("stays")
	}
}
