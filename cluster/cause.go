// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"slices"
	"time"
)

// cause finds why the current epoch cannot go on (PROTOCOL 5.1); empty: it can.
func (v *LeaderView) cause() (Cause, string) {
	if v.State.Phase != PhasePromoting && v.State.Phase != PhasePromoted {
		return "", ""
	}
	p := v.State.Primary()
	name := v.State.NameOf(p)
	switch {
	case v.Down != nil && v.Down.Epoch == v.State.Epoch().Epoch:
		if v.Down.Cause.ByOperator() {
			return v.Down.Cause, fmt.Sprintf("%s: %s", name, v.Down.Why)
		}
		return CausePgDown, fmt.Sprintf("%s: %s", name, v.Down.Why)
	case v.allSawDeath():
		return CauseEvidence, fmt.Sprintf("every voter in reach saw %s's container die", name)
	case v.leaseLapsed():
		return CauseLeaseLapsed, fmt.Sprintf("no majority has granted %s a lease for %s", name, v.State.Lease())
	case v.stuck():
		return CauseNoProgress, fmt.Sprintf("commits on %s have waited, or reach nobody, or its Postgres has answered nothing, for %s", name, StuckDeadline)
	}
	if v.tooLate() {
		return CauseTimeout, fmt.Sprintf("%s does not get to serve", name)
	}
	return "", ""
}

// allSawDeath: all voters that the leader can reach, a majority, have evidence about the primary's boot.
func (v *LeaderView) allSawDeath() bool {
	p := v.State.Member(v.State.Primary())
	if p == nil || v.State.FastOff || v.State.Async() {
		return false
	}
	var saw []Incarnation
	for i := range v.Peers {
		q := &v.Peers[i]
		if !q.Linked || !v.State.votesSomewhere(q.Inc) {
			continue
		}
		if q.Inc == p.Inc || !q.Evidence.About(p.Inc, p.Boot) {
			return false
		}
		saw = append(saw, q.Inc)
	}
	return v.State.HasMajority(saw)
}

// leaseLapsed: a majority of voters say that they granted nothing for a whole lease.
func (v *LeaderView) leaseLapsed() bool {
	if v.ElectAge < v.State.Lease() {
		return false
	}
	var lapsed []Incarnation
	for i := range v.Peers {
		q := &v.Peers[i]
		if !q.fresh() || q.Status.Epoch != v.State.Epoch().Epoch {
			continue
		}
		age := time.Duration(q.Status.GrantAgeMS)*time.Millisecond + q.StatusAge
		if q.Status.GrantAgeMS < 0 || age >= v.State.Lease() {
			lapsed = append(lapsed, q.Inc)
		}
	}
	return v.State.HasMajority(lapsed)
}

func (v *LeaderView) peer(inc Incarnation) *PeerView {
	for i := range v.Peers {
		if v.Peers[i].Inc == inc {
			return &v.Peers[i]
		}
	}
	return nil
}

// othersCould: without the primary a majority and a covering set of data nodes are linked.
func (v *LeaderView) othersCould() bool {
	var voters, data []Incarnation
	for i := range v.Peers {
		q := &v.Peers[i]
		if !q.Linked || q.Inc == v.State.Primary() {
			continue
		}
		voters = append(voters, q.Inc)
		if q.fresh() && q.Status.Eligible && q.Status.Known {
			data = append(data, q.Inc)
		}
	}
	return v.State.HasMajority(voters) && v.State.Covered(data) && len(data) > 0
}

func (v *LeaderView) stuck() bool {
	p := v.peer(v.State.Primary())
	says := p != nil && p.fresh() && time.Duration(p.Status.StuckMS)*time.Millisecond >= StuckDeadline
	return (says || v.CutFor >= StuckDeadline) && v.othersCould()
}

// CutOff: the leader does not hear the primary, and hears of so many others that they do not stream from it that its commits
// reach no quorum. Where a link is missing between two nodes only, a third one may go on granting it a lease.
func (v *LeaderView) CutOff() bool {
	if p := v.peer(v.State.Primary()); v.State.Phase != PhasePromoted || v.State.Async() || v.State.D.K == 0 || p == nil || p.fresh() {
		return false
	}
	reached := 0
	for _, inc := range v.State.D.Set {
		q := v.peer(inc)
		if inc != v.State.Primary() && (q == nil || !q.fresh() || q.Status.Streaming) {
			reached++
		}
	}
	return reached < v.State.D.K
}

// fresh: its status says something about now.
func (p *PeerView) fresh() bool { return p.Status != nil && p.StatusAge <= StatusFresh }

// tooLate: no Promoted, or not serving, within the deadlines and the back-off (PROTOCOL 5.1.f).
func (v *LeaderView) tooLate() bool {
	if v.ElectAge < v.Backoff || v.Served {
		return false
	}
	if v.State.Phase == PhasePromoting {
		return v.ElectAge >= PromoteDeadline
	}
	p := v.peer(v.State.Primary())
	serving := p != nil && p.Status != nil && p.Status.Serving
	return !serving && v.ElectAge >= ServeDeadline && v.othersCould()
}

// NextBackoff is how long the n-th attempt in a row that did not get to serve delays the next (PROTOCOL 5.1.f).
func NextBackoff(attempts int) time.Duration {
	if attempts <= 0 {
		return 0
	}
	return min(BackoffFirst<<min(attempts-1, 10), BackoffMax)
}

// leftOut: the position of a node's report is taken for unknown, because the others hold all that was acknowledged and it
// would only keep them from serving. It is that of a primary whose commits reached nobody, or whose Postgres has ended, or
// of a node that has gone since, or that has not the WAL to give (docs/decisions/0002, 0006, 0010, 0012). In async mode what it alone holds was acknowledged too.
func (v *LeaderView) leftOut(inc Incarnation) bool {
	if !v.electing() || v.State.Async() {
		return false
	}
	passed := func(i Incarnation) bool { return v.passed(i) && v.suffice(v.passed) }
	gone := func(i Incarnation) bool { return v.away(i) || slices.Contains(v.Vain, i) }
	return passed(inc) || gone(inc) && v.suffice(func(i Incarnation) bool { return gone(i) || passed(i) })
}

func (v *LeaderView) passed(inc Incarnation) bool {
	c := v.State.Election.Cause
	return inc == v.State.Primary() && (c == CauseNoProgress || c == CausePgDown)
}

// away: there has been no link for a while. Who starts again reports again.
func (v *LeaderView) away(inc Incarnation) bool {
	p := v.peer(inc)
	return p != nil && !p.Linked && p.LinkAge >= AwayAfter
}

// suffice: without those left out the reports cover, and one of the others may win.
func (v *LeaderView) suffice(left func(Incarnation) bool) bool {
	var others []Incarnation
	var best Position
	for i := range v.Reports {
		if r := &v.Reports[i]; !left(r.Inc) && v.holds(r) {
			others = append(others, r.Inc)
			if r.Position.Compare(best) > 0 {
				best = r.Position
			}
		}
	}
	able := slices.ContainsFunc(v.Reports, func(r TimedReport) bool {
		return slices.Contains(others, r.Inc) && r.Eligible && v.State.IsVoter(r.Inc) && v.State.InSets(r.Inc) && v.reaches(r.Position, best)
	})
	return able && v.State.Covered(others)
}
