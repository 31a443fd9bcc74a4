// SPDX-License-Identifier: Apache-2.0

//go:build contract

package pgtest_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgquorum/pgquorum/pgctl/pgtest"
)

// These tests are about Postgres and not about our code: what it does that a rule of docs/protocol.md rests on. One that
// fails on a new version says that the rule has lost its reason, or its ground. docs/contracts.md lists them by number.

// held is how long a commit that must wait is watched.
const held = 500 * time.Millisecond

// follows makes a standby of p that streams under a name, and starts it.
func follows(p *pgtest.Server, name string, conf string) *pgtest.Server {
	s := p.Backup(name, conf)
	point(s, p, name)
	s.Start()
	streams(p, name)
	return s
}

func point(s, p *pgtest.Server, name string) {
	s.Append("postgresql.auto.conf", fmt.Sprintf("primary_conninfo='host=%s port=%d user=%s application_name=%s'\n", p.Lab.Dir, p.Port, pgtest.User, name))
}

func streams(p *pgtest.Server, name string) {
	pgtest.Wait(p.Lab.T, name+" streams", 20*time.Second, func() bool {
		return p.One("select count(*) from pg_stat_replication where state='streaming' and application_name='"+name+"'") == "1"
	})
}

func catchesUp(p, s *pgtest.Server) {
	at := p.One("select pg_current_wal_flush_lsn()")
	pgtest.Wait(p.Lab.T, s.Name+" replays "+at, 20*time.Second, func() bool { return s.One("select pg_last_wal_replay_lsn()>='"+at+"'") == "t" })
}

func promoted(s *pgtest.Server) {
	s.One("select pg_promote(false)")
	pgtest.Wait(s.Lab.T, s.Name+" is promoted", 30*time.Second, func() bool { return s.One("select pg_is_in_recovery()") == "f" })
}

func set(s *pgtest.Server, conf string) {
	s.Append("postgresql.auto.conf", conf+"\n")
	s.Signal(syscall.SIGHUP)
}

func list(s *pgtest.Server, names string) {
	set(s, "synchronous_standby_names='"+names+"'")
	want := strings.ReplaceAll(names, "''", "'")
	pgtest.Wait(s.Lab.T, "the list shows", 10*time.Second, func() bool { return s.One("show synchronous_standby_names") == want })
}

// commit runs a statement on a connection of its own and says when it has been acknowledged.
func commit(s *pgtest.Server, sql string) (<-chan error, *pgconn.PgConn) {
	c, done := s.Conn(), make(chan error, 1)
	go func() {
		_, err := pgtest.TryQuery(c, sql)
		done <- err
	}()
	return done, c
}

func waits(t *testing.T, done <-chan error, what string) {
	t.Helper()
	select {
	case err := <-done:
		t.Fatalf("%s did not wait: %v", what, err)
	case <-time.After(held):
	}
}

func returns(t *testing.T, done <-chan error, what string) {
	t.Helper()
	select {
	case err := <-done:
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("%s waits", what)
	}
}

// child finds the process of a kind among the postmaster's.
func child(s *pgtest.Server, title string) int {
	s.Lab.T.Helper()
	for _, p := range s.Children() {
		if strings.Contains(p.Title, title) {
			return p.PID
		}
	}
	s.Lab.T.Fatalf("%s has no %s", s.Name, title)
	return 0
}

// TestContractDivergedCounts is E27: a WAL receiver that has diverged acknowledges commits that it does not hold. So no
// receiver may reach a primary unchecked (5.5.c).
func TestContractDivergedCounts(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		old := l.Init("old", "")
		old.Start()
		old.One("create table t(i int, v text); select 1")
		next := follows(old, "next", "")
		old.One("checkpoint; select 1")
		catchesUp(old, next)
		promoted(next)
		old.One("insert into t select g, repeat('x', 1000) from generate_series(1, 1000) g; select 1") // next never sees it
		old.Kill()
		old.Append("standby.signal", "")
		point(old, next, "diverged")
		list(next, "ANY 1 (diverged)")
		done, _ := commit(next, "insert into t values (0, 'acknowledged')")
		waits(t, done, "a commit without any standby")
		old.Start()
		returns(t, done, "a commit with a diverged standby")
		if n := old.One("select count(*) from t where i=0"); n != "0" {
			t.Fatalf("the diverged standby holds the commit: it has not diverged (%s)", n)
		}
		if end := next.One("select flush_lsn > pg_current_wal_flush_lsn() from pg_stat_replication where application_name='diverged'"); end == "f" {
			t.Logf("its reported flush is not beyond the primary's end any more")
		}
	})
}

