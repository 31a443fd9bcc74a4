// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// following is the standby b, which streams from a.
func following(t *testing.T) *lab {
	t.Helper()
	l := newLab(t, 2, healthy(), nil)
	l.done(TaskLook, Result{Disk: cluster.DiskPresent, System: 7, DiskTL: 2, HighestTL: 2, Known: true, Position: cluster.Position{Timeline: 2, LSN: 0x3000}})
	l.done(TaskRecovery, Result{})
	l.from(1, cluster.Envelope{AttachOK: &cluster.AttachOK{Epoch: 2, Timeline: 2, Port: 5432, App: "b.e2"}})
	l.done(TaskOrder, Result{})
	l.step(Observed{PG: Facts{Running: true, Streaming: true, Position: cluster.Position{Timeline: 2, LSN: 0x3000}}})
	return l
}

// lastTask is the id of the task that was started last.
func (l *lab) lastTask() uint64 {
	for _, a := range slices.Backward(l.all) {
		if r, ok := a.(Run); ok {
			return r.Task.ID
		}
	}
	return 0
}

// TestNothingMovesAfterTheReport: between its report and Elect a node's WAL changes only by a catch-up that this election
// ordered (PROTOCOL 5.2.g).
func TestNothingMovesAfterTheReport(t *testing.T) {
	l := following(t)
	l.elect(cluster.CauseLeaseLapsed)
	l.step(PromiseSaved{Epoch: 3})
	l.done(TaskFence, Result{Known: true, Position: cluster.Position{Timeline: 2, LSN: 0x3000}, HighestTL: 2})
	if r := l.sent(1, func(e cluster.Envelope) bool { return e.Report != nil && e.Report.Known }); len(r) != 1 {
		t.Fatalf("no report; rule %s: %s", l.m.rule, l.m.decision.Why)
	}
	last := l.lastTask()
	quiet := func(after string) {
		t.Helper()
		for range 30 {
			l.now += 100 * time.Millisecond
			l.step(Tick{})
			for i := range l.st.Members {
				if l.sent(cluster.Incarnation(i+1), func(e cluster.Envelope) bool { return e.Attach != nil }) != nil {
					t.Fatalf("%s: asks %d to attach", after, i+1)
				}
			}
		}
		if n := l.lastTask(); n != last {
			t.Fatalf("%s: task %d begins after task %d; rule %s: %s", after, n, last, l.m.rule, l.m.decision.Why)
		}
	}
	quiet("its report")
	l.from(1, cluster.Envelope{AttachOK: &cluster.AttachOK{Epoch: 2, Timeline: 2, Port: 5432, App: "b.e2"}})
	quiet("a late word of the old primary")
	end := cluster.Position{Timeline: 2, LSN: 0x4000}
	l.from(1, cluster.Envelope{CatchUp: &cluster.CatchUp{Election: l.st.Election.Index - 1, Donor: 3, End: end}})
	quiet("a catch-up of another election")
	l.from(3, cluster.Envelope{AttachOK: &cluster.AttachOK{Epoch: 2, Timeline: 2, Port: 5432, App: "x", Election: l.st.Election.Index}})
	quiet("an upstream that nobody ordered")
	l.from(1, cluster.Envelope{CatchUp: &cluster.CatchUp{Election: l.st.Election.Index, Donor: 3, End: end}})
	l.from(3, cluster.Envelope{AttachOK: &cluster.AttachOK{Epoch: 2, Timeline: 2, Port: 5432, App: "x", Election: l.st.Election.Index}})
	if o := l.task(TaskOrder); o.ID <= last || o.App != "x" {
		t.Fatalf("the ordered catch-up: %+v", o)
	}
}

