// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"slices"
	"time"
)

// Bounds of the membership table.
const (
	SegmentBytes  = 16 << 20        // 9.6: lag below one segment
	ReplacedAfter = 5 * time.Second // 9.7: no link from the old incarnation
	LostAfter     = 5 * time.Second // a pending change's newcomer is gone
	TransferAfter = 2 * time.Second // 7.1: hysteresis of placement
	TransferAgain = 5 * time.Second // a transfer that did not succeed must not starve the other rules
)

// MembershipTable is what the leader does about members, durability and placement when no election is open
// (PROTOCOL 3.3, 7, 9.4 to 9.8).
func MembershipTable() []Rule[LeaderView, LeaderOutcome] { return membershipTable }

var membershipTable = slices.Concat(membershipFirst(), membershipSteps())

// membershipFirst is what goes before any step.
func membershipFirst() []Rule[LeaderView, LeaderOutcome] {
	return []Rule[LeaderView, LeaderOutcome]{
		{
			"M100", "3.3.c, 9.8", "membership moves only in a promoted epoch",
			func(v *LeaderView) bool { return v.State.Phase != PhasePromoted },
			func(*LeaderView) LeaderOutcome { return LeaderOutcome{} },
		},
		{
			"M110", "7.1", "no single failure should need two elections: the leader leaves the primary's node",
			func(v *LeaderView) bool { return v.State.Primary() == v.Self && v.transferTo() != 0 },
			func(v *LeaderView) LeaderOutcome {
				return LeaderOutcome{Transfer: v.transferTo(), Why: "raft leadership leaves the primary's node"}
			},
		},
		{
			"M120", "3.3.d", "the member that a pending change adds is lost: take the change back",
			(*LeaderView).pendingLost,
			func(v *LeaderView) LeaderOutcome {
				return LeaderOutcome{Why: "the new member is gone", Command: &Command{RevertD: &RevertD{Epoch: v.epoch(), Rule: "M120"}}}
			},
		},
		{
			"M125", "2.4, 4.7", "every voter was started with another L: it counts from its commit",
			func(v *LeaderView) bool { return v.askedLease() != 0 },
			func(v *LeaderView) LeaderOutcome {
				l := v.askedLease()
				return LeaderOutcome{
					Command: &Command{SetLease: &SetLease{LeaseMS: l, Was: v.State.LeaseMS, Rule: "M125"}},
					Why:     fmt.Sprintf("every voter asks for a lease of %d ms instead of %d", l, v.State.LeaseMS),
				}
			},
		},
		{
			"M130", "9.8", "a step starts only when the one before is settled and confirmed",
			func(v *LeaderView) bool { return v.State.Pending != nil || !v.State.VotersConfirmed() },
			func(*LeaderView) LeaderOutcome { return wait("a change is being settled") },
		},
	}
}

// membershipSteps replace, add and grow, one step at a time.
func membershipSteps() []Rule[LeaderView, LeaderOutcome] {
	return []Rule[LeaderView, LeaderOutcome]{
		{
			"M210", "9.7, 9.8", "a replaced member leaves the durability set first",
			func(v *LeaderView) bool {
				o := v.replaced()
				return o != nil && slices.Contains(v.State.D.Set, o.Inc) && v.sound(v.State.D.Without(o.Inc))
			},
			func(v *LeaderView) LeaderOutcome { return v.change("M210", v.State.D.Without(v.replaced().Inc)) },
		},
		{
			"M220", "9.7", "then the membership",
			func(v *LeaderView) bool {
				o := v.replaced()
				return o != nil && !v.State.InSets(o.Inc)
			},
			func(v *LeaderView) LeaderOutcome { return v.member("M220", Remove, *v.replaced()) },
		},
		{
			"M230", "9.5", "a newcomer becomes a learner",
			func(v *LeaderView) bool { return v.newcomer() != nil },
			func(v *LeaderView) LeaderOutcome { return v.member("M230", AddLearner, *v.newcomer()) },
		},
		{
			"M310", "9.6", "a learner that streams and is close becomes a voter",
			func(v *LeaderView) bool { return v.ready(false) != 0 },
			func(v *LeaderView) LeaderOutcome { return v.member("M310", AddVoter, *v.State.Member(v.ready(false))) },
		},
		{
			"M320", "9.4, 9.8", "a data voter that streams and is close joins the durability set",
			func(v *LeaderView) bool { return v.ready(true) != 0 && v.sound(v.State.D.With(v.ready(true))) },
			func(v *LeaderView) LeaderOutcome { return v.change("M320", v.State.D.With(v.ready(true))) },
		},
		{
			"M999", "", "nothing to do", func(*LeaderView) bool { return true },
			func(*LeaderView) LeaderOutcome { return LeaderOutcome{} },
		},
	}
}

// askedLease is the L that all voters ask for, if it is another than that in force; zero: they do not, or not all are
// heard. One node that was not restarted yet keeps the old one.
func (v *LeaderView) askedLease() int64 {
	var l int64
	for i, inc := range v.State.Voters() {
		q := v.peer(inc)
		if q == nil || !q.Linked || !q.fresh() || i > 0 && q.Status.LeaseMS != l {
			return 0
		}
		l = q.Status.LeaseMS
	}
	if l == v.State.LeaseMS || l < LeaseMinMS || l > LeaseMaxMS {
		return 0
	}
	return l
}

