// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pgquorum/pgquorum/e2e/docker"
)

// runs says that a node's container does.
func (c *containers) runs(ctx context.Context, node string) bool {
	box, err := c.Container(ctx, node)
	if err != nil {
		return false
	}
	s, err := box.State(ctx)
	return err == nil && s.Running
}

// these are the nodes that a fault hits: those named, or all that are up (or down).
func (c *containers) these(ctx context.Context, nodes []string, up bool) []string {
	if len(nodes) > 0 {
		return nodes
	}
	return slices.DeleteFunc(c.Nodes(), func(n string) bool { return c.runs(ctx, n) != up })
}

// Kill implements scenario.Faults.
func (c *containers) Kill(ctx context.Context, part string, nodes ...string) error {
	return together(c.these(ctx, nodes, true), func(n string) error {
		if part == "postgres" {
			return c.killPostmaster(ctx, n)
		}
		box, err := c.Container(ctx, n)
		if err != nil {
			return err
		}
		return box.Kill(ctx)
	})
}

// Bounce implements scenario.Faults.
func (c *containers) Bounce(ctx context.Context, nodes ...string) error {
	return together(c.these(ctx, nodes, true), func(n string) error {
		box, err := c.Container(ctx, n)
		if err != nil {
			return err
		}
		if err := box.KillInit(ctx); err != nil {
			return err
		}
		_, err = box.WaitState(ctx, n+" to be started again", func(s docker.State) bool { return s.Running })
		return err
	})
}

// Stop implements scenario.Faults.
func (c *containers) Stop(ctx context.Context, nodes ...string) error {
	return together(c.these(ctx, nodes, true), func(n string) error {
		box, err := c.Container(ctx, n)
		if err != nil {
			return err
		}
		code, err := box.Stop(ctx, 20*time.Second)
		if err == nil && code != 0 {
			err = fmt.Errorf("%s ended with code %d", n, code)
		}
		return err
	})
}

// Start implements scenario.Faults.
func (c *containers) Start(ctx context.Context, nodes ...string) error {
	nodes = c.these(ctx, nodes, false)
	err := together(nodes, func(n string) error {
		if slices.Contains(c.away, n) {
			return c.Up(ctx, n)
		}
		if c.runs(ctx, n) {
			return fmt.Errorf("%s is up", n)
		}
		box, err := c.Container(ctx, n)
		if err != nil {
			return err
		}
		return box.Restart(ctx)
	})
	c.away = slices.DeleteFunc(c.away, func(n string) bool { return slices.Contains(nodes, n) })
	return err
}

// Freeze implements scenario.Faults.
func (c *containers) Freeze(ctx context.Context, part, node string) error {
	box, err := c.Container(ctx, node)
	if err != nil {
		return err
	}
	if part == "container" {
		c.frozen[node] = nil
		return box.Pause(ctx)
	}
	s, err := box.State(ctx)
	if err != nil {
		return err
	}
	pids := []int{s.Pid}
	if part == "postgres" {
		if pids, err = postgresOf(ctx, box); err != nil {
			return err
		}
	}
	c.frozen[node] = pids
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop process %d of %s: %w", pid, node, err)
		}
	}
	return docker.Wait(ctx, part+" of "+node+" to be stopped", func(context.Context) error {
		for _, pid := range pids {
			if s := processState(pid); s != "T" && s != "" {
				return fmt.Errorf("process %d is in state %s", pid, s)
			}
		}
		return nil
	})
}

// postgresOf are the processes of a container's Postgres, the postmaster first, by the host's pids.
func postgresOf(ctx context.Context, box docker.Container) ([]int, error) {
	top, err := docker.Command(ctx, "top", box.ID, "-eo", "pid,comm")
	if err != nil {
		return nil, err
	}
	var pids []int
	for line := range strings.Lines(top.Stdout) {
		if f := strings.Fields(line); len(f) == 2 && f[1] == "postgres" {
			pid, err := strconv.Atoi(f[0])
			if err != nil {
				return nil, fmt.Errorf("read %q: %w", line, err)
			}
			pids = append(pids, pid)
		}
	}
	if len(pids) == 0 {
		return nil, fmt.Errorf("find Postgres: %s", top.Stdout)
	}
	slices.Sort(pids)
	return pids, nil
}

// processState is the letter of /proc; empty: there is no such process.
func processState(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	return f[0]
}

// Thaw implements scenario.Faults. Processes that have been killed meanwhile need none.
func (c *containers) Thaw(ctx context.Context, node string) error {
	pids, ok := c.frozen[node]
	if !ok {
		return fmt.Errorf("%s is not frozen", node)
	}
	delete(c.frozen, node)
	if len(pids) == 0 {
		box, err := c.Container(ctx, node)
		if err != nil {
			return err
		}
		return box.Unpause(ctx)
	}
	for _, pid := range pids {
		if processState(pid) != "T" {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("thaw process %d of %s: %w", pid, node, err)
		}
	}
	return nil
}

// apiPort is the one that no cut touches.
const apiPort = 8008

