// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"errors"
	"slices"
	"time"

	etcdraft "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/raft"
)

// disk is how a volume's device behaves at present.
type disk struct {
	w    *World
	slow float64       // how many times as long an fsync takes; zero: as usual
	hung time.Duration // no fsync ends before
	fail time.Duration // until when every write fails: full, or an error of the device

	tight   time.Duration // until when somebody else's files leave little room
	left    uint64        // how much
	ballast bool          // PROTOCOL 5.6.a
}

const (
	diskSize     = 20 << 30
	diskFree     = 10 << 30
	walSegment   = 16 << 20
	promoteNeeds = walSegment + 1<<20 // the first segment of the timeline, and a history file
)

// free is what Postgres may still write.
func (d *disk) free() uint64 {
	if d.w.now < d.tight {
		return d.left
	}
	return diskFree
}

func (d *disk) crowd(left uint64, t time.Duration) { d.left, d.tight = left, d.w.now+t }

func (d *disk) makeBallast() error {
	if d.broken() || d.free() < cluster.BallastSize {
		return errDisk
	}
	d.ballast = true
	d.left -= min(d.left, cluster.BallastSize)
	return nil
}

func (d *disk) letGo() {
	if d.ballast {
		d.ballast = false
		d.left += cluster.BallastSize
	}
}

func (v *volume) space() cluster.Space {
	if v.pg.kind != cluster.DiskPresent {
		return cluster.Space{}
	}
	s := cluster.Space{Known: true, Size: diskSize, Free: v.disk.free(), Segment: walSegment}
	if v.disk.ballast {
		s.Ballast = cluster.BallastSize
	}
	return s
}

// watchSpace imitates what tells the machine about the device.
func (l *life) watchSpace() {
	s := l.vol.space()
	l.post(agent.SpaceSeen{Space: s})
	l.after(byAgent, s.LookAgain(), l.watchSpace)
}

var errDisk = errors.New("no space left on device, or an error of it")

func (d *disk) broken() bool         { return d.w.now < d.fail }
func (d *disk) heal()                { d.slow, d.hung, d.fail, d.tight = 0, 0, 0, 0 }
func (v *volume) broken() bool       { return v.disk.broken() }
func (d *disk) full(t time.Duration) { d.fail = max(d.fail, d.w.now+t) }

// fsync takes from a to b microseconds, more on a slow disk.
func (d *disk) fsync(a, b int64) time.Duration {
	t := d.w.us(a, b)
	if d.slow > 1 {
		t = time.Duration(float64(t) * d.slow)
	}
	return t
}

// fsync calls fn when what was written before is durable. One that waits for a hung disk ends soon after that is healed.
func (l *life) fsync(c class, a, b int64, fn func()) {
	d := &l.vol.disk
	if left := d.hung - d.w.now; left > 0 {
		l.after(c, min(left, 100*time.Millisecond), func() { l.fsync(c, a, b, fn) })
		return
	}
	l.after(c, d.fsync(a, b), fn)
}

// diskFailed ends PID 1: an fsync that failed is never tried again (PROTOCOL 4.9). The container is started again.
func (l *life) diskFailed(what string) {
	l.trace("%s: %v: PID 1 ends", what, errDisk)
	l.end(false)
	l.w.after(time.Second, l.n.start)
}

// simStore is a log store whose unsynced commit index does not survive, and whose last write may be torn.
type simStore struct {
	*raft.MemStore
	disk    *disk
	durable *raftpb.HardState
	last    save
}

// save is the newest write of the log, until it is on disk.
type save struct {
	ents  []*raftpb.Entry
	over  []*raftpb.Entry   // what the write replaced
	state *raftpb.HardState // what was synced before
	wrote *raftpb.HardState // what was written before: it is in front of the entries
	snap  bool
}

func newStore(m *raft.MemStore, d *disk) *simStore {
	hs, _, _ := m.InitialState()
	return &simStore{MemStore: m, disk: d, durable: hs}
}

