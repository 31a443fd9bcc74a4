// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"

	etcdraft "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/pgquorum/pgquorum/raft"
)

// Op is one write: a Save, or with Compact a CreateSnapshot.
type Op struct {
	Hard     *raftpb.HardState
	Entries  []*raftpb.Entry
	Snapshot *raftpb.Snapshot // received from the leader
	Sync     bool
	Compact  uint64 // CreateSnapshot at this index, with Keep entries before it
	Keep     uint64
	Data     []byte
}

// Do carries the write out.
func (o Op) Do(s raft.LogStore) error {
	if o.Compact > 0 {
		return s.CreateSnapshot(o.Compact, nil, o.Data, o.Keep)
	}
	return s.Save(o.Hard, o.Entries, o.Snapshot, o.Sync)
}

func (o Op) String() string {
	if o.Compact > 0 {
		return fmt.Sprintf("snapshot at %d", o.Compact)
	}
	text := fmt.Sprintf("%s, sync %t", o.Hard, o.Sync)
	if n := len(o.Entries); n > 0 {
		text += fmt.Sprintf(", entries %d to %d", o.Entries[0].GetIndex(), o.Entries[n-1].GetIndex())
	}
	if o.Snapshot != nil {
		text += fmt.Sprintf(", received snapshot at %d", o.Snapshot.GetMetadata().GetIndex())
	}
	return text
}

// State is what a store holds.
type State struct {
	Term, Vote, Commit uint64
	SnapIndex          uint64
	SnapData           string
	Entries            []Entry // behind the snapshot
}

// Entry is one entry of the log.
type Entry struct {
	Term uint64
	Data string
}

func (s State) last() uint64 { return s.SnapIndex + uint64(len(s.Entries)) }

func (s State) String() string {
	return fmt.Sprintf("term %d vote %d commit %d, snapshot %d %q, entries to %d", s.Term, s.Vote, s.Commit, s.SnapIndex, s.SnapData, s.last())
}

func (s State) equal(o State) bool {
	return s.Term == o.Term && s.Vote == o.Vote && s.Commit == o.Commit && s.SnapIndex == o.SnapIndex && s.SnapData == o.SnapData && slices.Equal(s.Entries, o.Entries)
}

// after is the state when the write has ended; with part >= 0 that many of its entries are there and the rest is not.
func (s State) after(o Op, part int) State {
	n := s
	if o.Compact > 0 {
		n.Entries = slices.Clone(s.Entries[o.Compact-s.SnapIndex:])
		n.SnapIndex, n.SnapData = o.Compact, string(o.Data)
		return n
	}
	entries := o.Entries
	if part >= 0 {
		entries = entries[:part]
	} else {
		if o.Snapshot != nil {
			n.SnapIndex, n.SnapData, n.Entries = o.Snapshot.GetMetadata().GetIndex(), string(o.Snapshot.GetData()), nil
		}
		if o.Hard != nil {
			n.Term, n.Vote, n.Commit = o.Hard.GetTerm(), o.Hard.GetVote(), o.Hard.GetCommit()
		}
	}
	for _, e := range entries {
		n.Entries = append(slices.Clone(n.Entries[:e.GetIndex()-n.SnapIndex-1]), Entry{e.GetTerm(), string(e.GetData())})
	}
	return n
}

// Read is what a store holds now.
func Read(s raft.LogStore) (State, error) {
	hs, _, err := s.InitialState()
	if err != nil {
		return State{}, err
	}
	snap, err := s.Snapshot()
	if err != nil {
		return State{}, err
	}
	got := State{Term: hs.GetTerm(), Vote: hs.GetVote(), Commit: hs.GetCommit(), SnapIndex: snap.GetMetadata().GetIndex(), SnapData: string(snap.GetData())}
	last, err := s.LastIndex()
	if err != nil || last == got.SnapIndex {
		return got, err
	}
	entries, err := s.Entries(got.SnapIndex+1, last+1, 1<<62)
	if err != nil {
		return State{}, fmt.Errorf("entries %d to %d: %w", got.SnapIndex+1, last, err)
	}
	for _, e := range entries {
		got.Entries = append(got.Entries, Entry{e.GetTerm(), string(e.GetData())})
	}
	return got, nil
}

// Script is a first state and what is written after it.
type Script struct {
	First State
	Ops   []Op
}

// Check compares a store, opened again after a crash, with what it may hold when the first done writes had returned and
// the next one was under way.
func (s Script) Check(store raft.LogStore, done int) error {
	got, err := Read(store)
	if err != nil {
		return fmt.Errorf("read the store: %w", err)
	}
	state, synced := s.First, s.First
	may := []State{synced}
	for _, o := range s.Ops[:done] {
		state = state.after(o, -1)
		if o.Sync || o.Compact > 0 || o.Snapshot != nil {
			may = may[:0]
		}
		may = append(may, state)
	}
	if done < len(s.Ops) {
		o := s.Ops[done]
		for part := 0; o.Compact == 0 && part <= len(o.Entries); part++ {
			if o.Snapshot == nil {
				may = append(may, state.after(o, part))
				continue
			}
			begun := o // a received snapshot counts before the entries that follow it are there
			begun.Entries = o.Entries[:part]
			may = append(may, state.after(begun, -1))
		}
		may = append(may, state.after(o, -1))
	}
	if !slices.ContainsFunc(may, got.equal) {
		return fmt.Errorf("after %d writes the store holds %s; it may hold one of %v", done, got, may)
	}
	return nil
}

// Genesis is the first state of every script: what raft.CreateGenesis makes with these voters and data.
const Genesis = "genesis"

// Voters are those of Genesis. The script's store is that of the first.
func Voters() []uint64 { return []uint64{7, 8, 9} }

