// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// TestForeignDataStillVotes: a node whose PGDATA is of another cluster promises and reports, so that two others are a
// majority, but its position is unknown and it cannot win (PROTOCOL 5.2, 5.2.f, 9.11).
func TestForeignDataStillVotes(t *testing.T) {
	l := newLab(t, 2, healthy(), func(o *Options) { o.Promise = 3 })
	l.done(TaskLook, Result{
		Disk: cluster.DiskPresent, System: 8, DiskTL: 9, HighestTL: 9, Known: true, Position: cluster.Position{Timeline: 9, LSN: 0x9000},
	})
	if l.m.rule != "R150" || l.m.Status().Known || l.m.Status().Eligible {
		t.Fatalf("rule %s, status %+v", l.m.rule, l.m.Status())
	}
	l.elect(cluster.CauseLeaseLapsed)
	got := l.sent(1, func(e cluster.Envelope) bool { return e.Report != nil })
	if len(got) != 1 {
		t.Fatalf("%d reports; rule %s: %s", len(got), l.m.rule, l.m.decision.Why)
	}
	if r := got[0].Report; r.Known || r.Eligible || r.Promise < l.st.Election.Epoch {
		t.Fatalf("%+v", r)
	}
}

// TestSettleKnowsWhereItComesFrom: from k = 0 and from async the change waits for more than the barrier (3.3.e, 3.3.f).
func TestSettleKnowsWhereItComesFrom(t *testing.T) {
	l := serving(t)
	d := l.st.D
	d.Mode = cluster.ModeAsync
	l.apply(cluster.Command{ChangeD: &cluster.ChangeD{Epoch: 2, D: d, Rule: "M320"}})
	if s := l.task(TaskSettle); s == nil || s.FromAsync || s.FromZero {
		t.Fatalf("to async: %+v", s)
	}
	l.done(TaskSettle, Result{})
	l.apply(cluster.Command{SettleD: &cluster.SettleD{Epoch: 2, From: 1, X: d}})
	d.Mode = cluster.ModeQuorum
	l.apply(cluster.Command{ChangeD: &cluster.ChangeD{Epoch: 2, D: d, Rule: "M320"}})
	if s := l.task(TaskSettle); s == nil || !s.FromAsync || s.FromZero {
		t.Fatalf("from async: %+v", s)
	}
}

// TestSettleFromNobody: nobody waited for others while k was 0 (3.3.e).
func TestSettleFromNobody(t *testing.T) {
	st := healthy()
	st.D = cluster.Durability{Set: []cluster.Incarnation{1}, Mode: cluster.ModeQuorum}
	l := newLab(t, 1, st, func(o *Options) { o.LastServed = true })
	l.done(TaskLook, Result{Disk: cluster.DiskPresent, System: 7, DiskTL: 2, HighestTL: 2, Known: true, Position: cluster.Position{Timeline: 2, LSN: 0x3000}})
	l.grants()
	l.done(TaskPrimary, Result{Flush: 0x3100})
	l.done(TaskAdmit, Result{})
	l.apply(cluster.Command{ChangeD: &cluster.ChangeD{Epoch: 2, D: cluster.Durability{Set: []cluster.Incarnation{1, 2}, K: 1, Mode: cluster.ModeQuorum}, Rule: "M320"}})
	if s := l.task(TaskSettle); s == nil || !s.FromZero || len(s.Settings.Names) != 1 {
		t.Fatalf("rule %s, %+v", l.m.rule, s)
	}
}

// TestNoCatchUpBehindAnElect: while an Elect may be on its way to the log nobody is sent to catch up. It holds his report
// (PROTOCOL 5.2.g).
func TestNoCatchUpBehindAnElect(t *testing.T) {
	l := following(t)
	l.step(RaftChanged{Term: 2, Leader: 2})
	l.elect(cluster.CauseLeaseLapsed)
	l.step(PromiseSaved{Epoch: 3})
	l.done(TaskFence, Result{Known: true, Position: cluster.Position{Timeline: 2, LSN: 0x3000}, HighestTL: 2})
	report := cluster.Report{
		Inc: 3, Boot: bootOf(3), Election: l.st.Election.Index, Promise: 3, Known: true,
		Position: cluster.Position{Timeline: 2, LSN: 0x2000}, HighestTL: 2,
	}
	l.from(3, cluster.Envelope{Report: &report})
	wait := func(d time.Duration) {
		l.now += d
		l.step(Tick{})
	}
	elects := func() bool {
		return slices.ContainsFunc(l.all, func(a Action) bool { p, ok := a.(Propose); return ok && p.Command.Elect != nil })
	}
	for i := 0; i < 40 && !elects(); i++ {
		wait(100 * time.Millisecond)
	}
	if !elects() {
		t.Fatalf("nobody is elected; rule %s: %s", l.m.leadRule, l.m.leadWhy)
	}
	better := report
	better.Position.LSN = 0x3800 // and it may not win
	l.from(3, cluster.Envelope{Report: &better})
	if wait(electOnItsWay / 2); l.m.leadRule != "F260" || l.m.node.catchUp != nil {
		t.Fatalf("behind an Elect: rule %s: %s, %+v", l.m.leadRule, l.m.leadWhy, l.m.node.catchUp)
	}
	if wait(electOnItsWay); l.m.node.catchUp == nil {
		t.Fatalf("not sent to catch up; rule %s: %s", l.m.leadRule, l.m.leadWhy)
	}
}

// TestDonorThatHasNothing: who is sent to catch up, and gets nothing, would be sent to the same donor for ever. Its WAL may be
// gone. The others are elected without it, if they hold all that was acknowledged (decision 0012).
func TestDonorThatHasNothing(t *testing.T) {
	l := following(t)
	l.st = l.st.Clone()
	l.st.D.Set = []cluster.Incarnation{1, 2}
	l.step(RaftChanged{Term: 2, Leader: 2})
	l.elect(cluster.CausePgDown)
	l.step(PromiseSaved{Epoch: 3})
	l.done(TaskFence, Result{Known: true, Position: cluster.Position{Timeline: 2, LSN: 0x3000}, HighestTL: 2})
	for inc, lsn := range map[cluster.Incarnation]cluster.LSN{1: 0x3000, 3: 0x4000} { // 3 is ahead, and no candidate: outside Set
		l.from(inc, cluster.Envelope{Report: &cluster.Report{
			Inc: inc, Boot: bootOf(inc), Election: l.st.Election.Index, Promise: 3, Known: inc != 1, Killed: inc == 1, HighestTL: 2,
			Position: cluster.Position{Timeline: 2, LSN: lsn},
		}})
	}
	var rules []cluster.RuleID
	asked := false
	for range 120 {
		l.now += 100 * time.Millisecond
		l.step(Tick{})
		asked = asked || l.m.node.catchUp != nil
		if r := l.m.leadRule; len(rules) == 0 || rules[len(rules)-1] != r {
			rules = append(rules, r)
		}
	}
	if !asked || !slices.Contains(rules, "F260") || rules[len(rules)-1] != "F250" {
		t.Fatalf("asked %t, rules %v; last: %s", asked, rules, l.m.leadWhy)
	}
}
