// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"slices"
	"time"
)

// KillMargin is how long before the end of its lease a primary closes its gate and kills (PROTOCOL 4.5.a): twice
// the slowest kill that was measured.
const KillMargin = 150 * time.Millisecond

// RenewEvery is the interval between renewals of a lease of length l.
func RenewEvery(l time.Duration) time.Duration { return l / 5 }

// withDrift stretches a wait by the clock drift that is assumed at most: 1 %.
func withDrift(d time.Duration) time.Duration { return d + d/100 }

// Lease is the primary's side: what each voter granted last. All times are the primary's own clock.
type Lease struct {
	Epoch  Epoch
	Config uint64 // the voter configuration the grants belong to
	grants []grant
}

type grant struct {
	from Incarnation
	ends time.Duration // t0 + L
}

// Reset drops every grant: another epoch, or another configuration of voters (PROTOCOL 4.6.a).
func (l *Lease) Reset(e Epoch, config uint64) {
	*l = Lease{Epoch: e, Config: config}
}

// Granted records a grant; t0 is when the renewal was sent.
func (l *Lease) Granted(from Incarnation, g Grant) {
	if g.Epoch != l.Epoch || g.Config != l.Config {
		return
	}
	ends := time.Duration(g.T0) + time.Duration(g.LeaseMS)*time.Millisecond
	for i := range l.grants {
		if l.grants[i].from == from {
			l.grants[i].ends = max(l.grants[i].ends, ends)
			return
		}
	}
	l.grants = append(l.grants, grant{from, ends})
}

// Ends is the end of the lease: the latest time to which a majority of voters granted it. Zero: no lease.
func (l *Lease) Ends(voters []Incarnation) time.Duration {
	var ends []time.Duration
	for _, g := range l.grants {
		if slices.Contains(voters, g.from) {
			ends = append(ends, g.ends)
		}
	}
	need := Majority(len(voters))
	if len(ends) < need {
		return 0
	}
	slices.SortFunc(ends, func(a, b time.Duration) int { return cmp.Compare(b, a) })
	return ends[need-1]
}

// Valid reports whether the primary may serve at now: there is time left to kill.
func (l *Lease) Valid(voters []Incarnation, now time.Duration) bool {
	e := l.Ends(voters)
	return e != 0 && now < e-KillMargin
}

// GrantMemory is the voter's side: the grant that ends latest, and the last one for the current epoch. Times are
// the voter's own clock.
type GrantMemory struct {
	At    time.Duration // when the grant that ends latest was given
	Lease time.Duration // its length; zero: never granted
	Epoch Epoch
	Last  time.Duration // when the last grant for Epoch was given
}

// Restarted is the memory of a voter that has just started: it assumes that it granted the moment before, with the
// largest lease it knows (PROTOCOL 4.2).
func Restarted(now, longest time.Duration) GrantMemory {
	return GrantMemory{At: now, Lease: longest, Last: now}
}

// Raise makes what a restarted voter assumes at least as long as the largest lease that it has learnt of since.
func (m *GrantMemory) Raise(longest time.Duration) { m.Lease = max(m.Lease, longest) }

// Granted records a grant given at now.
func (m *GrantMemory) Granted(now time.Duration, e Epoch, lease time.Duration) {
	if now+withDrift(lease) >= m.At+withDrift(m.Lease) { // as LeaseOver will stretch them
		m.At, m.Lease = now, lease
	}
	m.Epoch, m.Last = e, now
}

// MayGrant is the voter's rule (PROTOCOL 4.2): a voter, witness or data, grants unless its promise is above the
// epoch or it has applied another primary for it.
func MayGrant(s *State, self, from Incarnation, promise Epoch, r Renew) bool {
	e := s.Epoch()
	for _, inc := range []Incarnation{self, from} { // 9.9: neither grants nor is granted
		if m := s.Member(inc); m == nil || m.Quarantined {
			return false
		}
	}
	return s.votesSomewhere(self) && promise <= r.Epoch && e.Epoch == r.Epoch && e.Primary == from &&
		s.Phase != PhaseElecting
}

// LeaseOver is how long after receipt the lease that a report speaks of can still run (PROTOCOL 4.4).
func LeaseOver(r Report) time.Duration {
	if r.GrantLeaseMS == 0 {
		return 0
	}
	return max(0, withDrift(r.Lease())-r.GrantAge())
}
