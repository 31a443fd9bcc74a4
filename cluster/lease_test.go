// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// clock is one node's clock: it runs at its own rate, within 1 % of every other, from its own origin.
type clock struct {
	rate   float64
	origin time.Duration
}

func (c clock) at(real time.Duration) time.Duration {
	return c.origin + time.Duration(float64(real)*c.rate)
}

// real is the moment at which the clock shows t.
func (c clock) real(t time.Duration) time.Duration {
	return time.Duration(float64(t-c.origin) / c.rate)
}

// leaseWorld is one primary, its voters and a leader who collects reports, in real time.
type leaseWorld struct {
	primary, leader clock
	voters          []clock
	memory          []GrantMemory
	lease           Lease
	who             []Incarnation
}

func newLeaseWorld(n int, rate func(string) float64) *leaseWorld {
	w := &leaseWorld{primary: clock{rate("primary"), 5e9}, leader: clock{rate("leader"), 9e9}}
	for i := range n {
		w.voters = append(w.voters, clock{rate("voter"), time.Duration(i) * 3e9})
		w.memory = append(w.memory, GrantMemory{})
		w.who = append(w.who, Incarnation(i+1))
	}
	w.lease.Reset(3, 1)
	return w
}

// renew: voter i gets a renewal that was sent at real time t0 and grants it at t1.
func (w *leaseWorld) renew(i int, t0, t1 time.Duration, l time.Duration) {
	g := Grant{Epoch: 3, T0: int64(w.primary.at(t0)), LeaseMS: l.Milliseconds(), Config: 1}
	w.memory[i].Granted(w.voters[i].at(t1), 3, l)
	w.lease.Granted(w.who[i], g)
}

// over is the real time at which the leader holds the lease to be over, from reports made at tr and received at rr.
func (w *leaseWorld) over(reporters uint, tr, rr time.Duration) time.Duration {
	end := time.Duration(0)
	for i := range w.voters {
		if reporters&(1<<i) == 0 {
			continue
		}
		m := w.memory[i]
		r := Report{GrantLeaseMS: m.Lease.Milliseconds(), GrantAgeMS: (w.voters[i].at(tr) - m.At).Milliseconds()}
		end = max(end, w.leader.real(w.leader.at(rr)+LeaseOver(r)))
	}
	return end
}

// check: the reports are made at real time tr, which must be early: once every lease is over any wait bounds it.
func (w *leaseWorld) check(t interface{ Fatalf(string, ...any) }, what string, tr time.Duration) {
	ends := w.lease.Ends(w.who)
	if ends == 0 {
		return
	}
	last := w.primary.real(ends)
	for reporters := uint(0); reporters < 1<<len(w.voters); reporters++ {
		if Count(w.who, membersFrom1(reporters)) < Majority(len(w.voters)) {
			continue
		}
		if over := w.over(reporters, tr, tr+time.Millisecond); over < last {
			t.Fatalf("%s: the lease ends at %s, reports of %b say %s", what, last, reporters, over)
		}
	}
}

func membersFrom1(m uint) []Incarnation { return members(m << 1) }

// TestLeaseOverBoundsEveryHistory: all interleavings of two rounds of renewals to three voters, each delivered early,
// late or never, with L growing or shrinking between them (4.7), under the worst clocks.
func TestLeaseOverBoundsEveryHistory(t *testing.T) {
	const slow, fast = 1.0, 1.0099
	leases := []time.Duration{10 * time.Second, 19 * time.Second, 20 * time.Second}
	for code := range 3 * 3 * 3 * 3 * 3 * 3 * 9 {
		n := code
		digit := func(base int) int { d := n % base; n /= base; return d }
		w := newLeaseWorld(3, func(who string) float64 {
			if who == "primary" {
				return slow
			}
			return fast
		})
		l := [2]time.Duration{leases[digit(3)], leases[digit(3)]}
		for round := range 2 {
			sent := time.Duration(round) * 9950 * time.Millisecond
			for i := range 3 {
				if delay := digit(3); delay > 0 {
					w.renew(i, sent, sent+time.Duration(delay-1)*40*time.Millisecond, l[round])
				}
			}
		}
		w.check(t, fmt.Sprintf("interleaving %d", code), 10*time.Second)
	}
}

func TestLeaseOverBoundsRandomHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newLeaseWorld(rapid.IntRange(1, 5).Draw(t, "voters"), func(who string) float64 {
			return 1 + float64(rapid.IntRange(0, 99).Draw(t, who))/10000
		})
		for range rapid.IntRange(0, 12).Draw(t, "grants") {
			t0 := time.Duration(rapid.IntRange(0, 19000).Draw(t, "sent")) * time.Millisecond
			t1 := min(t0+time.Duration(rapid.IntRange(0, 3000).Draw(t, "delay"))*time.Millisecond, 19999*time.Millisecond)
			i := rapid.IntRange(0, len(w.voters)-1).Draw(t, "voter")
			if w.voters[i].at(t1) < w.memory[i].Last {
				continue // a voter's own grants are in order
			}
			w.renew(i, t0, t1, time.Duration(rapid.IntRange(1000, 60000).Draw(t, "ms"))*time.Millisecond)
		}
		w.check(t, "random history", 20*time.Second)
	})
}

// TestRestartedVoter: what it forgot is covered by the grant that it assumes (4.2).
func TestRestartedVoter(t *testing.T) {
	m := Restarted(7*time.Second, 3*time.Second)
	if r := (Report{GrantLeaseMS: m.Lease.Milliseconds()}); LeaseOver(r) != 3030*time.Millisecond {
		t.Errorf("restarted: wait %s", LeaseOver(r))
	}
	if LeaseOver(Report{GrantAgeMS: 5}) != 0 {
		t.Error("a voter that never granted makes nobody wait")
	}
}

func TestLeaseCountsOnlyItsOwn(t *testing.T) {
	var l Lease
	l.Reset(3, 10)
	voters := incs([]string{"a", "b", "c"})
	grant := func(who string, e Epoch, config uint64, t0 time.Duration) {
		l.Granted(inc(who), Grant{Epoch: e, Config: config, T0: int64(t0), LeaseMS: 2000})
	}
	grant("a", 3, 10, time.Second)
	grant("b", 2, 10, time.Second) // another epoch
	grant("b", 3, 9, time.Second)  // the voters of before (4.6.a)
	grant("d", 3, 10, time.Second) // a learner
	if l.Ends(voters) != 0 || l.Valid(voters, 0) {
		t.Fatalf("one grant of three is a lease until %s", l.Ends(voters))
	}
	grant("b", 3, 10, 5*time.Second)
	grant("c", 3, 10, 2*time.Second)
	grant("c", 3, 10, time.Second) // overtaken on the way
	if l.Ends(voters) != 4*time.Second {
		t.Fatalf("lease ends at %s", l.Ends(voters))
	}
	if !l.Valid(voters, 3849*time.Millisecond) || l.Valid(voters, 3850*time.Millisecond) {
		t.Fatal("a primary kills 150 ms before the end (4.5.a)")
	}
	if l.Reset(4, 10); l.Ends(voters) != 0 {
		t.Fatal("grants survive the epoch")
	}
	if RenewEvery(2*time.Second) != 400*time.Millisecond {
		t.Fatal("renewed every L/5")
	}
}

func TestMayGrant(t *testing.T) {
	for _, c := range []struct {
		name       string
		change     func(*State)
		self, from string
		promise    Epoch
		epoch      Epoch
		want       bool
	}{
		{"a voter", nil, "b", "a", 2, 2, true},
		{"promised to another epoch", nil, "b", "a", 3, 2, false},
		{"another primary", nil, "b", "c", 2, 2, false},
		{"an older epoch", nil, "b", "a", 1, 1, false},
		{"a learner", func(s *State) { s.Configs[0].Voters = incs([]string{"a", "c"}) }, "b", "a", 2, 2, false},
		{"a stranger", nil, "e", "a", 2, 2, false},
		{"an open election", func(s *State) { s.Phase = PhaseElecting }, "b", "a", 2, 2, false},
		{"a quarantined voter", func(s *State) { s.Members[1].Quarantined = true }, "b", "a", 2, 2, false},
		{"a quarantined primary", func(s *State) { s.Members[0].Quarantined = true }, "b", "a", 2, 2, false},
	} {
		s := baseState()
		if c.change != nil {
			c.change(s)
		}
		if got := MayGrant(s, inc(c.self), inc(c.from), c.promise, Renew{Epoch: c.epoch}); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}