// TestContractTimelinesCollide is E1: two promotions from one parent take the same number, and pg_rewind sees no
// difference. So the log assigns timelines (5.5.a).
func TestContractTimelinesCollide(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		p := l.Init("p", "wal_log_hints=on\n")
		p.Start()
		p.One("create table t(i int, v text); select 1")
		a, b := follows(p, "a", ""), follows(p, "b", "")
		catchesUp(p, a)
		catchesUp(p, b)
		p.Kill()
		for _, s := range []*pgtest.Server{a, b} {
			promoted(s)
			s.One("insert into t select g, '" + s.Name + "' from generate_series(1, 100) g; checkpoint; select 1")
			if tl := s.One("select timeline_id from pg_control_checkpoint()"); tl != "2" {
				t.Fatalf("%s is on timeline %s", s.Name, tl)
			}
		}
		b.Stop()
		if out := rewind(t, b, a); !strings.Contains(out, "no rewind required") {
			t.Fatalf("pg_rewind tells two timelines 2 apart:\n%s", out)
		}
	})
}

func rewind(t *testing.T, target, source *pgtest.Server) string {
	t.Helper()
	out, err := exec.Command(filepath.Join(target.Lab.Bin, "pg_rewind"), "-D", target.Data, "--source-server",
		fmt.Sprintf("host=%s port=%d user=%s dbname=postgres", source.Lab.Dir, source.Port, pgtest.User)).CombinedOutput()
	if err != nil {
		t.Fatalf("pg_rewind: %v\n%s", err, out)
	}
	return string(out)
}

// TestContractRewindNeedsCheckpoint is E46: until the source's first checkpoint on its timeline pg_rewind of 15 compares
// the old one, finds no difference and leaves the target diverged. With the checkpoint it rewinds (8.3.c).
func TestContractRewindNeedsCheckpoint(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		p := l.Init("p", "wal_log_hints=on\ncheckpoint_timeout=1h\nwal_keep_size=200MB\n")
		p.Start()
		p.One("create table t(i int, v text); select 1")
		s := follows(p, "s", "")
		catchesUp(p, s)
		checkpointer := child(s, "checkpointer")
		if err := syscall.Kill(checkpointer, syscall.SIGSTOP); err != nil { // the checkpoint after the promotion is slow
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Kill(checkpointer, syscall.SIGCONT) })
		promoted(s)
		p.One("insert into t select g, 'lost' from generate_series(1, 100) g; select 1")
		p.Stop()
		early := rewind(t, p, s)
		if l.Version == 15 && !strings.Contains(early, "no rewind required") {
			t.Fatalf("15 rewinds before the checkpoint now: 8.3.c may rest\n%s", early)
		}
		_ = syscall.Kill(checkpointer, syscall.SIGCONT)
		s.One("checkpoint; select 1")
		if l.Version != 15 {
			t.Logf("%d: before the checkpoint pg_rewind says %q", l.Version, lastLine(early))
			return
		}
		if late := rewind(t, p, s); strings.Contains(late, "no rewind required") {
			t.Fatalf("not rewound after the checkpoint:\n%s", late)
		}
		p.Append("standby.signal", "")
		p.Append("postgresql.auto.conf", fmt.Sprintf("port=%d\n", p.Port)) // the source's settings came along
		point(p, s, "p")
		p.Start()
		streams(s, "p")
		catchesUp(s, p)
		if n := p.One("select count(*) from t"); n != "0" {
			t.Errorf("%s rows of the lost timeline are left", n)
		}
	})
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// TestContractListArmedLate is E4: whether a commit waits at all is decided by a flag of the checkpointer's, so a session
// that already shows the new list commits without waiting. With the two checkpoints of 3.3.e it waits. Hence the list is
// never empty (3.1.e).
func TestContractListArmedLate(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		p := l.Init("p", "")
		p.Start()
		p.One("create table t(i int); select 1")
		checkpointer := child(p, "checkpointer")
		if err := syscall.Kill(checkpointer, syscall.SIGSTOP); err != nil { // it is in a long checkpoint
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Kill(checkpointer, syscall.SIGCONT) })
		list(p, "ANY 1 (nobody)")
		done, _ := commit(p, "insert into t values (1)")
		returns(t, done, "a commit under a list that the checkpointer has not seen")
		_ = syscall.Kill(checkpointer, syscall.SIGCONT)
		p.One("checkpoint; checkpoint; select 1")
		done, _ = commit(p, "insert into t values (2)")
		waits(t, done, "a commit after the checkpoints")
	})
}

