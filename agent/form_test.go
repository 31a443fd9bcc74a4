// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

func offer(name cluster.NodeName, inc cluster.Incarnation, peers ...cluster.NodeName) cluster.Envelope {
	f := cluster.Formed{Cluster: "t", Peers: peers, LeaseMS: 2000, Mode: cluster.ModeQuorum}
	return cluster.Envelope{From: inc, Offer: &cluster.Offer{Name: name, Inc: inc, Settings: f}}
}

// who holds the offers of others.
func holding(e cluster.Envelope, seen ...cluster.Incarnation) cluster.Envelope {
	e.Offer.Seen = seen
	return e
}

func former(peers ...cluster.NodeName) *Former {
	f := NewFormer(*offer(peers[0], 1, peers...).Offer, time.Second, 0)
	f.Offer(time.Second)
	return f
}

func says(t *testing.T, f *Former, want string) {
	t.Helper()
	if r := f.Result(); r != nil {
		t.Fatalf("a cluster was formed: %+v", r)
	}
	if got := f.Why(map[cluster.NodeName]string{"pg3": "it sleeps"}); got != want {
		t.Fatalf("%q, want %q", got, want)
	}
}

func TestFormerWaitsForEachPeer(t *testing.T) {
	f := former("pg1", "pg2", "pg3")
	says(t, f, "form a cluster: waiting for pg2, pg3 (it sleeps)")
	f.Received(offer("pg2", 2, "pg1", "pg2", "pg3"))
	says(t, f, "form a cluster: waiting for pg3 (it sleeps)")
	f.Gone(2)
	says(t, f, "form a cluster: waiting for pg2, pg3 (it sleeps)")
	all := []cluster.Incarnation{1, 2, 3}
	f.Received(holding(offer("pg2", 2, "pg1", "pg2", "pg3"), all...))
	f.Received(holding(offer("pg3", 3, "pg1", "pg2", "pg3"), all...))
	if f.Result() == nil {
		t.Fatalf("everybody is there: %s", f.Why(nil))
	}
}

// A cluster is formed when everybody holds the same offers: of a peer that has formed one without us, or with another in
// the place of a node that was emptied, we only have what it said before (I7).
func TestFormerWaitsUntilAllAgree(t *testing.T) {
	peers := []cluster.NodeName{"pg1", "pg2", "pg3"}
	f := former(peers...)
	f.Received(holding(offer("pg2", 2, peers...), 1, 2, 4)) // 4 was pg3 before it was emptied
	f.Received(holding(offer("pg3", 3, peers...), 1, 2, 3))
	says(t, f, "form a cluster: waiting until pg2 hears pg3")
	f.Received(holding(offer("pg2", 2, peers...), 1, 2, 3, 4))
	says(t, f, "form a cluster: waiting until pg2 has forgotten a node that is gone")
	f.Received(holding(offer("pg2", 2, peers...), 1, 2, 3))
	r := f.Result()
	if r == nil {
		t.Fatal(f.Why(nil))
	}
	other := NewFormer(*offer("pg2", 2, peers...).Offer, time.Second, 0)
	other.Received(holding(offer("pg1", 1, peers...), 1, 2, 3))
	other.Received(holding(offer("pg3", 3, peers...), 1, 2, 3))
	if o := other.Result(); o == nil || o.ClusterID != r.ClusterID {
		t.Fatalf("another cluster: %+v and %+v", o, r)
	}
}

// What a node holds is told at once, so that forming takes no longer.
func TestFormerTellsWhomItHears(t *testing.T) {
	f := former("pg1", "pg2")
	f.Received(offer("pg2", 2, "pg1", "pg2"))
	e, _, due := f.Offer(time.Second + 1)
	if !due || !slices.Equal(e.Offer.Seen, []cluster.Incarnation{1, 2}) {
		t.Fatalf("due %v, %+v", due, e.Offer)
	}
}

// An offer that is not repeated is over, even if the end of its link was never heard.
func TestFormerForgetsStaleOffers(t *testing.T) {
	f := former("pg1", "pg2")
	f.Received(offer("pg2", 2, "pg1", "pg2"))
	f.Offer(time.Second + offerFresh + 1)
	says(t, f, "form a cluster: waiting for pg2")
}

func TestFormerSeesTwins(t *testing.T) {
	f := former("pg1", "pg2", "pg3")
	f.Received(offer("pg2", 2, "pg1", "pg2", "pg3"))
	f.Received(offer("pg2", 4, "pg1", "pg2", "pg3"))
	says(t, f, "form a cluster: two nodes are called pg2: give each container its own hostname (or PGQUORUM_NODE)")
	f.Gone(4)
	says(t, f, "form a cluster: waiting for pg3 (it sleeps)")
}

// A node that lists us is told what we list, whether we list it or not: else it would wait and not know why.
func TestFormerAnswersWhoeverOffers(t *testing.T) {
	f := former("pg1", "pg2")
	f.Received(offer("pg9", 9, "pg1", "pg9"))
	_, to, due := f.Offer(time.Second + offerEvery)
	if !due || !slices.Equal(to, []cluster.NodeName{"pg2", "pg9"}) {
		t.Fatalf("offer to %v, due %v", to, due)
	}
	if got := f.Why(nil); !strings.Contains(got, "PGQUORUM_PEERS is pg1,pg2 on pg1 and pg1,pg9 on pg9") {
		t.Fatal(got)
	}
}

func TestFormerGivesUp(t *testing.T) {
	f := NewFormer(*offer("pg1", 1, "pg1", "pg2").Offer, time.Second, time.Minute)
	if f.GaveUp(time.Second+time.Minute-1) || !f.GaveUp(time.Second+time.Minute) {
		t.Error("the limit is not kept")
	}
	f.Received(holding(offer("pg2", 2, "pg1", "pg2"), 1, 2))
	if f.GaveUp(time.Hour) {
		t.Error("it gave up though everybody is there")
	}
	if former("pg1", "pg2").GaveUp(1 << 60) {
		t.Error("it gave up without a limit")
	}
}
