// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// TestCrashIsToldAfterTheKill: a primary whose Postgres ended says so, and reports for the election, as soon as its kill has
// returned and its promise is durable. It does not wait until the last process is gone, which its files need (PROTOCOL 5.2.a).
func TestCrashIsToldAfterTheKill(t *testing.T) {
	l := serving(t)
	l.step(RaftChanged{Term: 2, Leader: 2})
	down := func(e cluster.Envelope) bool { return e.PgDown != nil }
	told := func(e Event) bool { l.step(e); return len(l.sent(2, down)) != 0 }
	if told(Exited{Why: "killed by signal 9"}) {
		t.Fatal("told before the kill has returned")
	}
	kill := l.task(TaskKill)
	if kill == nil {
		t.Fatal("what the postmaster left is not killed")
	}
	if told(Killed{ID: kill.ID - 1}) {
		t.Fatal("told after another kill")
	}
	if !told(Killed{ID: kill.ID}) && !told(PromiseSaved{Epoch: 3}) {
		t.Fatalf("not told: rule %s: %s", l.m.rule, l.m.decision.Why)
	}
	report := func(e cluster.Envelope) bool { return e.Report != nil }
	l.elect(cluster.CausePgDown)
	got := l.sent(2, report)
	if len(got) != 1 || !got[0].Report.Killed || got[0].Report.Known {
		t.Fatalf("reports %+v", got)
	}
	if l.task(TaskLook).ID > kill.ID {
		t.Fatal("its files are read while processes may still write them")
	}
	l.done(TaskKill, Result{})
	l.done(TaskLook, Result{Disk: cluster.DiskPresent, System: 7, DiskTL: 2, HighestTL: 2, Known: true, Position: cluster.Position{Timeline: 2, LSN: 0x3200}})
	if got := l.sent(2, report); len(got) != 1 || !got[0].Report.Known {
		t.Fatalf("reports %+v after its position was read", got)
	}
}

// TestKilledPromotionHasNoPosition: what was read before a promotion is not where it ends. A promotion that is killed has
// no position until its files were read (PROTOCOL 5.2.f).
func TestKilledPromotionHasNoPosition(t *testing.T) {
	l, _ := promoting(t, SpaceSeen{})
	l.now += 3 * time.Second // the lease is lost meanwhile
	l.step(Tick{})
	kill := l.task(TaskKill)
	if kill == nil {
		t.Fatal("not killed")
	}
	l.step(Killed{ID: kill.ID})
	l.elect(cluster.CauseTimeout)
	l.step(PromiseSaved{Epoch: 4})
	got := l.sent(1, func(e cluster.Envelope) bool { return e.Report != nil })
	if len(got) != 1 || got[0].Report.Known {
		t.Fatalf("reports %+v; rule %s: %s", got, l.m.rule, l.m.decision.Why)
	}
}
