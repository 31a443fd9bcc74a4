// SPDX-License-Identifier: Apache-2.0

//go:build contract

package pgctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/pgctl/proc"
	"github.com/pgquorum/pgquorum/pgctl/wal"
)

// These tests run a real Postgres: the first found in PG_BIN, PATH or Debian's place, as a user that is not
// root. They need no network and no Docker: go test -c -tags contract ./pgctl, then run it anywhere.

// TestLifeOfTwoNodes is the whole path: init, clone, stream, settle, fail over, rewind, stream again.
func TestLifeOfTwoNodes(t *testing.T) {
	w := newWorld(t)
	a, b := w.founder("a", 0xa), w.node("b", 0xb)
	t.Log(w.sql(a, "SELECT version()")[0][0])
	w.must(a.EnsureSlots(w.ctx, []string{SlotName(b.inc)}, nil))
	d, err := a.Disk(w.ctx)
	w.must(err)
	id := d.Control.SystemID

	var last int64
	w.must(b.Clone(w.ctx, a.source(), id, func(done, _ int64) { last = done }))
	if last == 0 {
		t.Error("no progress was shown")
	}
	w.must(b.Start(w.ctx, StartSpec{Recovery: true, Settings: Nobody(), GateClosed: true}))
	w.follow(b, a, "b.e1")
	w.must(b.ConfirmStreaming())
	checkTLS(w, a)
	checkSlots(w, a, b)
	checkPause(w, a, b)

	// From nobody to one of one.
	w.must(a.Apply(w.ctx, Settings{SyncNames: []string{"b.e1"}, SyncK: 1}))
	barrier, err := a.Settle(w.ctx, SettleSpec{FromZero: true})
	w.must(err)
	t.Logf("settled at %s", barrier)
	w.must(a.CheckSettings(w.ctx))
	w.sql(a, "SET synchronous_commit = on; CREATE TABLE t AS SELECT g FROM generate_series(1, 1000) g")
	w.until("b replays", func() bool {
		rows, err := b.run(w.ctx, "test", "SELECT count(*) FROM public.t")
		return err == nil && rows[0][0] == "1000"
	})
	checkBarrierWaits(w, a, b)
	checkCloneOfStandby(w, a, b, id)
	failOver(w, a, b, id)
}

func checkTLS(w *world, a *node) {
	rows := w.sql(a, "SELECT ssl FROM pg_stat_ssl s JOIN pg_stat_replication r USING (pid)")
	if len(rows) != 1 || rows[0][0] != "t" {
		w.t.Errorf("replication is not over TLS: %v", rows)
	}
}

// checkSlots: a standby keeps WAL for the other members from where they are, never beyond its own replay (12.4).
func checkSlots(w *world, a, b *node) {
	slots := []string{SlotName(a.inc), SlotName(0xc)}
	at := func(name string) cluster.LSN {
		rows, err := b.run(w.ctx, "test", "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = '"+name+"'")
		if err != nil || len(rows) != 1 {
			w.t.Fatalf("slot %s on the standby: %v %v", name, rows, err)
		}
		return lsn(rows[0][0])
	}
	w.must(b.EnsureSlots(w.ctx, slots, nil))
	was, away := at(slots[0]), at(slots[1])
	w.sql(a, "CREATE TABLE filler AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 40000)")
	end := lsn(w.sql(a, "SELECT pg_current_wal_flush_lsn()")[0][0])
	w.until("b replays", func() bool {
		rows, err := b.run(w.ctx, "test", "SELECT pg_last_wal_replay_lsn()")
		return err == nil && lsn(rows[0][0]) >= end
	})
	w.must(b.EnsureSlots(w.ctx, slots, map[string]cluster.LSN{slots[0]: was + slotStep - 1}))
	if now := at(slots[0]); now != was {
		w.t.Errorf("advanced from %s to %s for less than a segment", was, now)
	}
	w.must(b.EnsureSlots(w.ctx, slots, map[string]cluster.LSN{slots[0]: end}))
	if now := at(slots[0]); now != end {
		w.t.Errorf("the slot of the primary is at %s on the standby, not at %s", now, end)
	}
	w.must(b.EnsureSlots(w.ctx, slots, map[string]cluster.LSN{slots[0]: end + 1<<30}))
	if now := at(slots[0]); now >= end+1<<30 {
		w.t.Errorf("advanced to %s, beyond what the standby has", now)
	}
	if now := at(slots[1]); now != away {
		w.t.Errorf("the slot of a member that is away moved from %s to %s", away, now)
	}
	w.sql(a, "DROP TABLE filler")
}

