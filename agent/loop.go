// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// Shell carries out the actions of a machine in the real world. Its methods must not block, except Work and
// SavePromise, which the loop calls on goroutines of their own.
type Shell interface {
	Send(to cluster.Incarnation, env cluster.Envelope, later bool)
	Propose(c cluster.Command)
	ProposeConf(c cluster.MemberChange)
	Transfer(to cluster.Incarnation)
	ForgetLeader(campaign bool)
	SavePromise(e cluster.Epoch) error
	Work(ctx context.Context, t Task, progress func(note string)) (Result, error)
	Deadline(at time.Duration)
	Answer(r cluster.Response)
	// Calm is told when the machine comes to rest, and when it is not at rest any more.
	Calm(yes bool)
	// Fatal is called when PID 1 must end at once (PROTOCOL 4.9).
	Fatal(err error)
}

// LoopOptions are what a Loop is made of.
type LoopOptions struct {
	Machine Options
	Shell   Shell
	Clock   func() time.Duration // CLOCK_BOOTTIME
	Beat    <-chan struct{}      // a value each calmTick; nil: the loop has a timer of its own
	Log     *slog.Logger
}

// Bounds of the loop.
const (
	eventQueue = 4096
	busyTick   = 4 * time.Millisecond
	calmTick   = 50 * time.Millisecond
)

// Loop runs a Machine: one goroutine that steps it, and one for each task.
type Loop struct {
	opt    LoopOptions
	m      *Machine
	events chan Event
	asks   chan func(*Machine)
	cancel map[uint64]context.CancelFunc
	done   chan struct{}
}

// NewLoop makes a loop; Run runs it.
func NewLoop(opt LoopOptions) *Loop {
	opt.Machine.Start = opt.Clock()
	return &Loop{
		opt: opt, m: New(opt.Machine), events: make(chan Event, eventQueue), asks: make(chan func(*Machine)),
		cancel: map[uint64]context.CancelFunc{}, done: make(chan struct{}),
	}
}

// Post hands an event to the loop. It waits when the queue is full, and drops the event once the loop has ended.
func (l *Loop) Post(e Event) {
	select {
	case l.events <- e:
	case <-l.done:
	}
}

// Ask runs f on the loop's goroutine, between two steps. f must only read. What it reads is as of now, even if this process was
// frozen until now.
func (l *Loop) Ask(ctx context.Context, f func(*Machine)) error {
	ran := make(chan struct{})
	select {
	case l.asks <- func(m *Machine) { f(m); close(ran) }:
	case <-l.done:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-ran:
		return nil
	case <-l.done:
		return errEnded
	}
}

var errEnded = errors.New("the agent has ended")

// Run steps the machine until it exits on purpose, and returns the exit code.
func (l *Loop) Run(ctx context.Context) int {
	defer close(l.done)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	timer := time.NewTimer(busyTick)
	defer timer.Stop()
	calm := false
	var at time.Duration // of the last step
	for {
		var e Event
		var asked func(*Machine)
		select {
		case e = <-l.events:
		case asked = <-l.asks:
			if l.opt.Clock() <= at+2*calmTick {
				asked(l.m)
				continue
			}
			e = Tick{}
		case <-timer.C:
			e = Tick{}
		case <-l.opt.Beat:
			e = Tick{}
		}
		at = l.opt.Clock()
		for _, a := range l.m.Step(at, e) {
			if x, ok := a.(Exit); ok {
				return x.Code
			}
			l.do(ctx, a)
		}
		if asked != nil {
			asked(l.m)
		}
		if was := calm; was != l.m.Calm() {
			calm = !was
			l.opt.Shell.Calm(calm)
		}
		switch {
		case !calm:
			timer.Reset(busyTick)
		case l.opt.Beat != nil:
			timer.Stop()
		default:
			timer.Reset(calmTick)
		}
	}
}

