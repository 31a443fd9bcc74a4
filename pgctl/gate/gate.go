// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgquorum/pgquorum/durable"
	"github.com/pgquorum/pgquorum/pgctl/procfs"
)

const (
	probeEvery = 200 * time.Microsecond
	probeLimit = time.Second
	// signalEvery: a backend that was stuck in sending its last words to a full socket needs another SIGTERM.
	signalEvery = 25 * time.Millisecond
	pollEvery   = time.Millisecond
	// A fresh child has a title within microseconds. One that has none after this gets its SIGTERM too; at once, it
	// might hit an auxiliary process before it says what it is.
	untitledGrace = time.Millisecond
)

// ErrNoPostmaster means that the postmaster died meanwhile, so that its children cannot be told.
var ErrNoPostmaster = errors.New("postmaster is gone")

// Options says which Postgres the gate is in front of.
type Options struct {
	HBAFile         string // what hba_file names; replaced by rename
	Socket          string // path of a unix socket of this Postgres, for the probe
	LocalRole       string // our sessions, over the unix socket
	ReplicationRole string // our WAL senders
	ClusterName     string // the effective cluster_name, which stands in every title
}

// Gate closes and opens one Postgres. It is used by one goroutine at a time.
type Gate struct {
	opt    Options
	reader *procfs.Reader
}

// New returns a gate; it changes nothing yet.
func New(o Options) *Gate {
	return &Gate{opt: o, reader: procfs.NewReader()}
}

// Closing is a gate that is closed, with the sessions of before, which may still be on their way out.
type Closing struct {
	Sessions int           // how many were signalled
	Untitled int           // of these, how many had no title
	Proven   time.Duration // until the probe was refused
	Doomed   time.Duration // until every session had its SIGTERM
	Gone     time.Duration // until none was left; by WaitGone

	gate  *Gate
	begin time.Time
	left  []session
}

type session struct {
	procfs.Process
	kind   procfs.Kind
	signal time.Time
}

// Swap renames a pg_hba.conf with this content into place and makes the postmaster read it. It proves nothing.
func (g *Gate) Swap(postmaster int, content []byte) error {
	if err := durable.Replace(g.opt.HBAFile, content, 0o600); err != nil {
		return fmt.Errorf("write gate file: %w", err)
	}
	if err := unix.Kill(postmaster, unix.SIGHUP); err != nil {
		return fmt.Errorf("reload gate file: %w", err)
	}
	return nil
}

// Close closes the gate. When it returns without error, every session is doomed: none begins another statement.
func (g *Gate) Close(ctx context.Context, postmaster int, closed []byte) (*Closing, error) {
	c := &Closing{gate: g, begin: time.Now()}
	// Who is there is read before the reload, which wakes every session and leaves little time for looking. It
	// decides nothing: the list that counts is completed after the proof.
	seen, err := g.reader.Snapshot(postmaster)
	if err != nil {
		return c, fmt.Errorf("close gate: %w", err)
	}
	defer seen.Close()
	if err := g.Swap(postmaster, closed); err != nil {
		return c, err
	}
	err = g.until(ctx, func(a answer) (bool, error) {
		if a.kind == 'E' && a.code == codeFull {
			// All slots are taken: nothing can be proven before there is room.
			return false, c.strike(ctx, postmaster, seen)
		}
		return a.rejectedByHBA(), nil
	})
	if err != nil {
		return c, fmt.Errorf("close gate: %w", err)
	}
	c.Proven = time.Since(c.begin)
	if err := c.strike(ctx, postmaster, seen); err != nil {
		return c, fmt.Errorf("close gate: %w", err)
	}
	c.Doomed = time.Since(c.begin)
	return c, nil
}

// Open opens the gate and waits until a user's role would be asked who it is.
func (g *Gate) Open(ctx context.Context, postmaster int, open []byte) error {
	if err := g.Swap(postmaster, open); err != nil {
		return err
	}
	if err := g.until(ctx, func(a answer) (bool, error) { return a.kind == 'R', nil }); err != nil {
		return fmt.Errorf("open gate: %w", err)
	}
	return nil
}

// until probes until the answer is as wanted.
func (g *Gate) until(ctx context.Context, want func(answer) (bool, error)) error {
	var last error
	for {
		a, err := probe(ctx, g.opt.Socket, ProbeRole, "postgres", probeLimit)
		if err != nil {
			last = err
		} else {
			ok, err := want(a)
			if ok || err != nil {
				return err
			}
			last = fmt.Errorf("probe answered %c %s %q", a.kind, a.code, a.message)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; %w", last, ctx.Err())
		case <-time.After(probeEvery):
		}
	}
}

