// SPDX-License-Identifier: Apache-2.0

package pgtest

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

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/pgctl/procfs"
)

// Server is one Postgres of a lab.
type Server struct {
	Lab  *Lab
	Name string
	Data string
	Port int
	PID  int      // of the postmaster while it runs
	Env  []string // nil: PATH only

	cmd  *exec.Cmd
	done chan struct{}
}

// base is what every server of a lab runs with.
const base = `
listen_addresses='127.0.0.1'
unix_socket_directories='%s'
port=%d
max_wal_senders=20
max_replication_slots=20
wal_retrieve_retry_interval=10ms
hot_standby=on
log_min_messages=info
log_line_prefix='%%m [%%p] %%b %%a '
restart_after_crash=off
shared_buffers=64MB
autovacuum=off
`

// User is the superuser of every server.
const User = "postgres"

func (l *Lab) server(name string) *Server {
	return &Server{Lab: l, Name: name, Data: filepath.Join(l.Dir, name), Port: FreePort(l.T)}
}

// Init makes a server by initdb with these further settings and arguments of initdb.
func (l *Lab) Init(name, conf string, args ...string) *Server {
	l.T.Helper()
	s := l.server(name)
	l.Run("initdb", append([]string{"-D", s.Data, "-A", "trust", "-U", User, "-N"}, args...)...)
	s.Append("postgresql.conf", fmt.Sprintf(base, l.Dir, s.Port)+conf)
	return s
}

// Backup makes a standby of s, with standby.signal, that has not been started.
func (s *Server) Backup(name, conf string) *Server {
	s.Lab.T.Helper()
	b := s.Lab.server(name)
	s.Lab.Run("pg_basebackup", "-h", s.Lab.Dir, "-p", fmt.Sprint(s.Port), "-U", User, "-D", b.Data, "-X", "stream", "-c", "fast")
	b.Append("postgresql.conf", fmt.Sprintf("port=%d\n%s", b.Port, conf))
	b.Append("standby.signal", "")
	return b
}

// Append adds text to a file of the data directory.
func (s *Server) Append(file, text string) {
	s.Lab.T.Helper()
	f, err := os.OpenFile(filepath.Join(s.Data, file), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
		f.Close()
	}
	if err != nil {
		s.Lab.T.Fatal(err)
	}
}

// Start starts the postmaster and waits until it answers.
func (s *Server) Start() {
	t := s.Lab.T
	t.Helper()
	logFile, err := os.OpenFile(s.LogPath(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer logFile.Close()
	s.cmd = exec.Command(filepath.Join(s.Lab.Bin, "postgres"), "-D", s.Data)
	s.cmd.Stdout, s.cmd.Stderr = logFile, logFile
	s.cmd.Env = s.Env
	if s.Env == nil {
		s.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "PGQ_PAD=" + strings.Repeat("x", 1024)}
	}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.PID = s.cmd.Process.Pid
	s.done = make(chan struct{})
	go func(c *exec.Cmd, done chan struct{}) { c.Wait(); close(done) }(s.cmd, s.done)
	t.Cleanup(s.Kill)
	Wait(t, s.Name+" answers", 30*time.Second, func() bool {
		select {
		case <-s.done:
			t.Fatalf("%s ended at start:\n%s", s.Name, s.LogTail())
		default:
		}
		c, err := s.Dial(User)
		if err == nil {
			c.Close(context.Background())
		}
		return err == nil
	})
}

// LogPath is the server's log file.
func (s *Server) LogPath() string { return s.Data + ".log" }

// LogTail is the end of the server's log.
func (s *Server) LogTail() string {
	b, _ := os.ReadFile(s.LogPath())
	return string(b[max(0, len(b)-3000):])
}

// Signal signals the postmaster.
func (s *Server) Signal(sig syscall.Signal) {
	s.Lab.T.Helper()
	if err := syscall.Kill(s.PID, sig); err != nil {
		s.Lab.T.Fatalf("signal %s: %v", s.Name, err)
	}
}

// Stop stops the server fast and waits for it.
func (s *Server) Stop() {
	s.Lab.T.Helper()
	s.Signal(syscall.SIGINT)
	select {
	case <-s.done:
	case <-time.After(30 * time.Second):
		s.Lab.T.Fatalf("%s does not stop", s.Name)
	}
}

// Kill SIGKILLs every process of the server, as the death of its container does, and waits for the postmaster.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	select {
	case <-s.done:
		return
	default:
	}
	for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		if sig == syscall.SIGKILL {
			for _, p := range s.Children() {
				syscall.Kill(p.PID, sig)
			}
		}
		syscall.Kill(s.PID, sig)
	}
	<-s.done
}

// Children lists the postmaster's children.
func (s *Server) Children() []procfs.Process {
	list, _ := procfs.NewReader().Children(nil, s.PID)
	return list
}

// Dial connects over the unix socket.
func (s *Server) Dial(user string) (*pgconn.PgConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return pgconn.Connect(ctx, fmt.Sprintf("host=%s port=%d user=%s dbname=postgres sslmode=disable", s.Lab.Dir, s.Port, user))
}

// Conn connects over the unix socket as superuser, for the time of the test.
func (s *Server) Conn() *pgconn.PgConn {
	s.Lab.T.Helper()
	return s.ConnAs(User)
}

// ConnAs is Conn for any role.
func (s *Server) ConnAs(user string) *pgconn.PgConn {
	s.Lab.T.Helper()
	c, err := s.Dial(user)
	if err != nil {
		s.Lab.T.Fatal(err)
	}
	s.Lab.T.Cleanup(func() { c.Conn().Close() }) // another goroutine may be using it
	return c
}

// Query runs statements on a connection and returns the last result's rows, columns joined by '|'.
func Query(t testing.TB, c *pgconn.PgConn, sql string) []string {
	t.Helper()
	rows, err := TryQuery(c, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return rows
}

// TryQuery is Query that returns its error.
func TryQuery(c *pgconn.PgConn, sql string) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	results, err := c.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, row := range results[len(results)-1].Rows {
		var cols []string
		for _, v := range row {
			cols = append(cols, string(v))
		}
		out = append(out, strings.Join(cols, "|"))
	}
	return out, nil
}

// Ask is TryQuery as the packages under test want it: columns by themselves.
func Ask(c *pgconn.PgConn) func(context.Context, string) ([][]string, error) {
	return func(ctx context.Context, sql string) ([][]string, error) {
		results, err := c.Exec(ctx, sql).ReadAll()
		if err != nil || len(results) == 0 {
			return nil, err
		}
		var out [][]string
		for _, row := range results[len(results)-1].Rows {
			var cols []string
			for _, v := range row {
				cols = append(cols, string(v))
			}
			out = append(out, cols)
		}
		return out, nil
	}
}

// One runs a query on a new connection and returns its first row; "" when there is none.
func (s *Server) One(sql string) string {
	s.Lab.T.Helper()
	c, err := s.Dial(User)
	if err != nil {
		s.Lab.T.Fatal(err)
	}
	defer c.Close(context.Background())
	rows := Query(s.Lab.T, c, sql)
	if len(rows) == 0 {
		return ""
	}
	return rows[0]
}

// LSN runs a query that yields an LSN on a connection.
func LSN(t testing.TB, c *pgconn.PgConn, sql string) cluster.LSN {
	t.Helper()
	rows := Query(t, c, sql)
	if len(rows) != 1 {
		t.Fatalf("%s: %d rows", sql, len(rows))
	}
	l, err := cluster.ParseLSN(rows[0])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return l
}
