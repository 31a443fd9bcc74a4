// SPDX-License-Identifier: Apache-2.0

package raft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/cryptotest"

	"go.etcd.io/raft/v3/raftpb"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// listFSM keeps every command it was given; it refuses configuration changes whose context says so.
type listFSM struct {
	items    []string
	applied  uint64
	restored int
}

func (f *listFSM) Apply(index, _ uint64, data []byte) {
	f.applied = index
	if data != nil {
		f.items = append(f.items, string(data))
	}
}

func (f *listFSM) ApplyConf(index, _ uint64, c ConfChange) bool {
	f.applied = index
	f.items = append(f.items, fmt.Sprintf("%s %d", c.Type, c.ID))
	return string(c.Context) != "refuse me"
}

func (f *listFSM) Snapshot() []byte {
	return append(binary.BigEndian.AppendUint64(nil, f.applied), strings.Join(f.items, "\n")...)
}

func (f *listFSM) Restore(index uint64, data []byte) error {
	f.restored++
	f.applied, f.items = index, nil
	if len(data) > 8 {
		f.items = strings.Split(string(data[8:]), "\n")
	}
	return nil
}

// lab is a handful of Cores joined by a network without loss, on virtual time.
type lab struct {
	t     *testing.T
	cores map[uint64]*Core
	fsms  map[uint64]*listFSM
	ids   []uint64
	cut   map[uint64]bool
	trace bytes.Buffer
}

func newLab(t *testing.T, voters ...uint64) *lab {
	l := &lab{t: t, cores: map[uint64]*Core{}, fsms: map[uint64]*listFSM{}, cut: map[uint64]bool{}}
	for _, id := range voters {
		s, err := NewMemStore(voters, nil)
		if err != nil {
			t.Fatal(err)
		}
		l.add(id, s)
	}
	return l
}

func (l *lab) add(id uint64, s LogStore) {
	l.t.Helper()
	f := &listFSM{}
	c, err := New(Options{ID: id, Store: s, FSM: f, Logger: quiet(), SnapshotEvery: 50, KeepEntries: 10})
	if err != nil {
		l.t.Fatal(err)
	}
	l.cores[id], l.fsms[id] = c, f
	if !slices.Contains(l.ids, id) {
		l.ids = append(l.ids, id)
	}
}

// settle carries messages until no member has anything to do.
func (l *lab) settle() {
	l.t.Helper()
	for busy := true; busy; {
		busy = false
		for _, id := range l.ids {
			for {
				out, more, err := l.cores[id].Ready()
				if err != nil {
					l.t.Fatal(err)
				}
				if !more {
					break
				}
				busy = true
				for _, m := range out.Messages {
					fmt.Fprintf(&l.trace, "%d>%d %s %d\n", id, m.GetTo(), m.GetType(), m.GetIndex())
					if to := l.cores[m.GetTo()]; to != nil && !l.cut[id] && !l.cut[m.GetTo()] {
						_ = to.Step(m)
					}
				}
			}
		}
	}
}

func (l *lab) ticks(n int) {
	for range n {
		for _, id := range l.ids {
			l.cores[id].Tick()
		}
		l.settle()
	}
}

func (l *lab) leader() uint64 {
	l.t.Helper()
	for range 100 {
		l.ticks(1)
		for _, id := range l.ids {
			if !l.cut[id] && l.cores[id].Status().Role == Leader {
				return id
			}
		}
	}
	l.t.Fatal("no leader after 100 ticks")
	return 0
}

func TestCoreReplicates(t *testing.T) {
	l := newLab(t, 1, 2, 3)
	lead := l.leader()
	follower := l.ids[int(lead)%3]
	if err := l.cores[follower].Propose([]byte("through a follower")); err != nil {
		t.Fatal(err)
	}
	for i := range 120 {
		if err := l.cores[lead].Propose(fmt.Appendf(nil, "c%d", i)); err != nil {
			t.Fatal(err)
		}
		l.settle()
	}
	l.ticks(2)
	for _, id := range l.ids {
		if got := l.fsms[id].items; len(got) != 121 || !slices.Equal(got, l.fsms[lead].items) {
			t.Fatalf("member %d has %d items", id, len(got))
		}
	}
	if first, _ := l.cores[lead].opts.Store.FirstIndex(); first < 50 {
		t.Fatalf("the log was not compacted: first index %d", first)
	}
}

