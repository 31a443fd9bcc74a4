// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

func offersOf(names ...NodeName) []Offer {
	f := Formed{Cluster: "t", Peers: names, LeaseMS: 2000, Mode: ModeQuorum}
	var os []Offer
	for i, n := range names {
		os = append(os, Offer{Name: n, Inc: Incarnation(10 - i), Settings: f})
	}
	return os
}

func TestGenesisIsTheSameEverywhere(t *testing.T) {
	offers := offersOf("a", "b", "c")
	s, err := Genesis(offers)
	if err != nil || s.Founder != 10 || s.Phase != PhaseBlank || !slices.Equal(s.D.Set, []Incarnation{10}) || s.D.K != 0 || len(s.Voters()) != 3 {
		t.Fatalf("%v: %+v", err, s)
	}
	slices.Reverse(offers)
	if r, err := Genesis(offers); err != nil || string(r.Encode()) != string(s.Encode()) {
		t.Fatalf("another order, another genesis: %v", err)
	}
	offers[0].Inc += 100
	if r, _ := Genesis(offers); r.ClusterID == s.ClusterID {
		t.Fatal("another volume, the same cluster id")
	}
}

func TestGenesisRefuses(t *testing.T) {
	for _, c := range []struct {
		name, want string
		change     func([]Offer) []Offer
	}{
		{"nothing", "no offers", func([]Offer) []Offer { return nil }},
		{"two peers sleep (9.2)", "waiting for b, c", func(o []Offer) []Offer { return o[:1] }},
		{"a peer sleeps", "waiting for c", func(o []Offer) []Offer { return o[:2] }},
		{"other settings", "PGQUORUM_LEASE is 2s on a and 2.001s on b: make it the same on every node", func(o []Offer) []Offer { o[1].Settings.LeaseMS++; return o }},
		{"one name twice", "two nodes are called a: give each container its own hostname", func(o []Offer) []Offer { o[1].Name = "a"; return o }},
		{"a copied volume (1.3)", "its volume was copied", func(o []Offer) []Offer { o[1].Inc = o[0].Inc; return o }},
		{"data twice (9.3)", "both have data", func(o []Offer) []Offer { o[1].HasData, o[2].HasData = true, true; return o }},
		{"a witness with data (I7)", "is a witness and has data", func(o []Offer) []Offer { o[2].Witness, o[2].HasData = true, true; return o }},
		{"witnesses only", "every node is a witness", func(o []Offer) []Offer {
			for i := range o {
				o[i].Witness = true
			}
			return o
		}},
	} {
		s, err := Genesis(c.change(offersOf("a", "b", "c")))
		if s != nil || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// Every setting that must be the same is named when it is not, with both values and both nodes.
func TestDifferenceNamesEverySetting(t *testing.T) {
	changes := map[string]any{
		"Cluster": "u", "Peers": []NodeName{"a", "b"}, "LeaseMS": int64(3000), "Mode": ModeAsync, "FastOff": true,
		"MaxLag": uint64(16 << 20), "Paused": true,
	}
	want := map[string]string{
		"Cluster": "PGQUORUM_CLUSTER is t on a and u on b", "Peers": "PGQUORUM_PEERS is a,b,c on a and a,b on b",
		"LeaseMS": "PGQUORUM_LEASE is 2s on a and 3s on b", "Mode": "PGQUORUM_DURABILITY is quorum on a and async on b",
		"FastOff": "PGQUORUM_FAST_FAILOVER is on on a and off on b", "MaxLag": "PGQUORUM_MAX_LAG is 0B on a and 16MB on b",
		"Paused": "PGQUORUM_FAILOVER is auto on a and manual on b",
	}
	for f := range reflect.TypeFor[Formed]().Fields() {
		o := offersOf("a", "b", "c")
		reflect.ValueOf(&o[1].Settings).Elem().FieldByName(f.Name).Set(reflect.ValueOf(changes[f.Name]))
		if got := difference(o[0], o[1]); got != want[f.Name] {
			t.Errorf("%s: %q, want %q", f.Name, got, want[f.Name])
		}
	}
	if o := offersOf("a", "b"); difference(o[0], o[1]) != "" {
		t.Error("the same settings differ")
	}
}

func TestWaitingSaysWhy(t *testing.T) {
	e := &WaitingError{For: []NodeName{"b", "c"}}
	if got := e.Because(map[NodeName]string{"c": "it sleeps"}); got != "form a cluster: waiting for b, c (it sleeps)" {
		t.Error(got)
	}
}

func TestGenesisFounder(t *testing.T) {
	o := offersOf("a", "b", "c")
	o[1].HasData = true
	if s, err := Genesis(o); err != nil || s.NameOf(s.Founder) != "b" {
		t.Errorf("data on one node founds in place: %v", err)
	}
	o = offersOf("a", "b", "c")
	o[0].Witness = true
	if s, err := Genesis(o); err != nil || s.NameOf(s.Founder) != "b" {
		t.Errorf("a witness founds nothing: %v", err)
	}
}

// TestGenesisFor: whoever is part of the genesis is told of it; a stranger, which may be a node that was emptied, is told only
// which cluster it has to join (PROTOCOL 9.2).
func TestGenesisFor(t *testing.T) {
	o := offersOf("a", "b", "c")
	s, err := Genesis(o)
	if err != nil {
		t.Fatal(err)
	}
	g := GenesisCopy{ClusterID: s.ClusterID, State: s.Encode()}
	for inc, part := range map[Incarnation]bool{o[0].Inc: true, o[1].Inc: true, 99: false} {
		if got := g.For(inc); got.ClusterID != s.ClusterID || (got.State != nil) != part {
			t.Errorf("%d is told of %s with a state: %t", inc, got.ClusterID, got.State != nil)
		}
	}
	if g.State == nil {
		t.Error("the genesis is gone")
	}
}

// TestGenesisFresh: clients of a cluster founded on no data wait for a second copy, if there can be one (9.4).
func TestGenesisFresh(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func([]Offer)
		nodes  []NodeName
		want   bool
	}{
		{"nobody has data", func([]Offer) {}, []NodeName{"a", "b", "c"}, true},
		{"data is adopted", func(o []Offer) { o[1].HasData = true }, []NodeName{"a", "b", "c"}, false},
		{"one data node", func(o []Offer) { o[1].Witness, o[2].Witness = true, true }, []NodeName{"a", "b", "c"}, false},
		{"one node", func([]Offer) {}, []NodeName{"a"}, false},
	} {
		o := offersOf(c.nodes...)
		c.change(o)
		if s, err := Genesis(o); err != nil || s.Fresh != c.want {
			t.Errorf("%s: fresh %t, %v", c.name, s != nil && s.Fresh, err)
		}
	}
}

func TestNames(t *testing.T) {
	s := baseState()
	if got := s.SyncNames(s.D); !slices.Equal(got, []string{"b.0000000000000002.e2", "c.0000000000000003.e2"}) {
		t.Errorf("the primary is not in its own list: %v", got)
	}
	long := SyncName(NodeName(strings.Repeat("x", 80)), ^Incarnation(0), ^Epoch(0))
	if len(long) > 63 || !strings.HasPrefix(long, strings.Repeat("x", 24)+".") {
		t.Errorf("%d bytes: %s", len(long), long)
	}
	if SlotName(1) != "pgq_0000000000000001" {
		t.Error(SlotName(1))
	}
	if s.NameOf(0) != "nobody" || s.NameOf(99) != "former-0000000000000063" {
		t.Error(s.NameOf(0), s.NameOf(99))
	}
}

func TestNextBackoff(t *testing.T) {
	for n, want := range []int{0, 1, 2, 4, 8, 16, 30, 30} {
		if got := int(NextBackoff(n).Seconds()); got != want {
			t.Errorf("attempt %d waits %d s", n, got)
		}
	}
	if NextBackoff(1000) != BackoffMax {
		t.Error("back-off overflows")
	}
}

func TestDecideNeedsALastRow(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a table without a last row decided")
		}
	}()
	Decide([]Rule[int, int]{{ID: "X1", When: func(*int) bool { return false }}}, new(int))
}
