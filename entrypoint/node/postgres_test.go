// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/pgctl"
	"github.com/pgquorum/pgquorum/pgctl/promote"
)

// fakePG notes what it is asked to do, in this order. What a test does not expect panics.
type fakePG struct {
	postgres
	mu      sync.Mutex
	did     []string
	fails   string // what goes wrong
	running bool
	disk    pgctl.Disk
}

var errFake = errors.New("as the test wants it")

func (p *fakePG) do(what string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.did = append(p.did, what)
	if what == p.fails {
		return errFake
	}
	return nil
}

func (p *fakePG) Kill() error                         { return p.do("kill") }
func (p *fakePG) Gone(context.Context) error          { return p.do("gone") }
func (p *fakePG) Running() bool                       { return p.running }
func (p *fakePG) CheckSettings(context.Context) error { return p.do("check settings") }
func (p *fakePG) GateGone(context.Context) error      { return p.do("sessions gone") }
func (p *fakePG) OpenGate(context.Context) error      { return p.do("open gate") }
func (p *fakePG) AwaitSettings(context.Context) error { return nil }

func (p *fakePG) CloseGateFor(context.Context, pgctl.Settings) error { return p.do("close gate") }
func (p *fakePG) Plug(_, _ cluster.Timeline) error                   { return p.do("plug") }
func (p *fakePG) QuickWAL(bool) error                                { return p.do("quick wal") }
func (p *fakePG) Order(context.Context, pgctl.Order) error           { return p.do("order") }
func (p *fakePG) OldestWAL() (cluster.LSN, error)                    { return 1, p.do("oldest wal") }
func (p *fakePG) Start(context.Context, pgctl.StartSpec) error       { return p.do("start") }

func (p *fakePG) Promote(context.Context, cluster.Timeline, cluster.Position) (promote.Result, error) {
	return promote.Result{}, p.do("promote")
}

func (p *fakePG) Disk(context.Context) (pgctl.Disk, error) { return p.disk, p.do("disk") }

func (p *fakePG) Position(context.Context) pgctl.Fenced {
	_ = p.do("position")
	return pgctl.Fenced{Known: true, Position: cluster.Position{Timeline: 1, LSN: 0x1000}}
}

func (p *fakePG) EnsureSlots(context.Context, []string, map[string]cluster.LSN) error {
	return p.do("slots")
}

func (p *fakePG) EndSender(context.Context, string) (cluster.LSN, error) {
	return 1, p.do("end sender")
}

func (p *fakePG) Stop(context.Context, pgctl.StopSpec) (pgctl.Stopped, error) {
	return pgctl.Stopped{}, p.do("stop")
}

// MoveForeign finds something when timeline 3 is to be followed.
func (p *fakePG) MoveForeign(t cluster.Timeline, _ cluster.History) (int, error) {
	if t == 3 {
		return 1, p.do("move foreign")
	}
	return 0, p.do("move foreign")
}

func (p *fakePG) Apply(context.Context, pgctl.Settings) error { return p.do("apply") }

func (p *fakePG) Settle(_ context.Context, s pgctl.SettleSpec) (cluster.LSN, error) {
	what := "settle"
	for word, on := range map[string]bool{" from zero": s.FromZero, " from async": s.FromAsync, " without barrier": s.NoBarrier} {
		if on {
			what += word // no test wants two
		}
	}
	return 1, p.do(what)
}

func (p *fakePG) Rewind(context.Context, pgctl.Source, pgctl.Expect) error { return p.do("rewind") }

func (p *fakePG) Clone(context.Context, pgctl.Source, cluster.SystemID, func(_, _ int64)) error {
	return p.do("clone")
}

// worker is a shell over a fake Postgres, with a state directory.
func worker(t *testing.T, p *fakePG) *shell {
	t.Helper()
	s, err := openStore(t.TempDir(), "kernel")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{log: slog.New(slog.DiscardHandler), store: s, pg: p}
	n.opt.DataDir = t.TempDir()
	n.loop = agent.NewLoop(agent.LoopOptions{Machine: agent.Options{Self: 1}, Clock: Now, Log: n.log})
	return newShell(n)
}

