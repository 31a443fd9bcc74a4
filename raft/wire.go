// SPDX-License-Identifier: Apache-2.0

package raft

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

const (
	wireVersion  = 1
	maxGroupName = 255
)

// Reasons for which a frame of a peer is not a message for us.
var (
	ErrOtherGroup = errors.New("raft message is for another cluster")
	errBadFrame   = errors.New("raft message is malformed")
)

// Encode frames a message for a peer. Every frame carries the group, which is the cluster id (PROTOCOL 9.2): a link
// outlives a change of cluster id, a message must not.
func Encode(group string, m *raftpb.Message) ([]byte, error) {
	if len(group) > maxGroupName {
		return nil, fmt.Errorf("encode raft message: cluster id of %d bytes", len(group))
	}
	head := 2 + len(group)
	b := make([]byte, 0, head+proto.Size(m))
	b = append(b, wireVersion, byte(len(group)))
	b = append(b, group...)
	b, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b, m)
	if err != nil {
		return nil, fmt.Errorf("encode raft message: %w", err)
	}
	return b, nil
}

// Decode reads what Encode wrote; a message of another group is an error.
func Decode(group string, b []byte) (*raftpb.Message, error) {
	if len(b) < 2 || b[0] != wireVersion || len(b) < 2+int(b[1]) {
		return nil, errBadFrame
	}
	head := 2 + int(b[1])
	if got := string(b[2:head]); got != group {
		return nil, fmt.Errorf("%w: %q", ErrOtherGroup, got)
	}
	m := &raftpb.Message{}
	if err := proto.Unmarshal(b[head:], m); err != nil {
		return nil, fmt.Errorf("%w: %w", errBadFrame, err)
	}
	return m, nil
}
