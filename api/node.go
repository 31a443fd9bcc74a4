// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"slices"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// Node is what the api needs of the node it shows.
type Node interface {
	// View is cheap and always current. What it points to is never changed afterwards.
	View() View
	// Request carries out an operator's order and returns when it has ended. An error means that the order could not
	// even be given; a refusal is a Response that is not OK. The caller sets the ID.
	Request(ctx context.Context, r cluster.Request) (cluster.Response, error)
}

// View is one node and what it knows of the others.
type View struct {
	Name       cluster.NodeName
	Self       cluster.Incarnation
	Host       string         // under which the others reach it; empty: unknown
	State      *cluster.State // nil before formation
	Forming    string         // what formation waits for
	Local      cluster.Status
	Peers      []Peer                      // the other nodes, members or not
	Unreached  map[cluster.NodeName]string // why there is no link, of nodes that none was ever seen of too
	Leader     cluster.Incarnation
	Term       uint64
	Applied    uint64
	Registered bool
	Decision   string // the last one, in a sentence
	Rule       cluster.RuleID
	Version    string
	ReadOnlyOK bool          // the local Postgres answers reads
	Now        time.Duration // the node's clock; it stands still when the node's loop does. Zero: the loop did not answer
}

// Peer is what is known of another node.
type Peer struct {
	Name      cluster.NodeName
	Inc       cluster.Incarnation
	Host      string // empty: unknown
	Linked    bool
	LinkAge   time.Duration   // since the link came up or went down
	Status    *cluster.Status // the last one heard; nil: none
	StatusAge time.Duration
}

// fresh reports whether the peer's status speaks of now.
func (p *Peer) fresh() bool {
	return p != nil && p.Status != nil && p.StatusAge <= cluster.StatusFresh
}

func (v *View) peer(inc cluster.Incarnation) *Peer {
	if i := slices.IndexFunc(v.Peers, func(p Peer) bool { return p.Inc == inc }); i >= 0 {
		return &v.Peers[i]
	}
	return nil
}

// statusOf is what a node says of itself now; nil: not known.
func (v *View) statusOf(inc cluster.Incarnation) (*cluster.Status, time.Duration) {
	if inc == v.Self {
		return &v.Local, 0
	}
	if p := v.peer(inc); p.fresh() {
		return p.Status, p.StatusAge
	}
	return nil, 0
}

// primary is the incarnation that the state names; zero: an election is open, or there has been none.
func (v *View) primary() cluster.Incarnation {
	if v.State == nil || v.State.Phase == cluster.PhaseElecting {
		return 0
	}
	return v.State.Primary()
}

// primaryStatus is what the primary says of itself now.
func (v *View) primaryStatus() (*cluster.Status, time.Duration) {
	p := v.primary()
	if p == 0 {
		return nil, 0
	}
	return v.statusOf(p)
}

// leaseLeft is what remains of the lease of a status that is age old.
func leaseLeft(s *cluster.Status, age time.Duration) time.Duration {
	return max(0, time.Duration(s.LeaseLeftMS)*time.Millisecond-age)
}

// serving reports whether this node lets clients write, under a lease that still runs.
func (v *View) serving() bool {
	return v.primary() == v.Self && v.Self != 0 && v.Local.Serving && v.Local.LeaseLeftMS > 0
}

// sender is the primary's WAL sender for a node, if the primary lists one now.
func (v *View) sender(inc cluster.Incarnation) *cluster.Sender {
	p, _ := v.primaryStatus()
	if p == nil {
		return nil
	}
	app := cluster.SyncName(v.State.NameOf(inc), inc, v.State.Epoch().Epoch)
	if i := slices.IndexFunc(p.Senders, func(s cluster.Sender) bool { return s.App == app }); i >= 0 {
		return &p.Senders[i]
	}
	return nil
}

// streaming reports whether a node is level with the primary's stream. It must say so itself, for a sender outlives
// a frozen receiver by many seconds; and the primary's own list decides while that is known.
func (v *View) streaming(inc cluster.Incarnation) bool {
	st, _ := v.statusOf(inc)
	if inc == v.primary() || st == nil || st.Role != cluster.RoleFollowing || !v.linked(inc) {
		return false
	}
	if p, _ := v.primaryStatus(); p != nil && p.Serving {
		s := v.sender(inc)
		return s != nil && s.State == "streaming"
	}
	return st.Streaming
}

// sync reports whether a node's acknowledgement counts now, as the primary's Postgres sees it.
func (v *View) sync(inc cluster.Incarnation) bool {
	if v.State == nil || !slices.Contains(v.State.D.Set, inc) {
		return false
	}
	s := v.sender(inc)
	return s != nil && s.State == "streaming" && (s.Sync == "quorum" || s.Sync == "sync")
}

// lag is how far a node's disk is behind the primary's.
func (v *View) lag(inc cluster.Incarnation) (bytes uint64, known bool) {
	p, _ := v.primaryStatus()
	if p == nil || inc == v.primary() {
		return 0, false
	}
	if s := v.sender(inc); s != nil && s.Flush != 0 {
		return behind(p.Position.LSN, s.Flush), true
	}
	s, _ := v.statusOf(inc)
	if s == nil || s.Position.LSN == 0 {
		return 0, false
	}
	return behind(p.Position.LSN, s.Position.LSN), true
}

func behind(ahead, at cluster.LSN) uint64 {
	if at >= ahead {
		return 0
	}
	return uint64(ahead - at)
}
