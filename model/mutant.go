// SPDX-License-Identifier: Apache-2.0

package model

import (
	"slices"

	"github.com/pgquorum/pgquorum/cluster"
)

// Mutant is one guard taken away, here and never in the product.
type Mutant uint8

// The mutants. mutants.go has for each the rule that it breaks and where it is caught.
const (
	Sound Mutant = iota
	ByLSNAlone
	CoverageOffByOne
	UnknownCounts
	ReportBeforeFence
	PromiseNotDurable
	PromiseLostUnregistered
	OldReports
	GuardsNotRechecked
	WinnerOutsideSet
	VoidDiscounted
	VoidAttached
	PositionByReceived
	TimelineParentPlusOne
	DivergedAttached
	RecoveringUnchecked
	PromotionWithoutLease
	AdmittedUnflushed
	AdmittedEarly
	SendersAsProof
	SendersAndUnchecked
	RestartUnadmitted
	RestartWithoutLease
	NoLeaseWait
	LeaderOnlyLease
	RestartForgetsGrant
	GrantAfterFence
	GrantsOfOldVoters
	NewVotersAlone
	JointSwap
	LearnerCounted
	NoKill
	OwnFenceBeforeKill
	TimeoutIsEvidence
	EvidenceOfOtherBoot
	EvidenceKept
	EvidenceOutlivesGrant
	NoBarrier
	NoBarrierBack
	PendingForSet
	PendingIgnored
	PendingDropped
	SettledUnlisted
	ListsOldD
	TwoMembersPerStep
	PrimaryOutsideSet
	ChangeDuringElection
	EmptyListAtStart
	NameWithoutEpoch
	IncarnationReused
	OldBootAccepted
	VotersConfirmedAtOnce
	FloorForgotten
	mutants
)

func (mut Mutant) forgetsPromise() bool {
	return mut == PromiseNotDurable || mut == PromiseLostUnregistered
}

// leader is the view on which a mutant's leader decides.
func (mut Mutant) leader(v *cluster.LeaderView, _ *state) *cluster.LeaderView {
	st := v.State.Clone()
	v.State = st
	switch mut {
	case CoverageOffByOne:
		st.D.K++
		if st.Pending != nil {
			st.Pending.K++
		}
	case PendingForSet:
		if st.Pending != nil {
			st.D, st.Pending = *st.Pending, nil
		}
	case PendingIgnored:
		st.Pending = nil
	case NewVotersAlone, JointSwap:
		st.Configs = st.Configs[len(st.Configs)-1:]
	case ByLSNAlone:
		for i := range v.Reports {
			if r := &v.Reports[i]; r.Known {
				r.Position.Timeline = 1
			}
		}
	case VoidDiscounted:
		for i := range v.Reports {
			r := &v.Reports[i]
			if fit, _ := st.FitsState(r.Position, 0); r.Known && fit == cluster.FitDiverged {
				r.Position = cluster.Position{Timeline: 1, LSN: 1}
			}
		}
	case WinnerOutsideSet:
		var known []cluster.Incarnation
		for _, r := range v.Reports {
			if r.Known {
				known = append(known, r.Inc)
			}
		}
		if st.Covered(known) {
			st.D = cluster.Durability{Set: known, K: len(known), Mode: st.D.Mode}
		}
	default:
	}
	return v
}

// elect applies an Elect as the mutant does: on the state that its leader saw; what it only pretended is put back.
func (mut Mutant) elect(b *book, seen, real *cluster.State, e cluster.Elect) uint16 {
	b.calls++
	t, events := cluster.Apply(seen, 0, cluster.Command{Elect: &e})
	if events[0].Kind == "rejected" {
		return refused
	}
	t = t.Clone()
	last := &t.Epochs[len(t.Epochs)-1]
	switch mut {
	case CoverageOffByOne, PendingForSet, PendingIgnored, WinnerOutsideSet:
		t.D = real.D
		if real.Pending != nil {
			p := *real.Pending
			t.Pending = &p
		}
		t.Reverting = real.Reverting || t.Pending != nil && !slices.Contains(t.Pending.Set, e.Candidate)
	case ByLSNAlone, VoidDiscounted:
		for _, r := range e.Reports {
			if r.Inc == e.Candidate {
				last.Elected.Timeline = r.HighestTL
			}
		}
	case PendingDropped:
		t.Pending, t.Reverting = nil, false
	case TimelineParentPlusOne:
		last.Timeline = last.Elected.Timeline + 1
	default:
	}
	return b.number(t)
}

// changeD proposes a change of durability; under some mutants past the product's guards.
func (mut Mutant) changeD(b *book, from uint16, k applyKey, d cluster.Durability) uint16 {
	p := &b.pages[from]
	c := cluster.Command{ChangeD: &cluster.ChangeD{Epoch: cluster.Epoch(p.epoch), D: d, Rule: "M"}}
	switch {
	case mut == PrimaryOutsideSet && p.phase == cluster.PhasePromoted && p.state.Pending == nil && len(d.Set) > 0,
		mut == ChangeDuringElection && p.phase == cluster.PhaseElecting && p.state.Pending == nil:
		t := p.state.Clone()
		t.Pending, t.Reverting = &d, false
		return b.number(t)
	case mut == TwoMembersPerStep && p.phase == cluster.PhasePromoted && p.state.Pending == nil:
		t := p.state.Clone()
		for _, mb := range t.Members { // and one more
			if !slices.Contains(d.Set, mb.Inc) && !mb.Witness && mb.Inc != p.primary.inc() {
				d = d.With(mb.Inc)
				break
			}
		}
		t.Pending, t.Reverting = &d, false
		return b.number(t)
	}
	return b.apply(from, k, c, 0)
}

func (mut Mutant) conf(b *book, from uint16, k applyKey, c cluster.MemberChange, index uint64) uint16 {
	n := b.applyConf(from, k, c, index)
	if n != refused && mut == VotersConfirmedAtOnce && len(b.pages[n].state.Configs) > 1 {
		t := b.pages[n].state.Clone()
		t.Configs = t.Configs[len(t.Configs)-1:]
		return b.number(t)
	}
	return n
}
