// SPDX-License-Identifier: Apache-2.0

package raft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	etcdraft "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

const (
	walDir    = "wal"
	snapDir   = "snap"
	keepSnaps = 2
	// etcd's 64 MB, two of them preallocated, are far too much for a state of kilobytes.
	segmentBytes = 4 << 20
)

// setSegmentSize guards etcd's package variable: written once, before the first log is opened.
var setSegmentSize = sync.OnceFunc(func() { wal.SegmentSizeBytes = segmentBytes })

// What a caller must tell apart. A corrupt store is kept as it is and refused (PROTOCOL 9.11); nothing here ever
// repairs more than the torn end of the last write, which was never acknowledged to anybody.
var (
	ErrCorrupt = errors.New("raft state is corrupt")
	ErrNoStore = errors.New("there is no raft state")
)

// WALOptions say where a store is and whose it is.
type WALOptions struct {
	Dir    string // holds wal/ and snap/; created by CreateGenesis or CreateEmpty
	ID     uint64 // the member; recorded in the log and checked at every open, so that swapped volumes are found
	Logger *slog.Logger
}

// WALStore is the LogStore on disk: etcd's write-ahead log, snapshot files beside it, and a copy of the tail of the
// log in memory, which is what raft reads.
type WALStore struct {
	*etcdraft.MemoryStorage
	opts WALOptions
	zap  *zap.Logger
	wal  *wal.WAL
}

// Exists reports whether dir holds a store. Creation is atomic, so a half-made one does not count.
func Exists(dir string) bool { return wal.Exist(filepath.Join(dir, walDir)) }

// CreateGenesis makes the store of a founding member: a snapshot at index 1, term 1, with all voters and the state.
// Every founder must give the same voters and data.
func CreateGenesis(o WALOptions, voters []uint64, data []byte) error {
	voters = slices.Sorted(slices.Values(voters))
	if !slices.Contains(voters, o.ID) {
		return fmt.Errorf("create genesis: member %016x is not a voter of it", o.ID)
	}
	return create(o, genesisSnapshot(voters, data))
}

// CreateEmpty makes the store of a member that joins an existing cluster and is sent a snapshot by the leader.
func CreateEmpty(o WALOptions) error { return create(o, nil) }

// create builds the whole store beside its place and renames it there.
func create(o WALOptions, snap *raftpb.Snapshot) (err error) {
	if Exists(o.Dir) {
		return fmt.Errorf("create raft state in %s: %w", o.Dir, os.ErrExist)
	}
	setSegmentSize()
	tmp := filepath.Clean(o.Dir) + tmpSuffix
	if err := os.RemoveAll(tmp); err != nil {
		return fmt.Errorf("clear unfinished raft state: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(tmp, snapDir), 0o700); err != nil {
		return fmt.Errorf("create raft state: %w", err)
	}
	w, err := wal.Create(newZap(o.Logger), filepath.Join(tmp, walDir), encodeID(o.ID))
	if err != nil {
		return fmt.Errorf("create write-ahead log: %w", err)
	}
	if snap != nil {
		err = errors.Join(writeSnap(filepath.Join(tmp, snapDir), snap), w.SaveSnapshot(walSnap(snap)),
			w.Save(genesisHardState(), nil))
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("create raft state: %w", err)
	}
	for _, d := range []string{filepath.Join(tmp, snapDir), filepath.Join(tmp, walDir), tmp} {
		if err := syncDir(d); err != nil {
			return fmt.Errorf("create raft state: %w", err)
		}
	}
	// An empty directory at the place (a mount point's child made by an operator) is replaced by rename(2).
	if err := os.Rename(tmp, o.Dir); err != nil {
		return fmt.Errorf("create raft state: %w", err)
	}
	return syncDir(filepath.Dir(filepath.Clean(o.Dir)))
}

// OpenWAL opens an existing store.
func OpenWAL(o WALOptions) (*WALStore, error) {
	if !Exists(o.Dir) {
		return nil, fmt.Errorf("open raft state in %s: %w", o.Dir, ErrNoStore)
	}
	setSegmentSize()
	s := &WALStore{MemoryStorage: etcdraft.NewMemoryStorage(), opts: o, zap: newZap(o.Logger)}
	valid, err := wal.ValidSnapshotEntries(s.zap, s.path(walDir))
	if err != nil {
		return nil, fmt.Errorf("open raft state in %s: %w: %w", o.Dir, ErrCorrupt, err)
	}
	snap, err := s.newestSnapshot(valid)
	if err != nil {
		return nil, fmt.Errorf("open raft state in %s: %w", o.Dir, err)
	}
	if err := s.open(snap); err != nil {
		return nil, fmt.Errorf("open raft state in %s: %w", o.Dir, err)
	}
	return s, nil
}

// newestSnapshot loads the newest snapshot that the log lists as committed. A file without a record in the log is
// from a crash between the two and is removed; its content is covered by the log.
func (s *WALStore) newestSnapshot(valid []*walpb.Snapshot) (*raftpb.Snapshot, error) {
	listed := make(map[snapID]bool, len(valid))
	wanted := false
	for _, v := range valid {
		listed[snapID{term: v.GetTerm(), index: v.GetIndex()}] = true
		wanted = wanted || v.GetIndex() > 0
	}
	ids, err := listSnaps(s.path(snapDir))
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if !listed[id] {
			if err := os.Remove(filepath.Join(s.path(snapDir), id.file())); err != nil {
				return nil, fmt.Errorf("remove unlisted snapshot: %w", err)
			}
			continue
		}
		snap, err := readSnap(s.path(snapDir), id)
		if err == nil {
			return snap, nil
		}
		s.opts.Logger.Error("snapshot is unreadable, trying the one before", "file", id.file(), "err", err)
	}
	if wanted {
		return nil, fmt.Errorf("%w: no readable snapshot of those in the log", ErrCorrupt)
	}
	return nil, nil
}

