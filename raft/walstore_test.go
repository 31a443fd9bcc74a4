// SPDX-License-Identifier: Apache-2.0

package raft

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	etcdraft "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

func walOptions(dir string) WALOptions { return WALOptions{Dir: dir, ID: 7, Logger: quiet()} }

func openTest(t *testing.T, dir string) *WALStore {
	t.Helper()
	s, err := OpenWAL(walOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func genesisDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "raft")
	if err := CreateGenesis(walOptions(dir), []uint64{9, 7, 8}, []byte("genesis")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func entry(index, term uint64, data string) *raftpb.Entry {
	return &raftpb.Entry{
		Index: proto.Uint64(index), Term: proto.Uint64(term), Data: []byte(data),
		Type: raftpb.EntryNormal.Enum(),
	}
}

func hard(term, vote, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: proto.Uint64(term), Vote: proto.Uint64(vote), Commit: proto.Uint64(commit)}
}

// fill appends entries lo..hi at term 2, all committed but the last.
func fill(t *testing.T, s *WALStore, lo, hi uint64) {
	t.Helper()
	for i := lo; i <= hi; i++ {
		if err := s.Save(hard(2, 8, i-1), []*raftpb.Entry{entry(i, 2, fmt.Sprintf("entry %d", i))}, nil, true); err != nil {
			t.Fatal(err)
		}
	}
}

// copyStore is what a kill leaves on disk: the files as they are, while the store is still open.
func copyStore(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "raft")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func segments(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, walDir, "*.wal"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func TestGenesisIsTheSameState(t *testing.T) {
	dir := genesisDir(t)
	s := openTest(t, dir)
	hs, cs, err := s.InitialState()
	if err != nil {
		t.Fatal(err)
	}
	if hs.GetTerm() != 1 || hs.GetCommit() != 1 || !slices.Equal(cs.GetVoters(), []uint64{7, 8, 9}) {
		t.Fatalf("hard state %v, configuration %v", hs, cs)
	}
	snap, _ := s.Snapshot()
	if string(snap.GetData()) != "genesis" || snap.GetMetadata().GetIndex() != 1 {
		t.Fatalf("snapshot %v", snap)
	}
	if err := CreateGenesis(walOptions(dir), []uint64{7}, nil); !errors.Is(err, os.ErrExist) {
		t.Fatalf("a second genesis: %v", err)
	}
	if err := CreateGenesis(walOptions(filepath.Join(t.TempDir(), "x")), []uint64{8}, nil); err == nil {
		t.Fatal("a genesis without this member was made")
	}
}

func TestUnfinishedGenesisDoesNotCount(t *testing.T) {
	dir := genesisDir(t)
	torn := filepath.Join(t.TempDir(), "raft")
	if err := os.Rename(dir, torn+tmpSuffix); err != nil {
		t.Fatal(err)
	}
	if Exists(torn) {
		t.Fatal("a half-made store exists")
	}
	if _, err := OpenWAL(walOptions(torn)); !errors.Is(err, ErrNoStore) {
		t.Fatalf("open: %v", err)
	}
	if err := CreateEmpty(walOptions(torn)); err != nil {
		t.Fatal(err)
	}
	s := openTest(t, torn)
	if _, cs, _ := s.InitialState(); len(cs.GetVoters()) != 0 {
		t.Fatalf("empty store has voters: %v", cs)
	}
}

func TestStoreRefusesAnotherMember(t *testing.T) {
	dir := genesisDir(t)
	o := walOptions(dir)
	o.ID = 8
	if _, err := OpenWAL(o); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("swapped volume: %v", err)
	}
	openTest(t, dir)
}

func TestStoreSurvivesRestart(t *testing.T) {
	dir := genesisDir(t)
	s := openTest(t, dir)
	fill(t, s, 2, 40)
	if err := s.CreateSnapshot(30, nil, []byte("at 30"), 5); err != nil {
		t.Fatal(err)
	}
	if first, _ := s.FirstIndex(); first != 26 {
		t.Fatalf("first index in memory %d", first)
	}
	killed := openTest(t, copyStore(t, dir))
	hs, cs, _ := killed.InitialState()
	last, _ := killed.LastIndex()
	if hs.GetTerm() != 2 || hs.GetVote() != 8 || last != 40 || len(cs.GetVoters()) != 3 {
		t.Fatalf("after a kill: %v %v last %d", hs, cs, last)
	}
	snap, _ := killed.Snapshot()
	if string(snap.GetData()) != "at 30" {
		t.Fatalf("snapshot %q", snap.GetData())
	}
}

// Every offset inside the last record: the store opens, keeps all that was synced before, and can be written again.
func TestTornTail(t *testing.T) {
	dir := genesisDir(t)
	s := openTest(t, dir)
	fill(t, s, 2, 10)
	seg := segments(t, dir)[0]
	before := usedBytes(t, seg)
	fill(t, s, 11, 11)
	after := usedBytes(t, seg)
	if after <= before {
		t.Fatalf("the last write is not visible: %d to %d", before, after)
	}
	for _, zeros := range []bool{true, false} {
		for cut := before; cut < after; cut++ {
			torn := copyStore(t, dir)
			tear(t, filepath.Join(torn, walDir, filepath.Base(seg)), cut, zeros)
			r, err := OpenWAL(walOptions(torn))
			if err != nil {
				// A cut inside a sector that leaves no zero sector looks like damage, and is refused.
				if zeros && errors.Is(err, ErrCorrupt) {
					continue
				}
				t.Fatalf("zeros %v cut at %d of %d..%d: %v", zeros, cut, before, after, err)
			}
			last, _ := r.LastIndex()
			hs, _, _ := r.InitialState()
			if last < 10 || hs.GetTerm() != 2 || hs.GetVote() != 8 {
				t.Fatalf("cut at %d: last %d, %v", cut, last, hs)
			}
			fill(t, r, last+1, last+3)
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			again, err := OpenWAL(walOptions(torn))
			if err != nil {
				t.Fatalf("cut at %d, after writing again: %v", cut, err)
			}
			if l, _ := again.LastIndex(); l != last+3 {
				t.Fatalf("cut at %d: last %d, want %d", cut, l, last+3)
			}
			_ = again.Close()
		}
	}
}

// usedBytes is the end of what is not zero in a preallocated segment.
func usedBytes(t *testing.T, path string) int64 {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] != 0 {
			return int64(i + 1)
		}
	}
	return 0
}

