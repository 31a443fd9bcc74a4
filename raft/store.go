// SPDX-License-Identifier: Apache-2.0

package raft

import (
	"fmt"
	"math"

	etcdraft "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// LogStore keeps raft's log, hard state and snapshots. The etcdraft.Storage half is what the library reads; the rest
// is what Core writes. An error of a writing method is final: Core stops, and the process must exit (PROTOCOL 4.9).
type LogStore interface {
	etcdraft.Storage

	// Save makes one Ready durable: a snapshot received from the leader (nil if none) first, then hard state and
	// entries. When mustSync is set it returns only after the data is on disk; a received snapshot is always
	// synced.
	Save(hs *raftpb.HardState, entries []*raftpb.Entry, snap *raftpb.Snapshot, mustSync bool) error

	// CreateSnapshot keeps data as the state machine's state at an applied index, durably, and then forgets the
	// log up to keep entries before it.
	CreateSnapshot(index uint64, conf *raftpb.ConfState, data []byte, keep uint64) error

	Close() error
}

// MemStore is a LogStore without a disk, for tests and the simulator. What was saved is there as long as the value
// is: to simulate a crash, make a new Core on the same MemStore.
type MemStore struct {
	*etcdraft.MemoryStorage
}

// NewMemStore returns an empty store, or with voters one that starts from a genesis snapshot.
func NewMemStore(voters []uint64, data []byte) (*MemStore, error) {
	s := &MemStore{MemoryStorage: etcdraft.NewMemoryStorage()}
	if len(voters) == 0 {
		return s, nil
	}
	if err := s.ApplySnapshot(genesisSnapshot(voters, data)); err != nil {
		return nil, fmt.Errorf("create genesis: %w", err)
	}
	return s, s.SetHardState(genesisHardState())
}

// Save implements LogStore.
func (s *MemStore) Save(hs *raftpb.HardState, entries []*raftpb.Entry, snap *raftpb.Snapshot, _ bool) error {
	return saveMemory(s.MemoryStorage, hs, entries, snap)
}

// CreateSnapshot implements LogStore.
func (s *MemStore) CreateSnapshot(index uint64, conf *raftpb.ConfState, data []byte, keep uint64) error {
	if _, err := s.MemoryStorage.CreateSnapshot(index, conf, data); err != nil {
		return fmt.Errorf("create snapshot at %d: %w", index, err)
	}
	return compactMemory(s.MemoryStorage, index, keep)
}

// Close implements LogStore.
func (s *MemStore) Close() error { return nil }

// saveMemory brings the in-memory copy, which the library reads, up to what was made durable.
func saveMemory(m *etcdraft.MemoryStorage, hs *raftpb.HardState, entries []*raftpb.Entry,
	snap *raftpb.Snapshot,
) error {
	if !etcdraft.IsEmptySnap(snap) {
		if err := m.ApplySnapshot(snap); err != nil {
			return fmt.Errorf("take over snapshot at %d: %w", snap.GetMetadata().GetIndex(), err)
		}
	}
	if !etcdraft.IsEmptyHardState(hs) {
		if err := m.SetHardState(hs); err != nil {
			return fmt.Errorf("set hard state: %w", err)
		}
	}
	if err := m.Append(entries); err != nil {
		return fmt.Errorf("append entries: %w", err)
	}
	return nil
}

func compactMemory(m *etcdraft.MemoryStorage, index, keep uint64) error {
	first, err := m.FirstIndex()
	if err != nil {
		return fmt.Errorf("read first index: %w", err)
	}
	if index <= keep || index-keep < first {
		return nil
	}
	if err := m.Compact(index - keep); err != nil {
		return fmt.Errorf("compact to %d: %w", index-keep, err)
	}
	return nil
}

// Logged calls each with the commands in a store's log, committed or not, in their order.
func Logged(s LogStore, each func(index uint64, command []byte)) error {
	first, err := s.FirstIndex()
	if err != nil {
		return fmt.Errorf("read first index: %w", err)
	}
	last, err := s.LastIndex()
	if err != nil {
		return fmt.Errorf("read last index: %w", err)
	}
	if last < first {
		return nil
	}
	entries, err := s.Entries(first, last+1, math.MaxUint64)
	if err != nil {
		return fmt.Errorf("read the log from %d to %d: %w", first, last, err)
	}
	for _, e := range entries {
		if e.GetType() == raftpb.EntryNormal && len(e.GetData()) > 0 {
			each(e.GetIndex(), e.GetData())
		}
	}
	return nil
}

// Genesis is at index 1 and term 1 on every founding node, as if one entry had been agreed on already. Index 0
// would do for raft, but the library treats a snapshot at index 0 as none.
const (
	genesisIndex = 1
	genesisTerm  = 1
)

func genesisSnapshot(voters []uint64, data []byte) *raftpb.Snapshot {
	return &raftpb.Snapshot{
		Data: data,
		Metadata: &raftpb.SnapshotMetadata{
			Index:     proto.Uint64(genesisIndex),
			Term:      proto.Uint64(genesisTerm),
			ConfState: raftpb.EnsureConfState(&raftpb.ConfState{Voters: voters}),
		},
	}
}

func genesisHardState() *raftpb.HardState {
	return &raftpb.HardState{
		Term:   proto.Uint64(genesisTerm),
		Vote:   proto.Uint64(0),
		Commit: proto.Uint64(genesisIndex),
	}
}
