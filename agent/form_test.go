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
	f.Received(offer("pg2", 2, "pg1", "pg2", "pg3"))
	f.Received(offer("pg3", 3, "pg1", "pg2", "pg3"))
	if f.Result() == nil {
		t.Fatal("everybody is there")
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
	f.Received(offer("pg2", 2, "pg1", "pg2"))
	if f.GaveUp(time.Hour) {
		t.Error("it gave up though everybody is there")
	}
	if former("pg1", "pg2").GaveUp(1 << 60) {
		t.Error("it gave up without a limit")
	}
}
