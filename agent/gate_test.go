// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"slices"
	"testing"

	"github.com/pgquorum/pgquorum/cluster"
)

// TestNoSessionAtPromotion: nothing is promoted before the gate is closed, for a session that survives would be read-write
// before admission (PROTOCOL 5.6.a).
func TestNoSessionAtPromotion(t *testing.T) {
	l, r := reporting(t, volume(5000, 0))
	other := r
	other.Inc, other.Boot = 3, bootOf(3)
	l.apply(cluster.Command{Elect: &cluster.Elect{
		Epoch: 3, Election: l.st.Election.Index, Candidate: 2, Reports: []cluster.Report{r, other}, Wait: cluster.WaitLease, Rule: "F250",
	}})
	l.grants()
	first := l.task(TaskCloseGate)
	if first == nil || l.task(TaskPromote) != nil {
		t.Fatalf("gate %+v, promotion %+v", first, l.task(TaskPromote))
	}
	l.step(Done{ID: first.ID, Err: errors.New("the probe got no answer")})
	l.now += retryMost
	l.step(Tick{})
	l.grants()
	l.step(Tick{})
	if again := l.task(TaskCloseGate); again.ID == first.ID || l.task(TaskPromote) != nil {
		t.Fatalf("after a failure: gate %+v, promotion %+v", again, l.task(TaskPromote))
	}
	if l.done(TaskCloseGate, Result{}); l.task(TaskPromote) == nil {
		t.Fatalf("no promotion; rule %s: %s", l.m.rule, l.m.decision.Why)
	}
	if p := l.task(TaskPromote); len(p.Lineage) == 0 { // what is not in it is moved aside before (5.5.f)
		t.Errorf("%+v", p)
	}
}

// TestAdmissionTellsItsTimings: the record of a change of primary has the durations of its steps (I10).
func TestAdmissionTellsItsTimings(t *testing.T) {
	l := serving(t)
	for _, a := range l.all {
		if p, ok := a.(Propose); ok && p.Command.Admitted != nil {
			var names []string
			for _, d := range p.Command.Admitted.Timings {
				names = append(names, d.Name)
			}
			if p.Command.Admitted.From != 1 || !slices.Contains(names, string(TaskPrimary)) || !slices.Contains(names, string(TaskAdmit)) {
				t.Fatalf("%+v", p.Command.Admitted)
			}
			return
		}
	}
	t.Fatal("the admission is not recorded")
}
