// SPDX-License-Identifier: Apache-2.0

package promote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/pgctl/upstream"
	"github.com/pgquorum/pgquorum/pgctl/wal"
)

const pollEvery = time.Millisecond

// ErrTimelineTaken means that pg_wal holds a history file of the wanted timeline already. Nothing has been changed.
var ErrTimelineTaken = errors.New("timeline has a history file already")

// WrongTimelineError means that Postgres left recovery onto another timeline than the cluster's. It must be killed.
type WrongTimelineError struct{ Want, Got cluster.Timeline }

func (e *WrongTimelineError) Error() string {
	return fmt.Sprintf("promoted onto timeline %d instead of %d", e.Got, e.Want)
}

// WrongSwitchError means that Postgres left the old timeline at another point than the elected position. It must be
// killed.
type WrongSwitchError struct{ Want, Got cluster.Position }

func (e *WrongSwitchError) Error() string {
	return fmt.Sprintf("promoted from %s instead of the elected position %s", e.Got, e.Want)
}

// Params is what a promotion needs. The caller holds the lease, has closed the gate and written the names (5.6.a).
type Params struct {
	PGDATA        string
	PostmasterPID int
	Timeline      cluster.Timeline // T, which the election assigned
	Elected       cluster.Position // where the node's WAL must end
	Ask           upstream.Ask     // on a session from before the promotion: it survives it
}

// Result is what Promoted carries.
type Result struct {
	Switch  cluster.LSN // where T left its parent: the elected LSN
	NextXID uint64      // the first transaction id of the epoch, with its 32 bits of wrap-around count
	Flushed cluster.LSN // R of 5.7.c: flushed end, first read after recovery ended
	Stubs   time.Duration
	Took    time.Duration
}

// Promote promotes and verifies. An error after the signal leaves the server in a state that only a kill ends; the
// context should end with the time that the cluster gives a promotion (5.1.f).
func Promote(ctx context.Context, p Params) (Result, error) {
	begin := time.Now()
	var res Result
	if p.Timeline <= p.Elected.Timeline {
		return res, fmt.Errorf("promote to timeline %d: not above the elected position %s", p.Timeline, p.Elected)
	}
	dir := filepath.Join(p.PGDATA, "pg_wal")
	if _, err := os.Lstat(filepath.Join(dir, wal.HistoryName(p.Timeline))); err == nil {
		return res, fmt.Errorf("promote to timeline %d: %w", p.Timeline, ErrTimelineTaken)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return res, fmt.Errorf("promote to timeline %d: %w", p.Timeline, err)
	}
	if err := wal.WriteStubs(dir, p.Elected.Timeline, p.Timeline); err != nil {
		return res, fmt.Errorf("promote to timeline %d: %w", p.Timeline, err)
	}
	res.Stubs = time.Since(begin)
	if err := os.WriteFile(filepath.Join(p.PGDATA, "promote"), nil, 0o600); err != nil {
		return res, fmt.Errorf("write promotion signal: %w", err)
	}
	if err := unix.Kill(p.PostmasterPID, unix.SIGUSR1); err != nil {
		return res, fmt.Errorf("signal promotion: %w", err)
	}
	if err := waitReadWrite(ctx, p.Ask); err != nil {
		return res, fmt.Errorf("promote to timeline %d: %w", p.Timeline, err)
	}
	if err := verify(ctx, p, dir, &res); err != nil {
		return res, fmt.Errorf("verify promotion: %w", err)
	}
	res.Took = time.Since(begin)
	return res, nil
}

func waitReadWrite(ctx context.Context, ask upstream.Ask) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		row, err := queryRow(ctx, ask, "select pg_is_in_recovery()", 1)
		if err != nil {
			return err
		}
		if row[0] == "f" {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for the end of recovery: %w", ctx.Err())
		}
	}
}

// verify reads the running timeline from the server and the switch point from the history file that it wrote. The
// control file and pg_control_checkpoint() are late: they follow with the first checkpoint.
func verify(ctx context.Context, p Params, dir string, res *Result) error {
	row, err := queryRow(ctx, p.Ask, "select pg_current_wal_flush_lsn(), left(pg_walfile_name(pg_current_wal_insert_lsn()), 8), pg_snapshot_xmax(pg_current_snapshot())", 3)
	if err != nil {
		return err
	}
	if res.Flushed, err = cluster.ParseLSN(row[0]); err != nil {
		return err
	}
	t, err := strconv.ParseUint(row[1], 16, 32)
	if err != nil {
		return fmt.Errorf("parse running timeline: %w", err)
	}
	if res.NextXID, err = strconv.ParseUint(row[2], 10, 64); err != nil {
		return fmt.Errorf("parse next transaction id: %w", err)
	}
	got := cluster.Timeline(t)
	if got != p.Timeline {
		return &WrongTimelineError{Want: p.Timeline, Got: got}
	}
	h, err := wal.ReadHistory(dir, got)
	if err != nil {
		return err
	}
	if len(h) == 0 {
		return fmt.Errorf("history of timeline %d is empty", got)
	}
	last := h[len(h)-1]
	if from := (cluster.Position{Timeline: last.Timeline, LSN: last.Switch}); from != p.Elected {
		return &WrongSwitchError{Want: p.Elected, Got: from}
	}
	res.Switch = last.Switch
	return nil
}

func queryRow(ctx context.Context, ask upstream.Ask, sql string, columns int) ([]string, error) {
	rows, err := ask(ctx, sql)
	if err != nil {
		return nil, fmt.Errorf("ask the server: %w", err)
	}
	if len(rows) != 1 || len(rows[0]) != columns {
		return nil, errors.New("ask the server: no row")
	}
	return rows[0], nil
}
