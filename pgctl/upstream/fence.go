// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgquorum/pgquorum/pgctl/procfs"
)

// The fence's bounds.
const (
	// FenceLimit is how long Fence waits for the receivers; then the node's position is unknown (5.2.b).
	FenceLimit = 500 * time.Millisecond
	// KillAfter is when a caller may SIGKILL what is left, which ends this Postgres.
	KillAfter = 5 * time.Second

	pollEvery   = 500 * time.Microsecond
	signalEvery = 20 * time.Millisecond
	// A fresh child has a title within microseconds. One that stays untitled gets its SIGTERM after this: at once,
	// it might hit a process that Postgres cannot do without before it says what it is.
	untitledGrace = 2 * time.Millisecond
)

// ErrNotGone means that a process that may be a WAL receiver of before has not ended: acknowledgements are still
// possible, and the position is unknown.
var ErrNotGone = errors.New("wal receiver has not ended")

// ErrNoPostmaster means that the postmaster died meanwhile: its children have other parents now and cannot be told.
// Only killing every process of this Postgres is a fence then.
var ErrNoPostmaster = errors.New("postmaster is gone")

// FenceParams is what a fence needs.
type FenceParams struct {
	File          *File
	PostmasterPID int           // 0: no Postgres runs, parking is all
	Limit         time.Duration // FenceLimit when 0
}

// Fencing is a fence in progress or done.
type Fencing struct {
	// Ended lists the receivers and slot sync workers that were signalled, Untitled how many children without a
	// title were met.
	Ended    []int
	Untitled int
	Took     time.Duration

	reader *procfs.Reader
	begin  time.Time
	left   []victim
}

type victim struct {
	procfs.Process
	kind   procfs.Kind
	seen   time.Time
	signal time.Time // last sent
}

// Fence parks the file and ends every WAL receiver born before. Without error, no acknowledgement can reach the old
// upstream from now on, whatever state replay is in. With ErrNotGone, the returned Fencing can go on: Wait.
func Fence(ctx context.Context, p FenceParams) (*Fencing, error) {
	f := &Fencing{reader: procfs.NewReader(), begin: time.Now()}
	if err := p.File.Park(); err != nil {
		return f, fmt.Errorf("fence: %w", err)
	}
	if p.PostmasterPID == 0 {
		return f, nil
	}
	// A receiver forked after this instant reads the parked file. One forked in the same tick may be ended without
	// need: it comes back parked.
	born, err := procfs.Now()
	if err != nil {
		return f, fmt.Errorf("fence: %w", err)
	}
	if err := f.collect(p.PostmasterPID, born); err != nil {
		return f, fmt.Errorf("fence: %w", err)
	}
	limit := p.Limit
	if limit <= 0 {
		limit = FenceLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return f, f.Wait(ctx)
}

// collect lists once what may be a receiver of before. One listing is enough: a child that was born before the file
// was parked and lives is in it.
func (f *Fencing) collect(postmaster int, born uint64) error {
	children, err := f.reader.Children(nil, postmaster)
	if err != nil {
		return err
	}
	// Children of a dead postmaster have another parent: only one that still lives after the listing makes it whole.
	if pm, ok := f.reader.Stat(postmaster); !ok || pm.Dead() {
		return ErrNoPostmaster
	}
	now := time.Now()
	for _, c := range children {
		kind := procfs.Classify(c.Title)
		if c.Dead() || c.Start > born || !mayReceive(kind) && f.reader.Certain(&c) {
			continue
		}
		kind = procfs.Classify(c.Title)
		if kind == procfs.KindUntitled {
			f.Untitled++
		}
		f.left = append(f.left, victim{Process: c, kind: kind, seen: now})
	}
	return nil
}

// mayReceive says whether a child of this kind may be connected to the upstream, or be about to.
func mayReceive(k procfs.Kind) bool { return receives(k) || k == procfs.KindUntitled }

// receives says whether a child of this kind connects to the upstream.
func receives(k procfs.Kind) bool { return k == procfs.KindReceiver || k == procfs.KindSlotSync }

// Wait goes on until no process of before is left, or the context ends: ErrNotGone.
func (f *Fencing) Wait(ctx context.Context) error {
	tick := time.NewTimer(pollEvery)
	defer tick.Stop()
	for {
		if err := f.step(); err != nil {
			return fmt.Errorf("fence: %w", err)
		}
		f.Took = time.Since(f.begin)
		if len(f.left) == 0 {
			return nil
		}
		tick.Reset(pollEvery)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("fence: process %d %q after %s: %w", f.left[0].PID, f.left[0].Title, f.Took.Round(time.Millisecond), ErrNotGone)
		}
	}
}

