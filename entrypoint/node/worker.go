// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/pgctl"
	"github.com/pgquorum/pgquorum/pgctl/wal"
)

// goneWait is how long doomed sessions may hold back an admission (PROTOCOL 5.7.e).
const goneWait = 500 * time.Millisecond

// Work does one task on Postgres.
func (s *shell) Work(ctx context.Context, t agent.Task, progress func(string)) (agent.Result, error) {
	pg := s.n.pg
	switch t.Kind {
	case agent.TaskKill:
		return agent.Result{}, s.kill(ctx, t)
	case agent.TaskStop:
		if _, err := pg.Stop(ctx, pgctl.StopSpec{Mode: pgctl.Fast, Patience: t.Patience, Timeout: 8 * time.Second}); err != nil {
			return agent.Result{}, err
		}
		return s.look(context.WithoutCancel(ctx)) // the patience may have been cancelled, the stop was not
	case agent.TaskFence:
		f, err := pg.Fence(ctx)
		return agent.Result{Known: f.Known, Position: f.Position, HighestTL: f.Highest, Backlog: f.Backlog}, err
	case agent.TaskLook:
		return s.look(ctx)
	case agent.TaskInit:
		if err := pg.Init(ctx); err != nil {
			return agent.Result{}, err
		}
		return s.look(ctx)
	case agent.TaskPrepare:
		return s.prepare(ctx)
	case agent.TaskRecovery:
		return agent.Result{}, s.startStandby(ctx, t)
	case agent.TaskPrimary:
		return s.startPrimary(ctx, t)
	case agent.TaskPromote:
		return s.promote(ctx, t)
	case agent.TaskAdmit:
		return agent.Result{}, s.admit(ctx)
	case agent.TaskSettle:
		return s.settle(ctx, t)
	case agent.TaskOrder:
		return agent.Result{}, s.order(ctx, t)
	case agent.TaskClone, agent.TaskRewind:
		return s.rejoin(ctx, t, progress)
	case agent.TaskHandover:
		return s.handover(ctx, t)
	case agent.TaskPreparePlan:
		return agent.Result{}, errors.Join(pg.Checkpoint(ctx), pg.Checkpoint(ctx))
	case agent.TaskVet:
		return s.vet(ctx, t)
	case agent.TaskWatchFlush:
		return agent.Result{}, s.watchFlush(ctx, t)
	case agent.TaskKeepHouse:
		return agent.Result{}, s.keepHouse(ctx, t)
	case agent.TaskFirstChkpt:
		return agent.Result{}, pg.Checkpoint(ctx)
	case agent.TaskResume:
		_, err := pg.ResumeReplay(ctx)
		return agent.Result{}, err
	case agent.TaskConfirmClone:
		return agent.Result{}, pg.ConfirmStreaming()
	case agent.TaskCloseGate:
		return agent.Result{}, pg.CloseGateFor(ctx, settings(t))
	case agent.TaskOpenGate:
		return agent.Result{}, pg.OpenGateFor(ctx, pgctl.Nobody())
	case agent.TaskMakeBallast:
		return agent.Result{}, s.makeBallast(ctx)
	}
	return agent.Result{}, fmt.Errorf("unknown task %q", t.Kind)
}

func (s *shell) kill(ctx context.Context, t agent.Task) error {
	if err := s.n.pg.Kill(); err != nil {
		return err
	}
	s.n.loop.Post(agent.Killed{ID: t.ID})
	return s.n.pg.Gone(ctx)
}

// look reads the disk and, when no Postgres runs, the end of its WAL.
func (s *shell) look(ctx context.Context) (agent.Result, error) {
	d, err := s.n.pg.Disk(ctx)
	if err != nil {
		return agent.Result{}, err
	}
	switch d.Kind {
	case pgctl.Empty:
		return agent.Result{Disk: cluster.DiskEmpty}, nil
	case pgctl.Interrupted:
		return agent.Result{Disk: cluster.DiskInterrupted}, nil
	case pgctl.Foreign:
		return agent.Result{}, fmt.Errorf("look at %s: %s", s.n.opt.DataDir, d.Why)
	case pgctl.Present:
	}
	r := agent.Result{Disk: cluster.DiskPresent, System: d.Control.SystemID, DiskTL: d.Control.CheckpointTimeline, HighestTL: d.Highest}
	if s.n.pg.Running() {
		return r, nil
	}
	p := s.n.pg.Position(ctx)
	if !p.Known {
		s.n.log.Warn("end of wal is not known", "reason", p.Why)
	}
	r.Known, r.Claim, r.Position = p.Known, p.Claim, p.Position
	newest := max(r.DiskTL, r.Position.Timeline)
	if r.History, err = wal.ReadHistory(s.n.opt.DataDir+"/pg_wal", newest); err != nil {
		s.n.log.Debug("no history of the newest timeline", "timeline", newest, "err", err)
	}
	return r, nil
}