// TestOrderOfSteps: what a task may not do before another step is done, it does not do when that step fails.
func TestOrderOfSteps(t *testing.T) {
	one := agent.Settings{Names: []string{"b.e2"}, K: 1}
	for _, c := range []struct {
		rule  string
		task  agent.Task
		fails string
		want  []string
	}{
		{"4.5.b: done when no process is left", agent.Task{Kind: agent.TaskKill}, "", []string{"kill", "gone"}},
		{"4.5.b: and only then", agent.Task{Kind: agent.TaskKill}, "gone", []string{"kill", "gone"}},
		{"5.7.e: admission", agent.Task{Kind: agent.TaskAdmit}, "", []string{"check settings", "sessions gone", "open gate"}},
		{"5.7.e: settings not in force", agent.Task{Kind: agent.TaskAdmit}, "check settings", []string{"check settings"}},
		{"5.7.e: old sessions are there", agent.Task{Kind: agent.TaskAdmit}, "sessions gone", []string{"check settings", "sessions gone"}},
		{"4.5.c: no watchdog", agent.Task{Kind: agent.TaskPromote, Timeline: 2, Parent: 1}, "watchdog", []string{"close gate", "move foreign", "plug"}},
		{"5.5.f: nothing foreign is promoted", agent.Task{Kind: agent.TaskPromote, Timeline: 3, Parent: 1}, "watchdog", []string{"close gate", "move foreign", "plug", "start", "stop"}},
		{"4.5.c: no watchdog", agent.Task{Kind: agent.TaskPrimary, Timeline: 2}, "watchdog", nil},
		{"3.3.a", agent.Task{Kind: agent.TaskSettle, Settings: one}, "", []string{"apply", "settle"}},
		{"3.3.a", agent.Task{Kind: agent.TaskSettle, Settings: one}, "apply", []string{"apply"}},
		{"3.3.e", agent.Task{Kind: agent.TaskSettle, Settings: one, FromZero: true}, "", []string{"apply", "settle from zero"}},
		{"3.3.f", agent.Task{Kind: agent.TaskSettle, Settings: one, FromAsync: true}, "", []string{"apply", "settle from async"}},
		{"3.1.e: nobody to wait for", agent.Task{Kind: agent.TaskSettle}, "", []string{"apply", "settle without barrier"}},
		{"5.6.b: plugged before an answer", agent.Task{Kind: agent.TaskVet, Timeline: 4, Parent: 2}, "", []string{"plug", "oldest wal", "end sender"}},
		{"5.6.b: not plugged", agent.Task{Kind: agent.TaskVet, Timeline: 4, Parent: 2}, "plug", []string{"plug"}},
		{"5.6.b: plugged at the start", agent.Task{Kind: agent.TaskRecovery, Timeline: 4, Parent: 2}, "", []string{"start", "plug", "slots"}},
		{"5.5.f: own history only", agent.Task{Kind: agent.TaskOrder}, "", []string{"quick wal", "order"}},
		{"5.5.f: nothing foreign", agent.Task{Kind: agent.TaskOrder, Timeline: 2}, "", []string{"move foreign", "quick wal", "order"}},
		{"5.5.f: not moved", agent.Task{Kind: agent.TaskOrder, Timeline: 2}, "move foreign", []string{"move foreign"}},
		{"5.5.f: it may be adopted", agent.Task{Kind: agent.TaskOrder, Timeline: 3}, "", []string{"move foreign", "stop", "start", "quick wal", "order"}},
	} {
		p := &fakePG{fails: c.fails}
		_, err := worker(t, p).Work(t.Context(), c.task, nil)
		if c.task.Kind == agent.TaskPromote {
			slices.Sort(p.did) // two at once
		}
		if !slices.Equal(p.did, c.want) || (err == nil) != (c.fails == "") {
			t.Errorf("%s: %s did %q, want %q; %v", c.rule, c.task.Kind, p.did, c.want, err)
		}
	}
}

// TestAdmissionWaitsNoLonger: sessions that are doomed may hold back an admission for 500 ms, and not for ever (PROTOCOL 5.7.e).
func TestAdmissionWaitsNoLonger(t *testing.T) {
	p := &patient{}
	s := worker(t, &p.fakePG)
	s.n.pg = p
	if _, err := s.Work(t.Context(), agent.Task{Kind: agent.TaskAdmit}, nil); err != nil || p.did[len(p.did)-1] != "open gate" {
		t.Errorf("did %q: %v", p.did, err)
	}
}

// patient has sessions that do not end.
type patient struct{ fakePG }

func (p *patient) GateGone(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestNoPositionOfFilesInUse: the end of WAL is not read from files while Postgres lives (PROTOCOL 5.2.f).
func TestNoPositionOfFilesInUse(t *testing.T) {
	p := &fakePG{disk: pgctl.Disk{Kind: pgctl.Present}, running: true}
	s := worker(t, p)
	if r, err := s.Work(t.Context(), agent.Task{Kind: agent.TaskLook}, nil); err != nil || r.Known || slices.Contains(p.did, "position") {
		t.Errorf("it runs: %+v, %v, did %q", r, err, p.did)
	}
	p.running = false
	if r, err := s.Work(t.Context(), agent.Task{Kind: agent.TaskLook}, nil); err != nil || !r.Known {
		t.Errorf("it is down: %+v, %v", r, err)
	}
}

// TestFloorBeforeTheCopy: what the node may have acknowledged is on disk before its WAL is replaced (PROTOCOL 8.4).
func TestFloorBeforeTheCopy(t *testing.T) {
	floor := cluster.Position{Timeline: 3, LSN: 0x2000}
	for _, kind := range []agent.TaskKind{agent.TaskClone, agent.TaskRewind} {
		p := &fakePG{disk: pgctl.Disk{Kind: pgctl.Empty}}
		s := worker(t, p)
		dir := s.n.store.dir
		s.n.store.dir = filepath.Join(dir, "gone")
		if _, err := s.Work(t.Context(), agent.Task{Kind: kind, Floor: floor}, nil); err == nil || len(p.did) != 0 {
			t.Errorf("%s without a floor on disk: did %q, %v", kind, p.did, err)
		}
		s.n.store.dir = dir
		if _, err := s.Work(t.Context(), agent.Task{Kind: kind, Floor: floor}, nil); err != nil {
			t.Error(err)
		}
		if again, err := openStore(dir, "kernel"); err != nil || again.floor != floor {
			t.Errorf("%s: the floor is %s after a restart: %v", kind, again.floor, err)
		}
	}
}

// TestOfferIsDurable: an offer that cannot be written is not made (PROTOCOL 9.2).
func TestOfferIsDurable(t *testing.T) {
	p := &fakePG{disk: pgctl.Disk{Kind: pgctl.Empty}}
	n := worker(t, p).n
	if _, err := n.offer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(n.store.dir, "offer.json")); err != nil {
		t.Errorf("an offer is made that is not on disk: %v", err)
	}
	n.store.dir = filepath.Join(n.store.dir, "gone")
	if _, err := n.offer(t.Context()); err == nil {
		t.Error("an offer is made that could not be written")
	}
}