// step looks at every process left once, and signals those that are due.
func (f *Fencing) step() error {
	now := time.Now()
	keep := f.left[:0]
	var failed error
	for _, v := range f.left {
		if !f.reader.Same(v.Process) {
			continue
		}
		if !receives(v.kind) {
			certain := f.reader.Certain(&v.Process)
			if v.kind = procfs.Classify(v.Title); certain && !receives(v.kind) {
				continue // it has said what it is
			}
		}
		// One that is not certain and has some title is only waited for: it may be what Postgres cannot do without.
		due := receives(v.kind) || v.kind == procfs.KindUntitled && now.Sub(v.seen) >= untitledGrace
		if due && now.Sub(v.signal) >= signalEvery {
			if v.signal.IsZero() && receives(v.kind) {
				f.Ended = append(f.Ended, v.PID)
			}
			v.signal = now
			if err := f.reader.Signal(v.Process, unix.SIGTERM); err != nil {
				failed = err
			}
		}
		keep = append(keep, v)
	}
	f.left = keep
	return failed
}

// Left lists the processes that have not ended.
func (f *Fencing) Left() []procfs.Process {
	var out []procfs.Process
	for _, v := range f.left {
		out = append(out, v.Process)
	}
	return out
}

// Kill sends SIGKILL to what is left. Postgres ends by it; only after KillAfter.
func (f *Fencing) Kill() error {
	for _, v := range f.left {
		if err := f.reader.Signal(v.Process, unix.SIGKILL); err != nil {
			return err
		}
	}
	return nil
}

// Receivers lists the WAL receivers of a postmaster.
func Receivers(postmaster int) ([]procfs.Process, error) {
	return ofKind(postmaster, procfs.KindReceiver)
}

func ofKind(postmaster int, k procfs.Kind) ([]procfs.Process, error) {
	children, err := procfs.NewReader().Children(nil, postmaster)
	if err != nil {
		return nil, err
	}
	out := children[:0]
	for _, c := range children {
		if !c.Dead() && procfs.Classify(c.Title) == k {
			out = append(out, c)
		}
	}
	return out, nil
}

// OrderParams is what an order needs.
type OrderParams struct {
	File          *File
	PostmasterPID int // 0: no Postgres runs
	Order         Order
}

// Give orders the upstream: it renames the ordered form into place, lets go of what was parked, wakes the startup
// process by SIGHUP so that it tries at once, and ends a slot sync worker, which would stay with the old upstream.
// The caller has done the checks of 5.5.c and has made its promise durable.
func Give(p OrderParams) error {
	if err := p.File.order(p.Order); err != nil {
		return err
	}
	if p.PostmasterPID == 0 {
		return nil
	}
	workers, err := ofKind(p.PostmasterPID, procfs.KindSlotSync)
	if err != nil {
		return fmt.Errorf("order upstream: %w", err)
	}
	r := procfs.NewReader()
	for _, w := range workers {
		if err := r.Signal(w, unix.SIGTERM); err != nil {
			return fmt.Errorf("end slot sync worker: %w", err)
		}
	}
	if err := unix.Kill(p.PostmasterPID, unix.SIGHUP); err != nil {
		return fmt.Errorf("wake postgres for its upstream: %w", err)
	}
	return nil
}