// NewScript makes n writes by chance: appended entries, some of them replaced in a later term, votes, commit indexes on
// their own, snapshots of the node's own and received ones.
func NewScript(rng *rand.Rand, n int) Script {
	s := Script{First: State{Term: 1, Commit: 1, SnapIndex: 1, SnapData: Genesis}}
	state := s.First
	for range n {
		o := draw(rng, state)
		s.Ops = append(s.Ops, o)
		state = state.after(o, -1)
	}
	return s
}

func draw(rng *rand.Rand, s State) Op {
	hard := &raftpb.HardState{Term: proto.Uint64(s.Term), Vote: proto.Uint64(s.Vote), Commit: proto.Uint64(s.Commit)}
	if s.Term < 2 {
		hard.Term, hard.Vote = proto.Uint64(2), proto.Uint64(8)
	}
	switch what := rng.IntN(12); {
	case what == 0 && s.Commit > s.SnapIndex+2:
		at := s.SnapIndex + 1 + rng.Uint64N(s.Commit-s.SnapIndex)
		return Op{Compact: at, Keep: rng.Uint64N(8), Data: fmt.Appendf(nil, "own snapshot at %d", at)}
	case what == 1:
		return Op{Hard: newTerm(hard, rng), Sync: true}
	case what == 2 && s.last() > s.Commit: // a new leader's entries replace some that were never committed
		newTerm(hard, rng)
		return Op{Hard: hard, Entries: entries(rng, s.Commit+1+rng.Uint64N(s.last()-s.Commit), hard.GetTerm()), Sync: true}
	case what == 3:
		at := s.last() + 20 + rng.Uint64N(30)
		hard.Commit = proto.Uint64(at)
		o := Op{Hard: hard, Snapshot: snapshot(at, hard.GetTerm())}
		if rng.IntN(3) == 0 { // and what comes behind it, in one write
			o.Entries, o.Sync = entries(rng, at+1, hard.GetTerm()), true
		}
		return o
	case what < 7 && s.Commit < s.last() && hard.GetTerm() == s.Term:
		hard.Commit = proto.Uint64(s.Commit + 1 + rng.Uint64N(s.last()-s.Commit))
		return Op{Hard: hard}
	}
	return Op{Hard: hard, Entries: entries(rng, s.last()+1, hard.GetTerm()), Sync: true}
}

func newTerm(hard *raftpb.HardState, rng *rand.Rand) *raftpb.HardState {
	hard.Term, hard.Vote = proto.Uint64(hard.GetTerm()+1), proto.Uint64(Voters()[rng.IntN(3)])
	return hard
}

func entries(rng *rand.Rand, from, term uint64) []*raftpb.Entry {
	var out []*raftpb.Entry
	for i := range 1 + rng.Uint64N(4) {
		data := bytes.Repeat([]byte{byte('a' + rng.IntN(26))}, 1+rng.IntN(1500))
		out = append(out, &raftpb.Entry{Index: proto.Uint64(from + i), Term: proto.Uint64(term), Type: raftpb.EntryNormal.Enum(), Data: data})
	}
	return out
}

func snapshot(at, term uint64) *raftpb.Snapshot {
	return &raftpb.Snapshot{
		Data: fmt.Appendf(nil, "received snapshot at %d", at),
		Metadata: &raftpb.SnapshotMetadata{
			Index: proto.Uint64(at), Term: proto.Uint64(term), ConfState: raftpb.EnsureConfState(&raftpb.ConfState{Voters: Voters()}),
		},
	}
}

// Disk is where a store lies.
type Disk interface {
	// Open opens the store as the last crash left it.
	Open() (raft.LogStore, error)
	// Crash ends the store's life. With saving the last write is still under way.
	Crash(saving bool) error
}

// Run writes scripts to a store that crashes after every write, or in the middle of it, and checks what is left. It
// returns the first broken promise.
func Run(rng *rand.Rand, scripts int, fresh func() (Disk, error)) error {
	for range scripts {
		s := NewScript(rng, 30)
		for done := range len(s.Ops) {
			for _, saving := range []bool{false, true} {
				d, err := fresh()
				if err != nil {
					return err
				}
				if err := s.crashAfter(d, done, saving); err != nil {
					return fmt.Errorf("%w\nlast write: %s", err, s.Ops[done])
				}
			}
		}
	}
	return nil
}

// crashAfter makes the writes up to and with number last, crashes, checks, and goes on from there.
func (s Script) crashAfter(d Disk, last int, saving bool) error {
	store, err := d.Open()
	if err != nil {
		return err
	}
	for _, o := range s.Ops[:last+1] {
		if err := o.Do(store); err != nil {
			return fmt.Errorf("%s: %w", o, err)
		}
	}
	if err := d.Crash(saving); err != nil {
		return err
	}
	again, err := d.Open()
	if err != nil {
		return err
	}
	done := last + 1
	if saving {
		done = last
	}
	if err := s.Check(again, done); err != nil {
		return err
	}
	return GoOn(again)
}

// GoOn writes to a store that was opened after a crash, as the node would, and looks whether it is there.
func GoOn(s raft.LogStore) error {
	was, err := Read(s)
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(was.last(), was.Term))
	o := Op{
		Hard:    &raftpb.HardState{Term: proto.Uint64(was.Term + 1), Vote: proto.Uint64(9), Commit: proto.Uint64(was.Commit)},
		Entries: entries(rng, was.last()+1, was.Term+1), Sync: true,
	}
	if err := o.Do(s); err != nil {
		return err
	}
	if now, err := Read(s); err != nil || !now.equal(was.after(o, -1)) {
		return fmt.Errorf("after another write the store holds %s, before it %s: %w", now, was, err)
	}
	return nil
}

var _ etcdraft.Storage = raft.LogStore(nil)
