// SPDX-License-Identifier: Apache-2.0

package pgctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/durable"
	"github.com/pgquorum/pgquorum/pgctl/wal"
)

func (p *Postgres) ballastFile() string { return p.stateFile("ballast") }

// Space is what the device of the WAL has left. Without a data directory nothing is known.
func (p *Postgres) Space() (cluster.Space, error) {
	s, err := p.space()
	if errors.Is(err, fs.ErrNotExist) {
		return cluster.Space{}, nil
	}
	if err != nil {
		return cluster.Space{}, fmt.Errorf("look at the device of %s: %w", p.dataFile("pg_wal"), err)
	}
	return s, nil
}

func (p *Postgres) space() (s cluster.Space, err error) {
	c, err := wal.ReadControl(p.opt.DataDir)
	if err != nil {
		return s, err
	}
	var vol syscall.Statfs_t
	if err := syscall.Statfs(p.walDir(), &vol); err != nil {
		return s, err
	}
	block := uint64(max(vol.Frsize, 1))
	s = cluster.Space{Known: true, Size: vol.Blocks * block, Free: vol.Bavail * block, Segment: uint64(c.WALSegmentSize)}
	of, err := os.Stat(p.walDir())
	if err != nil {
		return s, err
	}
	ours, err := os.Stat(p.opt.StateDir)
	if err != nil {
		return s, err
	}
	s.Apart = of.Sys().(*syscall.Stat_t).Dev != ours.Sys().(*syscall.Stat_t).Dev
	ballast, err := os.Lstat(p.ballastFile())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s, nil
	case err != nil:
		return s, err
	case !s.Apart: // what lies elsewhere, since pg_wal was moved, gives nothing back
		s.Ballast = min(uint64(ballast.Size()), uint64(ballast.Sys().(*syscall.Stat_t).Blocks)*512)
	}
	return s, nil
}

// MakeBallast makes the reserve file, durably, or nothing.
func (p *Postgres) MakeBallast(ctx context.Context) error {
	p.ballast.Lock()
	defer p.ballast.Unlock()
	return durable.Reserve(ctx, p.ballastFile(), cluster.BallastSize)
}

// DropBallast deletes it. Its blocks are free when this returns: some file systems give back what was deleted only with
// the next commit of their journal.
func (p *Postgres) DropBallast() error {
	p.ballast.Lock()
	defer p.ballast.Unlock()
	return durable.Remove(p.ballastFile(), durable.Unfinished(p.ballastFile()))
}