func (l *Loop) do(ctx context.Context, a Action) {
	sh := l.opt.Shell
	switch a := a.(type) {
	case Send:
		sh.Send(a.To, a.Env, a.Later)
	case Propose:
		sh.Propose(a.Command)
	case ProposeConf:
		sh.ProposeConf(a.Change)
	case Transfer:
		sh.Transfer(a.To)
	case ForgetLeader:
		sh.ForgetLeader(a.Campaign)
	case SavePromise:
		go l.savePromise(a.Epoch)
	case Run:
		l.start(ctx, a.Task)
	case Cancel:
		if c := l.cancel[a.ID]; c != nil {
			c()
		}
	case Deadline:
		sh.Deadline(a.At)
	case Answer:
		sh.Answer(a.Response)
	case Log:
		l.log(a)
	case Exit: // handled by Run
	}
}

func (l *Loop) savePromise(e cluster.Epoch) {
	if err := l.opt.Shell.SavePromise(e); err != nil {
		l.opt.Shell.Fatal(err)
		return
	}
	l.Post(PromiseSaved{Epoch: e})
}

func (l *Loop) start(ctx context.Context, t Task) {
	ctx, cancel := context.WithTimeout(ctx, t.Limit)
	l.cancel[t.ID] = cancel
	go func() {
		defer cancel()
		r, err := l.opt.Shell.Work(ctx, t, func(note string) { l.Post(Progress{ID: t.ID, Note: note}) })
		l.Post(Done{ID: t.ID, Err: err, Result: r})
	}()
}

func (l *Loop) log(a Log) {
	level := slog.LevelInfo
	if a.Warn {
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{slog.Uint64("epoch", uint64(a.Epoch))}
	if a.Rule != "" {
		attrs = append(attrs, slog.String("rule", string(a.Rule)))
	}
	attrs = append(attrs, slog.String("reason", a.Reason))
	l.opt.Log.LogAttrs(context.Background(), level, a.Msg, attrs...) //nolint:sloglint // the machine says constants
}

// Calm: nothing is going on that is measured in milliseconds.
func (m *Machine) Calm() bool {
	if m.st == nil || m.task != nil || m.electing() || m.st.Phase != cluster.PhasePromoted {
		return false
	}
	if m.isPrimary() {
		return m.node.serving && m.st.Pending == nil
	}
	p := m.peer(m.st.Primary())
	return m.node.attached == m.epoch() && m.pg.Streaming && p != nil && p.linked() && p.status != nil && p.status.Serving
}

// Peer is what this node knows of another, for operators.
type Peer struct {
	Name      cluster.NodeName
	Inc       cluster.Incarnation
	Linked    bool
	LinkAge   time.Duration
	Status    *cluster.Status
	StatusAge time.Duration
}

// Snapshot is the machine's view for operators.
type Snapshot struct {
	State      *cluster.State
	Local      cluster.Status
	Peers      []Peer
	Leader     cluster.Incarnation
	Term       uint64
	Applied    uint64
	Registered bool
	Decision   string
	Rule       cluster.RuleID
	Now        time.Duration
}

// Snapshot copies what operators may see.
func (m *Machine) Snapshot() Snapshot {
	s := Snapshot{
		State: m.st, Local: m.Status(), Leader: m.raftLeader, Term: m.term, Applied: m.applied, Now: m.now,
		Decision: m.decision.Why, Rule: m.rule,
	}
	if m.st != nil {
		s.Registered = m.registered()
	}
	if m.leading() && m.leadWhy != "" {
		s.Decision, s.Rule = m.leadWhy, m.leadRule
	}
	for _, p := range m.peers {
		s.Peers = append(s.Peers, Peer{
			Name: p.name, Inc: p.inc, Linked: p.linked(), LinkAge: m.now - p.changedAt,
			Status: p.status, StatusAge: m.now - p.statusAt,
		})
	}
	return s
}

// Watching says whether Postgres should be observed, and how often.
func (m *Machine) Watching() (bool, time.Duration) {
	if !m.pg.Running {
		return false, 0
	}
	if m.Calm() {
		return true, 200 * time.Millisecond
	}
	return true, 50 * time.Millisecond
}
