// SPDX-License-Identifier: Apache-2.0

package raft

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// Sender hands a message to the network. It never blocks; false means that the message was dropped.
type Sender interface {
	Send(to uint64, m *raftpb.Message) bool
}

// NodeOptions are what a Node is made of.
type NodeOptions struct {
	Core   Options // SendEarly is set by the Node
	Sender Sender

	Tick  time.Duration   // 50 ms if zero
	Ticks <-chan struct{} // a value each Tick; nil: the Node has a ticker of its own

	// OnRole is called on the loop's goroutine after a change of term, leader or own role. It must not block; it may
	// call the Node's methods, except Close.
	OnRole func(RoleChanged)
}

// Bounds of the loop's queues.
const (
	inboxSize    = 1024
	proposalSize = 256
	controlSize  = 64
	maxBatch     = 256
	defaultTick  = 50 * time.Millisecond
)

// Reasons for which a call of a Node did not reach its loop.
var (
	ErrBusy   = errors.New("raft queue is full")
	ErrClosed = errors.New("raft is closed")
)

// Node runs a Core: one goroutine that ticks it, feeds it and carries its messages out. All methods are safe for
// concurrent use and none of them waits for the loop, which may be waiting for the disk, except Close.
type Node struct {
	opts NodeOptions
	core *Core
	log  *slog.Logger

	inbox     chan *raftpb.Message
	proposals chan proposal
	control   chan func(*Core)
	stop      chan struct{}
	done      chan struct{}
	fatal     chan error
	status    atomic.Pointer[Status]
	closeOnce sync.Once
	closeErr  error

	unreachable []*raftpb.Message // dropped while sending; told to raft after the Ready
}

type proposal struct {
	data []byte
	conf *ConfChange
}

// Start restores a member and starts its loop. The FSM is called on that loop (and once here, to restore).
func Start(o NodeOptions) (*Node, error) {
	if o.Sender == nil {
		return nil, errors.New("start raft: sender must be given")
	}
	if o.Tick == 0 {
		o.Tick = defaultTick
	}
	n := &Node{
		opts: o, log: o.Core.Logger,
		inbox:     make(chan *raftpb.Message, inboxSize),
		proposals: make(chan proposal, proposalSize),
		control:   make(chan func(*Core), controlSize),
		stop:      make(chan struct{}),
		done:      make(chan struct{}),
		fatal:     make(chan error, 1),
	}
	o.Core.SendEarly = n.send
	core, err := New(o.Core)
	if err != nil {
		return nil, err
	}
	n.core = core
	n.publish()
	go n.run()
	return n, nil
}

// Step queues a message of a peer. False: the queue is full and the message is dropped, which raft survives.
func (n *Node) Step(m *raftpb.Message) bool {
	select {
	case n.inbox <- m:
		return true
	default:
		return false
	}
}

// Propose queues a command. Nothing is promised by a nil error: without a leader, or when leadership changes, the
// command is lost. Whoever needs it looks at the state and proposes again.
func (n *Node) Propose(data []byte) error {
	if len(data) == 0 || len(data) > MaxProposal {
		return fmt.Errorf("propose %d bytes: %w", len(data), ErrTooLarge)
	}
	return n.propose(proposal{data: data})
}

// ProposeConf queues a change of the configuration; see Core.ProposeConf.
func (n *Node) ProposeConf(change ConfChange) error {
	if _, err := change.encode(); err != nil {
		return fmt.Errorf("propose configuration: %w", err)
	}
	return n.propose(proposal{conf: &change})
}

// ForgetLeader queues Core.ForgetLeader.
func (n *Node) ForgetLeader() error {
	return n.do(func(c *Core) { n.note("forget leader", c.ForgetLeader()) })
}

// Campaign queues Core.Campaign.
func (n *Node) Campaign() error { return n.do(func(c *Core) { n.note("campaign", c.Campaign()) }) }

// TransferLeader queues Core.TransferLeader.
func (n *Node) TransferLeader(id uint64) error { return n.do(func(c *Core) { c.TransferLeader(id) }) }

