// SPDX-License-Identifier: Apache-2.0

package raft

import (
	"fmt"
	"slices"

	etcdraft "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"
)

// Role is what a member is in raft.
type Role uint8

// The roles. A learner is a follower that does not vote.
const (
	Follower Role = iota
	Candidate
	PreCandidate
	Leader
	Learner
)

func (r Role) String() string {
	switch r {
	case Follower:
		return "follower"
	case Candidate:
		return "candidate"
	case PreCandidate:
		return "pre-candidate"
	case Leader:
		return "leader"
	case Learner:
		return "learner"
	}
	return fmt.Sprintf("role %d", uint8(r))
}

// RoleChanged tells that the term, the leader (0: none known) or this member's own role is another one now.
type RoleChanged struct {
	Term   uint64
	Leader uint64
	Self   Role
}

// Status is a copy of what a member knows of itself and, on the leader, of the others.
type Status struct {
	ID         uint64
	Term       uint64
	Leader     uint64
	Role       Role
	Commit     uint64
	Applied    uint64
	Last       uint64
	Transferee uint64
	Voters     []uint64 // as of Applied, ascending
	Learners   []uint64
	Peers      []PeerStatus // on the leader only, ascending by id, without itself
}

// PeerStatus is the leader's view of another member.
type PeerStatus struct {
	ID           uint64
	Match        uint64
	Learner      bool
	RecentActive bool   // heard since raft last checked its quorum; flickers by nature
	Snapshotting bool   // is being fed a snapshot
	HeardTicks   uint64 // ticks since its last message; NeverHeard before the first one
}

// NeverHeard is PeerStatus.HeardTicks of a member from which this Core has had no message.
const NeverHeard = ^uint64(0)

func (c *Core) currentRole() RoleChanged {
	b := c.rn.BasicStatus()
	r := RoleChanged{Term: b.GetTerm(), Leader: b.Lead}
	switch b.RaftState {
	case etcdraft.StateLeader:
		r.Self = Leader
	case etcdraft.StateCandidate:
		r.Self = Candidate
	case etcdraft.StatePreCandidate:
		r.Self = PreCandidate
	default:
		r.Self = Follower
		if !slices.Contains(c.conf.GetVoters(), c.opts.ID) {
			r.Self = Learner
		}
	}
	return r
}

// Status returns a copy of the present state. It allocates.
func (c *Core) Status() Status {
	b := c.rn.BasicStatus()
	r := c.currentRole()
	last, err := c.opts.Store.LastIndex()
	if err != nil {
		last = 0
	}
	s := Status{
		ID: c.opts.ID, Term: r.Term, Leader: r.Leader, Role: r.Self, Commit: b.GetCommit(), Applied: c.applied,
		Last: last, Transferee: b.LeadTransferee,
		Voters: slices.Clone(c.conf.GetVoters()), Learners: slices.Clone(c.conf.GetLearners()),
	}
	if r.Self != Leader {
		return s
	}
	c.rn.WithProgress(func(id uint64, typ etcdraft.ProgressType, pr tracker.Progress) {
		if id == c.opts.ID {
			return
		}
		p := PeerStatus{
			ID: id, Match: pr.Match, Learner: typ == etcdraft.ProgressTypeLearner,
			RecentActive: pr.RecentActive, Snapshotting: pr.State == tracker.StateSnapshot, HeardTicks: NeverHeard,
		}
		if at, ok := c.heard[id]; ok {
			p.HeardTicks = c.ticks - at
		}
		s.Peers = append(s.Peers, p)
	})
	return s
}
