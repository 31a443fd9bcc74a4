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
}
