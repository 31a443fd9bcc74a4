// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"slices"
	"testing"
)

func TestNextBoots(t *testing.T) {
	boots := []Boot{{7, 70}}
	for i := range uint64(200) {
		boots = NextBoots(boots, i+1)
		if len(boots) > MaxBoots || boots[0] != (Boot{7, 70}) || boots[len(boots)-1] != (Boot{8 + i, i + 1}) {
			t.Fatalf("after %d starts: %v", i+1, boots)
		}
	}
	one := NextBoots(nil, 5)
	two, other := NextBoots(one, 6), NextBoots(one, 7)
	if !slices.Equal(two, []Boot{{1, 5}, {2, 6}}) || !slices.Equal(other, []Boot{{1, 5}, {2, 7}}) {
		t.Fatalf("%v, %v", two, other)
	}
}

func TestFollows(t *testing.T) {
	for _, c := range []struct {
		name          string
		m             Member
		boots         []Boot
		follows, link bool
	}{
		{"no boot is registered yet", Member{}, []Boot{{5, 50}}, true, true},
		{"its own", Member{Boot: Boot{5, 50}}, []Boot{{5, 50}}, true, true},
		{"the one before", Member{Boot: Boot{4, 40}}, []Boot{{4, 40}, {5, 50}}, true, true},
		{"registered unknown to it", Member{Boot: Boot{5, 50}}, []Boot{{4, 40}, {5, 50}, {6, 60}}, true, true},
		{"rolled back to boot 4, started once", Member{Boot: Boot{5, 50}}, []Boot{{4, 40}, {5, 51}}, false, false},
		{"rolled back to boot 4, started often", Member{Boot: Boot{5, 50}}, []Boot{{4, 40}, {5, 51}, {6, 60}, {7, 70}}, false, false},
		{"rolled back before boot 4 was registered", Member{Boot: Boot{5, 50}}, []Boot{{3, 30}, {4, 40}, {5, 51}, {6, 60}}, false, false},
		{"doubled, both registered as far as they know", Member{Boot: Boot{5, 50}}, []Boot{{5, 51}, {6, 60}}, false, false},
		{"this node lags: a later boot was registered", Member{Boot: Boot{3, 30}}, []Boot{{5, 50}, {6, 60}}, false, true},
		{"no list", Member{Boot: Boot{3, 30}}, nil, false, false},
		{"no list and nothing registered", Member{}, nil, true, false},
		{"quarantined", Member{Boot: Boot{5, 50}, Quarantined: true}, []Boot{{5, 50}}, true, false},
	} {
		if f, l := c.m.Follows(c.boots), c.m.MayLink(c.boots); f != c.follows || l != c.link {
			t.Errorf("%s: follows %t, may link %t", c.name, f, l)
		}
	}
}

// TestLoggedBoots: a node that was killed still knows, from its log, the boots that it may have applied before
// (PROTOCOL 1.13).
func TestLoggedBoots(t *testing.T) {
	register := func(inc Incarnation, n uint64) []byte {
		return Command{Register: &Register{Inc: inc, Boot: Boot{n, 10 * n}}}.Encode()
	}
	s := &State{Members: []Member{{Inc: 1, Boot: Boot{4, 40}}, {Inc: 2, Boot: Boot{1, 10}}}}
	var log LoggedBoots
	log.Saw(7, register(1, 5))
	log.Saw(8, register(1, 4))
	log.Saw(9, []byte("of another version"))
	log.Saw(10, register(3, 1))
	for _, c := range []struct {
		name  string
		inc   Incarnation
		boots []Boot
		log   *LoggedBoots
		may   bool
	}{
		{"rolled back to boot 4", 1, []Boot{{4, 40}, {5, 51}}, &log, false},
		{"started again", 1, []Boot{{4, 40}, {5, 50}, {6, 60}}, &log, true},
		{"a later boot was registered", 1, []Boot{{6, 60}, {7, 70}}, &log, true},
		{"rolled back to before boot 4", 1, []Boot{{3, 30}, {5, 50}}, &log, false},
		{"the log has been applied", 1, []Boot{{4, 40}, {5, 51}}, nil, true},
		{"not in the log", 2, []Boot{{1, 10}, {2, 20}}, &log, true},
		{"no member", 3, []Boot{{2, 20}}, &log, true},
	} {
		if may := s.MayLink(c.inc, c.boots, c.log); may != c.may {
			t.Errorf("%s: may link %t", c.name, may)
		}
	}
	if log.Over(9) || !log.Over(10) {
		t.Error("over before the log is applied, or not then")
	}
}

// TestLateRegister: a Register of a start that is over, forwarded late, is no sign of a second copy of the volume. The
// node that runs stays a member in good standing; a copy is still found (I6).
func TestLateRegister(t *testing.T) {
	b := func(n uint64) Boot { return Boot{Number: n, ID: 100 + n} }
	register := func(s *State, boots ...Boot) (*State, Event) {
		next, ev := Apply(s, 1, Command{Register: &Register{Inc: 1, Boot: boots[len(boots)-1], Boots: boots}})
		return next, ev[0]
	}
	s := &State{Members: []Member{{Inc: 1, Name: "a"}}}
	s, _ = register(s, b(1))
	s, _ = register(s, b(1), b(2), b(3)) // what boot 2 sent is under way still
	s, _ = register(s, b(3), b(4))
	for _, late := range [][]Boot{{b(1)}, {b(1), b(2)}, {b(1), b(2), b(3)}} {
		next, ev := register(s, late...)
		if m := next.Member(1); m.Quarantined || m.Boot != b(4) || ev.Kind != "rejected" {
			t.Errorf("late Register of boots %v: %+v, %v", late, *m, ev)
		}
	}
	for _, copied := range [][]Boot{{b(3), {Number: 4, ID: 9}}, {b(1), {Number: 2, ID: 9}}, {b(1), {Number: 2, ID: 9}, {Number: 5, ID: 9}}} {
		next, _ := register(s, copied...)
		if !next.Member(1).Quarantined {
			t.Errorf("a copy that lists %v is let in", copied)
		}
	}
	list := []Boot{b(4)}
	for n := range uint64(100) {
		list = append(list, b(5+n))
	}
	s, _ = register(s, list...)
	if m := s.Member(1); m.Quarantined || len(m.Past) != pastMax || !slices.Contains(m.Past, b(103)) {
		t.Errorf("after a hundred starts: %+v", *m)
	}
}