// TestNameOfTheEpoch: whoever attaches is told the name that the primary of this epoch lists, and a word of an older epoch
// brings no order (PROTOCOL 3.1.b, 3.1.c).
func TestNameOfTheEpoch(t *testing.T) {
	l := serving(t)
	l.from(2, cluster.Envelope{Attach: &cluster.Attach{Epoch: 2, Claim: cluster.Position{Timeline: 2, LSN: 0x3000}}})
	l.done(TaskVet, Result{Flush: 0x3100})
	got := l.sent(2, func(e cluster.Envelope) bool { return e.AttachOK != nil })
	if start := l.task(TaskPrimary).Settings; len(start.Names) == 0 || start.K != 1 {
		t.Fatalf("started with the list %v", start.Names) // an empty one holds no commit (3.1.e)
	}
	if len(got) != 1 || !slices.Contains(l.m.settings().Names, got[0].AttachOK.App) || got[0].AttachOK.App != cluster.SyncName("b", 2, 2) {
		t.Fatalf("told %+v, listed %v", got, l.m.settings().Names)
	}

	f := following(t)
	f.elect(cluster.CauseLeaseLapsed)
	f.step(PromiseSaved{Epoch: 3})
	at := cluster.Position{Timeline: 2, LSN: 0x3000}
	f.done(TaskFence, Result{Known: true, Position: at, HighestTL: 2})
	var reports []cluster.Report
	for _, i := range []cluster.Incarnation{2, 3} {
		reports = append(reports, cluster.Report{
			Inc: i, Boot: bootOf(i), Election: f.st.Election.Index, Promise: 3, Known: true, Position: at, HighestTL: 2, Eligible: true,
		})
	}
	before := f.task(TaskOrder).ID
	f.apply(cluster.Command{Elect: &cluster.Elect{Epoch: 3, Election: f.st.Election.Index, Candidate: 3, Reports: reports, Wait: cluster.WaitLease, Rule: "F250"}})
	f.from(3, cluster.Envelope{AttachOK: &cluster.AttachOK{Epoch: 2, Timeline: 2, Port: 5432, App: "b.e2"}})
	if o := f.task(TaskOrder); o.ID != before {
		t.Fatalf("ordered by a word of epoch 2: %+v", o)
	}
	f.from(3, cluster.Envelope{AttachOK: &cluster.AttachOK{Epoch: 3, Timeline: 4, Port: 5432, App: "b.e3"}})
	if o := f.task(TaskOrder); o.ID == before || o.App != "b.e3" || o.Host != "c" {
		t.Fatalf("rule %s, order %+v", f.m.rule, o)
	}
}

// TestFlushIsOfTheEpoch: what a standby has flushed counts for the primary of the epoch that its upstream file is ordered
// for, and there only on the epoch's timeline (PROTOCOL 5.7.c).
func TestFlushIsOfTheEpoch(t *testing.T) {
	told := func(l *lab) bool {
		l.step(FlushSeen{Position: cluster.Position{Timeline: 2, LSN: 0x3200}})
		return l.sent(1, func(e cluster.Envelope) bool { return e.Flushed != nil }) != nil
	}
	l := following(t)
	if !told(l) {
		t.Fatal("not told what was flushed")
	}
	if l.elect(cluster.CauseLeaseLapsed); told(l) {
		t.Error("told after the election began")
	}
	parked := newLab(t, 2, healthy(), nil)
	if told(parked) {
		t.Error("told without an order")
	}

	p := newLab(t, 1, healthy(), func(o *Options) { o.LastServed = true })
	p.done(TaskLook, Result{Disk: cluster.DiskPresent, System: 7, DiskTL: 2, HighestTL: 2, Known: true, Position: cluster.Position{Timeline: 2, LSN: 0x3000}})
	p.grants()
	p.done(TaskPrimary, Result{Flush: 0x3100})
	p.facts(2, 3) // what the WAL senders say is no proof
	for _, f := range []cluster.Flushed{{Epoch: 2, Timeline: 1, LSN: 0x9000}, {Epoch: 1, Timeline: 2, LSN: 0x9000}, {Epoch: 2, Timeline: 2, LSN: 0x30ff}} {
		if p.from(2, cluster.Envelope{Flushed: &f}); p.task(TaskAdmit) != nil {
			t.Fatalf("admitted by %+v", f)
		}
	}
	if p.from(3, cluster.Envelope{Flushed: &cluster.Flushed{Epoch: 2, Timeline: 2, LSN: 0x3100}}); p.task(TaskAdmit) == nil {
		t.Fatalf("not admitted; rule %s: %s", p.m.rule, p.m.decision.Why)
	}
}