// ReportUnreachable queues Core.ReportUnreachable, and fails a snapshot that is under way to id. Call it when the
// link to a member is lost.
func (n *Node) ReportUnreachable(id uint64) error {
	return n.do(func(c *Core) {
		c.ReportUnreachable(id)
		c.ReportSnapshot(id, false)
	})
}

// Status returns what was known after the loop's last round. The value is shared: do not change its slices.
func (n *Node) Status() Status { return *n.status.Load() }

// Fatal delivers the error that ended the loop, if one did. The process must exit then (PROTOCOL 4.9).
func (n *Node) Fatal() <-chan error { return n.fatal }

// Close ends the loop and closes the store. After a fatal error the store is left alone.
func (n *Node) Close() error {
	n.closeOnce.Do(func() {
		close(n.stop)
		<-n.done
		if n.core.err == nil {
			n.closeErr = n.opts.Core.Store.Close()
		}
	})
	return n.closeErr
}

func (n *Node) propose(p proposal) error {
	select {
	case <-n.done:
		return ErrClosed
	default:
	}
	select {
	case n.proposals <- p:
		return nil
	default:
		return fmt.Errorf("propose: %w", ErrBusy)
	}
}

func (n *Node) do(f func(*Core)) error {
	select {
	case <-n.done:
		return ErrClosed
	default:
	}
	select {
	case n.control <- f:
		return nil
	default:
		return ErrBusy
	}
}

func (n *Node) run() {
	defer close(n.done)
	var own <-chan time.Time
	if n.opts.Ticks == nil {
		ticker := time.NewTicker(n.opts.Tick)
		defer ticker.Stop()
		own = ticker.C
	}
	for {
		if err := n.handle(); err != nil {
			n.fatal <- err
			return
		}
		select {
		case <-n.stop:
			return
		case <-own:
			n.core.Tick()
		case <-n.opts.Ticks:
			n.core.Tick()
		case m := <-n.inbox:
			n.step(m)
		case p := <-n.proposals:
			n.offer(p)
		case f := <-n.control:
			f(n.core)
		}
		n.drain()
	}
}

// drain takes what else is waiting, so that one fsync serves all of it, within a bound that keeps ticks coming.
func (n *Node) drain() {
	for range maxBatch {
		select {
		case m := <-n.inbox:
			n.step(m)
		case p := <-n.proposals:
			n.offer(p)
		case f := <-n.control:
			f(n.core)
		default:
			return
		}
	}
}

// handle carries out everything that raft has ready.
func (n *Node) handle() error {
	for {
		out, more, err := n.core.Ready()
		if err != nil {
			return err
		}
		if !more {
			break
		}
		n.send(out.Messages)
		if out.Role != nil {
			n.log.Info("raft role", "raft_term", out.Role.Term, "leader", hexID(out.Role.Leader),
				"role", out.Role.Self.String())
			n.publish()
			if n.opts.OnRole != nil {
				n.opts.OnRole(*out.Role)
			}
		}
	}
	for _, m := range n.unreachable {
		n.core.ReportUnreachable(m.GetTo())
		if m.GetType() == raftpb.MsgSnap {
			n.core.ReportSnapshot(m.GetTo(), false)
		}
	}
	n.unreachable = n.unreachable[:0]
	n.publish()
	return nil
}

func (n *Node) send(messages []*raftpb.Message) {
	for _, m := range messages {
		if !n.opts.Sender.Send(m.GetTo(), m) {
			n.unreachable = append(n.unreachable, m)
		}
	}
}

func (n *Node) step(m *raftpb.Message) {
	n.note("step", n.core.Step(m))
}

func (n *Node) offer(p proposal) {
	if p.conf != nil {
		n.note("propose configuration", n.core.ProposeConf(*p.conf))
		return
	}
	n.note("propose", n.core.Propose(p.data))
}

// note records that something asked of raft came to nothing, which is ordinary: no leader, a stale message.
func (n *Node) note(what string, err error) {
	if err != nil {
		n.log.Debug("raft request dropped", "action", what, "err", err)
	}
}

func (n *Node) publish() {
	s := n.core.Status()
	n.status.Store(&s)
}

func hexID(id uint64) string { return fmt.Sprintf("%016x", id) }