// strike lists every session once, now that each later one has the closed rules, and sends SIGTERM to all of them.
// The signals go out in one sweep at the end: dying sessions take the processor away from who looks for the rest.
func (c *Closing) strike(ctx context.Context, postmaster int, seen *procfs.Snapshot) error {
	g := c.gate
	children, err := seen.Children(nil)
	if err != nil {
		return err
	}
	if pm, ok := g.reader.Stat(postmaster); !ok || pm.Dead() {
		return ErrNoPostmaster
	}
	var targets, doubtful []procfs.Process
	for _, p := range children {
		// Titles of sessions are complete and stay: only what is none has to be looked at again.
		certain := procfs.Complete(p.Title) || g.reader.Certain(&p)
		if g.ends(p.Title, procfs.Classify(p.Title)) {
			targets = append(targets, p)
		} else if !certain {
			doubtful = append(doubtful, p)
		}
	}
	found, doubt := c.decide(ctx, doubtful)
	targets = append(targets, found...)
	err = seen.Signal(targets, unix.SIGTERM)
	now := time.Now()
	for _, p := range targets {
		c.note(session{Process: p, kind: procfs.Classify(p.Title), signal: now})
	}
	return errors.Join(doubt, err)
}

// decide finds the sessions among children of which it is not certain what they are: fresh ones, and those that lost
// the processor before their title was whole. One that still has no title after the grace is ended too.
func (c *Closing) decide(ctx context.Context, doubtful []procfs.Process) (targets []procfs.Process, err error) {
	g := c.gate
	for len(doubtful) > 0 {
		select {
		case <-time.After(untitledGrace):
		case <-ctx.Done(): // then all the more: nothing may be left without its signal
			err = fmt.Errorf("process %d with the title %q has not run since, so that it is not known whether it is a session: %w", doubtful[0].PID, doubtful[0].Title, ctx.Err())
		}
		left := doubtful[:0]
		for _, p := range doubtful {
			if !g.reader.Same(p) {
				continue
			}
			certain := g.reader.Certain(&p)
			switch kind := procfs.Classify(p.Title); {
			case kind == procfs.KindUntitled:
				c.Untitled++
				targets = append(targets, p)
			case g.ends(p.Title, kind):
				targets = append(targets, p)
			case !certain:
				left = append(left, p)
			}
		}
		doubtful = left
		if err != nil && len(doubtful) > 0 {
			return targets, err
		}
	}
	return targets, nil
}

// note remembers a signalled session, once.
func (c *Closing) note(s session) {
	for i, old := range c.left {
		if old.PID == s.PID && old.Start == s.Start {
			c.left[i] = s
			return
		}
	}
	c.Sessions++
	c.left = append(c.left, s)
}

// ends says whether the gate ends a child with this title.
func (g *Gate) ends(title string, kind procfs.Kind) bool {
	switch kind {
	case procfs.KindClient:
		return !procfs.SessionOf(title, g.opt.LocalRole, g.opt.ClusterName)
	case procfs.KindSender:
		return !procfs.SenderOf(title, g.opt.ReplicationRole, g.opt.ClusterName)
	default:
		return false
	}
}

// Left is the number of doomed sessions whose processes have not ended, as WaitGone last saw them.
func (c *Closing) Left() int { return len(c.left) }

// WaitGone waits until every doomed session's process has ended. It sends SIGTERM again, never SIGKILL, which would
// end Postgres. What it says when the context ends is no failure: the sessions stay doomed.
func (c *Closing) WaitGone(ctx context.Context) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if err := c.look(); err != nil {
			return fmt.Errorf("wait for sessions to end: %w", err)
		}
		if len(c.left) == 0 {
			c.Gone = time.Since(c.begin)
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for %d sessions to end: %w", len(c.left), ctx.Err())
		}
	}
}

func (c *Closing) look() error {
	r, now := c.gate.reader, time.Now()
	keep := c.left[:0]
	var failed error
	for _, s := range c.left {
		if !r.Same(s.Process) {
			continue
		}
		if s.kind == procfs.KindUntitled {
			certain := r.Certain(&s.Process)
			if kind := procfs.Classify(s.Title); c.gate.ends(s.Title, kind) {
				s.kind = kind
			} else if certain {
				continue // it has said what it is, and is none of ours to end
			}
		}
		if now.Sub(s.signal) >= signalEvery {
			s.signal = now
			if err := r.Signal(s.Process, unix.SIGTERM); err != nil {
				failed = err
			}
		}
		keep = append(keep, s)
	}
	c.left = keep
	return failed
}
