// SPDX-License-Identifier: Apache-2.0

//go:build contract

package upstream_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/pgctl/pgtest"
	"github.com/pgquorum/pgquorum/pgctl/procfs"
	"github.com/pgquorum/pgquorum/pgctl/upstream"
)

// pair is a primary under load with one standby that acknowledges its commits.
type pair struct {
	t       *testing.T
	l       *pgtest.Lab
	p, s    *pgtest.Server
	pc, sc  *pgconn.PgConn
	file    *upstream.File
	parking *upstream.Parking
	epoch   int
	acked   atomic.Uint64 // highest LSN that an acknowledged commit is known to lie beyond
	commits atomic.Int64
	stop    atomic.Bool
}

func newPair(t *testing.T, l *pgtest.Lab, conf string) *pair {
	a := &pair{t: t, l: l, epoch: 1}
	var err error
	a.p = l.Init("p", "synchronous_standby_names='ANY 1 (s_e1)'\nmax_wal_size=2GB\nwal_keep_size=512MB\n"+conf)
	a.p.Start()
	a.pc = a.p.Conn()
	pgtest.Query(t, a.pc, "set synchronous_commit=local; create table t(id bigserial primary key, v text); create table d(i int); select pg_create_physical_replication_slot('s', true)")
	a.s = a.p.Backup("s", "primary_conninfo='"+upstream.ConnInfo+"'\nprimary_slot_name='s'\nmax_standby_streaming_delay=-1\nmax_standby_archive_delay=-1\nsynchronous_standby_names='nobody'\n")
	if a.parking, err = upstream.NewParking(filepath.Join(l.Dir, "park"), 5432); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.parking.Close() })
	path := filepath.Join(l.Dir, "service.conf")
	if a.file, err = upstream.NewFile(upstream.FileOptions{Path: path, Parking: a.parking, ParkingDir: filepath.Join(l.Dir, "park"), ParkingPort: 5432, User: pgtest.User}); err != nil {
		t.Fatal(err)
	}
	a.s.Env = upstream.Env([]string{"PATH=/usr/bin:/bin", "LC_ALL=C", "PGHOSTADDR=192.0.2.1", "PGTARGETSESSIONATTRS=primary"}, path, l.Dir)
	a.s.Start()
	a.sc = a.s.Conn()
	a.order()
	a.streaming()
	return a
}

func (a *pair) name() string { return fmt.Sprintf("s_e%d", a.epoch) }

func (a *pair) order() {
	a.t.Helper()
	err := upstream.Give(upstream.OrderParams{
		File: a.file, PostmasterPID: a.s.PID,
		Order: upstream.Order{Host: "p", HostAddr: "127.0.0.1", Port: a.p.Port, User: pgtest.User, AppName: a.name(), Insecure: true},
	})
	if err != nil {
		a.t.Fatal(err)
	}
}

func (a *pair) streaming() time.Duration {
	a.t.Helper()
	begin := time.Now()
	return pgtest.Wait(a.t, "streaming as "+a.name(), 20*time.Second, func() bool {
		if time.Since(begin) > 19*time.Second {
			a.t.Logf("children %v, parked %d, file parked %v\n%s", a.s.Children(), a.parking.Parked(), a.file.Parked(), a.s.LogTail())
		}
		return len(pgtest.Query(a.t, a.pc, "select 1 from pg_stat_replication where application_name='"+a.name()+"' and state='streaming'")) > 0
	})
}

// load runs writers that commit by quorum and note what was acknowledged.
func (a *pair) load(n int) {
	for range n {
		c := a.p.Conn()
		go func() {
			for !a.stop.Load() {
				rows, err := pgtest.TryQuery(c, "insert into t(v) values ('x') returning pg_current_wal_insert_lsn()")
				if err != nil {
					return
				}
				lsn, _ := cluster.ParseLSN(rows[0])
				a.commits.Add(1)
				for old := a.acked.Load(); uint64(lsn) > old && !a.acked.CompareAndSwap(old, uint64(lsn)); old = a.acked.Load() {
				}
			}
		}()
	}
	a.t.Cleanup(func() { a.stop.Store(true) })
}

// beyond watches for a while whether a commit of the fenced epoch that lies beyond the position is acknowledged. (The
// flush position that the primary has heard is no measure: it may lie inside a record that never became whole.)
func (a *pair) beyond(pos cluster.LSN, watch time.Duration) string {
	a.t.Helper()
	for end := time.Now().Add(watch); time.Now().Before(end); {
		if lsn := cluster.LSN(a.acked.Load()); lsn >= pos {
			return fmt.Sprintf("a commit behind %s was acknowledged, position %s", lsn, pos)
		}
		time.Sleep(time.Millisecond)
	}
	return ""
}