func (s *shell) prepare(ctx context.Context) (agent.Result, error) {
	if err := s.n.pg.Prepare(ctx); err != nil {
		return agent.Result{}, err
	}
	r, err := s.look(ctx)
	if err != nil {
		return r, err
	}
	if r.DiskTL > 1 {
		if r.Base, err = wal.ReadHistory(s.n.opt.DataDir+"/pg_wal", r.DiskTL); err != nil {
			return r, err
		}
	}
	return r, nil
}

func (s *shell) startStandby(ctx context.Context, t agent.Task) error {
	if t.Host != "" {
		ordered := make(chan struct{})
		ctx, stop := context.WithCancel(ctx)
		go func() {
			defer close(ordered)
			s.orderEarly(ctx, t)
		}()
		defer func() { stop(); <-ordered }()
	}
	err := s.n.pg.Start(ctx, pgctl.StartSpec{Recovery: true, Settings: pgctl.Nobody(), Timeline: t.Timeline, History: t.Lineage})
	if err != nil {
		return err
	}
	if t.Parent != 0 {
		if err := s.n.pg.Plug(t.Parent, t.Timeline); err != nil {
			return err
		}
	}
	return s.n.pg.EnsureSlots(ctx, t.Slots, nil)
}

// order points the upstream file. WAL of foreign timelines is moved aside before; a server that may have adopted it is
// started again (PROTOCOL 5.5.f).
func (s *shell) order(ctx context.Context, t agent.Task) error {
	pg := s.n.pg
	s.letGo(t)
	if err := s.moveForeign(ctx, t); err != nil {
		return err
	}
	// The reload of the order brings QuickWAL about; keepHouse ends it.
	if err := pg.QuickWAL(!t.Tight); err != nil {
		return err
	}
	return pg.Order(ctx, pgctl.Order{Host: t.Host, Addr: t.Host, Port: t.Port, AppName: t.App})
}

