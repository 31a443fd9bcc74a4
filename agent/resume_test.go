// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// TestResumeOutsideSet: a voter that is to come back into Set, and a learner that is to become a voter, streams again
// although somebody paused its replay (PROTOCOL 5.5.g).
func TestResumeOutsideSet(t *testing.T) {
	for _, voter := range []bool{true, false} {
		st := healthy()
		st.D.Set = []cluster.Incarnation{1, 3}
		if !voter {
			st.Configs[0].Voters, st.Members[1].Voter = st.D.Set, false
		}
		l := newLab(t, 2, st, nil)
		l.done(TaskLook, Result{Disk: cluster.DiskPresent, System: 7, DiskTL: 2, HighestTL: 2, Known: true, Position: cluster.Position{Timeline: 2, LSN: 0x2000}})
		l.done(TaskRecovery, Result{})
		seen := Observed{PG: Facts{Running: true, Position: cluster.Position{Timeline: 2, LSN: 0x2000}}}
		l.step(seen)
		l.from(1, cluster.Envelope{AttachOK: &cluster.AttachOK{Epoch: 2, Timeline: 2, Port: 5432, App: "b"}})
		l.done(TaskOrder, Result{})
		l.now += time.Second
		l.step(seen)
		l.step(Tick{})
		if l.task(TaskResume) == nil {
			t.Errorf("voter %v: replay is not resumed", voter)
		}
	}
}
