// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"math/bits"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The second implementation of the quorum arithmetic: sets are bit masks and nothing is computed that can be
// enumerated.

func mask(is []Incarnation) uint {
	var m uint
	for _, i := range is {
		m |= 1 << i
	}
	return m
}

func members(m uint) []Incarnation {
	var is []Incarnation
	for i := range 16 {
		if m&(1<<i) != 0 {
			is = append(is, Incarnation(i))
		}
	}
	return is
}

// ackSets are all smallest sets of nodes that can hold an acknowledged commit under d: some primary of the set and k
// others of it.
func ackSets(d Durability) []uint {
	var sets []uint
	all := mask(d.Set)
	for m := uint(0); m <= all; m++ {
		if m&^all == 0 && bits.OnesCount(m) == d.K+1 {
			sets = append(sets, m)
		}
	}
	return sets
}

// meetsAll: the reporters hold a copy of every commit that can have been acknowledged.
func meetsAll(d Durability, who uint) bool {
	for _, a := range ackSets(d) {
		if a&who == 0 {
			return false
		}
	}
	return true
}

func subset(t *rapid.T, label string, n int) []Incarnation {
	return members(rapid.UintRange(0, 1<<n-1).Draw(t, label) << 1)
}

func TestCoverageMeetsEveryAcknowledgement(t *testing.T) {
	for n := 1; n <= 6; n++ {
		for k := range n {
			d := Durability{Set: members((1<<n - 1) << 1), K: k, Mode: ModeQuorum}
			for who := uint(0); who < 1<<(n+2); who += 2 { // one node more than the set
				if got, want := d.Covers(members(who)), meetsAll(d, who); got != want {
					t.Fatalf("set of %d, k %d, reports %b: covers %t, by enumeration %t", n, k, who, got, want)
				}
			}
		}
	}
}

// TestJointChangeNeverLosesACommit: while a change of one member, or of k alone, is pending, reports that are Covered
// meet what either durability acknowledged. And coverage under one of them alone does not (the reason for the joint
// rule): the test must see such a case.
func TestJointChangeNeverLosesACommit(t *testing.T) {
	alone := 0
	for n := 1; n <= 6; n++ {
		for k := range n {
			d := Durability{Set: members((1<<n - 1) << 1), K: k, Mode: ModeQuorum}
			for _, next := range neighbours(d) {
				s := &State{D: d, Pending: &next}
				for who := uint(0); who < 1<<8; who += 2 {
					if s.Covered(members(who)) != (meetsAll(d, who) && meetsAll(next, who)) {
						t.Fatalf("D %v, pending %v, reports %b: covered %t", d, next, who, s.Covered(members(who)))
					}
					if next.Covers(members(who)) && !meetsAll(d, who) {
						alone++
					}
				}
			}
		}
	}
	if alone == 0 {
		t.Fatal("the target alone was always enough: this test shows nothing")
	}
}

// neighbours are the changes of one step: a member more, a member less, any k.
func neighbours(d Durability) []Durability {
	var ds []Durability
	add := func(set []Incarnation) {
		for k := range len(set) {
			ds = append(ds, Durability{Set: set, K: k, Mode: d.Mode})
		}
	}
	add(d.Set)
	add(d.With(7).Set)
	for _, i := range d.Set {
		add(d.Without(i).Set)
	}
	return ds
}

// TestSteppedMajoritiesMeet: voters change by one, and reports must hold a majority of each configuration that counts;
// so they meet every lease that was granted under one of them.
func TestSteppedMajoritiesMeet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &State{}
		v := subset(t, "voters", 6)
		for i := range rapid.IntRange(1, 3).Draw(t, "configs") {
			s.Configs = append(s.Configs, VoterConfig{Index: uint64(i), Voters: v})
			flip := Incarnation(rapid.IntRange(1, 6).Draw(t, "flip"))
			v = members(mask(v) ^ 1<<flip)
		}
		who := subset(t, "reporters", 6)
		want := true
		for _, c := range s.Configs {
			for lease := uint(0); lease < 1<<7; lease += 2 { // every set that could have granted a lease
				in := bits.OnesCount(lease & mask(c.Voters))
				if 2*in > len(c.Voters) && lease&mask(c.Voters)&mask(who) == 0 {
					want = false
				}
			}
			want = want && 2*bits.OnesCount(mask(who)&mask(c.Voters)) > len(c.Voters)
		}
		if got := s.HasMajority(who); got != want {
			t.Fatalf("configs %v, reporters %v: majority %t, by enumeration %t", s.Configs, who, got, want)
		}
	})
	if (&State{}).HasMajority(nil) {
		t.Fatal("no configuration, but a majority")
	}
}

func TestSetArithmetic(t *testing.T) {
	d := Durability{Set: incs([]string{"a", "c"}), K: 1, Mode: ModeAsync}
	e := d.With(inc("b"))
	if !slices.Equal(e.Set, incs([]string{"a", "b", "c"})) || e.K != 1 || e.Mode != ModeAsync {
		t.Errorf("with b: %+v", e)
	}
	if f := e.Without(inc("b")); !f.Equal(d) {
		t.Errorf("without b: %+v", f)
	}
	if f := e.Without(inc("b")).Without(inc("c")); f.K != 0 || f.Equal(d) {
		t.Errorf("alone: %+v", f)
	}
	if !e.Acknowledgeable(inc("a"), incs([]string{"a", "b"})) || e.Acknowledgeable(inc("a"), incs([]string{"a"})) {
		t.Error("acknowledgeable counts others only")
	}
	if !d.Covers(nil) {
		t.Error("async needs no coverage")
	}
}