// TestContractListArmedBefore is E4i: a list that a standby shows before it is promoted holds its first commit (3.1.e).
func TestContractListArmedBefore(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		p := l.Init("p", "")
		p.Start()
		p.One("create table t(i int); select 1")
		s := follows(p, "s", "synchronous_standby_names='ANY 1 (nobody)'\n")
		catchesUp(p, s)
		p.Kill()
		c := s.Conn()
		promoted(s)
		first := make(chan error, 1)
		go func() {
			_, err := pgtest.TryQuery(c, "insert into t values (1)")
			first <- err
		}()
		waits(t, first, "the first commit after the promotion")
	})
}

// TestContractWaitingIsInvisible is E6: a commit that waits is invisible; a crash makes it visible unacknowledged, which
// is why a primary serves only what the quorum has (5.7.c); cancelled, it is reported done (15.a).
func TestContractWaitingIsInvisible(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		p := l.Init("p", "synchronous_standby_names='ANY 1 (nobody)'\n")
		p.Start()
		p.One("set synchronous_commit=local; create table t(i int); select 1")
		rows := func() string { return p.One("select string_agg(i::text, ',' order by i) from t") }
		cancelled, c := commit(p, "insert into t values (1)")
		waits(t, cancelled, "a commit without its standby")
		if got := rows(); got != "" {
			t.Fatalf("a waiting commit is visible: %s", got)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := c.CancelRequest(ctx); err != nil {
			t.Fatal(err)
		}
		returns(t, cancelled, "a cancelled wait")
		if got := rows(); got != "1" {
			t.Fatalf("after the cancel: %q", got)
		}
		lost, _ := commit(p, "insert into t values (2)")
		waits(t, lost, "the next commit")
		p.Kill()
		p.Start()
		if got := rows(); got != "1,2" {
			t.Fatalf("after the crash: %q", got)
		}
		if err := <-lost; err == nil {
			t.Fatal("acknowledged although nobody had it")
		}
	})
}

// TestContractPostmasterAlone is E7: with the postmaster killed, and nothing else, a busy session goes on committing and
// reports success. So the fence kills every process (4.5.b).
func TestContractPostmasterAlone(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		p := l.Init("p", "")
		p.Start()
		p.One("create table t(at timestamptz); select 1")
		orphans := []int{}
		t.Cleanup(func() {
			for _, pid := range orphans {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		})
		done, _ := commit(p, "do $$ declare ends timestamptz := clock_timestamp() + interval '2 s'; begin "+
			"while clock_timestamp() < ends loop insert into t values (clock_timestamp()); commit; end loop; end $$")
		pgtest.Wait(t, "it commits", 5*time.Second, func() bool { return p.One("select count(*) > 0 from t") == "t" })
		for _, o := range p.Children() {
			orphans = append(orphans, o.PID)
		}
		p.Signal(syscall.SIGKILL)
		pgtest.Wait(t, "the postmaster is gone", 5*time.Second, func() bool { return !isAlive(p.PID) })
		gone := time.Now()
		returns(t, done, "a session without postmaster")
		for _, pid := range orphans {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		pgtest.Wait(t, "all are gone", 5*time.Second, func() bool {
			for _, pid := range orphans {
				if isAlive(pid) {
					return false
				}
			}
			return true
		})
		p.Start()
		n := p.One("select count(*) from t where at > '" + gone.Add(10*time.Millisecond).UTC().Format("2006-01-02 15:04:05.999999+00") + "'")
		if n == "0" {
			t.Fatal("no session outlives its postmaster any more: a kill of the postmaster would do")
		}
		t.Logf("%s commits without a postmaster", n)
	})
}

func isAlive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(state, "Z")
}

