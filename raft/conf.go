// SPDX-License-Identifier: Apache-2.0

package raft

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// ConfType is what a change of the configuration does.
type ConfType uint8

// The changes. Promoting a learner is AddVoter.
const (
	AddLearner ConfType = iota + 1
	AddVoter
	Remove
)

func (t ConfType) String() string {
	switch t {
	case AddLearner:
		return "add learner"
	case AddVoter:
		return "add voter"
	case Remove:
		return "remove"
	}
	return fmt.Sprintf("conf type %d", uint8(t))
}

// ConfChange is one change of one member, with the owner's payload, which reaches FSM.ApplyConf unread.
type ConfChange struct {
	Type    ConfType
	ID      uint64
	Context []byte
}

var errBadConfChange = errors.New("configuration change is malformed")

func (c ConfChange) encode() (*raftpb.ConfChange, error) {
	if c.ID == 0 {
		return nil, fmt.Errorf("%s: member id is zero: %w", c.Type, errBadConfChange)
	}
	var t raftpb.ConfChangeType
	switch c.Type {
	case AddLearner:
		t = raftpb.ConfChangeAddLearnerNode
	case AddVoter:
		t = raftpb.ConfChangeAddNode
	case Remove:
		t = raftpb.ConfChangeRemoveNode
	default:
		return nil, fmt.Errorf("%s: %w", c.Type, errBadConfChange)
	}
	return &raftpb.ConfChange{Type: t.Enum(), NodeId: proto.Uint64(c.ID), Context: c.Context}, nil
}

// decodeConf reads a committed change. Only the simple one-member form is ever proposed, so anything else is
// refused by every member alike.
func decodeConf(e *raftpb.Entry) (ConfChange, error) {
	if e.GetType() != raftpb.EntryConfChange {
		return ConfChange{}, fmt.Errorf("entry type %s: %w", e.GetType(), errBadConfChange)
	}
	var cc raftpb.ConfChange
	if err := proto.Unmarshal(e.GetData(), &cc); err != nil {
		return ConfChange{}, fmt.Errorf("%w: %w", errBadConfChange, err)
	}
	c := ConfChange{ID: cc.GetNodeId(), Context: cc.GetContext()}
	switch cc.GetType() {
	case raftpb.ConfChangeAddLearnerNode:
		c.Type = AddLearner
	case raftpb.ConfChangeAddNode:
		c.Type = AddVoter
	case raftpb.ConfChangeRemoveNode:
		c.Type = Remove
	default:
		return ConfChange{}, fmt.Errorf("type %s: %w", cc.GetType(), errBadConfChange)
	}
	if c.ID == 0 {
		return ConfChange{}, errBadConfChange
	}
	return c, nil
}

// possible reports whether raft can carry out c on cs. The library panics where it cannot (a configuration without
// voters), and a panic on applying would come back at every start.
func (c ConfChange) possible(cs *raftpb.ConfState) bool {
	if c.Type == AddVoter {
		return true
	}
	return slices.ContainsFunc(cs.GetVoters(), func(id uint64) bool { return id != c.ID })
}