// orderEarly points the upstream file as soon as there is a postmaster: the start ends only when the copy is
// consistent, and that may need WAL.
func (s *shell) orderEarly(ctx context.Context, t agent.Task) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	// Before it has its pid file a postmaster may not have its signal handlers, and a SIGHUP would end it.
	pidFile := filepath.Join(s.n.opt.DataDir, "postmaster.pid")
	for !s.n.pg.Running() || !exists(pidFile) {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	if err := s.n.pg.Order(ctx, pgctl.Order{Host: t.Host, Addr: t.Host, Port: t.Port, AppName: t.App}); err != nil {
		s.n.log.Warn("order the upstream of a new copy", "err", err)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func settings(t agent.Task) pgctl.Settings {
	off := false
	x := pgctl.Settings{SyncNames: t.Settings.Names, SyncK: t.Settings.K, SyncCommit: "on"}
	if t.Settings.Async {
		x.SyncCommit = "local"
	}
	if t.Settings.FastWAL {
		x.WALInitZero = &off
	}
	return x
}

func (s *shell) startPrimary(ctx context.Context, t agent.Task) (agent.Result, error) {
	if err := s.mayWrite(ctx, t); err != nil {
		return agent.Result{}, err
	}
	if err := s.n.pg.Start(ctx, pgctl.StartSpec{Settings: settings(t), GateClosed: true}); err != nil {
		return agent.Result{}, err
	}
	return s.afterPrimary(ctx, t, agent.Result{})
}

// afterPrimary makes what standbys need to attach, and reads R of PROTOCOL 5.7.c.
func (s *shell) afterPrimary(ctx context.Context, t agent.Task, r agent.Result) (agent.Result, error) {
	if r.Flush == 0 {
		st, err := s.n.pg.Observe(ctx)
		if err != nil {
			return r, err
		}
		r.Flush = st.Flush
	}
	if _, err := s.n.pg.EnsureRole(ctx); err != nil {
		return r, err
	}
	return r, s.n.pg.EnsureSlots(ctx, t.Slots, nil)
}

func (s *shell) promote(ctx context.Context, t agent.Task) (agent.Result, error) {
	pg := s.n.pg
	steps := newSteps()
	if err := s.moveForeign(ctx, t); err != nil {
		return agent.Result{}, err
	}
	saved := make(chan error, 1)
	go func() { saved <- errors.Join(s.mayWrite(ctx, t), pg.Plug(t.Parent, t.Timeline)) }()
	err := pg.CloseGateFor(ctx, settings(t))
	if err = errors.Join(err, <-saved); err != nil {
		return agent.Result{}, err
	}
	steps.done("close_gate")
	checked := make(chan error, 1)
	go func() { checked <- pg.AwaitSettings(ctx) }() // for admission, which asks again if this fails
	p, err := pg.Promote(ctx, t.Timeline, t.Elected)
	steps.done("promote")
	if e := <-checked; e != nil && err == nil {
		s.n.log.Warn("settings are not in force yet", "err", e)
	}
	steps.done("check_settings")
	s.n.log.Info("promotion", steps.attrs()...)
	return agent.Result{Switch: p.Switch, NextXID: p.NextXID, Flush: p.Flushed, Timings: steps.list}, err
}

// steps measures the parts of a task.
type steps struct {
	last time.Duration
	list []cluster.NamedDuration
}

func newSteps() *steps { return &steps{last: Now()} }

func (p *steps) done(name string) {
	now := Now()
	p.list = append(p.list, cluster.NamedDuration{Name: name, MS: (now - p.last).Milliseconds()})
	p.last = now
}

func (p *steps) attrs() []any {
	var out []any
	for _, d := range p.list {
		out = append(out, d.Name+"_ms", d.MS)
	}
	return out
}

func (s *shell) admit(ctx context.Context) error {
	pg := s.n.pg
	steps := newSteps()
	if err := pg.CheckSettings(ctx); err != nil {
		return err
	}
	steps.done("check_settings")
	gone, cancel := context.WithTimeout(ctx, goneWait)
	defer cancel()
	if err := pg.GateGone(gone); err != nil && gone.Err() == nil {
		return err
	}
	steps.done("sessions_gone")
	err := pg.OpenGate(ctx)
	steps.done("open_gate")
	s.n.log.Info("admission", steps.attrs()...)
	return err
}

func (s *shell) settle(ctx context.Context, t agent.Task) (agent.Result, error) {
	if err := s.n.pg.Apply(ctx, settings(t)); err != nil {
		return agent.Result{}, err
	}
	b, err := s.n.pg.Settle(ctx, pgctl.SettleSpec{FromZero: t.FromZero, FromAsync: t.FromAsync, NoBarrier: t.Settings.K == 0 || t.Settings.Async})
	return agent.Result{Barrier: b}, err
}

func (s *shell) rejoin(ctx context.Context, t agent.Task, progress func(string)) (agent.Result, error) {
	if err := s.n.store.saveFloor(t.Floor); err != nil {
		return agent.Result{}, err
	}
	src := pgctl.Source{Host: t.Host, Addr: t.Host, Port: t.Port}
	if t.Kind == agent.TaskRewind {
		err := s.n.pg.Rewind(ctx, src, pgctl.Expect{SystemID: t.System, Timeline: t.Timeline, Fork: t.Flush})
		if err != nil && !errors.Is(err, pgctl.ErrNothingToRewind) {
			return agent.Result{}, err
		}
		return s.look(ctx)
	}
	err := s.n.pg.Clone(ctx, src, t.System, func(done, total int64) {
		progress(fmt.Sprintf("%d of %d MB", done>>20, total>>20))
	})
	if err != nil {
		return agent.Result{}, err
	}
	return s.look(ctx)
}

func (s *shell) handover(ctx context.Context, t agent.Task) (agent.Result, error) {
	stopped, err := s.n.pg.Stop(ctx, pgctl.StopSpec{Mode: pgctl.Fast, KeepSlot: t.Slot, Timeout: 2 * time.Second})
	if err != nil {
		return agent.Result{}, err
	}
	if !stopped.Clean {
		return s.look(ctx)
	}
	r := agent.Result{Known: true, Position: cluster.Position{Timeline: stopped.Timeline, LSN: stopped.ShutdownEnd}, DiskTL: stopped.Timeline}
	r.HighestTL, err = s.n.pg.HighestTimeline()
	return r, err
}

func (s *shell) vet(ctx context.Context, t agent.Task) (agent.Result, error) {
	if t.Parent != 0 {
		if err := s.n.pg.Plug(t.Parent, t.Timeline); err != nil {
			return agent.Result{}, err
		}
	}
	oldest, err := s.n.pg.OldestWAL()
	if err != nil {
		return agent.Result{}, err
	}
	flush, err := s.n.pg.EndSender(ctx, t.Slot)
	return agent.Result{Flush: flush, Oldest: oldest}, err
}

// watchFlush tells what this standby has on disk of a timeline, each time it grows (PROTOCOL 5.7.c).
func (s *shell) watchFlush(ctx context.Context, t agent.Task) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	var last cluster.Position
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		rec, err := s.n.pg.Received(ctx)
		if err != nil {
			return err
		}
		p := cluster.Position{Timeline: rec.Timeline, LSN: rec.Flushed}
		if p.Timeline == t.Timeline && p != last {
			last = p
			s.n.loop.Post(agent.FlushSeen{Position: p})
		}
	}
}

