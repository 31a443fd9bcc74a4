// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Options of a ledger. The zero values of all but DSN are replaced by the defaults named here.
type Options struct {
	DSN     string        // libpq string or URL, one or several hosts
	Writers int           // 1
	Pace    time.Duration // 10 ms between the attempts of one writer
	Limit   time.Duration // 2 s for a connection attempt to one host, 5 s for a write; PerHost: 100 ms for both
	PerHost bool          // a prober: one connection per host, each asked in turn
}

// Ledger is a set of running writers.
type Ledger struct {
	opt    Options
	run    string
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	history History
	acked   chan struct{} // closed and replaced at every acknowledgement
}

// Start creates the table if needed and starts the writers. Several ledgers can share a database.
func Start(ctx context.Context, opt Options) (*Ledger, error) {
	if opt.Writers == 0 {
		opt.Writers = 1
	}
	if opt.Pace == 0 {
		opt.Pace = 10 * time.Millisecond
	}
	l := &Ledger{opt: opt, run: rand.Text(), acked: make(chan struct{})}
	hosts, err := l.hosts()
	if err != nil {
		return nil, err
	}
	// No unique index: it would hide a duplicate from the checker.
	err = l.admin(ctx, func(c *pgx.Conn) error {
		_, err := c.Exec(ctx, `create table if not exists ledger (run text not null, writer int not null, seq bigint not null)`)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("create the ledger's table: %w", err)
	}
	writing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l.cancel = cancel
	for i := range opt.Writers {
		w := &writer{ledger: l, id: i, conns: make([]*pgx.Conn, len(hosts)), hosts: hosts}
		l.wg.Go(func() { w.loop(writing) })
	}
	return l, nil
}

// Stop ends the writers after the attempt each is in, and returns the history.
func (l *Ledger) Stop() History {
	l.cancel()
	l.wg.Wait()
	return l.Snapshot()
}

// Snapshot returns the history so far.
func (l *Ledger) Snapshot() History {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append(History(nil), l.history...)
}

// WaitAck waits for an acknowledged write that was started after the call.
func (l *Ledger) WaitAck(ctx context.Context) error {
	start := time.Now()
	for {
		l.mu.Lock()
		next := l.acked
		var last Attempt
		if n := len(l.history); n > 0 {
			last = l.history[n-1]
		}
		l.mu.Unlock()
		if last.Outcome == Acknowledged && last.Start.After(start) {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return fmt.Errorf("wait for a write to be acknowledged: %w; the last attempt %s: %s", ctx.Err(), last.Outcome, last.Err)
		}
	}
}

// Verify stops nothing: it reads the rows from the present primary and checks the history given against them.
func (l *Ledger) Verify(ctx context.Context, h History) (Report, error) {
	stored, err := l.Stored(ctx)
	if err != nil {
		return Report{}, err
	}
	return Check(h, stored), nil
}

// Stored reads this ledger's rows back from the primary.
func (l *Ledger) Stored(ctx context.Context) ([]Key, error) {
	var keys []Key
	err := l.admin(ctx, func(c *pgx.Conn) error {
		var err error
		keys, err = l.StoredAt(ctx, c)
		return err
	})
	return keys, err
}

// StoredAt reads this ledger's rows over a connection of the caller, for example to a standby.
func (l *Ledger) StoredAt(ctx context.Context, c *pgx.Conn) ([]Key, error) {
	rows, err := c.Query(ctx, `select writer, seq from ledger where run = $1`, l.run)
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	keys, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Key])
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	return keys, nil
}

func (l *Ledger) record(a Attempt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.history = append(l.history, a)
	if a.Outcome == Acknowledged {
		close(l.acked)
		l.acked = make(chan struct{})
	}
}

// admin runs f on a read-write connection, trying until the context ends: right after a fault there may be none.
func (l *Ledger) admin(ctx context.Context, f func(*pgx.Conn) error) error {
	for {
		err := l.adminOnce(ctx, f)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (l *Ledger) adminOnce(ctx context.Context, f func(*pgx.Conn) error) error {
	cfg, err := l.config()
	if err != nil {
		return err
	}
	c, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	return f(c)
}

// config is the connection string with the limits applied.
func (l *Ledger) config() (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(l.opt.DSN)
	if err != nil {
		return nil, fmt.Errorf("parse the connection string: %w", err)
	}
	cfg.ConnectTimeout = l.connectLimit()
	cfg.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	return cfg, nil
}

// hosts is one configuration per connection that a writer keeps: the whole list, or one for each host.
func (l *Ledger) hosts() ([]*pgx.ConnConfig, error) {
	cfg, err := l.config()
	if err != nil {
		return nil, err
	}
	if !l.opt.PerHost {
		return []*pgx.ConnConfig{cfg}, nil
	}
	hosts := []*pgconn.FallbackConfig{{Host: cfg.Host, Port: cfg.Port, TLSConfig: cfg.TLSConfig}}
	hosts = append(hosts, cfg.Fallbacks...)
	var list []*pgx.ConnConfig
	for i, h := range hosts {
		// sslmode=prefer lists each host twice; one connection each is enough.
		if i > 0 && h.Host == hosts[i-1].Host && h.Port == hosts[i-1].Port {
			continue
		}
		one := cfg.Copy()
		one.Host, one.Port, one.TLSConfig, one.Fallbacks = h.Host, h.Port, nil, nil
		one.ValidateConnect = nil // the connection to a standby is kept: it may become the primary
		list = append(list, one)
	}
	return list, nil
}

func (l *Ledger) connectLimit() time.Duration {
	switch {
	case l.opt.Limit != 0:
		return l.opt.Limit
	case l.opt.PerHost:
		return 100 * time.Millisecond
	default:
		return 2 * time.Second
	}
}

func (l *Ledger) writeLimit() time.Duration {
	switch {
	case l.opt.Limit != 0:
		return l.opt.Limit
	case l.opt.PerHost:
		return 100 * time.Millisecond
	default:
		return 5 * time.Second
	}
}
