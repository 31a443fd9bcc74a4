// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"slices"
	"testing"
	"time"
)

// The dumb implementation for up to five nodes: every question is answered by looking at every subset. It shares no
// arithmetic with quorum.go, not even a division.

const bruteNodes = 5

// each calls f with every subset of the first n nodes.
func each(n int, f func(set []Incarnation)) {
	for m := range uint(1) << n {
		f(members(m << 1))
	}
}

// bruteMajority: who holds more than half of voters, by pairing each that is in with one that is not.
func bruteMajority(voters, who []Incarnation) bool {
	surplus := 0
	for _, v := range voters {
		if slices.Contains(who, v) {
			surplus++
		} else {
			surplus--
		}
	}
	return surplus > 0
}

// bruteAcked: with primary p a commit that is on disk exactly on the nodes of held has been acknowledged.
func bruteAcked(d Durability, p Incarnation, held []Incarnation) bool {
	if !slices.Contains(d.Set, p) || !slices.Contains(held, p) {
		return false
	}
	if d.Mode == ModeAsync {
		return true
	}
	left := d.K
	for _, i := range d.Set {
		if i != p && slices.Contains(held, i) {
			left--
		}
	}
	return left <= 0
}

// bruteCovers: whoever was primary, and wherever an acknowledged commit is, one of who has it.
func bruteCovers(d Durability, who []Incarnation) bool {
	if d.Mode == ModeAsync {
		return true
	}
	covers := true
	for _, p := range d.Set {
		each(bruteNodes+1, func(held []Incarnation) {
			if bruteAcked(d, p, held) && !slices.ContainsFunc(held, func(i Incarnation) bool { return slices.Contains(who, i) }) {
				covers = false
			}
		})
	}
	return covers
}

// durabilities calls f with every set of up to n nodes and every count and mode that a change of D may have.
func durabilities(n int, f func(Durability)) {
	each(n, func(set []Incarnation) {
		for k := range len(set) {
			f(Durability{Set: set, K: k, Mode: ModeQuorum})
			f(Durability{Set: set, K: k, Mode: ModeAsync})
		}
	})
}

func TestBruteCoverage(t *testing.T) {
	durabilities(bruteNodes, func(d Durability) {
		each(bruteNodes+1, func(who []Incarnation) {
			if got, want := d.Covers(who), bruteCovers(d, who); got != want {
				t.Fatalf("%+v by %v: covers %t, by enumeration %t", d, who, got, want)
			}
		})
	})
}

// TestBruteCovered: every pair of a durability and a pending one of which both can be in force, whether or not a change
// may go from one to the other.
func TestBruteCovered(t *testing.T) {
	const n = 4 // all pairs: 5 would be 25 million questions
	covers := map[string]bool{}
	key := func(d Durability, who []Incarnation) string {
		return letters(d.Set) + string(d.Mode) + string(rune('0'+d.K)) + letters(who)
	}
	durabilities(n, func(d Durability) {
		each(n, func(who []Incarnation) { covers[key(d, who)] = bruteCovers(d, who) })
	})
	durabilities(n, func(d Durability) {
		s := &State{D: d}
		each(n, func(who []Incarnation) {
			if s.Covered(who) != covers[key(d, who)] {
				t.Fatalf("%+v by %v", d, who)
			}
		})
		durabilities(n, func(p Durability) {
			s := &State{D: d, Pending: &p}
			each(n, func(who []Incarnation) {
				if s.Covered(who) != (covers[key(d, who)] && covers[key(p, who)]) {
					t.Fatalf("%+v, pending %+v, by %v: covered %t", d, p, who, s.Covered(who))
				}
			})
			if s.Async() != (d.Mode == ModeAsync || p.Mode == ModeAsync) {
				t.Fatalf("%+v, pending %+v: async %t", d, p, s.Async())
			}
		})
	})
}