// tear loses what is behind cut: as zeros in a preallocated file, or as a short file.
func tear(t *testing.T, path string, cut int64, zeros bool) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, cut); err != nil {
		t.Fatal(err)
	}
	if zeros {
		if err := os.Truncate(path, st.Size()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFlippedBitIsRefused(t *testing.T) {
	dir := genesisDir(t)
	s := openTest(t, dir)
	fill(t, s, 2, 20)
	torn := copyStore(t, dir)
	seg := segments(t, torn)[0]
	b, err := os.ReadFile(seg)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(b), "entry 9")
	b[at] ^= 1
	if err := os.WriteFile(seg, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenWAL(walOptions(torn)); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("a flipped bit: %v", err)
	}
	if kept, _ := os.ReadFile(seg); string(kept) != string(b) {
		t.Fatal("the corrupt log was changed")
	}
}

func snapshotAt(index uint64, data string) *raftpb.Snapshot {
	s := genesisSnapshot([]uint64{7, 8, 9}, []byte(data))
	s.Metadata.Index, s.Metadata.Term = proto.Uint64(index), proto.Uint64(2)
	return s
}

// A snapshot received from the leader is: file, record, hard state, sync. A crash after each step leaves the state
// before, until the hard state is there.
func TestCrashBetweenSnapshotSteps(t *testing.T) {
	dir := genesisDir(t)
	s := openTest(t, dir)
	fill(t, s, 2, 5)
	snap := snapshotAt(100, "received")

	if err := writeSnap(s.path(snapDir), snap); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.path(snapDir), "x"+tmpSuffix), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	expectState(t, copyStore(t, dir), "genesis", 5)

	if err := s.wal.SaveSnapshot(walSnap(snap)); err != nil {
		t.Fatal(err)
	}
	expectState(t, copyStore(t, dir), "genesis", 5)

	if err := s.Save(hard(2, 8, 100), nil, snap, false); err != nil {
		t.Fatal(err)
	}
	expectState(t, copyStore(t, dir), "received", 100)
	fill(t, s, 101, 103)
	expectState(t, copyStore(t, dir), "received", 103)

	// Our own snapshot: the file alone, then the record.
	if err := writeSnap(s.path(snapDir), snapshotAt(102, "own")); err != nil {
		t.Fatal(err)
	}
	expectState(t, copyStore(t, dir), "received", 103)
	if err := s.wal.SaveSnapshot(walSnap(snapshotAt(102, "own"))); err != nil {
		t.Fatal(err)
	}
	expectState(t, copyStore(t, dir), "own", 103)
}

