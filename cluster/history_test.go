// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"slices"
	"strings"
	"testing"
)

// TestHistoryTellsEachChange: of a change of primary the cause, the rules, how the old lease ended, the elected position, the
// timeline and the timings stay in the replicated state (I10).
func TestHistoryTellsEachChange(t *testing.T) {
	s := baseState()
	index := uint64(100)
	apply := func(c Command) {
		t.Helper()
		index++
		next, ev := Apply(s, index, c)
		if ev[0].Kind == "rejected" {
			t.Fatal(ev)
		}
		s = next
	}
	at := Position{2, 0x3000}
	apply(Command{BeginElection: &BeginElection{Epoch: 3, Cause: CauseEvidence, Rule: "F340", Detail: "every voter in reach saw it die"}})
	var reports []Report
	for _, i := range incs([]string{"b", "c"}) {
		reports = append(reports, Report{
			Inc: i, Boot: boot(i), Election: index, Promise: 3, Known: true, Position: at, HighestTL: 2, Eligible: true,
			Evidence: &Evidence{Inc: inc("a"), Boot: boot(inc("a"))},
		})
	}
	apply(Command{Elect: &Elect{Epoch: 3, Election: index, Candidate: inc("b"), Reports: reports, Wait: WaitEvidence, Rule: "F250"}})
	apply(Command{Promoted: &Promoted{Epoch: 3, From: inc("b"), Timeline: s.Epoch().Timeline, Switch: at.LSN}})
	apply(Command{Admitted: &Admitted{Epoch: 3, From: inc("b"), Timings: []NamedDuration{{"promote", 12}}}})
	if len(s.History) != 4 {
		t.Fatalf("%+v", s.History)
	}
	for i, want := range []struct {
		what string
		rule RuleID
		text []string
	}{
		{"begin_election", "F340", []string{"evidence: every voter in reach saw it die"}},
		{"elect", "F250", []string{"b leads epoch 3", "2:0/3000", "timeline 4", "(evidence)"}},
		{"promoted", "", []string{"b on timeline 4"}},
		{"admitted", "", nil},
	} {
		d := s.History[i]
		if d.What != want.what || d.Rule != want.rule || d.Epoch != 3 || d.Index != 101+uint64(i) {
			t.Errorf("%+v, want %+v", d, want)
		}
		for _, text := range want.text {
			if !strings.Contains(d.Detail, text) {
				t.Errorf("%s: %q does not say %q", d.What, d.Detail, text)
			}
		}
	}
	if got := s.History[3].Timings; !slices.Equal(got, []NamedDuration{{"promote", 12}}) {
		t.Errorf("timings %v", got)
	}
}