// TestBruteMajority: every one, every two configurations, every set of reporters (4.6.b).
func TestBruteMajority(t *testing.T) {
	each(bruteNodes, func(a []Incarnation) {
		each(bruteNodes, func(who []Incarnation) {
			s := &State{Configs: []VoterConfig{{Index: 1, Voters: a}}}
			if s.HasMajority(who) != bruteMajority(a, who) {
				t.Fatalf("%v of %v: majority %t", who, a, s.HasMajority(who))
			}
			each(bruteNodes, func(b []Incarnation) {
				s := &State{Configs: []VoterConfig{{Index: 1, Voters: a}, {Index: 2, Voters: b}}}
				if s.HasMajority(who) != (bruteMajority(a, who) && bruteMajority(b, who)) {
					t.Fatalf("%v of %v and %v: majority %t", who, a, b, s.HasMajority(who))
				}
			})
		})
	})
	for n := 1; n <= 9; n++ {
		voters := members((1<<n - 1) << 1)
		smallest := 0
		for smallest = range n + 1 {
			if bruteMajority(voters, voters[:smallest]) {
				break
			}
		}
		if Majority(n) != smallest {
			t.Errorf("majority of %d is %d, not %d", n, smallest, Majority(n))
		}
	}
}

// TestBruteAcknowledgeable: what a primary in D can have acknowledged with the nodes that are connected.
func TestBruteAcknowledgeable(t *testing.T) {
	durabilities(bruteNodes, func(d Durability) {
		for _, p := range d.Set {
			each(bruteNodes+1, func(connected []Incarnation) {
				d.Mode = ModeQuorum
				if got, want := d.Acknowledgeable(p, connected), bruteAcked(d, p, append([]Incarnation{p}, connected...)); got != want {
					t.Fatalf("%+v, primary %d, connected %v: %t", d, p, connected, got)
				}
			})
		}
	})
}

// TestBruteK: the default count is the smallest with which every acknowledged commit is on a majority of the set (3.1.a),
// so that any majority covers it.
func TestBruteK(t *testing.T) {
	for n := 1; n <= bruteNodes; n++ {
		set := members((1<<n - 1) << 1)
		onMajority := func(k int) bool {
			ok := true
			each(n, func(held []Incarnation) {
				for _, p := range set {
					ok = ok && (!bruteAcked(Durability{Set: set, K: k}, p, held) || bruteMajority(set, held))
				}
			})
			return ok
		}
		k := 0
		for !onMajority(k) {
			k++
		}
		if QuorumK(n) != k {
			t.Errorf("k of %d nodes is %d, not %d", n, QuorumK(n), k)
		}
		each(n, func(who []Incarnation) {
			if bruteMajority(set, who) && !bruteCovers(Durability{Set: set, K: k, Mode: ModeQuorum}, who) {
				t.Errorf("%d nodes: the majority %v does not cover", n, who)
			}
		})
	}
}

// TestBruteLease: the lease ends when the last of any majority's grants would have to be ended: the latest moment to
// which some majority has granted.
func TestBruteLease(t *testing.T) {
	each(bruteNodes, func(voters []Incarnation) {
		for code := range 243 { // each voter: no grant, an early one, a late one
			var l Lease
			l.Reset(1, 1)
			ends := map[Incarnation]time.Duration{}
			for i, n := Incarnation(1), code; i <= bruteNodes; i, n = i+1, n/3 {
				if at := time.Duration(n%3) * time.Duration(i); at > 0 {
					l.Granted(i, Grant{Epoch: 1, Config: 1, T0: int64(at), LeaseMS: 2000})
					ends[i] = at + 2*time.Second
				}
			}
			var want time.Duration
			each(bruteNodes, func(m []Incarnation) {
				if !bruteMajority(voters, m) {
					return
				}
				first := time.Duration(1 << 62)
				for _, i := range m {
					if slices.Contains(voters, i) {
						first = min(first, ends[i])
					}
				}
				want = max(want, first)
			})
			if len(voters) > 0 && l.Ends(voters) != want {
				t.Fatalf("voters %v, grants %v: ends %s, by enumeration %s", voters, ends, l.Ends(voters), want)
			}
		}
	})
}
