// SPDX-License-Identifier: Apache-2.0

//go:build contract

package facts_test

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
	"github.com/pgquorum/pgquorum/pgctl/pgtest"
	"github.com/pgquorum/pgquorum/pgctl/pgtest/facts"
	"github.com/pgquorum/pgquorum/pgctl/upstream"
	"github.com/pgquorum/pgquorum/pgctl/wal"
)

// TestContractFacts: what real Postgres does. A fact that fails on a new version says that a rule of docs/protocol.md has
// lost its ground, or its reason. docs/contracts.md lists them.
func TestContractFacts(t *testing.T) {
	for _, f := range facts.All() {
		t.Run(strings.ReplaceAll(f.Name, " ", "_"), func(t *testing.T) {
			pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
				if err := f.Try(&real{Lab: l}); err != nil {
					t.Errorf("%s (%s): %v", f.Name, f.Finding, err)
				}
			})
		})
	}
}

const (
	limit = 20 * time.Second
	held  = 500 * time.Millisecond // how long something that must stay is watched
)

// real is a lab.
type real struct {
	*pgtest.Lab
	ids int
}

func (r *real) Version() int { return r.Lab.Version }

// Until implements facts.World.
func (r *real) Until(ok func() bool) bool { return pgtest.Poll(limit, ok) }

// Stays implements facts.World.
func (r *real) Stays(ok func() bool) bool {
	for end := time.Now().Add(held); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if !ok() {
			return false
		}
	}
	return true
}

const conf = `
wal_log_hints=on
checkpoint_timeout=1h
max_wal_size=2GB
wal_receiver_status_interval=1s
wal_keep_size=512MB
max_standby_streaming_delay=-1
max_standby_archive_delay=-1
hot_standby_feedback=off
`

func listed(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return "ANY 1 (" + strings.Join(names, ", ") + ")"
}

// Primary implements facts.World.
func (r *real) Primary(name string, list ...string) facts.Server {
	s := &server{Server: r.Init(name, fmt.Sprintf("%ssynchronous_standby_names='%s'\n", conf, listed(list))), r: r}
	s.prepare()
	s.Start()
	s.do("set synchronous_commit=local; create table t(id int, v text); create table d(i int); select 1")
	return s
}

// server is one Postgres. Where its WAL comes from stands in a service file, as with the product's.
type server struct {
	*pgtest.Server
	r       *real
	orphans []int
	reader  *pgconn.PgConn
	held    int // the checkpointer that is stopped
	up      *server
	app     string
}

func (s *server) service() string { return s.Data + ".service" }

func (s *server) prepare() {
	s.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "PGSERVICEFILE=" + s.service()}
	s.write(fmt.Sprintf("host=%s/nobody", s.r.Dir))
}

// write replaces the service file at once.
func (s *server) write(text string) {
	tmp := s.service() + ".new"
	err := os.WriteFile(tmp, []byte("[up]\n"+text+"\n"), 0o600)
	if err == nil {
		err = os.Rename(tmp, s.service())
	}
	s.check(err)
}

func (s *server) check(err error) {
	s.r.T.Helper()
	if err != nil {
		s.r.T.Fatalf("%s: %v", s.Name, err)
	}
}

func (s *server) wait(what string, ok func() bool) {
	s.r.T.Helper()
	pgtest.Wait(s.r.T, s.Name+": "+what, limit, ok)
}

// do is One that needs the server to be there.
func (s *server) do(sql string) string {
	s.r.T.Helper()
	return s.One(sql)
}

// Backup implements facts.Server.
func (s *server) Backup(name, slot string, list ...string) facts.Server {
	b := &server{r: s.r}
	b.Server = s.Server.Backup(name, fmt.Sprintf("synchronous_standby_names='%s'\nprimary_slot_name='%s'\nprimary_conninfo='service=up'\n", listed(list), slot))
	b.prepare()
	return b
}

// StartStandby implements facts.Server.
func (s *server) StartStandby() {
	s.Append("standby.signal", "")
	s.Append("postgresql.auto.conf", fmt.Sprintf("port=%d\nprimary_conninfo='service=up'\nprimary_slot_name='%s'\n", s.Port, s.slot())) // a rewind brings the source's
	if s.up != nil {
		s.slotOn(s.up)
	}
	s.Start()
}