func (s *WALStore) open(snap *raftpb.Snapshot) error {
	meta, hs, entries, err := s.readLog(walSnap(snap), true)
	if err != nil {
		return err
	}
	if err := s.check(meta, hs, entries, snap); err != nil {
		return errors.Join(err, s.wal.Close())
	}
	if snap == nil {
		snap = &raftpb.Snapshot{}
	}
	if err := saveMemory(s.MemoryStorage, hs, entries, snap); err != nil {
		return errors.Join(err, s.wal.Close())
	}
	// The log repeats its hard state at the head of each new segment, but only one it was given in this life.
	if err := s.wal.Save(hs, nil); err != nil {
		return errors.Join(fmt.Errorf("save hard state: %w", err), s.wal.Close())
	}
	return s.release()
}

// readLog opens the log behind the snapshot and reads all of it. A torn end is cut off once; whatever else is wrong
// is refused.
func (s *WALStore) readLog(from *walpb.Snapshot, repair bool) ([]byte, *raftpb.HardState, []*raftpb.Entry, error) {
	w, err := wal.Open(s.zap, s.path(walDir), from)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("open write-ahead log: %w", err)
	}
	meta, hs, entries, err := w.ReadAll()
	if err == nil {
		s.wal = w
		return meta, hs, entries, nil
	}
	closeErr := w.Close()
	if !repair || !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, nil, nil, fmt.Errorf("%w: read write-ahead log: %w", ErrCorrupt, err)
	}
	if closeErr != nil {
		return nil, nil, nil, fmt.Errorf("close write-ahead log: %w", closeErr)
	}
	s.opts.Logger.Warn("cutting the torn end off the write-ahead log", "err", err)
	if !wal.Repair(s.zap, s.path(walDir)) {
		return nil, nil, nil, fmt.Errorf("%w: write-ahead log cannot be repaired: %w", ErrCorrupt, err)
	}
	return s.readLog(from, false)
}

// check refuses what would make raft panic later, with words instead.
func (s *WALStore) check(meta []byte, hs *raftpb.HardState, entries []*raftpb.Entry, snap *raftpb.Snapshot) error {
	if len(meta) != 8 || binary.BigEndian.Uint64(meta) != s.opts.ID {
		return fmt.Errorf("%w: it belongs to member %x, not to %016x", ErrCorrupt, meta, s.opts.ID)
	}
	last := snap.GetMetadata().GetIndex()
	for _, e := range entries {
		if e.GetIndex() != last+1 {
			return fmt.Errorf("%w: entry %d follows entry %d", ErrCorrupt, e.GetIndex(), last)
		}
		last = e.GetIndex()
	}
	if hs.GetCommit() > last {
		return fmt.Errorf("%w: entries to %d were committed, the log ends at %d", ErrCorrupt, hs.GetCommit(), last)
	}
	return nil
}

