// SPDX-License-Identifier: Apache-2.0

package raft

import (
	"errors"
	"fmt"
	"log/slog"

	etcdraft "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"
)

// FSM is the state that the members agree on. Its methods are called by Core.Ready, one at a time, in the order of
// the log, and must be deterministic.
type FSM interface {
	// Apply carries out a committed command. data is nil for entries without a command: raft's own at the start of
	// a term, and a configuration change that raft itself had to refuse.
	Apply(index, term uint64, data []byte)
	// ApplyConf decides about a committed change of the configuration. A change that is not accepted is applied
	// to raft as an empty one.
	ApplyConf(index, term uint64, change ConfChange) (accept bool)
	// Snapshot returns the whole state as of the last Apply.
	Snapshot() []byte
	// Restore replaces the whole state by a snapshot. An error is fatal.
	Restore(index uint64, data []byte) error
}

// Options are what a Core is made of.
type Options struct {
	ID     uint64 // the incarnation; not 0, 2^64-1 or 2^64-2
	Store  LogStore
	FSM    FSM
	Logger *slog.Logger

	ElectionTicks  int // 10 if zero; raft draws from one to two times this
	HeartbeatTicks int // 1 if zero

	SnapshotEvery uint64 // applied entries between snapshots; 1000 if zero
	KeepEntries   uint64 // entries kept before a snapshot, so that a member slightly behind needs none; 500 if zero

	// SendEarly, if set, is given the messages that raft allows to leave before this Ready's own writes are
	// durable (everything but votes and acknowledgements): a leader's fsync and its followers' then run at the same
	// time. It is called inside Ready and must not call back. Those messages are not in Output.
	SendEarly func([]*raftpb.Message)
}

// Bounds that raft keeps for us.
const (
	maxMessageBytes     = 1 << 20
	maxInflight         = 256
	maxUncommittedBytes = 16 << 20
	// MaxProposal is the largest command. State is kilobytes (PROTOCOL 2.2), so this is far away.
	MaxProposal = 1 << 20
	// A snapshot that is not acknowledged after this many election timeouts is sent again.
	snapshotPatience = 2
	maxHeard         = 64
)

// ErrTooLarge refuses a proposal above MaxProposal.
var ErrTooLarge = errors.New("proposal is too large")

// Core is one member: raft's RawNode, its store and the owner's FSM. It has no goroutine, no clock and no lock.
// Everything it does is decided by the calls made and by crypto/rand (election timeouts), so that a simulator which
// seeds that gets the same run again.
type Core struct {
	opts  Options
	rn    *etcdraft.RawNode
	log   *slog.Logger
	conf  *raftpb.ConfState
	err   error // fatal; every later call returns it
	ticks uint64

	applied     uint64
	snapshotted uint64
	confChanged bool // since the last snapshot
	role        RoleChanged
	heard       map[uint64]uint64 // member -> tick of its last message; looked up, never iterated
	snapSince   map[uint64]uint64 // member -> tick since which it is sent a snapshot; looked up, never iterated
}

// Output is what one Ready leaves to the caller.
type Output struct {
	Messages []*raftpb.Message
	Role     *RoleChanged // nil when nothing changed
	Applied  uint64
}

// New starts a member from what its store holds and restores the FSM from the newest snapshot.
func New(o Options) (*Core, error) {
	if o.Store == nil || o.FSM == nil || o.Logger == nil {
		return nil, errors.New("start raft: store, fsm and logger must be given")
	}
	setDefault(&o.ElectionTicks, 10)
	setDefault(&o.HeartbeatTicks, 1)
	setDefault(&o.SnapshotEvery, 1000)
	setDefault(&o.KeepEntries, 500)
	snap, err := o.Store.Snapshot()
	if err != nil {
		return nil, fmt.Errorf("start raft: read snapshot: %w", err)
	}
	c := &Core{
		opts: o, log: o.Logger,
		conf:  raftpb.EnsureConfState(snap.GetMetadata().GetConfState()),
		heard: map[uint64]uint64{}, snapSince: map[uint64]uint64{},
	}
	if !etcdraft.IsEmptySnap(snap) {
		c.applied = snap.GetMetadata().GetIndex()
		c.snapshotted = c.applied
		if err := o.FSM.Restore(c.applied, snap.GetData()); err != nil {
			return nil, fmt.Errorf("start raft: restore snapshot at %d: %w", c.applied, err)
		}
	}
	c.rn, err = etcdraft.NewRawNode(&etcdraft.Config{
		ID:                        o.ID,
		ElectionTick:              o.ElectionTicks,
		HeartbeatTick:             o.HeartbeatTicks,
		Storage:                   o.Store,
		Applied:                   c.applied,
		MaxSizePerMsg:             maxMessageBytes,
		MaxInflightMsgs:           maxInflight,
		MaxUncommittedEntriesSize: maxUncommittedBytes,
		CheckQuorum:               true,
		PreVote:                   true,
		StepDownOnRemoval:         true,
		Logger:                    raftLogger{o.Logger},
	})
	if err != nil {
		return nil, fmt.Errorf("start raft: %w", err)
	}
	return c, nil
}