func TestCoreForgetLeaderMakesElectionImmediate(t *testing.T) {
	l := newLab(t, 1, 2, 3)
	lead := l.leader()
	l.ticks(5)
	l.cut[lead] = true
	var rest []uint64
	for _, id := range l.ids {
		if id != lead {
			rest = append(rest, id)
		}
	}
	if err := l.cores[rest[0]].Campaign(); err != nil {
		t.Fatal(err)
	}
	l.settle()
	if l.cores[rest[0]].Status().Role == Leader {
		t.Fatal("a campaign won while the other follower still hears of a leader")
	}
	for _, id := range rest {
		if err := l.cores[id].ForgetLeader(); err != nil {
			t.Fatal(err)
		}
	}
	l.settle()
	if err := l.cores[rest[0]].Campaign(); err != nil {
		t.Fatal(err)
	}
	l.settle()
	if s := l.cores[rest[0]].Status(); s.Role != Leader {
		t.Fatalf("no election without a tick: %+v", s)
	}
}

func TestCoreMembership(t *testing.T) {
	l := newLab(t, 1, 2, 3)
	lead := l.leader()
	for i := range 60 {
		_ = l.cores[lead].Propose(fmt.Appendf(nil, "c%d", i))
		l.settle()
	}
	s, err := NewMemStore(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	l.add(4, s)
	change := func(c ConfChange) {
		t.Helper()
		if err := l.cores[lead].ProposeConf(c); err != nil {
			t.Fatal(err)
		}
		l.ticks(5)
	}
	change(ConfChange{Type: AddLearner, ID: 5, Context: []byte("refuse me")})
	if st := l.cores[lead].Status(); len(st.Learners) != 0 {
		t.Fatalf("a refused change took effect: %+v", st)
	}
	change(ConfChange{Type: AddLearner, ID: 4})
	if st := l.cores[4].Status(); st.Role != Learner || !slices.Equal(l.fsms[4].items, l.fsms[lead].items) {
		t.Fatalf("learner did not catch up: %+v", st)
	}
	if l.fsms[4].restored != 1 {
		t.Fatalf("learner was fed %d snapshots", l.fsms[4].restored)
	}
	change(ConfChange{Type: AddVoter, ID: 4})
	victim := l.ids[int(lead)%3]
	change(ConfChange{Type: Remove, ID: victim})
	want := slices.DeleteFunc([]uint64{1, 2, 3, 4}, func(id uint64) bool { return id == victim })
	if st := l.cores[4].Status(); !slices.Equal(st.Voters, want) || st.Role != Follower {
		t.Fatalf("voters %v, want %v", st.Voters, want)
	}
}

func TestCoreNeverRemovesTheLastVoter(t *testing.T) {
	l := newLab(t, 1)
	l.leader()
	if err := l.cores[1].ProposeConf(ConfChange{Type: Remove, ID: 1}); err != nil {
		t.Fatal(err)
	}
	l.ticks(2)
	if st := l.cores[1].Status(); !slices.Equal(st.Voters, []uint64{1}) {
		t.Fatalf("voters %v", st.Voters)
	}
	if err := l.cores[1].Propose([]byte("still alive")); err != nil {
		t.Fatal(err)
	}
	l.settle()
	if !slices.Equal(l.fsms[1].items, []string{"still alive"}) {
		t.Fatalf("items %v", l.fsms[1].items)
	}
}

// A snapshot that is lost with its link must be sent again; raft alone would wait for ever.
func TestCoreResendsLostSnapshot(t *testing.T) {
	l := newLab(t, 1, 2, 3)
	lead := l.leader()
	lag := l.ids[int(lead)%3]
	l.cut[lag] = true
	for i := range 150 {
		_ = l.cores[lead].Propose(fmt.Appendf(nil, "c%d", i))
		l.settle()
	}
	c := l.cores[lead]
	c.Tick()
	l.settle()
	// The member answers a heartbeat, so that the leader believes it alive and sends the snapshot into the cut.
	l.cut[lag] = false
	for range 30 {
		c.Tick()
		l.cores[lag].Tick()
		l.settleDroppingSnapshots()
	}
	snapshotting := slices.ContainsFunc(c.Status().Peers, func(p PeerStatus) bool { return p.ID == lag && p.Snapshotting })
	if !snapshotting && l.fsms[lag].restored > 1 {
		t.Fatal("the snapshot got through while it should have been lost")
	}
	l.ticks(60)
	if !slices.Equal(l.fsms[lag].items, l.fsms[lead].items) {
		t.Fatalf("lagging member has %d items of %d", len(l.fsms[lag].items), len(l.fsms[lead].items))
	}
}

func (l *lab) settleDroppingSnapshots() {
	for busy := true; busy; {
		busy = false
		for _, id := range l.ids {
			out, more, err := l.cores[id].Ready()
			if err != nil {
				l.t.Fatal(err)
			}
			busy = busy || more
			for _, m := range out.Messages {
				if to := l.cores[m.GetTo()]; to != nil && m.GetType() != raftpb.MsgSnap {
					_ = to.Step(m)
				}
			}
		}
	}
}

type brokenStore struct{ *MemStore }

var errDisk = errors.New("disk is gone")

func (brokenStore) Save(*raftpb.HardState, []*raftpb.Entry, *raftpb.Snapshot, bool) error {
	return errDisk
}

func TestCoreStopsAtStoreError(t *testing.T) {
	s, err := NewMemStore([]uint64{1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Options{ID: 1, Store: brokenStore{s}, FSM: &listFSM{}, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Campaign(); err != nil {
		t.Fatal(err)
	}
	out, more, err := c.Ready()
	if !errors.Is(err, errDisk) || more || len(out.Messages) != 0 {
		t.Fatalf("got %v, %v, %v", out, more, err)
	}
	if err := c.Propose([]byte("x")); !errors.Is(err, errDisk) {
		t.Fatalf("a dead core took a proposal: %v", err)
	}
	if _, _, err := c.Ready(); !errors.Is(err, errDisk) {
		t.Fatalf("a dead core went on: %v", err)
	}
}

func TestCoreIsDeterministic(t *testing.T) {
	run := func(t *testing.T, seed uint64) string {
		cryptotest.SetGlobalRandom(t, seed)
		l := newLab(t, 1, 2, 3, 4, 5)
		for round := range 5 {
			lead := l.leader()
			_ = l.cores[lead].Propose(fmt.Appendf(nil, "r%d", round))
			l.ticks(7)
			l.cut = map[uint64]bool{lead: true}
			l.ticks(40)
			l.cut = map[uint64]bool{}
		}
		return l.trace.String()
	}
	var first string
	for i := range 3 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			got := run(t, 42)
			if i == 0 {
				first = got
			} else if got != first {
				t.Fatal("the same seed gave another run")
			}
		})
	}
	t.Run("control", func(t *testing.T) {
		if run(t, 43) == first {
			t.Fatal("another seed gave the same run: the seed has no effect")
		}
	})
}

func TestWire(t *testing.T) {
	m := &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), To: new(uint64(7)), From: new(uint64(9))}
	b, err := Encode("cluster-a", m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode("cluster-a", b)
	if err != nil || got.GetTo() != 7 || got.GetFrom() != 9 {
		t.Fatalf("%v, %v", got, err)
	}
	if _, err := Decode("cluster-b", b); !errors.Is(err, ErrOtherGroup) {
		t.Fatalf("message of another cluster: %v", err)
	}
	for i := range b {
		if _, err := Decode("cluster-a", b[:i]); err == nil && i < len("cluster-a")+2 {
			t.Fatalf("cut at %d was accepted", i)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b, _ := Encode("g", &raftpb.Message{Type: raftpb.MsgApp.Enum(), Entries: []*raftpb.Entry{{Data: []byte("x")}}})
	f.Add(b)
	f.Add([]byte{1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := Decode("g", b); err == nil {
			if _, err := Encode("g", m); err != nil {
				t.Fatal(err)
			}
		}
	})
}