// next takes the new epoch's names and order, as a later election of the same primary would.
func (a *pair) next() {
	a.t.Helper()
	a.epoch++
	pgtest.Query(a.t, a.pc, fmt.Sprintf("alter system set synchronous_standby_names='ANY 1 (%s)'", a.name()))
	pgtest.Query(a.t, a.pc, "select pg_reload_conf()")
	a.order()
}

func (a *pair) position() cluster.LSN {
	a.t.Helper()
	res, _, err := upstream.Position(context.Background(), upstream.PositionParams{PGDATA: a.s.Data, PostmasterPID: a.s.PID, Ask: pgtest.Ask(a.sc)})
	if err != nil {
		a.t.Fatal(err)
	}
	if res.Timeline != 1 {
		a.t.Fatalf("position on timeline %d", res.Timeline)
	}
	return res.LSN
}

// slowFence is what is worth a line in the log.
const slowFence = 50 * time.Millisecond

// TestContractFence is E49 with the product's own code: I11.
func TestContractFence(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		a := newPair(t, l, "")
		a.load(8)
		rounds := pgtest.Rounds(40)
		var fences, positions, attaches pgtest.Stats
		paused, young, blocked, untitled, silent := 0, 0, 0, 0, 0
		for i := range rounds {
			var undo []func()
			switch {
			case l.Rand.IntN(3) == 0:
				paused++
				pgtest.Query(t, a.sc, "select pg_wal_replay_pause()")
				undo = append(undo, func() { pgtest.Query(t, a.sc, "select pg_wal_replay_resume()") })
			case l.Rand.IntN(4) == 0:
				blocked++
				undo = append(undo, a.blockReplay())
			}
			if l.Rand.IntN(5) == 0 {
				silent++
				undo = append(undo, a.silentClient())
			}
			if l.Rand.IntN(2) == 0 { // a receiver that is just being started when the fence comes
				young++
				receivers, err := upstream.Receivers(a.s.PID)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range receivers {
					_ = procfs.NewReader().Signal(r, syscall.SIGTERM)
				}
				time.Sleep(time.Duration(l.Rand.IntN(30000)) * time.Microsecond)
			} else {
				time.Sleep(time.Duration(l.Rand.IntN(50000)) * time.Microsecond)
			}
			f, err := upstream.Fence(context.Background(), upstream.FenceParams{File: a.file, PostmasterPID: a.s.PID})
			if err != nil {
				t.Fatalf("round %d: %v", i, err)
			}
			fences.Add(f.Took)
			if f.Took > slowFence {
				t.Logf("round %d: fence took %s; ended %v, %d untitled", i, f.Took, f.Ended, f.Untitled)
			}
			untitled += f.Untitled
			begin := time.Now()
			pos := a.position()
			positions.Add(time.Since(begin))
			if why := a.beyond(pos, 100*time.Millisecond); why != "" {
				t.Fatalf("round %d: %s", i, why)
			}
			for _, u := range undo {
				u()
			}
			a.next()
			attaches.Add(a.streaming())
		}
		t.Logf("%d fences (%d with replay paused, %d blocked by a reader, %d with a young receiver, %d with a silent client; %d untitled children met), %d commits acknowledged, none beyond a position",
			rounds, paused, blocked, young, silent, untitled, a.commits.Load())
		t.Logf("fence: %s; position: %s; attach: %s", fences, positions, attaches)
	})
}

// blockReplay makes replay wait for a reader.
func (a *pair) blockReplay() func() {
	c := a.s.Conn()
	if _, err := pgtest.TryQuery(c, "begin; select count(*) from d"); err != nil {
		a.t.Fatal(err)
	}
	pgtest.Query(a.t, a.pc, "drop table d; create table d(i int)")
	return func() { c.Close(context.Background()) }
}

// silentClient leaves a child of the postmaster without a title of its own.
func (a *pair) silentClient() func() {
	c := dialSilent(a.t, a.s)
	return func() { c.Close() }
}

