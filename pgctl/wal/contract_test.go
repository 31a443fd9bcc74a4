// SPDX-License-Identifier: Apache-2.0

//go:build contract

package wal_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/pgctl/pgtest"
	"github.com/pgquorum/pgquorum/pgctl/wal"
)

func TestContractControl(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		for i, args := range [][]string{nil, {"-k", "--wal-segsize=64"}} {
			s := l.Init(fmt.Sprint("c", i), fmt.Sprintf("max_connections=%d\nmax_worker_processes=11\nmax_prepared_transactions=3\nwal_log_hints=on\nwal_level=logical\ntrack_commit_timestamp=on\n", 33+i), args...)
			compareControl(t, l, s.Data)
			s.Start()
			s.One("create table t(i int); insert into t values (1); checkpoint; select 1")
			compareControl(t, l, s.Data)
			b := s.Backup("b"+fmt.Sprint(i), "max_connections=40\n")
			b.Append("postgresql.conf", fmt.Sprintf("primary_conninfo='host=%s port=%d user=postgres'\n", l.Dir, s.Port))
			b.Start()
			s.One("insert into t values (2); checkpoint; select 1")
			at := s.One("select pg_current_wal_flush_lsn()")
			pgtest.Wait(t, "replay", 10*time.Second, func() bool { return b.One("select pg_last_wal_replay_lsn()>='"+at+"'") == "t" })
			b.Stop()
			compareControl(t, l, b.Data)
			s.Stop()
		}
	})
}

func compareControl(t *testing.T, l *pgtest.Lab, data string) {
	t.Helper()
	c, err := wal.ReadControl(data)
	if err != nil {
		t.Fatal(err)
	}
	get := map[string]string{}
	for line := range strings.Lines(l.Run("pg_controldata", "-D", data)) {
		k, v, _ := strings.Cut(line, ":")
		get[k] = strings.TrimSpace(v)
	}
	yes := map[bool]string{true: "yes", false: "no"}
	on := map[bool]string{true: "on", false: "off"}
	for k, v := range map[string]string{
		"Database system identifier":         fmt.Sprint(uint64(c.SystemID)),
		"pg_control version number":          fmt.Sprint(c.Version),
		"Catalog version number":             fmt.Sprint(c.CatalogVersion),
		"Database cluster state":             c.State.String(),
		"Latest checkpoint location":         c.Checkpoint.String(),
		"Latest checkpoint's REDO location":  c.Redo.String(),
		"Latest checkpoint's TimeLineID":     fmt.Sprint(c.CheckpointTimeline),
		"Latest checkpoint's PrevTimeLineID": fmt.Sprint(c.PrevTimeline),
		"Latest checkpoint's NextXID":        fmt.Sprintf("%d:%d", c.NextXID>>32, uint32(c.NextXID)),
		"Minimum recovery ending location":   c.MinRecoveryPoint.String(),
		"Min recovery ending loc's timeline": fmt.Sprint(c.MinRecoveryTimeline),
		"Backup start location":              c.BackupStart.String(),
		"Backup end location":                c.BackupEnd.String(),
		"End-of-backup record required":      yes[c.BackupEndRequired],
		"wal_level setting":                  [...]string{"minimal", "replica", "logical"}[c.WALLevel],
		"wal_log_hints setting":              on[c.WALLogHints],
		"max_connections setting":            fmt.Sprint(c.MaxConnections),
		"max_worker_processes setting":       fmt.Sprint(c.MaxWorkerProcesses),
		"max_wal_senders setting":            fmt.Sprint(c.MaxWALSenders),
		"max_prepared_xacts setting":         fmt.Sprint(c.MaxPreparedXacts),
		"max_locks_per_xact setting":         fmt.Sprint(c.MaxLocksPerXact),
		"track_commit_timestamp setting":     on[c.TrackCommitTimestamp],
		"Database block size":                fmt.Sprint(c.BlockSize),
		"WAL block size":                     fmt.Sprint(c.WALBlockSize),
		"Bytes per WAL segment":              fmt.Sprint(c.WALSegmentSize),
		"Data page checksum version":         fmt.Sprint(c.DataChecksumVersion),
	} {
		if get[k] != v {
			t.Errorf("%s: pg_controldata says %q, we %q", k, get[k], v)
		}
	}
}