// Save implements raft.LogStore.
func (s *simStore) Save(hs *raftpb.HardState, ents []*raftpb.Entry, snap *raftpb.Snapshot, mustSync bool) error {
	if s.disk.broken() && (mustSync || len(ents) > 0) {
		return errDisk
	}
	wrote, _, err := s.InitialState()
	if err != nil {
		return err
	}
	s.last = save{ents: ents, state: s.durable, wrote: wrote, snap: !etcdraft.IsEmptySnap(snap)}
	if len(ents) > 0 {
		if high, err := s.LastIndex(); err == nil && ents[0].GetIndex() <= high {
			s.last.over, _ = s.Entries(ents[0].GetIndex(), high+1, 1<<30)
		}
	}
	if err := s.MemStore.Save(hs, ents, snap, mustSync); err != nil {
		return err
	}
	if mustSync || s.last.snap {
		s.durable, _, _ = s.InitialState()
	}
	return nil
}

// CreateSnapshot implements raft.LogStore: it syncs, and with it what was written before.
func (s *simStore) CreateSnapshot(index uint64, conf *raftpb.ConfState, data []byte, keep uint64) error {
	if err := s.MemStore.CreateSnapshot(index, conf, data, keep); err != nil {
		return err
	}
	s.last = save{}
	var err error
	s.durable, _, err = s.InitialState()
	return err
}

// crash is what a new life finds. A write that was under way is torn: a part of its entries is there, or none, and the
// hard state, which is written last, is the one before.
func (s *simStore) crash(saving bool) error {
	snap, err := s.Snapshot()
	if err != nil {
		return err
	}
	hs := s.durable
	if n := len(s.last.ents); saving && n > 0 && !s.last.snap && s.last.ents[0].GetIndex() > snap.GetMetadata().GetIndex() && s.disk.w.chance(0.5) {
		if hs, err = s.tear(snap, s.disk.w.rng.IntN(n)); err != nil {
			return err
		}
	}
	s.last = save{}
	commit := max(hs.GetCommit(), snap.GetMetadata().GetIndex())
	term, vote := hs.GetTerm(), hs.GetVote()
	s.durable = &raftpb.HardState{Term: &term, Vote: &vote, Commit: &commit}
	return s.SetHardState(s.durable)
}

func (s *simStore) tear(snap *raftpb.Snapshot, keep int) (*raftpb.HardState, error) {
	first := snap.GetMetadata().GetIndex() + 1
	var ents []*raftpb.Entry
	if at := s.last.ents[0].GetIndex(); at > first {
		var err error
		if ents, err = s.Entries(first, at, 1<<40); err != nil {
			return nil, err
		}
	}
	ents = slices.Clone(ents)
	hs := s.last.state
	if keep > 0 {
		ents, hs = append(ents, s.last.ents[:keep]...), s.last.wrote
	} else {
		ents = append(ents, s.last.over...)
	}
	m := &raft.MemStore{MemoryStorage: etcdraft.NewMemoryStorage()}
	if err := m.ApplySnapshot(snap); err != nil {
		return nil, err
	}
	s.MemStore = m
	return hs, m.Append(ents)
}

// copyOf is the log as a crash would leave it now.
func (s *simStore) copyOf() (*simStore, error) {
	snap, err := s.Snapshot()
	if err != nil {
		return nil, err
	}
	m := &raft.MemStore{MemoryStorage: etcdraft.NewMemoryStorage()}
	if !etcdraft.IsEmptySnap(snap) {
		if err := m.ApplySnapshot(snap); err != nil {
			return nil, err
		}
	}
	high, _ := s.LastIndex()
	if first := snap.GetMetadata().GetIndex() + 1; high >= first {
		ents, err := s.Entries(first, high+1, 1<<40)
		if err != nil {
			return nil, err
		}
		if err := m.Append(slices.Clone(ents)); err != nil {
			return nil, err
		}
	}
	c := &simStore{MemStore: m, durable: s.durable}
	return c, m.SetHardState(s.durable)
}