// The checker must catch a fence that reads the position before the receiver is gone, and one by primary_conninfo.
func TestContractFenceControls(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		a := newPair(t, l, "")
		a.load(8)
		caught := 0
		for range 10 {
			time.Sleep(20 * time.Millisecond)
			pos := a.position()
			if _, err := upstream.Fence(context.Background(), upstream.FenceParams{File: a.file, PostmasterPID: a.s.PID}); err != nil {
				t.Fatal(err)
			}
			if a.beyond(pos, 50*time.Millisecond) != "" {
				caught++
			}
			a.next()
			a.streaming()
		}
		t.Logf("position read before the receiver is gone: caught in %d of 10 rounds", caught)
		if caught == 0 {
			t.Error("a position read too early was never caught")
		}
		pgtest.Query(t, a.sc, "select pg_wal_replay_pause()")
		at := pgtest.LSN(t, a.pc, "select pg_current_wal_insert_lsn()")
		pgtest.Wait(t, "replay is paused", 5*time.Second, func() bool {
			return pgtest.Query(t, a.sc, "select pg_get_wal_replay_pause_state()")[0] == "paused" && pgtest.LSN(t, a.sc, "select pg_last_wal_receive_lsn()") > at
		})
		pgtest.Query(t, a.sc, "alter system set primary_conninfo=''")
		pgtest.Query(t, a.sc, "select pg_reload_conf()")
		pgtest.Wait(t, "the setting shows", 5*time.Second, func() bool { return pgtest.Query(t, a.sc, "show primary_conninfo")[0] == "" })
		if a.beyond(a.position(), 500*time.Millisecond) == "" {
			t.Error("a fence by primary_conninfo was not caught")
		}
	})
}

// E55: Postgres counts a switch record's end as the next segment's start, and so must the position.
func TestContractPositionAfterSwitch(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		a := newPair(t, l, "")
		for range 3 {
			pgtest.Query(t, a.pc, "insert into t(v) values ('a'); select pg_switch_wal()")
			at := pgtest.LSN(t, a.pc, "select pg_current_wal_flush_lsn()")
			pgtest.Wait(t, "received", 5*time.Second, func() bool { return pgtest.LSN(t, a.sc, "select pg_last_wal_receive_lsn()") >= at })
			pgtest.Query(t, a.sc, "select pg_wal_replay_pause()")
			f, err := upstream.Fence(context.Background(), upstream.FenceParams{File: a.file, PostmasterPID: a.s.PID})
			if err != nil || len(f.Ended) == 0 {
				t.Fatal(f.Ended, err)
			}
			// Without a connection the walk begins at the redo point and must come to the same end.
			slow, _, err := upstream.Position(context.Background(), upstream.PositionParams{PGDATA: a.s.Data, PostmasterPID: a.s.PID})
			if pos := a.position(); err != nil || pos != at || slow.LSN != at {
				t.Fatalf("position %s and %s after a switch (%v), the primary says %s", pos, slow.LSN, err, at)
			}
			pgtest.Query(t, a.sc, "select pg_wal_replay_resume()")
			a.next()
			a.streaming()
		}
		at := pgtest.LSN(t, a.pc, "select pg_current_wal_flush_lsn()")
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if f, err := upstream.PollFlushed(ctx, pgtest.Ask(a.sc), 1, at); err != nil || f.Status != "streaming" {
			t.Error(f, err)
		}
		var ended []int
		for range 2 { // a second fence finds nothing to end
			f, err := upstream.Fence(context.Background(), upstream.FenceParams{File: a.file, PostmasterPID: a.s.PID})
			if err != nil {
				t.Fatal(err)
			}
			ended = append(ended, len(f.Ended))
		}
		if !slices.Equal(ended[:1], []int{1}) {
			t.Error(ended)
		}
		pgtest.Wait(t, "the new receiver waits at the parking socket", 10*time.Second, func() bool { return a.parking.Parked() > 0 })
	})
}

// A receiver that does not end makes the fence say so, and the fence can go on.
func TestContractFenceStuck(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		a := newPair(t, l, "")
		receivers, err := upstream.Receivers(a.s.PID)
		if err != nil || len(receivers) != 1 {
			t.Fatal(receivers, err)
		}
		if err := syscall.Kill(receivers[0].PID, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		f, err := upstream.Fence(context.Background(), upstream.FenceParams{File: a.file, PostmasterPID: a.s.PID})
		if !isNotGone(err) || len(f.Left()) != 1 || time.Since(begin) > 2*upstream.FenceLimit {
			t.Fatal(err, f.Left(), time.Since(begin))
		}
		if err := syscall.Kill(receivers[0].PID, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := f.Wait(ctx); err != nil {
			t.Fatal(err)
		}
	})
}
