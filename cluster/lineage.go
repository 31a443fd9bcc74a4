// SPDX-License-Identifier: Apache-2.0

package cluster

import "slices"

// Lineage is the ancestry of the current epoch's timeline as the replicated epoch list has it, oldest first
// (PROTOCOL 1.6). The timeline itself is not in it.
func (s *State) Lineage() History {
	return s.lineageAt(len(s.Epochs) - 1)
}

func (s *State) lineageAt(i int) History {
	if i < 0 {
		return nil
	}
	var h History
	for {
		e := s.Epochs[i]
		if e.Elected.Timeline == 0 {
			h = append(h, reversed(s.Base)...)
			break
		}
		h = append(h, HistoryEntry{Timeline: e.Elected.Timeline, Switch: e.Elected.LSN})
		p := s.epochOfTimeline(e.Elected.Timeline, i)
		if p < 0 { // its ancestors are in Base
			for _, b := range reversed(s.Base) {
				if b.Timeline < e.Elected.Timeline {
					h = append(h, b)
				}
			}
			break
		}
		i = p
	}
	slices.Reverse(h)
	return h
}

func reversed(h History) History {
	r := slices.Clone(h)
	slices.Reverse(r)
	return r
}

func (s *State) epochOfTimeline(t Timeline, before int) int {
	for i := before - 1; i >= 0; i-- {
		if s.Epochs[i].Timeline == t {
			return i
		}
	}
	return -1
}

// Fit says how a node's WAL relates to an upstream's history.
type Fit uint8

// The outcomes of an attach check.
const (
	FitPrefix   Fit = iota // a prefix of it: may follow
	FitDiverged            // has records that the upstream's history does not have
	FitAhead               // on the upstream's own timeline, beyond its end: the upstream lost WAL (5.5.d)
)

func (f Fit) String() string { return [...]string{"prefix", "diverged", "ahead"}[f] }

// CheckAttach is the attach check of PROTOCOL 5.5.c. The upstream's history is lineage (where each ancestor was
// left), then timeline tl up to end. Before the promotion tl is the new timeline and nothing of it exists: pass
// end = the elected LSN.
func CheckAttach(lineage History, tl Timeline, end LSN, claim Position) (Fit, LSN) {
	if claim.Timeline == tl {
		if claim.LSN > end {
			return FitAhead, end
		}
		return FitPrefix, 0
	}
	// Diverged: the fork is where the histories part at the latest. Where exactly the claim's timeline began is not in
	// the lineage; 8.4 needs a bound that is never too low.
	fork := LSN(0)
	if claim.Timeline > tl {
		return FitDiverged, min(end, claim.LSN)
	}
	for _, h := range lineage {
		if h.Timeline == claim.Timeline {
			if claim.LSN > h.Switch {
				return FitDiverged, h.Switch
			}
			return FitPrefix, 0
		}
		if h.Timeline < claim.Timeline {
			fork = h.Switch
		}
	}
	return FitDiverged, fork
}

// FitsState checks a claim against the current epoch with what the replicated state knows: enough to choose
// between following and rejoining. end is the upstream's flushed end if known, else zero.
func (s *State) FitsState(claim Position, end LSN) (Fit, LSN) {
	e := s.Epoch()
	if e.Elected.Timeline == 0 || e.Promoted {
		if end == 0 {
			end = ^LSN(0)
		}
		return CheckAttach(s.Lineage(), e.Timeline, end, claim)
	}
	return CheckAttach(s.Lineage(), e.Timeline, e.Elected.LSN, claim)
}

// foldEpochs keeps the epoch list bounded; what is dropped and in the lineage stays in Base.
func (s *State) foldEpochs() {
	for len(s.Epochs) > epochsMax {
		lin := s.Lineage()
		first := s.Epochs[1]
		var base History
		for _, h := range lin {
			if h.Timeline < first.Timeline {
				base = append(base, h)
			}
		}
		s.Base = base
		s.Epochs = slices.Delete(s.Epochs, 0, 1)
	}
}

// FitsTimeline checks a claim against the history of a node that ends at pos, which may lie on any epoch's timeline:
// the donor of a catch-up (PROTOCOL 5.4.c).
func (s *State) FitsTimeline(pos, claim Position) (Fit, LSN) {
	i := s.epochOfTimeline(pos.Timeline, len(s.Epochs))
	if i < 0 {
		return FitDiverged, 0
	}
	return CheckAttach(s.lineageAt(i), pos.Timeline, pos.LSN, claim)
}

// TimelineAt is the timeline of the current lineage that holds the byte before lsn; own if the lineage does not say.
func (s *State) TimelineAt(lsn LSN, own Timeline) Timeline {
	for _, h := range s.Lineage() {
		if lsn <= h.Switch {
			return h.Timeline
		}
	}
	if e := s.Epoch(); e.Timeline != 0 {
		return e.Timeline
	}
	return own
}

// nextTimeline is the number that the next epoch gets: above every one assigned or seen, and never the one after an
// assigned one. That is what a Postgres takes that somebody promotes by hand (PROTOCOL 5.5.a, 5.5.h).
func (s *State) nextTimeline(high Timeline) Timeline {
	next := high + 1
	if (next^s.Epoch().Timeline)&1 != 0 {
		next++
	}
	return next
}

// Assigned reports whether t may be the timeline of an epoch, also of one that this node has not heard of yet. All that
// are assigned are odd, or all are even; only ancestors of adopted data may be otherwise. WAL on another one is foreign
// (PROTOCOL 5.5.h).
func (s *State) Assigned(t Timeline) bool {
	return t == 0 || len(s.Epochs) == 0 || (t^s.Epoch().Timeline)&1 == 0 || s.epochOfTimeline(t, len(s.Epochs)) >= 0 ||
		slices.ContainsFunc(s.Base, func(h HistoryEntry) bool { return h.Timeline == t })
}
