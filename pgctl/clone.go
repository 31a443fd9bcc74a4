// SPDX-License-Identifier: Apache-2.0

package pgctl

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"sync/atomic"
	"syscall"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/durable"
	"github.com/pgquorum/pgquorum/pgctl/wal"
)

// ErrNoSpace means that the volume cannot hold a clone beside what is there (PROTOCOL 8.5).
var ErrNoSpace = errors.New("no space for a clone beside the old data directory")

// cloneReserve stays free beside a clone, for the WAL that is streamed meanwhile and the node's own needs.
const cloneReserve = 256 << 20

// Clone makes a copy of the source beside the data directory, and swaps it in when it is whole. The old
// directory is kept until ConfirmStreaming. The name of its connections is in no list (PROTOCOL 3.1.d).
func (p *Postgres) Clone(ctx context.Context, src Source, id cluster.SystemID, progress func(done, total int64)) error {
	p.work.Lock()
	defer p.work.Unlock()
	if err := p.clone(ctx, src, id, progress); err != nil {
		return fmt.Errorf("clone from %s: %w", src.Host, err)
	}
	return nil
}

func (p *Postgres) clone(ctx context.Context, src Source, id cluster.SystemID, progress func(done, total int64)) error {
	if p.Running() {
		return errors.New("postgres is running")
	}
	plan, err := p.readPlan()
	if err != nil {
		return err
	}
	// Those that would go when this clone streams make room for it now.
	if err := p.keepOld(nil, max(0, p.opt.KeepOld-1)); err != nil {
		return err
	}
	older := plan.Older
	if plan.Old != "" { // the clone before this one never streamed: what it replaced may be the better copy
		older = append(older, plan.Old)
	}
	plan = Plan{
		Kind: PlanClone, Step: StepBackup, Garbage: plan.Garbage, Clone: freeName(p.opt.DataDir, "clone"),
		Old: freeName(p.opt.DataDir, "old"), Older: older,
	}
	if err := p.writePlan(plan); err != nil {
		return err
	}
	if err := p.backup(ctx, src, id, plan.Clone, progress); err != nil {
		return errors.Join(err, p.dropClone(plan))
	}
	plan.Step = StepSwap
	if err := p.writePlan(plan); err != nil {
		return err
	}
	return p.swap(plan)
}

var progressLine = regexp.MustCompile(`^\s*(\d+)/(\d+) kB`)

func (p *Postgres) backup(ctx context.Context, src Source, id cluster.SystemID, dir string, progress func(done, total int64)) error {
	env, err := p.sourceEnv(src, "pg_basebackup")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var checked atomic.Bool
	_, err = p.tool(ctx, toolSpec{
		name: "pg_basebackup", env: env, args: []string{
			"--pgdata=" + dir, "--dbname=service=" + sourceService, "--wal-method=stream", "--checkpoint=fast",
			"--progress", "--no-password", "--label=pgquorum", "--no-manifest",
		},
		stderr: func(line string) {
			m := progressLine.FindStringSubmatch(line)
			if m == nil {
				return
			}
			done, _ := strconv.ParseInt(m[1], 10, 64)
			total, _ := strconv.ParseInt(m[2], 10, 64)
			if !checked.Swap(true) {
				if err := spaceFor((total-done)*1024, filepath.Dir(dir)); err != nil {
					cancel(err)
				}
			}
			if progress != nil {
				progress(done*1024, total*1024)
			}
		},
	})
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		return err
	}
	c, err := wal.ReadControl(dir)
	if err != nil {
		return err
	}
	if id != 0 && c.SystemID != id {
		return fmt.Errorf("the source is of system %d, not %d", c.SystemID, id)
	}
	for _, f := range []string{"postmaster.pid", "recovery.signal", "promote"} {
		if err := durable.Remove(filepath.Join(dir, f)); err != nil {
			return err
		}
	}
	return p.save(filepath.Join(dir, "standby.signal"), nil)
}

func spaceFor(bytes int64, dir string) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return fmt.Errorf("ask for free space: %w", err)
	}
	free := int64(st.Bavail) * st.Bsize
	if free < bytes+cloneReserve {
		return fmt.Errorf("%w: it needs %d MB, %d MB are free in %s: make room, or remove the old directory by hand",
			ErrNoSpace, (bytes+cloneReserve)>>20, free>>20, dir)
	}
	return nil
}

// Leftovers lists the directories beside the data directory that plans and unfinished inits left.
func (p *Postgres) Leftovers() ([]string, error) {
	var out []string
	for _, kind := range []string{"clone", "old", "unfinished"} {
		found, err := filepath.Glob(p.opt.DataDir + "." + kind + "-*")
		if err != nil {
			return nil, fmt.Errorf("list leftovers: %w", err)
		}
		out = append(out, found...)
	}
	return out, nil
}