func setDefault[T int | uint64](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// Tick advances raft's clock by one tick.
func (c *Core) Tick() {
	if c.err != nil {
		return
	}
	c.ticks++
	c.rn.Tick()
	if c.ticks%uint64(c.opts.ElectionTicks) == 0 {
		c.resendSnapshots()
	}
}

// resendSnapshots gives up waiting for a snapshot that was lost with its link. Raft sends nothing to a member it
// believes to be busy with a snapshot, for ever, unless it is told otherwise.
func (c *Core) resendSnapshots() {
	var stuck []uint64
	c.rn.WithProgress(func(id uint64, _ etcdraft.ProgressType, pr tracker.Progress) {
		if pr.State != tracker.StateSnapshot {
			delete(c.snapSince, id)
			return
		}
		since, ok := c.snapSince[id]
		if !ok {
			c.snapSince[id] = c.ticks
		} else if c.ticks-since >= uint64(snapshotPatience*c.opts.ElectionTicks) {
			stuck = append(stuck, id)
		}
	})
	for _, id := range stuck {
		delete(c.snapSince, id)
		c.ReportSnapshot(id, false)
	}
}

// Step takes a message of a peer. An error says that this message was of no use; it is never fatal.
func (c *Core) Step(m *raftpb.Message) error {
	if c.err != nil {
		return c.err
	}
	if m.GetTo() != c.opts.ID {
		return fmt.Errorf("step raft message: addressed to %016x", m.GetTo())
	}
	if _, known := c.heard[m.GetFrom()]; known || len(c.heard) < maxHeard {
		c.heard[m.GetFrom()] = c.ticks
	}
	if err := c.rn.Step(m); err != nil {
		return fmt.Errorf("step raft message: %w", err)
	}
	return nil
}

// Propose hands a command to raft; a follower forwards it to the leader. No error is no promise: only Apply tells.
func (c *Core) Propose(data []byte) error {
	if c.err != nil {
		return c.err
	}
	if len(data) == 0 || len(data) > MaxProposal {
		return fmt.Errorf("propose %d bytes: %w", len(data), ErrTooLarge)
	}
	if err := c.rn.Propose(data); err != nil {
		return fmt.Errorf("propose: %w", err)
	}
	return nil
}

// ProposeConf hands a change of the configuration to raft. While another one is not applied, the leader replaces it
// by an empty entry without a word: propose again after looking at the configuration.
func (c *Core) ProposeConf(change ConfChange) error {
	if c.err != nil {
		return c.err
	}
	cc, err := change.encode()
	if err != nil {
		return fmt.Errorf("propose configuration: %w", err)
	}
	if err := c.rn.ProposeConfChange(cc); err != nil {
		return fmt.Errorf("propose configuration: %w", err)
	}
	return nil
}

// Campaign starts an election now (a pre-vote first).
func (c *Core) Campaign() error {
	if c.err != nil {
		return c.err
	}
	return c.rn.Campaign()
}

// ForgetLeader makes a follower grant pre-votes at once instead of waiting out the leader's silence. Call it only
// with evidence that the leader is dead (PROTOCOL 6.6).
func (c *Core) ForgetLeader() error {
	if c.err != nil {
		return c.err
	}
	return c.rn.ForgetLeader()
}

// TransferLeader asks that another member lead. It may come to nothing.
func (c *Core) TransferLeader(id uint64) {
	if c.err == nil {
		c.rn.TransferLeader(id)
	}
}

// ReportUnreachable says that a message to id was dropped.
func (c *Core) ReportUnreachable(id uint64) {
	if c.err == nil {
		c.rn.ReportUnreachable(id)
	}
}

// ReportSnapshot says what became of a snapshot sent to id.
func (c *Core) ReportSnapshot(id uint64, ok bool) {
	if c.err != nil {
		return
	}
	status := etcdraft.SnapshotFailure
	if ok {
		status = etcdraft.SnapshotFinish
	}
	c.rn.ReportSnapshot(id, status)
}

// HasReady reports whether Ready has something to do.
func (c *Core) HasReady() bool { return c.err == nil && c.rn.HasReady() }

// Ready carries out one Ready of raft completely: writes, then messages, then applies, then perhaps a snapshot. It
// returns false when there was nothing to do. An error is fatal: nothing of this Ready may be used, the Core is
// dead, and the process must exit without writing anything else (PROTOCOL 4.9).
func (c *Core) Ready() (Output, bool, error) {
	if c.err != nil {
		return Output{}, false, c.err
	}
	if !c.rn.HasReady() {
		return Output{}, false, nil
	}
	rd := c.rn.Ready()
	out := Output{Messages: rd.Messages}
	if c.opts.SendEarly != nil {
		out.Messages = c.sendEarly(rd.Messages)
	}
	if err := c.handle(rd); err != nil {
		c.err = fmt.Errorf("raft: %w", err)
		return Output{}, false, c.err
	}
	c.rn.Advance(rd)
	out.Applied = c.applied
	if r := c.currentRole(); r != c.role {
		c.role = r
		out.Role = &r
	}
	return out, true, nil
}

// sendEarly hands out what does not depend on our disk and returns the rest.
func (c *Core) sendEarly(all []*raftpb.Message) []*raftpb.Message {
	var early, late []*raftpb.Message
	for _, m := range all {
		switch m.GetType() {
		case raftpb.MsgAppResp, raftpb.MsgVoteResp, raftpb.MsgPreVoteResp:
			late = append(late, m)
		default:
			early = append(early, m)
		}
	}
	if len(early) > 0 {
		c.opts.SendEarly(early)
	}
	return late
}

func (c *Core) handle(rd etcdraft.Ready) error {
	if err := c.opts.Store.Save(rd.HardState, rd.Entries, rd.Snapshot, rd.MustSync); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	if !etcdraft.IsEmptySnap(rd.Snapshot) {
		meta := rd.Snapshot.GetMetadata()
		if err := c.opts.FSM.Restore(meta.GetIndex(), rd.Snapshot.GetData()); err != nil {
			return fmt.Errorf("restore snapshot at %d: %w", meta.GetIndex(), err)
		}
		c.applied, c.snapshotted = meta.GetIndex(), meta.GetIndex()
		c.conf = raftpb.EnsureConfState(meta.GetConfState())
	}
	for _, e := range rd.CommittedEntries {
		c.apply(e)
	}
	return c.maybeSnapshot()
}

func (c *Core) apply(e *raftpb.Entry) {
	index, term := e.GetIndex(), e.GetTerm()
	c.applied = index
	if e.GetType() == raftpb.EntryNormal {
		data := e.GetData()
		if len(data) == 0 {
			data = nil
		}
		c.opts.FSM.Apply(index, term, data)
		return
	}
	change, err := decodeConf(e)
	if err != nil || !change.possible(c.conf) {
		c.log.Warn("configuration change refused", "index", index, "change", change.Type.String(), "err", err)
		c.opts.FSM.Apply(index, term, nil)
		c.conf = c.rn.ApplyConfChange(emptyChange())
		return
	}
	if !c.opts.FSM.ApplyConf(index, term, change) {
		c.conf = c.rn.ApplyConfChange(emptyChange())
		return
	}
	cc, err := change.encode()
	if err != nil {
		panic("raft: a decoded configuration change does not encode: " + err.Error())
	}
	c.conf = c.rn.ApplyConfChange(cc)
	c.confChanged = true
	if change.Type == Remove {
		delete(c.heard, change.ID)
		delete(c.snapSince, change.ID)
	}
}

// emptyChange is what raft wants for a change that was refused: it must be told of every one in the log.
func emptyChange() *raftpb.ConfChange {
	return &raftpb.ConfChange{Type: raftpb.ConfChangeAddNode.Enum(), NodeId: proto.Uint64(0)}
}

// maybeSnapshot also makes a snapshot after each change of the configuration: raft ignores a snapshot in whose
// configuration the receiver does not occur, so an older one could never feed a new member.
func (c *Core) maybeSnapshot() error {
	if c.applied-c.snapshotted < c.opts.SnapshotEvery && !c.confChanged {
		return nil
	}
	if err := c.opts.Store.CreateSnapshot(c.applied, c.conf, c.opts.FSM.Snapshot(), c.opts.KeepEntries); err != nil {
		return fmt.Errorf("snapshot at %d: %w", c.applied, err)
	}
	c.snapshotted, c.confChanged = c.applied, false
	return nil
}