// checkPause: a replay that was paused with nothing left to replay asks for no WAL, and is seen to; resumed, it does (5.5.g).
func checkPause(w *world, a, b *node) {
	wants := func(s Status) bool { return s.WantsWAL() }
	sees := func(what string, ok func(Status) bool) {
		w.t.Helper()
		w.until(what, func() bool {
			s, err := b.Observe(w.ctx)
			return err == nil && ok(s)
		})
	}
	sees("b has replayed everything", wants)
	_, err := b.run(w.ctx, "test", "SELECT pg_wal_replay_pause()")
	w.must(err)
	sees("the pause is seen", func(s Status) bool { return s.Paused && !s.WantsWAL() && s.Replay >= s.Receive })
	_, err = b.Fence(w.ctx)
	w.must(err)
	w.must(b.Order(w.ctx, Order{Host: "127.0.0.1", Addr: "127.0.0.1", Port: a.port, AppName: "b.e1"}))
	_, err = b.ResumeReplay(w.ctx)
	w.must(err)
	sees("it streams again", func(s Status) bool { return !s.Paused && s.Receiver.State == "streaming" })
}

// checkCloneOfStandby: a copy of a standby follows the primary (8.5).
func checkCloneOfStandby(w *world, a, b *node, id cluster.SystemID) {
	c := w.node("c", 0xc)
	w.must(a.EnsureSlots(w.ctx, []string{SlotName(b.inc), SlotName(c.inc)}, nil))
	w.must(c.Clone(w.ctx, b.source(), id, nil))
	w.must(c.Start(w.ctx, StartSpec{Recovery: true, Settings: Nobody(), GateClosed: true}))
	w.follow(c, a, "c.e1")
	w.must(c.ConfirmStreaming())
	rows, err := c.run(w.ctx, "test", "SELECT count(*) FROM public.t")
	if err != nil || rows[0][0] != "1000" {
		w.t.Errorf("the copy of a standby has %v rows: %v", rows, err)
	}
	w.must(c.Kill())
	w.must(c.Gone(w.ctx))
	w.must(a.EnsureSlots(w.ctx, []string{SlotName(b.inc)}, nil))
}

// checkBarrierWaits proves that the barrier is one: without the standby it is not acknowledged.
func checkBarrierWaits(w *world, a, b *node) {
	w.must(b.Kill())
	w.must(b.Gone(w.ctx))
	ctx, cancel := context.WithTimeout(w.ctx, 400*time.Millisecond)
	defer cancel()
	if lsn, err := a.Settle(ctx, SettleSpec{}); err == nil {
		w.t.Errorf("barrier at %s was acknowledged by nobody", lsn)
	}
	done := make(chan error, 1)
	go func() {
		_, err := a.Settle(w.ctx, SettleSpec{})
		done <- err
	}()
	w.until("the barrier is cancelled", func() bool {
		w.sql(a, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), "barrier") {
				w.t.Errorf("a cancelled barrier counts: %v", err)
			}
			return true
		default:
			return false
		}
	})
	w.must(b.Start(w.ctx, StartSpec{Recovery: true, Settings: Nobody(), GateClosed: true}))
	w.follow(b, a, "b.e1")
}

