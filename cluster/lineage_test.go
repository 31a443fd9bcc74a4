// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// history is a node's WAL without any cleverness: the timeline on which each byte was written. Byte i is history[i-1];
// an end of WAL at LSN n is len == n.
type history []Timeline

func (h history) end() Position { return Position{h[len(h)-1], LSN(len(h))} }

func (h history) prefixOf(o history) bool { return h.common(o) == len(h) }

// common is how many bytes both share.
func (h history) common(o history) int {
	n := 0
	for n < len(h) && n < len(o) && h[n] == o[n] {
		n++
	}
	return n
}

func (h history) grow(tl Timeline, n int) history {
	g := append(history(nil), h...)
	for range n {
		g = append(g, tl)
	}
	return g
}

// reign elects and promotes by the replicated state alone.
func reign(t testing.TB, s *State, at Position) {
	e := s.Epoch()
	s.Epochs = append(s.Epochs, EpochRecord{Epoch: e.Epoch + 1, Primary: 1, Timeline: s.HighestTL + 1, Elected: at, Promoted: true})
	s.HighestTL++
	s.foldEpochs()
	if len(s.Epochs) > epochsMax {
		t.Fatalf("%d epochs kept", len(s.Epochs))
	}
}

// TestCheckAttachAgainstBytes: any tree of reigns, each forking from any earlier point (also one that is void by then,
// 5.5.e). What the check says of any node's end of WAL must be what a comparison byte by byte says.
func TestCheckAttachAgainstBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := Timeline(rapid.IntRange(1, 3).Draw(t, "first"))
		s := &State{HighestTL: first, Epochs: []EpochRecord{{Epoch: 1, Primary: 1, Timeline: first, Promoted: true}}}
		wals := []history{history(nil).grow(first, rapid.IntRange(1, 5).Draw(t, "bytes"))}
		for range rapid.IntRange(0, 7).Draw(t, "reigns") {
			w := rapid.SampledFrom(wals).Draw(t, "winner")
			w = w[:rapid.IntRange(1, len(w)).Draw(t, "held")]
			reign(nil, s, w.end())
			wals = append(wals, w.grow(s.HighestTL, rapid.IntRange(1, 5).Draw(t, "bytes")))
		}
		up := wals[len(wals)-1]
		for _, w := range wals {
			for n := 1; n <= len(w); n++ {
				checkClaim(t, s, up, w[:n])
			}
		}
		beyond := up.grow(up.end().Timeline, 2)
		if fit, fork := s.FitsState(beyond.end(), up.end().LSN); fit != FitAhead || fork != up.end().LSN {
			t.Fatalf("%v against %v: %s %s", beyond, up, fit, fork)
		}
		foreign := up.grow(s.HighestTL+1, 2) // somebody called pg_promote()
		checkClaim(t, s, up, foreign)
	})
}

func checkClaim(t *rapid.T, s *State, up, w history) {
	fit, fork := s.FitsState(w.end(), up.end().LSN)
	what := fmt.Sprintf("claim %v against %v: %s, fork %d", w, up, fit, fork)
	if (fit == FitPrefix) != w.prefixOf(up) {
		t.Fatal(what)
	}
	if fit == FitDiverged && int(fork) < w.common(up) { // 8.4: the floor must not be below what both hold
		t.Fatalf("%s, but %d bytes are shared", what, w.common(up))
	}
	donor := s.Epoch().Timeline
	if got, _ := s.FitsTimeline(Position{donor, up.end().LSN}, w.end()); got != fit {
		t.Fatalf("%s, as donor %s", what, got)
	}
}

// TestFoldedLineage: what is dropped from the epoch list stays known through Base.
func TestFoldedLineage(t *testing.T) {
	s := baseState()
	full := baseState()
	for i := range 3 * epochsMax {
		at := Position{s.HighestTL, LSN(0x2000 + 0x100*i)}
		if i%7 == 3 && i > 3 { // the last reign never reached anybody: void
			at = Position{s.Epoch().Elected.Timeline, s.Epoch().Elected.LSN + 1}
		}
		reign(t, s, at)
		full.Epochs = append(full.Epochs, s.Epoch())
	}
	got, want := s.Lineage(), full.Lineage()
	if fmt.Sprint(got) != fmt.Sprint(want) || len(want) < epochsMax {
		t.Fatalf("folded: %d entries, full: %d\n%v\n%v", len(got), len(want), got, want)
	}
}

func TestLineageOfNothing(t *testing.T) {
	s := &State{}
	if h := s.Lineage(); h != nil {
		t.Errorf("lineage before the first epoch: %v", h)
	}
	if fit, _ := s.FitsTimeline(Position{9, 1}, Position{1, 1}); fit != FitDiverged {
		t.Errorf("unknown donor timeline: %s", fit)
	}
	if tl := s.TimelineAt(5, 3); tl != 3 {
		t.Errorf("timeline at 5: %d", tl)
	}
	b := baseState()
	b.Base = History{{Timeline: 0, Switch: 1}}
	for lsn, want := range map[LSN]Timeline{0x1000: 1, 0x1001: 2} {
		if tl := b.TimelineAt(lsn, 9); tl != want {
			t.Errorf("timeline at %s: %d, want %d", lsn, tl, want)
		}
	}
	b.Base = nil
	b.Epochs[1].Promoted = false // in recovery nothing of the new timeline exists (5.5.c)
	if fit, _ := b.FitsState(Position{2, 0x1001}, 0); fit != FitAhead {
		t.Errorf("beyond the elected position: %s", fit)
	}
}

// TestAssignedTimelines: whatever numbers were seen, the next one is above them, and none that a Postgres takes by itself
// when somebody promotes it (PROTOCOL 5.5.a, 5.5.h).
func TestAssignedTimelines(t *testing.T) {
	for _, first := range []Timeline{1, 2, 7} {
		s := &State{Base: History{{Timeline: 5, Switch: 0x10}}, Epochs: []EpochRecord{{Epoch: 1, Timeline: first}}}
		for i := range 50 {
			last := s.Epoch().Timeline
			high := last + Timeline(i%4) // foreign ones were seen
			next := s.nextTimeline(high)
			if next <= high || !s.Assigned(next) || s.Assigned(next+1) && next+1 != 5 {
				t.Fatalf("after %d, with %d seen: %d, which is assigned: %v, and so is the one after: %v", last, high, next, s.Assigned(next), s.Assigned(next+1))
			}
			s.Epochs = append(s.Epochs, EpochRecord{Epoch: Epoch(i + 2), Timeline: next, Elected: Position{last, 1}})
			s.foldEpochs()
		}
		if !s.Assigned(5) || !s.Assigned(first) || !s.Assigned(0) || s.Assigned(first+1) && first+1 != 5 {
			t.Errorf("founded on %d: ancestors and epochs are assigned, the rest is not", first)
		}
	}
	if !(&State{}).Assigned(4) {
		t.Error("before the first epoch nothing is foreign")
	}
	if next := (&State{Epochs: []EpochRecord{{Timeline: 1}}}).nextTimeline(^Timeline(0)); next > ^Timeline(0)-1 {
		t.Errorf("numbers are used up, and the next is %d", next)
	}
}
