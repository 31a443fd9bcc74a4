// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"

	"github.com/pgquorum/pgquorum/cluster"
)

// TestForeignTimeline: what a node holds on a timeline that no election assigned counts for nothing: it is cloned over,
// also when PID 1 was not there when somebody promoted its Postgres (PROTOCOL 5.5.h).
func TestForeignTimeline(t *testing.T) {
	for _, c := range []struct {
		control, end cluster.Timeline
		foreign      bool
	}{{2, 2, false}, {1, 1, false}, {2, 3, true}, {3, 3, true}, {2, 4, false}} {
		l := newLab(t, 2, healthy(), nil)
		l.done(TaskLook, Result{
			Disk: cluster.DiskPresent, System: 7, DiskTL: c.control, HighestTL: c.end, Known: true, Position: cluster.Position{Timeline: c.end, LSN: 0x3000},
		})
		if n := l.m.node; n.foreignWAL != c.foreign || n.known == c.foreign {
			t.Errorf("control file on %d, end on %d: foreign %v, position known %v", c.control, c.end, n.foreignWAL, n.known)
		}
	}
}

// TestForeignFloor: what the node held before somebody promoted it, it may have acknowledged: the clone does not count
// until it has that again (PROTOCOL 8.4).
func TestForeignFloor(t *testing.T) {
	at := func(tl cluster.Timeline, lsn cluster.LSN) cluster.Position {
		return cluster.Position{Timeline: tl, LSN: lsn}
	}
	elected := healthy().Epochs[1].Elected
	for _, c := range []struct {
		history cluster.History
		floor   cluster.Position
	}{
		{cluster.History{{Timeline: 1, Switch: elected.LSN}, {Timeline: 2, Switch: 0x2f00}}, at(2, 0x2f00)},
		{cluster.History{{Timeline: 1, Switch: elected.LSN - 1}}, at(1, elected.LSN-1)},
		{cluster.History{{Timeline: 1, Switch: 0x2f00}}, elected}, // what it had beyond the epoch's start is void
		{nil, at(2, 0x3000)},
	} {
		l := newLab(t, 2, healthy(), nil)
		l.done(TaskLook, Result{
			Disk: cluster.DiskPresent, System: 7, DiskTL: 3, HighestTL: 3, Known: true, Position: at(3, 0x3000), History: c.history,
		})
		if got := l.m.newFloor(); got != c.floor {
			t.Errorf("promoted after %v: the clone counts from %s, not from %s", c.history, got, c.floor)
		}
	}
}

// TestPlugBeforeAttach: whoever follows the node that was elected, before it has promoted, follows one that can leave
// recovery only onto the epoch's timeline (PROTOCOL 5.6.b).
func TestPlugBeforeAttach(t *testing.T) {
	st := healthy()
	st.Phase, st.Epochs[1].Promoted = cluster.PhasePromoting, false
	l := newLab(t, 1, st, nil)
	l.done(TaskLook, Result{Disk: cluster.DiskPresent, System: 7, DiskTL: 1, HighestTL: 1, Known: true, Position: st.Epochs[1].Elected})
	l.grants()
	l.done(TaskRecovery, Result{})
	if r := l.task(TaskRecovery); r.Parent != 1 || r.Timeline != 2 {
		t.Errorf("started without plugging the numbers between its own and the epoch's timeline: %+v", r)
	}
	l.step(Observed{PG: Facts{Running: true, Position: st.Epochs[1].Elected}})
	if l.task(TaskCloseGate) != nil {
		l.done(TaskCloseGate, Result{})
	}
	l.from(2, cluster.Envelope{Attach: &cluster.Attach{Epoch: 2, Claim: st.Epochs[1].Elected}})
	if v := l.task(TaskVet); v == nil || v.Parent != 1 || v.Timeline != 2 {
		t.Errorf("answered without plugging them: %+v", v)
	}
	// It has left recovery already: by somebody's promotion, perhaps, onto a timeline of its own.
	granted := func(e cluster.Envelope) bool { return e.AttachOK != nil }
	l.done(TaskVet, Result{Flush: st.Epochs[1].Elected.LSN + 100})
	if l.sent(2, granted) != nil {
		t.Error("allowed to attach to a Postgres that left recovery unseen")
	}
	l.from(2, cluster.Envelope{Attach: &cluster.Attach{Epoch: 2, Claim: st.Epochs[1].Elected}})
	l.done(TaskVet, Result{})
	if l.sent(2, granted) == nil {
		t.Error("not allowed to attach before the promotion")
	}
	// It is seen to have left recovery, and not by our promotion: it is ended, and nobody attaches until it is gone.
	l.from(2, cluster.Envelope{Attach: &cluster.Attach{Epoch: 2, Claim: st.Epochs[1].Elected}})
	l.step(Observed{PG: Facts{Running: true, ReadWrite: true, Position: cluster.Position{Timeline: 3, LSN: 0x1100}}})
	l.done(TaskVet, Result{Flush: st.Epochs[1].Elected.LSN})
	if got := l.sent(2, granted); got != nil {
		t.Error("allowed to attach to a Postgres that somebody promoted")
	}
}