func expectState(t *testing.T, dir, data string, last uint64) {
	t.Helper()
	s, err := OpenWAL(walOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	snap, _ := s.Snapshot()
	if l, _ := s.LastIndex(); string(snap.GetData()) != data || l != last {
		t.Fatalf("snapshot %q last %d, want %q %d", snap.GetData(), l, data, last)
	}
	left, _ := filepath.Glob(filepath.Join(dir, snapDir, "*"+tmpSuffix))
	if len(left) != 0 {
		t.Fatalf("left over: %v", left)
	}
}

func TestUnreadableSnapshot(t *testing.T) {
	dir := genesisDir(t)
	s := openTest(t, dir)
	fill(t, s, 2, 40)
	for _, at := range []uint64{20, 30} {
		if err := s.CreateSnapshot(at, nil, fmt.Appendf(nil, "at %d", at), 5); err != nil {
			t.Fatal(err)
		}
	}
	snaps, _ := filepath.Glob(filepath.Join(dir, snapDir, "*"))
	if len(snaps) != keepSnaps {
		t.Fatalf("kept %v", snaps)
	}
	slices.Sort(snaps)
	damaged := copyStore(t, dir)
	spoil(t, filepath.Join(damaged, snapDir, filepath.Base(snaps[1])))
	expectState(t, damaged, "at 20", 40)
	spoil(t, filepath.Join(damaged, snapDir, filepath.Base(snaps[0])))
	if _, err := OpenWAL(walOptions(damaged)); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("no snapshot is left: %v", err)
	}
}

func spoil(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOldSegmentsGo(t *testing.T) {
	dir := genesisDir(t)
	s := openTest(t, dir)
	big := strings.Repeat("x", 256<<10)
	index := uint64(2)
	for range 60 {
		if err := s.Save(hard(2, 8, index-1), []*raftpb.Entry{entry(index, 2, big)}, nil, true); err != nil {
			t.Fatal(err)
		}
		if index%10 == 0 {
			if err := s.CreateSnapshot(index-1, nil, []byte("state"), 5); err != nil {
				t.Fatal(err)
			}
		}
		index++
	}
	if n := len(segments(t, dir)); n > 4 {
		t.Fatalf("%d segments are left", n)
	}
	expectState(t, copyStore(t, dir), "state", index-1)
}

// The whole of a member on disk: a Core that is killed and opened again goes on where it was.
func TestCoreOnDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "raft")
	if err := CreateGenesis(walOptions(dir), []uint64{7}, nil); err != nil {
		t.Fatal(err)
	}
	want := 0
	for life := range 4 {
		s := openTest(t, dir)
		f := &listFSM{}
		c, err := New(Options{ID: 7, Store: s, FSM: f, Logger: quiet(), SnapshotEvery: 40, KeepEntries: 10})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Campaign(); err != nil {
			t.Fatal(err)
		}
		run(t, c)
		if len(f.items) != want {
			t.Fatalf("life %d: %d items, want %d", life, len(f.items), want)
		}
		for range 55 {
			if err := c.Propose([]byte("x")); err != nil {
				t.Fatal(err)
			}
			run(t, c)
			want++
		}
		dir = copyStore(t, dir)
	}
}

func run(t *testing.T, c *Core) {
	t.Helper()
	for {
		_, more, err := c.Ready()
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return
		}
	}
}

var _ etcdraft.Storage = (*WALStore)(nil)