// TestOldCopyStaysUntilTheNewStreams: only a clone that streams is a good copy (PROTOCOL 8.5).
func TestOldCopyStaysUntilTheNewStreams(t *testing.T) {
	l := newLab(t, 2, healthy(), nil)
	at := cluster.Position{Timeline: 2, LSN: 0x3000}
	l.from(1, cluster.Envelope{Status: &cluster.Status{Role: cluster.RoleServing, Epoch: 2, Known: true, Position: at, Port: 5432, Serving: true, Checkpoint: true}})
	l.done(TaskLook, Result{Disk: cluster.DiskInterrupted})
	l.done(TaskClone, Result{Disk: cluster.DiskPresent, System: 7, DiskTL: 2, Known: true, Position: at})
	l.from(1, cluster.Envelope{AttachOK: &cluster.AttachOK{Epoch: 2, Timeline: 2, Port: 5432, App: "b.e2"}})
	l.done(TaskRecovery, Result{})
	for range 20 {
		l.now += 200 * time.Millisecond
		l.step(Observed{PG: Facts{Running: true, Position: at}})
	}
	if l.task(TaskConfirmClone) != nil {
		t.Fatal("the old directory goes before the copy streams")
	}
	if l.step(Observed{PG: Facts{Running: true, Streaming: true, Position: at}}); l.task(TaskConfirmClone) == nil {
		t.Fatalf("the old directory stays; rule %s: %s", l.m.rule, l.m.decision.Why)
	}
}

// TestAttachToTheElected: before its promotion the elected node's history ends at the elected position. Whoever has more has
// diverged (PROTOCOL 5.5.c).
func TestAttachToTheElected(t *testing.T) {
	st := healthy()
	st.Phase, st.Epochs[1].Promoted = cluster.PhasePromoting, false
	elected := st.Epochs[1].Elected
	l := newLab(t, 1, st, nil)
	l.done(TaskLook, Result{Disk: cluster.DiskPresent, System: 7, DiskTL: 1, HighestTL: 1, Known: true, Position: elected})
	l.grants()
	l.done(TaskRecovery, Result{})
	l.step(Observed{PG: Facts{Running: true, Position: elected}})
	l.done(TaskCloseGate, Result{})
	for beyond, diverged := range []bool{false, true} {
		claim := elected
		claim.LSN += cluster.LSN(beyond)
		l.from(2, cluster.Envelope{Attach: &cluster.Attach{Epoch: 2, Claim: claim}})
		l.done(TaskVet, Result{})
		ok := l.sent(2, func(e cluster.Envelope) bool { return e.AttachOK != nil })
		no := l.sent(2, func(e cluster.Envelope) bool { return e.Diverged != nil && !e.Diverged.Retry })
		if (len(ok) == 0) != diverged || (len(no) == 1) != diverged {
			t.Errorf("claim %s, elected %s: %+v %+v", claim, elected, ok, no)
		}
	}
}

// TestReportAfterThePromise: nothing is reported before the promise is durable (PROTOCOL 1.7, 4.3).
func TestReportAfterThePromise(t *testing.T) {
	l := newLab(t, 2, healthy(), nil)
	reports := func() int { return len(l.sent(1, func(e cluster.Envelope) bool { return e.Report != nil })) }
	l.elect(cluster.CauseLeaseLapsed)
	if n := reports(); n != 0 {
		t.Fatalf("%d reports without a promise", n)
	}
	l.now += time.Second
	if l.step(Tick{}); reports() != 0 {
		t.Fatal("reported without a promise")
	}
	if l.step(PromiseSaved{Epoch: 3}); reports() != 1 {
		t.Fatalf("not reported; rule %s: %s", l.m.rule, l.m.decision.Why)
	}
}

// TestStandbyAhead: a claim beyond the primary's end shows that it lost WAL. A member of the durability set may be elected
// in its place; any other has diverged, for the primary writes other bytes there (PROTOCOL 5.5.d, 11.1).
func TestStandbyAhead(t *testing.T) {
	ask := func(l *lab) (refused []cluster.Envelope) {
		l.from(2, cluster.Envelope{Attach: &cluster.Attach{Epoch: 2, Claim: cluster.Position{Timeline: 2, LSN: 0x3200}}})
		l.done(TaskVet, Result{Flush: 0x3100})
		if l.sent(2, func(e cluster.Envelope) bool { return e.AttachOK != nil }) != nil {
			t.Fatal("attached")
		}
		return l.sent(2, func(e cluster.Envelope) bool { return e.Diverged != nil })
	}
	l := serving(t)
	if d := ask(l); d != nil || l.m.plan.down == nil {
		t.Errorf("one of the set: refused by %+v, given up for %+v", d, l.m.plan.down)
	}
	l = serving(t)
	l.st.D.Set = []cluster.Incarnation{1}
	d := ask(l)
	if len(d) != 1 || !d[0].Diverged.Gone || d[0].Diverged.Retry || l.m.plan.down != nil {
		t.Errorf("one outside the set: refused by %+v, given up for %+v", d, l.m.plan.down)
	}
}