func (s *shell) keepHouse(ctx context.Context, t agent.Task) error {
	pg := s.n.pg
	if err := pg.EnsureSlots(ctx, t.Slots, t.Advance); err != nil {
		return err
	}
	if changed, err := pg.RefreshHBA(); err != nil {
		return err
	} else if changed {
		s.n.log.Info("pg_hba.conf or pg_ident.conf has changed and is read again")
	}
	if err := s.slowWAL(ctx, t); err != nil || !t.Primary {
		return err
	}
	if over, err := pg.UndoOverrides(ctx); err != nil {
		return err
	} else if len(over) > 0 {
		s.n.log.Warn("managed settings were changed and are put back", "count", len(over))
	}
	if changed, err := pg.EnsureRole(ctx); err != nil {
		return err
	} else if changed {
		s.n.log.Warn("the replication role was changed and is put back")
	}
	return nil
}

// observe tells the machine what Postgres says of itself.
func (n *node) observe(ctx context.Context, beat <-chan struct{}) {
	var k stuck
	for ctx.Err() == nil {
		var on bool
		every := beatEvery
		if err := n.loop.Ask(ctx, func(m *agent.Machine) {
			if w, e := m.Watching(); w {
				on, every = w, e
			}
		}); err != nil {
			return
		}
		if on {
			n.observeOnce(ctx, &k)
		} else {
			k.mute = 0
		}
		for ; every > 0; every -= beatEvery {
			select {
			case <-ctx.Done():
				return
			case <-beat:
			}
		}
	}
}

// stuck is how long commits have waited for standbys without any of them getting on (PROTOCOL 5.1.e).
type stuck struct {
	since time.Duration
	flush cluster.LSN
	mute  time.Duration // how long Postgres has answered nothing
}

func (k *stuck) look(now time.Duration, waiting int, senders []cluster.Sender) time.Duration {
	var flush cluster.LSN
	for _, s := range senders {
		flush = max(flush, s.Flush)
	}
	// Only more is progress: the end of a WAL sender whose standby went silent takes its position away.
	if waiting == 0 || flush > k.flush || k.since == 0 {
		k.since, k.flush = now, flush
	}
	if waiting == 0 {
		return 0
	}
	return now - k.since
}

func (n *node) observeOnce(ctx context.Context, k *stuck) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	from := Now()
	st, err := n.pg.Observe(ctx)
	if err != nil { // an end of Postgres is told by its exit
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			k.mute += Now() - from
			n.loop.Post(agent.Unanswered{For: k.mute})
		}
		return
	}
	k.mute = 0
	f := agent.Facts{Running: true, ReadWrite: !st.InRecovery, Replay: st.Replay, Backlog: st.Backlog}
	if st.InRecovery {
		f.Streaming = st.Receiver.State == "streaming"
		f.WantsWAL = st.WantsWAL()
		f.Position = cluster.Position{Timeline: max(st.Timeline, st.Receiver.Timeline), LSN: max(st.Replay, st.Receive)}
	} else {
		f.Position = cluster.Position{Timeline: st.Timeline, LSN: st.Flush}
	}
	for _, x := range st.Senders {
		f.Senders = append(f.Senders, cluster.Sender{App: x.App, Flush: x.Flush, Replay: x.Replay, State: x.State, Sync: x.SyncState})
	}
	if st.InRecovery {
		*k = stuck{}
	} else {
		f.Stuck = k.look(Now(), st.SyncWaiting, f.Senders)
	}
	n.loop.Post(agent.Observed{PG: f})
}