// TestContractReaderBlocksPromotion is E48: replay that waits for a reader holds up the promotion, a reload does not help,
// the reader's end does. So the gate is closed and sessions are ended before (5.5.g, 5.6.a).
func TestContractReaderBlocksPromotion(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		p := l.Init("p", "")
		p.Start()
		p.One("create table t as select 1 as i; select 1")
		s := follows(p, "s", "max_standby_streaming_delay=60s\nhot_standby_feedback=off\n")
		catchesUp(p, s)
		reader := s.Conn()
		pid := pgtest.Query(t, reader, "begin transaction isolation level repeatable read; select pg_backend_pid() from t")[0]
		p.One("drop table t; select 1")
		at := p.One("select pg_current_wal_flush_lsn()")
		pgtest.Wait(t, "the WAL arrives", 10*time.Second, func() bool { return s.One("select pg_last_wal_receive_lsn()>='"+at+"'") == "t" })
		p.Kill()
		s.One("select pg_promote(false)")
		set(s, "max_standby_streaming_delay=0")
		time.Sleep(held) // the time in which nothing may happen is what is tested
		if s.One("select pg_is_in_recovery()") == "f" {
			t.Fatal("promoted in spite of the reader")
		}
		s.One("select pg_terminate_backend(" + pid + ")")
		took := pgtest.Wait(t, "the promotion ends", 10*time.Second, func() bool { return s.One("select pg_is_in_recovery()") == "f" })
		t.Logf("promoted %s after the reader's end", took.Round(time.Millisecond))
	})
}

// TestContractNamesAndSlots is E5: any replication client that bears a listed name acknowledges commits, so names are
// secret (3.1.b); a physical slot admits one WAL sender, so a member is not counted twice (3.1.d).
func TestContractNamesAndSlots(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		p := l.Init("p", "synchronous_standby_names='ANY 1 (member)'\n")
		p.Start()
		p.One("set synchronous_commit=local; create table t(i int); select pg_create_physical_replication_slot('s', true)")
		done, _ := commit(p, "insert into t values (1)")
		waits(t, done, "a commit without its standby")
		receive := func(name string) *exec.Cmd {
			dir := filepath.Join(l.Dir, name)
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			return exec.Command(filepath.Join(l.Bin, "pg_receivewal"), "-D", dir, "--synchronous", "--no-loop", "-S", "s", "-d",
				fmt.Sprintf("host=%s port=%d user=%s application_name=member", l.Dir, p.Port, pgtest.User))
		}
		impostor := receive("impostor")
		if err := impostor.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = impostor.Process.Kill(); _ = impostor.Wait() })
		returns(t, done, "a commit acknowledged by an impostor")
		out, err := receive("second").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "is active for PID") {
			t.Fatalf("a second sender of one slot: %v\n%s", err, out)
		}
	})
}

// TestContractReceiverWaitsForReplay is E55: behind a replay that is paused no WAL receiver starts again, however long
// one waits; with the replay resumed it streams at once (5.5.g).
func TestContractReceiverWaitsForReplay(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		p := l.Init("p", "")
		p.Start()
		p.One("create table t(i int); select 1")
		s := follows(p, "s", "")
		catchesUp(p, s)
		s.One("select pg_wal_replay_pause()")
		pgtest.Wait(t, "replay is paused", 10*time.Second, func() bool { return s.One("select pg_get_wal_replay_pause_state()") == "paused" })
		p.One("insert into t select generate_series(1, 1000); select 1")
		at := p.One("select pg_current_wal_flush_lsn()")
		pgtest.Wait(t, "the WAL arrives", 10*time.Second, func() bool { return s.One("select pg_last_wal_receive_lsn()>='"+at+"'") == "t" })
		receiver := child(s, "walreceiver")
		if err := syscall.Kill(receiver, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		pgtest.Wait(t, "the receiver ends", 5*time.Second, func() bool { return !isAlive(receiver) })
		time.Sleep(4 * held) // wal_retrieve_retry_interval is 10 ms: it has had two hundred chances
		if n := s.One("select count(*) from pg_stat_wal_receiver"); n != "0" {
			t.Fatalf("%s receivers behind a paused replay", n)
		}
		s.One("select pg_wal_replay_resume()")
		streams(p, "s")
	})
}
