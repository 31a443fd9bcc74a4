// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/pgctl/procfs"
	"github.com/pgquorum/pgquorum/pgctl/wal"
)

// Ask runs a statement on a session of ours with the local Postgres and returns its rows; NULL reads as "".
type Ask func(ctx context.Context, sql string) ([][]string, error)

// queryLimit bounds a question to Postgres on the way of a fence.
const queryLimit = 200 * time.Millisecond

// PositionParams is what reading a position needs.
type PositionParams struct {
	PGDATA        string
	PostmasterPID int
	Ask           Ask              // nil: walk from the control file's redo point
	Newest        cluster.Timeline // the newest timeline the node may hold (5.5.h); 0: what pg_wal leads to
}

// Position reads the position of a standby that runs, after its fence: the end of the last complete record on disk
// (5.2.d). It claims bytes, never received_tli. The replay position is only where the walk begins; without it the
// walk begins at the control file's redo point. Receivers flush what they received before they end, so after a
// fence all that is in the files is on disk.
//
// replay is how far replay had come before the walk; zero when it is not known.
func Position(ctx context.Context, p PositionParams) (end wal.EndResult, replay cluster.LSN, err error) {
	replay, opened, err := replayed(ctx, p)
	if err == nil && replay != 0 {
		end, err = walk(p, replay, opened)
	} else {
		end, _, err = wal.EndOfDirectory(p.PGDATA, p.Newest)
	}
	if err != nil {
		return end, replay, fmt.Errorf("read position: %w", err)
	}
	return end, replay, nil
}

// walk begins at what is replayed, on the timeline of the file that replay has open.
func walk(p PositionParams, replay cluster.LSN, opened cluster.Timeline) (wal.EndResult, error) {
	c, err := wal.ReadControl(p.PGDATA)
	if err != nil {
		return wal.EndResult{}, err
	}
	dir := filepath.Join(p.PGDATA, "pg_wal")
	newest := p.Newest
	if newest == 0 {
		if newest, err = wal.NewestTimeline(dir, max(c.Timeline(), opened), 0); err != nil {
			return wal.EndResult{}, err
		}
	}
	history, err := wal.ReadHistory(dir, newest)
	if errors.Is(err, fs.ErrNotExist) { // nothing of it can be here yet
		newest = max(c.Timeline(), opened)
		history, err = wal.ReadHistory(dir, newest)
	}
	if err != nil {
		return wal.EndResult{}, err
	}
	e := wal.EndParams{Dir: dir, Timeline: newest, History: history, SegmentSize: c.WALSegmentSize, SystemID: c.SystemID, Start: replay}
	if opened != 0 && opened <= newest {
		// What is replayed is on the timeline of the file that replay has open, or on an ancestor if the point lies
		// before the fork.
		var own cluster.History
		for _, h := range history {
			if h.Timeline < opened {
				own = append(own, h)
			}
		}
		e.StartIn = wal.TimelineAt(opened, own, replay)
	}
	res, err := wal.End(e)
	if errors.Is(err, wal.ErrStart) {
		res, _, err = wal.EndOfDirectory(p.PGDATA, p.Newest)
	}
	return res, err
}

// replayed asks how far replay has come, and which timeline's file the startup process has open.
func replayed(ctx context.Context, p PositionParams) (cluster.LSN, cluster.Timeline, error) {
	if p.Ask == nil {
		return 0, 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, queryLimit)
	defer cancel()
	row, err := first(ctx, p.Ask, "select pg_last_wal_replay_lsn()")
	if err != nil || len(row) == 0 || row[0] == "" {
		return 0, 0, err
	}
	lsn, err := cluster.ParseLSN(row[0])
	if err != nil {
		return 0, 0, err
	}
	children, err := procfs.NewReader().Children(nil, p.PostmasterPID)
	if err != nil {
		return 0, 0, err
	}
	for _, c := range children {
		if s, ok := procfs.RecoveringSegment(c.Title); ok {
			if t, err := strconv.ParseUint(s[:8], 16, 32); err == nil {
				return lsn, cluster.Timeline(t), nil
			}
		}
	}
	return lsn, 0, nil
}

// first returns the first row; nil when there is none.
func first(ctx context.Context, ask Ask, sql string) ([]string, error) {
	rows, err := ask(ctx, sql)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return rows[0], nil
}

// Flushed is what a standby's WAL receiver has on disk, from one row of pg_stat_wal_receiver. Timeline and LSN
// belong together: the LSN restarts at a segment's start at or before the fork, and rises only by flushes (5.7.c).
type Flushed struct {
	Timeline cluster.Timeline
	LSN      cluster.LSN
	Status   string // "streaming" and so on; "" when there is no receiver
}

// ReadFlushed reads it once.
func ReadFlushed(ctx context.Context, ask Ask) (Flushed, error) {
	row, err := first(ctx, ask, "select received_tli, flushed_lsn, status from pg_stat_wal_receiver")
	if err != nil {
		return Flushed{}, fmt.Errorf("read wal receiver: %w", err)
	}
	if len(row) != 3 || row[0] == "" || row[1] == "" {
		return Flushed{}, nil
	}
	t, err := strconv.ParseUint(row[0], 10, 32)
	if err != nil {
		return Flushed{}, fmt.Errorf("read wal receiver: %w", err)
	}
	lsn, err := cluster.ParseLSN(row[1])
	if err != nil {
		return Flushed{}, fmt.Errorf("read wal receiver: %w", err)
	}
	return Flushed{Timeline: cluster.Timeline(t), LSN: lsn, Status: row[2]}, nil
}

// flushedEvery is the pace of 5.7.c.
const flushedEvery = 2 * time.Millisecond

// PollFlushed waits until the standby has flushed timeline t up to lsn.
func PollFlushed(ctx context.Context, ask Ask, t cluster.Timeline, lsn cluster.LSN) (Flushed, error) {
	tick := time.NewTicker(flushedEvery)
	defer tick.Stop()
	for {
		f, err := ReadFlushed(ctx, ask)
		if err != nil {
			return f, err
		}
		if f.Timeline == t && f.LSN >= lsn {
			return f, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return f, fmt.Errorf("wait for timeline %d at %s: %w", t, lsn, ctx.Err())
		}
	}
}
