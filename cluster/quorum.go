// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"slices"
)

// Majority is the number of voters that is more than half of n.
func Majority(n int) int { return n/2 + 1 }

// Count says how many of set are in among.
func Count(set, among []Incarnation) int {
	n := 0
	for _, i := range set {
		if slices.Contains(among, i) {
			n++
		}
	}
	return n
}

// HasMajority reports whether who holds a majority of every configuration that counts (PROTOCOL 4.6.b).
func (s *State) HasMajority(who []Incarnation) bool {
	if len(s.Configs) == 0 {
		return false
	}
	for _, c := range s.Configs {
		if Count(c.Voters, who) < Majority(len(c.Voters)) {
			return false
		}
	}
	return true
}

// Covers reports whether reports from who meet every set of nodes that can have acknowledged a commit under d
// (PROTOCOL 3.2.a): with n nodes and k+1 copies of each commit, any n-k of the set hold at least one.
// R + W > N with R = |who in Set|, W = k+1, N = |Set|. In async mode no coverage is needed.
func (d Durability) Covers(who []Incarnation) bool {
	if d.Mode == ModeAsync {
		return true
	}
	return d.coversInFull(who)
}

func (d Durability) coversInFull(who []Incarnation) bool { return Count(d.Set, who) >= len(d.Set)-d.K }

// CoveredInFull is Covered as if the mode were quorum: only then are transactions safe that asked for it in async
// mode (PROTOCOL 3.5.b).
func (s *State) CoveredInFull(who []Incarnation) bool {
	return s.D.coversInFull(who) && (s.Pending == nil || s.Pending.coversInFull(who))
}

// Lost is how many bytes of the old primary's WAL, as far as the reports know its end, an epoch that begins at best
// would not have.
func Lost(reports []Report, best Position) uint64 {
	var end Position
	for _, r := range reports {
		if r.PrimaryEnd.Compare(end) > 0 {
			end = r.PrimaryEnd
		}
	}
	if end.Timeline < best.Timeline || end.LSN <= best.LSN {
		return 0
	}
	return uint64(end.LSN - best.LSN)
}

// Covered reports whether who covers the durability in force and the pending one (PROTOCOL 3.3.a).
func (s *State) Covered(who []Incarnation) bool {
	return s.D.Covers(who) && (s.Pending == nil || s.Pending.Covers(who))
}

// Decisive reports whether the positions of who together contain every acknowledged commit: they cover, or the present
// epoch's primary is among them. What was acknowledged before its election is in the position it was elected with, and
// what it acknowledged itself it had flushed before (docs/decisions/0004).
func (s *State) Decisive(who []Incarnation) bool {
	return s.Covered(who) || s.Primary() != 0 && slices.Contains(who, s.Primary())
}

// Async reports whether commits may be acknowledged by the primary alone (PROTOCOL 3.5.c): a change to async counts
// from its commit, the other way from SettleD.
func (s *State) Async() bool {
	return s.D.Mode == ModeAsync || (s.Pending != nil && s.Pending.Mode == ModeAsync)
}

// InSets reports whether inc is in the Set in force or in the pending one: who may win an election.
func (s *State) InSets(inc Incarnation) bool {
	return slices.Contains(s.D.Set, inc) || (s.Pending != nil && slices.Contains(s.Pending.Set, inc))
}

// Acknowledgeable reports whether a commit could be acknowledged by a primary in d with the connected nodes.
func (d Durability) Acknowledgeable(primary Incarnation, connected []Incarnation) bool {
	n := 0
	for _, i := range d.Set {
		if i != primary && slices.Contains(connected, i) {
			n++
		}
	}
	return n >= d.K
}

// QuorumK is the count that goes with a Set of n under durability quorum: floor(n/2).
func QuorumK(n int) int { return n / 2 }

// With returns d with one more member, k adjusted.
func (d Durability) With(inc Incarnation) Durability {
	set := append(slices.Clone(d.Set), inc)
	slices.Sort(set)
	return Durability{Set: set, K: QuorumK(len(set)), Mode: d.Mode}
}

// Without returns d with one member less, k adjusted.
func (d Durability) Without(inc Incarnation) Durability {
	set := slices.DeleteFunc(slices.Clone(d.Set), func(i Incarnation) bool { return i == inc })
	return Durability{Set: set, K: QuorumK(len(set)), Mode: d.Mode}
}

// syncNodeBytes bounds the node's part of a sync name: 24 + 1 + 16 + 2 + 20 is 63, what Postgres keeps.
const syncNodeBytes = 24

// SyncName is the application_name under which a member acknowledges commits of one epoch (PROTOCOL 3.1.b).
func SyncName(node NodeName, inc Incarnation, e Epoch) string {
	n := string(node)
	if len(n) > syncNodeBytes {
		n = n[:syncNodeBytes]
	}
	return fmt.Sprintf("%s.%s.e%d", n, inc, e)
}

// ClonePrefix begins the names of clones, learners and catch-ups: in no list (PROTOCOL 3.1.d).
const ClonePrefix = "pgquorum-unlisted."

// NobodyName is listed by nodes that are not the primary: it exists nowhere (PROTOCOL 3.1.e).
const NobodyName = "pgquorum-nobody"

// SlotName is the physical replication slot of a member.
func SlotName(inc Incarnation) string { return "pgq_" + inc.String() }

// SyncNames lists, for the primary of the current epoch, the names of d's other members.
func (s *State) SyncNames(d Durability) []string {
	e := s.Epoch()
	names := make([]string, 0, len(d.Set))
	for _, inc := range d.Set {
		if inc != e.Primary {
			names = append(names, SyncName(s.NameOf(inc), inc, e.Epoch))
		}
	}
	return names
}