func (v *LeaderView) epoch() Epoch { return v.State.Epoch().Epoch }

func (v *LeaderView) change(rule RuleID, d Durability) LeaderOutcome {
	return LeaderOutcome{
		Command: &Command{ChangeD: &ChangeD{Epoch: v.epoch(), D: d, Rule: rule}},
		Why:     fmt.Sprintf("durability set changes to %d nodes, %d acknowledgements", len(d.Set), d.K),
	}
}

func (v *LeaderView) member(rule RuleID, kind ChangeKind, m Member) LeaderOutcome {
	return LeaderOutcome{
		Conf: &MemberChange{Kind: kind, Member: m, Epoch: v.epoch(), Rule: rule},
		Why:  fmt.Sprintf("%s %s", kind, m.Name),
	}
}

// sound: no member of the set is in quarantine, so that the guard of ChangeD takes it.
func (v *LeaderView) sound(d Durability) bool {
	return !slices.ContainsFunc(d.Set, func(i Incarnation) bool { m := v.State.Member(i); return m == nil || m.Quarantined })
}

func (v *LeaderView) primarySenders() []Sender {
	p := v.peer(v.State.Primary())
	if p == nil || !p.fresh() || !p.Status.Serving && !v.State.Fresh {
		return nil
	}
	return p.Status.Senders
}

// ready finds a node that streams from the primary and is close: a voter outside the Set, or a learner.
func (v *LeaderView) ready(voter bool) Incarnation {
	senders := v.primarySenders()
	p := v.peer(v.State.Primary())
	for _, m := range v.State.Members {
		q := v.peer(m.Inc)
		if m.Witness && !m.Voter && !voter && !m.Quarantined && q != nil && q.Linked && q.fresh() {
			return m.Inc // it has nothing to stream
		}
		if m.Witness || m.Quarantined || m.Voter != voter || (voter && v.State.InSets(m.Inc)) || m.Inc == v.State.Primary() ||
			q == nil || !q.Linked || !q.fresh() || !q.Status.Streaming || q.Status.Epoch != v.epoch() {
			continue
		}
		name := SyncName(m.Name, m.Inc, v.epoch())
		for _, s := range senders {
			if s.App == name && s.State == "streaming" && s.Flush+SegmentBytes > p.Status.Position.LSN {
				return m.Inc
			}
		}
	}
	return 0
}

// replaced finds a member whose name asks to join under a new incarnation, while the old one is gone.
func (v *LeaderView) replaced() *Member {
	for i := range v.Peers {
		j := v.joining(&v.Peers[i])
		if j == nil {
			continue
		}
		o := v.State.MemberNamed(j.Name)
		if o == nil || o.Inc == v.State.Primary() {
			continue
		}
		if q := v.peer(o.Inc); q == nil || !q.Linked && q.LinkAge >= ReplacedAfter {
			return o
		}
	}
	return nil
}

// stillborn: the founder's name asks to join under a new incarnation, and there are no data.
func (v *LeaderView) stillborn() bool {
	o := v.replaced()
	return v.State.Phase == PhaseBlank && o != nil && o.Inc == v.State.Founder
}

func (v *LeaderView) newcomer() *Member {
	for i := range v.Peers {
		if j := v.joining(&v.Peers[i]); j != nil && v.State.MemberNamed(j.Name) == nil {
			return j
		}
	}
	return nil
}

// joining is what a linked node that is no member asks for. One that asks in another's name, or names nobody, would be
// proposed and refused for ever, and nobody else would get in.
func (v *LeaderView) joining(p *PeerView) *Member {
	j := p.Join
	if j == nil || !p.Linked || j.Inc != p.Inc || j.Inc == 0 || j.Name == "" || v.State.Member(j.Inc) != nil || v.State.WasRemoved(j.Inc) {
		return nil
	}
	return j
}

// pendingLost: the newcomer of a pending change has been away, or has not streamed, for long.
func (v *LeaderView) pendingLost() bool {
	p := v.State.Pending
	if p == nil || v.State.Reverting || !slices.Contains(v.State.D.Set, v.State.Primary()) {
		return false
	}
	for _, inc := range p.Set {
		if slices.Contains(v.State.D.Set, inc) {
			continue
		}
		if q := v.peer(inc); q == nil || !q.Linked && q.LinkAge >= LostAfter {
			return true
		}
	}
	return false
}

// transferTo is the healthy voter that should lead instead of the primary's node; zero: stay.
func (v *LeaderView) transferTo() Incarnation {
	if v.LeaderAge < TransferAfter || v.TransferAge != 0 && v.TransferAge < TransferAgain {
		return 0
	}
	for i := range v.Peers {
		q := &v.Peers[i]
		if q.Inc != v.Self && q.Linked && q.LinkAge >= TransferAfter && q.fresh() &&
			!q.Status.Leaving && v.State.IsVoter(q.Inc) && !v.State.Member(q.Inc).Quarantined {
			return q.Inc
		}
	}
	return 0
}