func failOver(w *world, a, b *node, id cluster.SystemID) {
	start := time.Now()
	w.must(a.Kill())
	w.must(a.Gone(w.ctx))
	w.t.Logf("killed and gone after %v", time.Since(start))
	end := a.Position(w.ctx)
	fenced, err := b.Fence(w.ctx)
	w.must(err)
	if !fenced.Known || !end.Known || fenced.Position != end.Position || fenced.Highest != 1 {
		w.t.Fatalf("fenced at %+v, the primary ended at %+v", fenced, end)
	}
	w.t.Logf("fenced in %v at %v", fenced.Took, fenced.Position)
	if r, err := b.Received(w.ctx); err != nil || r.State == "streaming" {
		w.t.Fatalf("receiver after the fence: %+v %v", r, err)
	}
	w.must(b.Apply(w.ctx, Settings{SyncNames: []string{"a.e2"}, SyncK: 1, Recovery: true}))
	start = time.Now()
	const T = 5 // numbers between were given to others
	_, err = b.Promote(w.ctx, T, fenced.Position)
	w.must(err)
	w.t.Logf("promoted in %v", time.Since(start))
	w.must(b.Apply(w.ctx, Settings{SyncNames: []string{"a.e2"}, SyncK: 1}))
	w.must(b.EnsureSlots(w.ctx, []string{SlotName(a.inc)}, nil))

	// The old primary writes on where nobody sees it: it diverges.
	w.must(a.Start(w.ctx, StartSpec{Settings: Nobody()}))
	w.sql(a, "SET synchronous_commit = local; CREATE TABLE lost AS SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
	w.must(a.Kill())
	w.must(a.Gone(w.ctx))
	w.sql(b, "SET synchronous_commit = local; CREATE TABLE won AS SELECT 1 AS x")
	w.must(b.Checkpoint(w.ctx))

	h, err := wal.ReadHistory(filepath.Join(b.opt.DataDir, "pg_wal"), T)
	w.must(err)
	nowhere := Source{Host: "127.0.0.1", Addr: "127.0.0.1", Port: 1}
	if err := a.Rewind(w.ctx, nowhere, Expect{SystemID: id, Timeline: T}); err == nil {
		w.t.Error("rewound from nowhere")
	}
	if d, err := a.Disk(w.ctx); err != nil || d.Kind != Present {
		w.t.Errorf("a source that cannot be reached cost the directory: %v %v", d.Kind, err)
	}
	start = time.Now()
	w.must(a.Rewind(w.ctx, b.source(), Expect{SystemID: id, Timeline: T, Fork: h[0].Switch}))
	w.t.Logf("rewound in %v", time.Since(start))
	w.must(a.Start(w.ctx, StartSpec{Recovery: true, Settings: Nobody(), GateClosed: true}))
	w.follow(a, b, "a.e2")
	_, err = b.Settle(w.ctx, SettleSpec{})
	w.must(err)
	w.until("a has what b wrote, and not what it lost", func() bool {
		rows, err := a.run(w.ctx, "test", "SELECT to_regclass('public.won'), to_regclass('public.lost')")
		return err == nil && rows[0][0] != "" && rows[0][1] == ""
	})
	handBack(w, a, b)
}

// handBack is a clean stop that the standby gets the end of (PROTOCOL 10.1.e).
func handBack(w *world, a, b *node) {
	start := time.Now()
	stopped, err := b.Stop(w.ctx, StopSpec{KeepSlot: SlotName(a.inc)})
	w.must(err)
	if !stopped.Clean || stopped.ShutdownEnd == 0 {
		w.t.Errorf("stopped: %+v", stopped)
	}
	w.t.Logf("stopped in %v, end %s", time.Since(start), stopped.ShutdownEnd)
	w.until("a has the shutdown record", func() bool {
		s, err := a.Observe(w.ctx)
		return err == nil && s.Receive >= stopped.ShutdownEnd && s.Replay == stopped.ShutdownEnd
	})
	select {
	case e := <-a.Exits():
		w.t.Errorf("unasked exit: %+v", e)
	default:
	}
}

func TestExhaustedConnections(t *testing.T) {
	w := newWorld(t)
	n := w.founder("n", 0xc)
	w.sql(n, "CREATE ROLE u LOGIN")
	full := false
	for range 30 {
		c, err := pgconn.Connect(w.ctx, fmt.Sprintf("host=%s port=%d user=u dbname=postgres", filepath.Join(w.dir, "n", "sock"), n.port))
		if err != nil {
			if full = sqlState(err) == "53300"; !full {
				t.Fatal(err)
			}
			break
		}
		defer c.Close(w.ctx)
	}
	if _, err := n.Observe(w.ctx); err != nil || !full {
		t.Errorf("observe with every connection taken (%v): %v", full, err)
	}
}

func TestOverrideIsUndone(t *testing.T) {
	w := newWorld(t)
	n := w.founder("n", 0xd)
	w.must(n.Apply(w.ctx, Settings{SyncNames: []string{"x"}, SyncK: 1}))
	for _, q := range []string{"ALTER SYSTEM SET synchronous_standby_names = ''", "ALTER SYSTEM SET work_mem = '5MB'"} {
		if _, err := n.run(w.ctx, "test", q); err != nil {
			t.Fatal(err)
		}
	}
	w.sql(n, "SELECT pg_reload_conf()")
	w.until("the override shows", func() bool { return n.CheckSettings(w.ctx) != nil })
	undone, err := n.UndoOverrides(w.ctx)
	if err != nil || len(undone) != 1 {
		t.Fatalf("undone %v, %v", undone, err)
	}
	w.until("the override is undone", func() bool { return n.CheckSettings(w.ctx) == nil })
	if got := w.sql(n, "SHOW work_mem")[0][0]; got != "5MB" {
		t.Errorf("work_mem is %s", got)
	}
	w.sql(n, "ALTER ROLE pgquorum NOLOGIN PASSWORD NULL")
	if changed, err := n.EnsureRole(w.ctx); err != nil || !changed {
		t.Errorf("role was not repaired: %v", err)
	}
}

func TestCrashIsReported(t *testing.T) {
	w := newWorld(t)
	n := w.founder("n", 0xe)
	pid := number(w.sql(n, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")[0][0])
	w.must(syscall.Kill(int(pid), syscall.SIGKILL))
	select {
	case e := <-n.Exits():
		if e.Status.OK() || len(e.Tail) == 0 {
			t.Errorf("exit: %+v", e)
		}
	case <-w.ctx.Done():
		t.Fatal("no exit was reported")
	}
	w.until("it is not running", func() bool { return !n.Running() })
	if _, err := n.Observe(w.ctx); !errors.Is(err, ErrNotRunning) {
		t.Errorf("observe: %v", err)
	}
}

// TestImageInit runs the image's own scripts, which only an image has.
func TestImageInit(t *testing.T) {
	if _, err := exec.LookPath("docker-ensure-initdb.sh"); err != nil {
		t.Skipf("not in an image: %v", err)
	}
	for _, script := range []string{"docker-ensure-initdb.sh", "no-such-script"} {
		t.Run(script, func(t *testing.T) { imageInit(t, script) })
	}
}

func imageInit(t *testing.T, script string) {
	w := newWorld(t)
	n := w.node("n", 0x10)
	n.opt.EnsureInit, n.opt.Entrypoint = script, "docker-entrypoint.sh"
	n.opt.ServerArgs = nil // the script looks for its server in the default place
	n.opt.Env = append(n.opt.Env, "POSTGRES_PASSWORD=p", "POSTGRES_USER=bob", "POSTGRES_DB=shop", "PGQUORUM_PEERS=x")
	w.must(n.Init(w.ctx))
	w.must(n.Prepare(w.ctx))
	w.must(n.Start(w.ctx, StartSpec{}))
	got := w.sql(n, "SELECT (SELECT rolsuper FROM pg_roles WHERE rolname = 'bob'), current_setting('data_checksums'), count(*) FROM pg_database WHERE datname = 'shop'")
	if fmt.Sprint(got) != "[[t on 1]]" {
		t.Errorf("by %s: %v", script, got)
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", n.Pid()))
	if err != nil || strings.Contains(string(env), "POSTGRES_PASSWORD") || strings.Contains(string(env), "PGHOSTADDR") {
		t.Errorf("environment of the postmaster: %q %v", env, err)
	}
	_, err = n.Stop(w.ctx, StopSpec{})
	w.must(err)
	if err := n.Init(w.ctx); err == nil {
		t.Error("initialised over data")
	}
}

func TestStartThatFails(t *testing.T) {
	w := newWorld(t)
	n := w.founder("n", 0xf)
	if s, err := n.Stop(w.ctx, StopSpec{}); err != nil || !s.Clean {
		t.Fatalf("stopped %+v, %v", s, err)
	}
	w.must(os.WriteFile(filepath.Join(n.opt.DataDir, "postgresql.conf"), []byte("no_such_thing = 1\n"), 0o600))
	err := n.Start(w.ctx, StartSpec{})
	if end, ok := errors.AsType[Exit](err); !ok || end.Status.Code != 1 || n.Running() {
		t.Errorf("start: %v", err)
	}
	if len(n.Exits()) != 0 {
		t.Error("the exit was reported twice")
	}
}

// killedFirst kills everything in the moment before a process is started.
type killedFirst struct {
	Children
	kill func() error
}

func (k *killedFirst) Start(s proc.Spec) (*proc.Child, error) {
	if err := k.kill(); err != nil {
		return nil, err
	}
	return k.Children.Start(s)
}

// TestNothingStartsAfterKill: a fence says that no Postgres is left here. A start that it overtook must not make it a lie.
func TestNothingStartsAfterKill(t *testing.T) {
	w := newWorld(t)
	n := w.founder("n", 0xf)
	_, err := n.Stop(w.ctx, StopSpec{})
	w.must(err)
	cancelled, cancel := context.WithCancel(w.ctx)
	cancel()
	w.must(n.Kill())
	if err := n.Start(cancelled, StartSpec{}); !errors.Is(err, context.Canceled) || n.Running() {
		t.Errorf("start that was cancelled before the kill: %v, running %v", err, n.Running())
	}
	all := n.opt.Children
	n.opt.Children = &killedFirst{Children: all, kill: n.Kill}
	if err := n.Start(w.ctx, StartSpec{}); !errors.Is(err, proc.ErrKilled) {
		t.Errorf("start that a kill overtook: %v", err)
	}
	w.until("it is gone", func() bool { return !n.Running() })
	n.opt.Children = all
	w.must(n.Start(w.ctx, StartSpec{}))
}

func TestInterruptedPlans(t *testing.T) {
	w := newWorld(t)
	a := w.founder("a", 1)
	d, err := a.Disk(w.ctx)
	w.must(err)
	b := w.node("b", 2)
	ctx, cancel := context.WithCancel(w.ctx)
	err = b.Clone(ctx, a.source(), d.Control.SystemID, func(_, _ int64) { cancel() })
	if err == nil {
		t.Fatal("a cancelled clone succeeded")
	}
	if d, err := b.Disk(w.ctx); err != nil || d.Kind != Empty {
		t.Errorf("after a cancelled clone: %v %v", d.Kind, err)
	}
	if left, _ := b.Leftovers(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	w.must(b.Clone(w.ctx, a.source(), d.Control.SystemID, nil))
	// Between the two renames.
	clone, old := b.opt.DataDir+".clone-9", b.opt.DataDir+".old-9"
	w.must(os.Rename(b.opt.DataDir, clone))
	w.must(b.writePlan(Plan{Kind: PlanClone, Step: StepSwap, Clone: clone, Old: old}))
	w.must(b.Recover(w.ctx))
	if d, err := b.Disk(w.ctx); err != nil || d.Kind != Present || !d.Standby || d.Plan.Step != StepSwapped {
		t.Errorf("after a resumed swap: %+v %v", d, err)
	}
	// Inside a rewind.
	w.must(b.writePlan(Plan{Kind: PlanRewind, Step: StepRewind}))
	w.must(b.Recover(w.ctx))
	if err := b.Start(w.ctx, StartSpec{Recovery: true, Settings: Nobody()}); err == nil {
		t.Fatal("garbage was started")
	}
	w.must(b.Clone(w.ctx, a.source(), d.Control.SystemID, nil))
	w.must(b.Start(w.ctx, StartSpec{Recovery: true, Settings: Nobody()}))
	w.must(b.ConfirmStreaming())
	if left, _ := b.Leftovers(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