// Cut implements scenario.Faults.
func (c *containers) Cut(ctx context.Context, what, node string, from ...string) error {
	if len(from) == 0 {
		from = slices.DeleteFunc(c.standbys(node), func(n string) bool { return !c.runs(ctx, n) })
	}
	ports := map[string][]int{"raft": {raftPort}, "replication": {postgresPort}, "all": {postgresPort, raftPort}}
	for _, port := range ports[what] {
		mend, err := c.cut(ctx, node, port, apiPort, from...)
		if mend != nil {
			c.mends = append(c.mends, mend)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Heal implements scenario.Faults.
func (c *containers) Heal(ctx context.Context) error {
	var errs []error
	for _, n := range c.Nodes() {
		if _, ok := c.frozen[n]; ok {
			errs = append(errs, c.Thaw(ctx, n))
		}
	}
	for _, mend := range c.mends {
		errs = append(errs, mend(ctx))
	}
	c.mends = nil
	return errors.Join(errs...)
}

// reset makes the stack whole for the next scenario.
func (c *containers) reset() error {
	ctx, cancel := c.limit(stepLimit)
	defer cancel()
	return errors.Join(c.Heal(ctx), c.Start(ctx), c.Redundant(ctx))
}

// Wipe implements scenario.Faults.
func (c *containers) Wipe(ctx context.Context, node string) error {
	if c.runs(ctx, node) {
		if err := c.Kill(ctx, "container", node); err != nil {
			return err
		}
	}
	c.away = append(c.away, node)
	return c.world.Wipe(ctx, node)
}

func (c *containers) copyOf(node string) string { return c.Volume(node) + "-saved" }

// copyVolume makes one volume the same as another.
func (c *containers) copyVolume(ctx context.Context, from, to string) error {
	const line = `find /to -mindepth 1 -delete && cp -a /from/. /to/ && diff -rq --no-dereference /from /to`
	_, err := docker.Command(ctx, "run", "--rm", "-v", from+":/from:ro", "-v", to+":/to", "--entrypoint", "bash", c.image, "-ec", line)
	return err
}

// Save implements scenario.Faults.
func (c *containers) Save(ctx context.Context, node string) error {
	if c.runs(ctx, node) {
		return fmt.Errorf("%s is up: stop or kill it first", node)
	}
	c.saved = append(c.saved, node)
	return c.copyVolume(ctx, c.Volume(node), c.copyOf(node))
}

// Restore implements scenario.Faults.
func (c *containers) Restore(ctx context.Context, node string) error {
	if c.runs(ctx, node) || !slices.Contains(c.saved, node) {
		return fmt.Errorf("%s is up, or nothing of it was saved", node)
	}
	return c.copyVolume(ctx, c.copyOf(node), c.Volume(node))
}

// forget removes the copies.
func (c *containers) forget() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, n := range c.saved {
		if _, err := docker.Command(ctx, "volume", "rm", "-f", c.copyOf(n)); err != nil {
			c.t.Errorf("clean up: %v", err)
		}
	}
}

// DropWAL implements scenario.Faults.
func (c *containers) DropWAL(ctx context.Context, node string) error {
	for _, s := range []string{"select pg_switch_wal()", "checkpoint"} {
		if _, err := c.sql(ctx, node, s); err != nil {
			return err
		}
	}
	keep, err := c.sql(ctx, node, "select pg_walfile_name(redo_lsn) from pg_control_checkpoint()")
	if err != nil {
		return err
	}
	gone, err := c.exec(ctx, node, `cd "$PGDATA"/pg_wal && n=0 && for f in $(ls | grep -E '^[0-9A-F]{24}$'); do `+
		`if [ "${f:8}" \< "`+keep[8:]+`" ]; then rm "$f"; n=$((n + 1)); fi; done; echo $n`)
	if err == nil && gone == "0" {
		err = fmt.Errorf("%s kept no segment before %s", node, keep)
	}
	return err
}

// GrowWAL implements scenario.Faults.
func (c *containers) GrowWAL(ctx context.Context, node string) error {
	const end, local = "select pg_current_wal_flush_lsn()", "set synchronous_commit = local; "
	was, err := c.sql(ctx, node, end)
	if err != nil {
		return err
	}
	for _, s := range []string{"create table unconfirmed as select generate_series(1, 1000)", "drop table unconfirmed"} {
		if _, err := c.sql(ctx, node, local+s); err != nil {
			return err
		}
	}
	if more, err := c.sql(ctx, node, "select ("+end+") - '"+was+"' > 10000"); err != nil || more != "t" {
		return errors.Join(err, fmt.Errorf("its WAL has not grown by 10000 bytes since %s", was))
	}
	return nil
}

// BlockReplay implements scenario.Faults.
func (c *containers) BlockReplay(ctx context.Context, node string) error {
	if _, err := c.sql(ctx, node, "select pg_wal_replay_pause()"); err != nil {
		return err
	}
	return docker.Wait(ctx, "replay on "+node+" to pause", func(ctx context.Context) error {
		state, err := c.sql(ctx, node, "select pg_get_wal_replay_pause_state()")
		if err == nil && state != "paused" {
			err = errors.New("it is " + state)
		}
		return err
	})
}

// Promote implements scenario.Faults.
func (c *containers) Promote(ctx context.Context, node string) error {
	done, err := c.sql(ctx, node, "select pg_promote(false)")
	if err == nil && done != "t" {
		err = errors.New("it was not promoted")
	}
	return err
}

// Switchover implements scenario.Faults.
func (c *containers) Switchover(ctx context.Context, to string) error {
	p, err := c.Primary(ctx)
	if err != nil {
		return err
	}
	_, err = c.exec(ctx, p, strings.TrimSpace("pgquorum switchover "+to))
	return err
}

var errSimOnly = errors.New("the simulation alone has it")

// Reboot implements scenario.Faults.
func (c *containers) Reboot(context.Context, string) error { return errSimOnly }

// Strike implements scenario.Faults.
func (c *containers) Strike(context.Context, string, string, bool, uint64) error { return errSimOnly }

// Pass implements scenario.Faults.
func (c *containers) Pass(context.Context, time.Duration) error { return errSimOnly }

// Rewinding implements scenario.Waits.
func (c *containers) Rewinding(context.Context, string) error { return errSimOnly }