// Save implements LogStore. The order for a received snapshot is: file, record in the log, hard state, fsync, and
// only then what is older may go. A crash anywhere leaves the state before or the state after.
func (s *WALStore) Save(hs *raftpb.HardState, entries []*raftpb.Entry, snap *raftpb.Snapshot, mustSync bool) error {
	received := !etcdraft.IsEmptySnap(snap)
	if received {
		if err := s.recordSnapshot(snap); err != nil {
			return err
		}
		// Its record counts only once the commit index is on disk too. The log writes entries before that, and entries
		// that follow a snapshot that does not count would make the log unreadable: they come after.
		if err := s.write(hs, nil, true); err != nil {
			return err
		}
	}
	if err := s.write(hs, entries, mustSync && len(entries) == 0); err != nil {
		return err
	}
	if err := saveMemory(s.MemoryStorage, hs, entries, snap); err != nil {
		return err
	}
	if received {
		return s.release()
	}
	return nil
}

// write appends to the log, which syncs by itself when term, vote or entries have changed.
func (s *WALStore) write(hs *raftpb.HardState, entries []*raftpb.Entry, sync bool) error {
	if err := s.wal.Save(hs, entries); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	if !sync {
		return nil
	}
	if err := s.wal.Sync(); err != nil {
		return fmt.Errorf("sync log: %w", err)
	}
	return nil
}

// CreateSnapshot implements LogStore.
func (s *WALStore) CreateSnapshot(index uint64, conf *raftpb.ConfState, data []byte, keep uint64) error {
	snap, err := s.MemoryStorage.CreateSnapshot(index, conf, data)
	if err != nil {
		return fmt.Errorf("create snapshot at %d: %w", index, err)
	}
	if err := s.recordSnapshot(snap); err != nil {
		return err
	}
	if err := s.release(); err != nil {
		return err
	}
	return compactMemory(s.MemoryStorage, index, keep)
}

func (s *WALStore) recordSnapshot(snap *raftpb.Snapshot) error {
	if err := writeSnap(s.path(snapDir), snap); err != nil {
		return err
	}
	if err := s.wal.SaveSnapshot(walSnap(snap)); err != nil {
		return fmt.Errorf("record snapshot in log: %w", err)
	}
	return nil
}

// release removes all snapshots but the newest two, and the segments of the log that only older ones need.
func (s *WALStore) release() error {
	ids, err := listSnaps(s.path(snapDir))
	if err != nil || len(ids) == 0 {
		return err
	}
	for len(ids) > keepSnaps {
		if err := os.Remove(filepath.Join(s.path(snapDir), ids[len(ids)-1].file())); err != nil {
			return fmt.Errorf("remove old snapshot: %w", err)
		}
		ids = ids[:len(ids)-1]
	}
	oldest := ids[len(ids)-1].index
	if err := s.wal.ReleaseLockTo(oldest); err != nil {
		return fmt.Errorf("release log segments: %w", err)
	}
	return s.removeSegments(oldest)
}

// removeSegments deletes the segments that end before index. A segment's name says its first entry.
func (s *WALStore) removeSegments(index uint64) error {
	entries, err := os.ReadDir(s.path(walDir)) // sorted by name, which is sorted by sequence number
	if err != nil {
		return fmt.Errorf("list log segments: %w", err)
	}
	previous := ""
	for _, e := range entries {
		var seq, first uint64
		if _, err := fmt.Sscanf(e.Name(), "%016x-%016x.wal", &seq, &first); err != nil ||
			!strings.HasSuffix(e.Name(), ".wal") {
			continue
		}
		if previous != "" && first < index {
			if err := os.Remove(filepath.Join(s.path(walDir), previous)); err != nil {
				return fmt.Errorf("remove log segment: %w", err)
			}
			if err := os.Remove(filepath.Join(s.path(walDir), previous+".broken")); err != nil &&
				!errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("remove saved torn segment: %w", err)
			}
		}
		previous = e.Name()
	}
	return nil
}

// Close implements LogStore.
func (s *WALStore) Close() error {
	if err := s.wal.Close(); err != nil {
		return fmt.Errorf("close write-ahead log: %w", err)
	}
	return nil
}

func (s *WALStore) path(sub string) string { return filepath.Join(s.opts.Dir, sub) }

func walSnap(s *raftpb.Snapshot) *walpb.Snapshot {
	if s == nil {
		return &walpb.Snapshot{}
	}
	m := s.GetMetadata()
	return &walpb.Snapshot{
		Index: proto.Uint64(m.GetIndex()), Term: proto.Uint64(m.GetTerm()), ConfState: m.GetConfState(),
	}
}

func encodeID(id uint64) []byte { return binary.BigEndian.AppendUint64(nil, id) }
