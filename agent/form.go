// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"slices"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// Former is the step machine of a node without raft state: it forms a new cluster with every listed peer, or finds
// an existing one (PROTOCOL 9.2, 9.5). Its own offer is durable before it is made. Each offer says whose offers its sender
// holds, and a cluster is formed only when all hold the same: else two nodes could form two clusters, with a third that
// was emptied in between (decision 0008).
type Former struct {
	own    cluster.Offer
	peers  []heardOffer // the newest of each incarnation
	sent   time.Duration
	said   []cluster.Incarnation // whose offers the last message named
	now    time.Duration
	until  time.Duration // zero: for ever
	result *Formation
	bad    string
}

type heardOffer struct {
	offer cluster.Offer
	seen  []cluster.Incarnation // whose offers its sender holds
	at    time.Duration
}

// Formation is the end of it: the genesis that this node is part of, or, without a state, the id of the cluster to join.
type Formation struct {
	ClusterID string
	State     *cluster.State
}

// Genesis is what makes the node part of that cluster, and what it tells those who offer themselves later.
func (f *Formation) Genesis() cluster.GenesisCopy {
	g := cluster.GenesisCopy{ClusterID: f.ClusterID}
	if f.State != nil {
		g.State = f.State.Encode()
	}
	return g
}

const (
	offerEvery = 300 * time.Millisecond
	// offerFresh is how long an offer counts that is not repeated: whoever forms a cluster must be there.
	offerFresh = 10 * offerEvery
)

// NewFormer begins with this node's durable offer. It gives up after limit, unless that is zero.
func NewFormer(own cluster.Offer, now, limit time.Duration) *Former {
	f := &Former{own: own, now: now}
	if limit > 0 {
		f.until = now + limit
	}
	return f
}

// GaveUp: the limit has passed, and nothing has been formed. To end then is no more than to crash: the offer stands
// on disk, and a cluster that others formed with it is found at the next start.
func (f *Former) GaveUp(now time.Duration) bool {
	return f.until != 0 && now >= f.until && f.Result() == nil
}

// Why says what the formation waits for. unreached says of peers why they are not there, as far as it is known.
func (f *Former) Why(unreached map[cluster.NodeName]string) string {
	var waiting *cluster.WaitingError
	_, err := cluster.Genesis(f.offers())
	switch {
	case f.bad != "":
		return f.bad
	case errors.As(err, &waiting):
		return waiting.Because(unreached)
	case err != nil:
		return err.Error()
	}
	return f.disagree()
}

// seen lists whose offers are here, this node's own among them.
func (f *Former) seen() []cluster.Incarnation {
	all := []cluster.Incarnation{f.own.Inc}
	for _, p := range f.peers {
		all = append(all, p.offer.Inc)
	}
	slices.Sort(all)
	return all
}

// Holds reports whether a node's offer is here.
func (f *Former) Holds(inc cluster.Incarnation) bool { return slices.Contains(f.seen(), inc) }

// disagree says who does not hold the offers that this node holds; empty: nobody.
func (f *Former) disagree() string {
	seen := f.seen()
	for _, p := range f.peers {
		if slices.Equal(p.seen, seen) {
			continue
		}
		var lacks []cluster.NodeName
		for _, o := range f.offers() {
			if !slices.Contains(p.seen, o.Inc) {
				lacks = append(lacks, o.Name)
			}
		}
		if len(lacks) == 0 {
			return "form a cluster: waiting until " + string(p.offer.Name) + " has forgotten a node that is gone"
		}
		slices.Sort(lacks)
		return "form a cluster: waiting until " + string(p.offer.Name) + " hears " + cluster.JoinNames(lacks, " and ")
	}
	return ""
}

// Offer is the message to send to every listed peer, and to whoever else made an offer, so that a node which lists
// this one hears what this one lists; due says whether it is time again.
func (f *Former) Offer(now time.Duration) (e cluster.Envelope, to []cluster.NodeName, due bool) {
	f.now = now
	f.peers = slices.DeleteFunc(f.peers, func(p heardOffer) bool { return now > p.at+offerFresh })
	seen := f.seen()
	if f.sent != 0 && now < f.sent+offerEvery && slices.Equal(seen, f.said) {
		return e, nil, false
	}
	f.sent, f.said = max(now, 1), seen
	to = slices.Clone(f.own.Settings.Peers)
	for _, p := range f.peers {
		to = append(to, p.offer.Name)
	}
	slices.Sort(to)
	to = slices.DeleteFunc(slices.Compact(to), func(n cluster.NodeName) bool { return n == f.own.Name })
	o := f.own
	o.Seen = seen
	return cluster.Envelope{From: f.own.Inc, Offer: &o}, to, true
}

// Received takes a peer's offer or its copy of an existing genesis.
func (f *Former) Received(e cluster.Envelope) {
	switch {
	case e.Offer != nil && e.Offer.Inc != f.own.Inc:
		f.Gone(e.Offer.Inc)
		o := *e.Offer
		o.Seen = nil // not a part of the genesis
		f.peers = append(f.peers, heardOffer{o, e.Offer.Seen, f.now})
	case e.Genesis != nil:
		f.existing(*e.Genesis)
	}
}

func (f *Former) existing(g cluster.GenesisCopy) {
	if len(g.State) == 0 {
		f.result = &Formation{ClusterID: g.ClusterID}
		return
	}
	s, err := cluster.DecodeState(g.State)
	if err != nil || s.Member(f.own.Inc) == nil {
		f.bad = "a peer sent a genesis that this node cannot use"
		return
	}
	f.result = &Formation{ClusterID: s.ClusterID, State: s}
}

// Gone forgets a peer's offer when its link ends: it must be there when the cluster is formed.
func (f *Former) Gone(inc cluster.Incarnation) {
	f.peers = slices.DeleteFunc(f.peers, func(p heardOffer) bool { return p.offer.Inc == inc })
}

func (f *Former) offers() []cluster.Offer {
	all := []cluster.Offer{f.own}
	for _, p := range f.peers {
		all = append(all, p.offer)
	}
	return all
}

// Result is the formation once it can be made. Every listed peer has to be present, and to hold the same offers.
func (f *Former) Result() *Formation {
	if f.result != nil {
		return f.result
	}
	s, err := cluster.Genesis(f.offers())
	if err != nil || f.disagree() != "" {
		return nil
	}
	f.result = &Formation{ClusterID: s.ClusterID, State: s}
	return f.result
}