var dumpLine = regexp.MustCompile(`lsn: ([0-9A-F]+/[0-9A-F]+), prev`)

func TestContractEnd(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		for _, seg := range []string{"1", "16"} {
			walkWhileWriting(t, l, seg)
		}
	})
}

// walkWhileWriting writes records of many sizes, with segment switches and recycled segments, and compares the walk
// with what the server says and with pg_waldump.
func walkWhileWriting(t *testing.T, l *pgtest.Lab, seg string) {
	s := l.Init("w"+seg, "max_wal_size=32MB\nmin_wal_size=32MB\nfull_page_writes=on\nbgwriter_delay=10s\nwal_keep_size=8MB\n", "--wal-segsize="+seg)
	s.Start()
	c := s.Conn()
	pgtest.Query(t, c, "create table t(i int, v text)")
	rounds, compared, records := pgtest.Rounds(150), 0, 0
	var worst time.Duration
	for range rounds {
		mixedWrites(t, l, c)
		begin := time.Now()
		before, got, ctl := endBetween(t, s, c)
		worst = max(worst, time.Since(begin))
		if got.LSN != before || got.Timeline != 1 {
			t.Fatalf("walk ends at %v, server has flushed %s (redo %s)", got, before, ctl.Redo)
		}
		compared++
		records += got.Records
		if compared%25 == 0 {
			// A slot keeps every segment from the checkpoint on while they are read twice.
			pgtest.Query(t, c, "select pg_create_physical_replication_slot('hold', true); checkpoint")
			for range 8 {
				mixedWrites(t, l, c)
			}
			_, got, ctl = endBetween(t, s, c)
			compareDump(t, l, s, got, ctl)
			pgtest.Query(t, c, "select pg_drop_replication_slot('hold')")
		}
	}
	t.Logf("segments of %s MB: %d walks, %d records, worst %s with the queries", seg, compared, records, worst)
	s.Stop()
	res, ctl, err := wal.EndOfDirectory(s.Data, 0)
	if err != nil || ctl.State != wal.StateShutDown || res.LastRecord != ctl.Checkpoint {
		t.Fatalf("after a clean stop: %v %v %v", res, ctl.Checkpoint, err)
	}
}

func mixedWrites(t *testing.T, l *pgtest.Lab, c *pgconn.PgConn) {
	for range 1 + l.Rand.IntN(4) {
		switch n := l.Rand.IntN(20); {
		case n == 0:
			pgtest.Query(t, c, "select pg_switch_wal()")
		case n == 1:
			pgtest.Query(t, c, "checkpoint")
		case n < 4:
			size := 1 << (10 + l.Rand.IntN(12))
			pgtest.Query(t, c, fmt.Sprintf("select pg_logical_emit_message(%v, 'p', repeat('x', %d))", n == 2, size+l.Rand.IntN(size)))
		case n < 12:
			pgtest.Query(t, c, fmt.Sprintf("insert into t select g, repeat('y', %d) from generate_series(1, %d) g", l.Rand.IntN(2500), 1+l.Rand.IntN(300)))
		default:
			pgtest.Query(t, c, fmt.Sprintf("select pg_logical_emit_message(false, 'p', repeat('x', %d)) from generate_series(1,%d)", l.Rand.IntN(20000), 1+l.Rand.IntN(20)))
		}
	}
}