// slot is the one that its settings name; of a former primary its name.
func (s *server) slot() string {
	b, err := os.ReadFile(filepath.Join(s.Data, "postgresql.conf"))
	s.check(err)
	slot := s.Name
	for line := range strings.Lines(string(b)) {
		if _, v, ok := strings.Cut(strings.TrimSpace(line), "primary_slot_name="); ok {
			slot = strings.Trim(v, "'")
		}
	}
	return slot
}

func (s *server) slotOn(up *server) {
	up.do("select pg_create_physical_replication_slot('" + s.slot() + "', true) where not exists (select from pg_replication_slots where slot_name = '" + s.slot() + "')")
}

// Stop implements facts.Server.
func (s *server) Stop() { s.Server.Stop() }

// Kill implements facts.Server.
func (s *server) Kill() {
	s.Server.Kill()
	for _, pid := range s.orphans {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	s.wait("all processes are gone", func() bool {
		for _, pid := range s.orphans {
			if isAlive(pid) {
				return false
			}
		}
		return true
	})
}

// KillPostmaster implements facts.Server.
func (s *server) KillPostmaster() {
	for _, c := range s.Children() {
		s.orphans = append(s.orphans, c.PID)
	}
	s.r.T.Cleanup(s.Kill)
	s.Signal(syscall.SIGKILL)
	s.wait("the postmaster is gone", func() bool { return !isAlive(s.PID) })
}

func isAlive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(state, "Z")
}

// Order implements facts.Server.
func (s *server) Order(up facts.Server, app string) {
	u := s.upstream(up, app)
	s.write(fmt.Sprintf("host=%s\nport=%d\nuser=%s\napplication_name=%s", s.r.Dir, u.Port, pgtest.User, app))
}

func (s *server) upstream(up facts.Server, app string) *server {
	u := up.(*server)
	s.up, s.app = u, app
	s.slotOn(u)
	return u
}

// OrderSilent implements facts.Server.
func (s *server) OrderSilent(up facts.Server, app string) {
	u := s.upstream(up, app)
	port := silent(s.r.T, filepath.Join(s.r.Dir, fmt.Sprintf(".s.PGSQL.%d", u.Port)))
	s.write(fmt.Sprintf("host=127.0.0.1\nport=%d\nuser=%s\nsslmode=disable\ngssencmode=disable\napplication_name=%s", port, pgtest.User, app))
}

// Park implements facts.Server.
func (s *server) Park() { s.write(fmt.Sprintf("host=%s/nobody", s.r.Dir)) }

// ClearConninfo implements facts.Server.
func (s *server) ClearConninfo() {
	s.set("primary_conninfo=''")
	s.wait("the setting shows", func() bool { return s.do("show primary_conninfo") == "" })
}

func (s *server) set(line string) {
	s.Append("postgresql.auto.conf", line+"\n")
	s.Signal(syscall.SIGHUP)
}

// child finds the process of a kind among the postmaster's; zero: there is none.
func (s *server) child(title string) int {
	for _, p := range s.Children() {
		if strings.Contains(p.Title, title) {
			return p.PID
		}
	}
	return 0
}

// EndReceiver implements facts.Server.
func (s *server) EndReceiver() {
	pid := 0
	s.wait("there is a receiver", func() bool { pid = s.child("walreceiver"); return pid != 0 })
	s.check(syscall.Kill(pid, syscall.SIGTERM))
	s.wait("the receiver ends", func() bool { return !isAlive(pid) })
}

// PauseReplay implements facts.Server.
func (s *server) PauseReplay() {
	s.do("select pg_wal_replay_pause()")
	s.wait("replay is paused", func() bool { return s.do("select pg_get_wal_replay_pause_state()") == "paused" })
}

// ResumeReplay implements facts.Server.
func (s *server) ResumeReplay() { s.do("select pg_wal_replay_resume()") }

// BlockReplay implements facts.Server.
func (s *server) BlockReplay(up facts.Server) {
	s.reader = s.Conn()
	pgtest.Query(s.r.T, s.reader, "begin transaction isolation level repeatable read; select count(*) from d")
	up.(*server).do("set synchronous_commit=local; drop table d; create table d(i int); select 1")
}

// ImpatientReplay implements facts.Server.
func (s *server) ImpatientReplay() { s.set("max_standby_streaming_delay=0") }

// EndReader implements facts.Server.
func (s *server) EndReader() { s.check(s.reader.Close(context.Background())) }

