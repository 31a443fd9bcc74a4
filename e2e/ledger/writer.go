// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// writer is one client. It uses one connection at a time and moves on to the next entry of hosts when it breaks.
type writer struct {
	ledger  *Ledger
	id      int
	seq     int64
	hosts   []*pgx.ConnConfig
	conns   []*pgx.Conn
	current int
	warned  string // a warning received since the last attempt began
}

func (w *writer) loop(ctx context.Context) {
	defer w.closeAll(ctx)
	tick := time.NewTicker(w.ledger.opt.Pace)
	defer tick.Stop()
	for ctx.Err() == nil {
		// The attempt in progress is finished, so that its outcome is known.
		w.attempt(context.WithoutCancel(ctx))
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// attempt writes one row, or fails to.
func (w *writer) attempt(ctx context.Context) {
	a := Attempt{Key: Key{Writer: w.id, Seq: w.seq}, Start: time.Now()}
	w.seq++
	err := w.connect(ctx)
	if err != nil {
		a.Outcome = Failed // nothing was sent
	} else {
		err = w.insert(ctx, a.Seq)
		a.Outcome = outcome(err, w.warned)
	}
	if err != nil {
		a.Err = err.Error()
		w.turn(ctx, err)
	}
	a.Done = time.Now()
	w.ledger.record(a)
}

func (w *writer) connect(ctx context.Context) error {
	if w.conns[w.current] != nil {
		return nil
	}
	cfg := w.hosts[w.current].Copy()
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if n.SeverityUnlocalized == "WARNING" {
			w.warned = n.Message
		}
	}
	// The limit of the configuration is for each host; this one is for a server that accepts and never answers.
	ctx, cancel := context.WithTimeout(ctx, w.ledger.connectLimit()*time.Duration(1+len(cfg.Fallbacks)))
	defer cancel()
	c, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	w.conns[w.current] = c
	return nil
}

func (w *writer) insert(ctx context.Context, seq int64) error {
	ctx, cancel := context.WithTimeout(ctx, w.ledger.writeLimit())
	defer cancel()
	w.warned = ""
	_, err := w.conns[w.current].Exec(ctx, `insert into ledger values ($1, $2, $3)`, w.ledger.run, w.id, seq)
	return err
}

// turn gives up the connection and turns to the next host. A prober keeps a connection that only refused the write.
func (w *writer) turn(ctx context.Context, err error) {
	var pg *pgconn.PgError
	refused := w.ledger.opt.PerHost && errors.As(err, &pg) && pg.SeverityUnlocalized == "ERROR"
	if c := w.conns[w.current]; c != nil && !refused {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
		defer cancel()
		_ = c.Close(ctx) // broken already
		w.conns[w.current] = nil
	}
	w.current = (w.current + 1) % len(w.hosts)
}

func (w *writer) closeAll(ctx context.Context) {
	for _, c := range w.conns {
		if c != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 100*time.Millisecond)
			_ = c.Close(ctx)
			cancel()
		}
	}
}

// outcome decides what an answer means. When in doubt it is unknown: a wrong "failed" or "acknowledged" would accuse a
// cluster that kept its promise, or clear one that did not.
func outcome(err error, warned string) Outcome {
	if err == nil {
		// "committed locally, but might not have been replicated" comes as a success with a warning.
		if strings.Contains(warned, "synchronous replication") {
			return Unknown
		}
		return Acknowledged
	}
	if pgconn.SafeToRetry(err) {
		return Failed // not a byte was sent
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return Unknown
	}
	switch {
	case strings.HasPrefix(pg.Code, "57"), strings.HasPrefix(pg.Code, "08"), strings.HasPrefix(pg.Code, "XX"):
		// The server is going away: the commit record may be written and even replicated.
		return Unknown
	default:
		return Failed // the statement was refused, for example by a standby (25006)
	}
}