// endBetween walks at a moment when the server's flushed end does not move.
func endBetween(t *testing.T, s *pgtest.Server, c *pgconn.PgConn) (cluster.LSN, wal.EndResult, wal.Control) {
	t.Helper()
	for range 50 {
		pgtest.Query(t, c, "insert into t values (0); select txid_current()")
		before := pgtest.LSN(t, c, "select pg_current_wal_insert_lsn()")
		if pgtest.LSN(t, c, "select pg_current_wal_flush_lsn()") != before {
			continue
		}
		ctl, err := wal.ReadControl(s.Data)
		if err != nil {
			t.Fatal(err)
		}
		got, err := wal.End(wal.EndParams{Dir: filepath.Join(s.Data, "pg_wal"), Timeline: 1, SegmentSize: ctl.WALSegmentSize, SystemID: ctl.SystemID, Start: ctl.Redo, RedoPoint: true})
		if pgtest.LSN(t, c, "select pg_current_wal_insert_lsn()") != before {
			continue
		}
		if now, e := wal.ReadControl(s.Data); e != nil {
			t.Fatal(e)
		} else if now.Redo != ctl.Redo {
			continue // a checkpoint ended meanwhile, and may have recycled where the walk began
		}
		if err != nil {
			t.Fatal(err)
		}
		return unheader(before, ctl), got, ctl
	}
	t.Fatal("the log never stands still")
	return 0, wal.EndResult{}, wal.Control{}
}

// unheader maps the insert position just behind a page header, as a server shows it on an empty page, to the end
// of the record before.
func unheader(lsn cluster.LSN, c wal.Control) cluster.LSN {
	if lsn%cluster.LSN(c.WALSegmentSize) == 40 {
		return lsn - 40
	}
	if lsn%8192 == 24 {
		return lsn - 24
	}
	return lsn
}

// compareDump checks records one by one with pg_waldump, and walks from several of them as from a replay position.
func compareDump(t *testing.T, l *pgtest.Lab, s *pgtest.Server, got wal.EndResult, ctl wal.Control) {
	t.Helper()
	out := l.Run("pg_waldump", "-p", filepath.Join(s.Data, "pg_wal"), "-s", ctl.Redo.String(), "-e", got.LSN.String())
	found := dumpLine.FindAllStringSubmatch(out, -1)
	if len(found) != got.Records {
		t.Fatalf("pg_waldump sees %d records, we %d", len(found), got.Records)
	}
	for range min(40, len(found)) {
		start, err := cluster.ParseLSN(found[l.Rand.IntN(len(found))][1])
		if err != nil {
			t.Fatal(err)
		}
		res, err := wal.End(wal.EndParams{Dir: filepath.Join(s.Data, "pg_wal"), Timeline: 1, SegmentSize: ctl.WALSegmentSize, Start: start, Limit: got.LSN})
		if err != nil || res.LSN != got.LSN {
			t.Fatalf("walk from %s: %v, %v; want %s", start, res, err, got.LSN)
		}
	}
}

// A record torn by a crash stays in the log: recovery leaves it and goes on behind it, and so must the walk.
func TestContractTornRecord(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		s := l.Init("torn", "wal_keep_size=200MB\n", "--wal-segsize=1")
		s.Start()
		c := s.Conn()
		pgtest.Query(t, c, "create table t(i int); checkpoint")
		ctl, err := wal.ReadControl(s.Data)
		if err != nil {
			t.Fatal(err)
		}
		pgtest.Query(t, c, "insert into t values (1)")
		before := pgtest.LSN(t, c, "select pg_current_wal_insert_lsn()")
		pgtest.Query(t, c, "select pg_logical_emit_message(true, 'p', repeat('x', 3000000))")
		s.Kill()
		// Lose what was written after the first 1.2 MB of the long record.
		cutLog(t, s.Data, before+1200000, ctl)
		dir := filepath.Join(s.Data, "pg_wal")
		p := wal.EndParams{Dir: dir, Timeline: 1, SegmentSize: ctl.WALSegmentSize, SystemID: ctl.SystemID, Start: ctl.Redo, RedoPoint: true}
		torn, err := wal.End(p)
		if err != nil || torn.LSN > before+64 {
			t.Fatalf("torn: %v %v, want about %s", torn, err, before)
		}
		s.Start()
		c = s.Conn()
		pgtest.Query(t, c, "insert into t values (2)")
		for range 20 {
			at := pgtest.LSN(t, c, "select pg_current_wal_flush_lsn()")
			p2 := p
			p2.Start, p2.RedoPoint = torn.LSN, false
			for _, q := range []wal.EndParams{p, p2} {
				if res, err := wal.End(q); err != nil || res.LSN < at {
					t.Fatalf("after recovery the log ends at %v, %v; the server says %s", res, err, at)
				}
			}
		}
		t.Logf("walked over an abandoned record at %s", torn.LSN)
	})
}