// List implements facts.Server.
func (s *server) List(names ...string) {
	s.set("synchronous_standby_names='" + listed(names) + "'")
	s.wait("the list shows", func() bool { return s.do("show synchronous_standby_names") == listed(names) })
}

// HoldCheckpointer implements facts.Server.
func (s *server) HoldCheckpointer() {
	s.held = s.child("checkpointer")
	s.check(syscall.Kill(s.held, syscall.SIGSTOP))
	s.r.T.Cleanup(s.FreeCheckpointer)
}

// FreeCheckpointer implements facts.Server.
func (s *server) FreeCheckpointer() { _ = syscall.Kill(s.held, syscall.SIGCONT) }

// Checkpoint implements facts.Server.
func (s *server) Checkpoint() { s.do("checkpoint; select 1") }

// Plug implements facts.Server.
func (s *server) Plug(t cluster.Timeline) {
	c, err := wal.ReadControl(s.Data)
	s.check(err)
	s.check(wal.WriteStubs(filepath.Join(s.Data, "pg_wal"), c.Timeline(), t))
}

// Unplug implements facts.Server.
func (s *server) Unplug() {
	_, err := wal.StripStubs(filepath.Join(s.Data, "pg_wal"), 0)
	s.check(err)
}

// Promote implements facts.Server.
func (s *server) Promote() { s.do("select pg_promote(false)") }

// Rewind implements facts.Server.
func (s *server) Rewind(from facts.Server) bool {
	out, err := exec.Command(filepath.Join(s.r.Bin, "pg_rewind"), "-D", s.Data, "--source-server",
		fmt.Sprintf("host=%s port=%d user=%s dbname=postgres", s.r.Dir, from.(*server).Port, pgtest.User)).CombinedOutput()
	if err != nil {
		s.r.T.Fatalf("pg_rewind: %v\n%s", err, out)
	}
	return !strings.Contains(string(out), "no rewind required")
}

// Switch implements facts.Server.
func (s *server) Switch() { s.do("select pg_switch_wal()") }

// Recovering implements facts.Server.
func (s *server) Recovering() bool { return s.do("select pg_is_in_recovery()") == "t" }

// Position implements facts.Server.
func (s *server) Position() cluster.Position {
	s.r.T.Helper()
	c, err := s.Dial(pgtest.User)
	var end wal.EndResult
	switch {
	case err != nil: // it does not run, or not as a whole
		end, _, err = wal.EndOfDirectory(s.Data, 0)
	case s.Recovering():
		c.Close(context.Background())
		end, _, err = upstream.Position(context.Background(), upstream.PositionParams{PGDATA: s.Data, PostmasterPID: s.PID, Ask: pgtest.Ask(s.Conn())})
	default:
		c.Close(context.Background())
		return position(s.r.T, s.do("select ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int || ' ' || pg_current_wal_flush_lsn()"))
	}
	s.check(err)
	return cluster.Position{Timeline: end.Timeline, LSN: end.LSN}
}

// position reads "timeline lsn"; empty is none.
func position(t testing.TB, text string) (p cluster.Position) {
	t.Helper()
	if text == "" {
		return p
	}
	var lsn string
	_, err := fmt.Sscan(text, &p.Timeline, &lsn)
	if err == nil {
		p.LSN, err = cluster.ParseLSN(lsn)
	}
	if err != nil {
		t.Fatalf("position %q: %v", text, err)
	}
	return p
}

// Replayed implements facts.Server.
func (s *server) Replayed() cluster.LSN {
	return position(s.r.T, s.do("select '0 ' || pg_last_wal_replay_lsn()")).LSN
}

// Received implements facts.Server.
func (s *server) Received() cluster.Position {
	return position(s.r.T, s.do("select received_tli || ' ' || flushed_lsn from pg_stat_wal_receiver where status = 'streaming' and flushed_lsn is not null"))
}

// Switched implements facts.Server.
func (s *server) Switched() cluster.Position {
	h, err := wal.ReadHistory(filepath.Join(s.Data, "pg_wal"), s.Position().Timeline)
	if err == nil && len(h) == 0 {
		err = errors.New("its timeline is the first")
	}
	s.check(err)
	return cluster.Position{Timeline: h[len(h)-1].Timeline, LSN: h[len(h)-1].Switch}
}

// Sender implements facts.Server.
func (s *server) Sender(app string) string {
	return s.do("select pid from pg_stat_replication where state='streaming' and application_name='" + app + "'")
}
