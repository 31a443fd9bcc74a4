// SPDX-License-Identifier: Apache-2.0

package pgctl

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgquorum/pgquorum/pgctl/conf"
	"github.com/pgquorum/pgquorum/pgctl/upstream"
)

// ErrNotRunning is returned by methods that need a running Postgres.
var ErrNotRunning = errors.New("postgres is not running")

// connectTimeout bounds a connection over the unix socket when ctx has no earlier end.
const connectTimeout = 5 * time.Second

// session is a connection of the local role. It is used by one goroutine at a time.
type session struct {
	mu      sync.Mutex
	conn    *pgconn.PgConn
	warning atomic.Pointer[string] // the first WARNING that Postgres sent
}

// row is one row of text values; NULL is empty.
type row []string

// ours is what every session of ours sets, so that a user's settings neither break nor slow it, and our
// statements do not fill the log. A session that checks what new sessions see sets nothing.
func (p *Postgres) ours() map[string]string {
	out := map[string]string{
		"search_path": "pg_catalog", "synchronous_commit": "local", "default_transaction_read_only": "off",
		"statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0",
		"idle_session_timeout": "0", "client_min_messages": "error", "log_statement": "none",
		"log_min_duration_statement": "-1", "log_min_error_statement": "panic", "jit": "off",
		"default_transaction_isolation": "read committed", "row_security": "on", "DateStyle": "ISO",
	}
	if p.version >= 17 {
		out["event_triggers"], out["transaction_timeout"] = "off", "0" // a login trigger of a user's may hang
	}
	return out
}

// connect opens a session. Name distinguishes our sessions in pg_stat_activity; params nil sets nothing.
func (p *Postgres) connect(ctx context.Context, name string, params map[string]string) (*session, error) {
	p.mu.Lock()
	s := p.server
	p.mu.Unlock()
	if s == nil {
		return nil, ErrNotRunning
	}
	dir, port, err := s.address()
	if err != nil {
		return nil, err
	}
	// Every value that libpq's environment could steer is overwritten below.
	cfg, err := pgconn.ParseConfig(fmt.Sprintf("host='%s' port=%d user=%s dbname=postgres sslmode=disable passfile=/dev/null",
		dir, port, conf.LocalRole))
	if err != nil {
		return nil, fmt.Errorf("connect to postgres: %w", err)
	}
	cfg.Fallbacks, cfg.TLSConfig, cfg.ValidateConnect = nil, nil, nil
	cfg.Password = string(p.opt.LocalPassword)
	cfg.ConnectTimeout = connectTimeout
	cfg.RuntimeParams = map[string]string{"application_name": "pgquorum_" + name}
	for k, v := range params {
		cfg.RuntimeParams[k] = v
	}
	out := &session{}
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if n.SeverityUnlocalized == "WARNING" {
			out.warning.CompareAndSwap(nil, &n.Message)
		}
	}
	if out.conn, err = pgconn.ConnectConfig(ctx, cfg); err != nil {
		return nil, fmt.Errorf("connect to postgres: %w", err)
	}
	return out, nil
}

// query runs one or more statements and returns the rows of each.
func (s *session) query(ctx context.Context, sql string) ([][]row, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	results, err := s.conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	out := make([][]row, len(results))
	for i, r := range results {
		out[i] = make([]row, len(r.Rows))
		for j, values := range r.Rows {
			line := make(row, len(values))
			for k, v := range values {
				line[k] = string(v)
			}
			out[i][j] = line
		}
	}
	return out, nil
}

// close ends the session without waiting for anybody. While somebody asks, the socket alone is closed, and the answer is an
// error: a connection of pgx is not for two, and panics.
func (s *session) close() {
	if !s.mu.TryLock() {
		_ = s.conn.Conn().Close()
		return
	}
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = s.conn.Close(ctx)
}

// keptAs says which of the kept sessions is meant. They are held from the first question on, so that exhausted
// connections do not blind us, and a fence or a promotion spends no time on connecting. There are two, so that what
// is urgent never waits for what is broad.
type keptAs int

const (
	forLooking keptAs = iota
	forActing
	keptCount
)

// keep returns a kept session, and makes it anew when it is lost.
func (p *Postgres) keep(ctx context.Context, as keptAs) (*session, error) {
	p.mu.Lock()
	s := p.kept[as]
	p.mu.Unlock()
	if s != nil && !s.conn.IsClosed() {
		return s, nil
	}
	made, err := p.connect(ctx, [...]string{"observer", "agent"}[as], p.ours())
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	other := p.kept[as]
	if other != nil && other != s { // somebody else was faster
		p.mu.Unlock()
		made.close()
		return other, nil
	}
	p.kept[as] = made
	p.mu.Unlock()
	if s != nil {
		s.close()
	}
	return made, nil
}

// ask runs statements over a kept session.
func (p *Postgres) ask(ctx context.Context, as keptAs, sql string) ([][]row, error) {
	s, err := p.keep(ctx, as)
	if err != nil {
		return nil, err
	}
	return s.query(ctx, sql)
}

// asker lets the packages below ask over a kept session.
func (p *Postgres) asker(as keptAs) upstream.Ask {
	return func(ctx context.Context, sql string) ([][]string, error) {
		out, err := p.ask(ctx, as, sql)
		if err != nil || len(out) == 0 {
			return nil, err
		}
		var rows [][]string
		for _, r := range out[len(out)-1] {
			rows = append(rows, r)
		}
		return rows, nil
	}
}

// run opens a session of its own, runs the statements and returns the rows of the last one.
func (p *Postgres) run(ctx context.Context, name, sql string) ([]row, error) {
	s, err := p.connect(ctx, name, p.ours())
	if err != nil {
		return nil, err
	}
	defer s.close()
	out, err := s.query(ctx, sql)
	if err != nil || len(out) == 0 {
		return nil, err
	}
	return out[len(out)-1], nil
}

// sqlState is the SQLSTATE of an error that Postgres sent; empty otherwise.
func sqlState(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// poll calls f every step until it says done, fails, or ctx ends.
func poll(ctx context.Context, step time.Duration, f func() (done bool, err error)) error {
	tick := time.NewTicker(step)
	defer tick.Stop()
	for {
		done, err := f()
		if err != nil || done {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func closeKept(kept [keptCount]*session) {
	for _, k := range kept {
		if k != nil {
			k.close()
		}
	}
}