func cutLog(t *testing.T, data string, at cluster.LSN, ctl wal.Control) {
	t.Helper()
	size := cluster.LSN(ctl.WALSegmentSize)
	for lsn := at; lsn < at+8*size; lsn = (lsn/size + 1) * size {
		path := filepath.Join(data, "pg_wal", wal.SegmentName(1, lsn, ctl.WALSegmentSize))
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if os.IsNotExist(err) {
			return
		}
		if err == nil {
			_, err = f.WriteAt(make([]byte, size-lsn%size), int64(lsn%size))
			f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// After a promotion the walk follows the node's own history; the old primary's records beyond the fork stay on the
// old timeline (E27's diverged standby is seen by its bytes).
func TestContractTimelines(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		p := l.Init("p", "wal_keep_size=200MB\n", "--wal-segsize=1")
		p.Start()
		s := p.Backup("s", "")
		s.Append("postgresql.conf", fmt.Sprintf("primary_conninfo='host=%s port=%d user=postgres'\n", l.Dir, p.Port))
		s.Start()
		pc := p.Conn()
		pgtest.Query(t, pc, "create table t(i int, v text); insert into t select g, repeat('x', 900) from generate_series(1, 3000) g")
		at := pgtest.LSN(t, pc, "select pg_current_wal_flush_lsn()")
		pgtest.Wait(t, "replay", 10*time.Second, func() bool { return s.One("select pg_last_wal_replay_lsn()>='"+at.String()+"'") == "t" })
		start := at
		s.One("select pg_promote()")
		pgtest.Query(t, pc, "insert into t select g, repeat('z', 900) from generate_series(1, 3000) g")
		sc := s.Conn()
		pgtest.Query(t, sc, "insert into t select g, repeat('y', 700) from generate_series(1, 3000) g")
		h, err := wal.ReadHistory(filepath.Join(s.Data, "pg_wal"), 2)
		if err != nil || len(h) != 1 {
			t.Fatal(h, err)
		}
		ctl, _ := wal.ReadControl(s.Data)
		walk := func(srv *pgtest.Server, tli cluster.Timeline, h cluster.History) wal.EndResult {
			res, err := wal.End(wal.EndParams{Dir: filepath.Join(srv.Data, "pg_wal"), Timeline: tli, History: h, SegmentSize: ctl.WALSegmentSize, SystemID: ctl.SystemID, Start: start})
			if err != nil {
				t.Fatal(err)
			}
			return res
		}
		young, old := walk(s, 2, h), walk(p, 1, nil)
		if want := pgtest.LSN(t, sc, "select pg_current_wal_flush_lsn()"); young.Timeline != 2 || young.LSN != want {
			t.Errorf("new primary: %v, want 2:%s", young, want)
		}
		if want := pgtest.LSN(t, pc, "select pg_current_wal_flush_lsn()"); old.Timeline != 1 || old.LSN != want || want <= h[0].Switch {
			t.Errorf("old primary: %v, want 1:%s beyond %s", old, want, h[0].Switch)
		}
		// The same bytes walked with the new history are still on the old timeline.
		if got := walk(p, 2, h); got.Position != old.Position {
			t.Errorf("old primary under the new history: %v, want %v", got.Position, old.Position)
		}
		s.Kill()
		if res, _, err := wal.EndOfDirectory(s.Data, 0); err != nil || res.Position != young.Position {
			t.Errorf("new primary's files: %v %v, want %v", res, err, young.Position)
		}
	})
}
