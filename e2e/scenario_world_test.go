// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/pgquorum/pgquorum/e2e/docker"
	"github.com/pgquorum/pgquorum/e2e/ledger"
	"github.com/pgquorum/pgquorum/e2e/stack"
)

// containers is a stack of real containers as a scenario sees it: scenario.World. Its writer is the ledger.
type containers struct {
	*world
	mark   time.Time
	mends  []heal
	frozen map[string][]int // the stopped processes of a node, by the host's pids; none: the whole container
	saved  []string         // nodes whose volume was copied
	away   []string         // nodes without container and volume
	most   time.Duration    // that a step may take
}

// What takes longer than stepLimit has failed; what is known to fail gets less.
const (
	stepLimit = 3 * time.Minute
	openLimit = 40 * time.Second
)

// together does it to several nodes at once.
func together(nodes []string, do func(string) error) error {
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { errs[i] = do(n) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// poll asks until nothing is missing.
func (c *containers) poll(ctx context.Context, what string, missing func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.most)
	defer cancel()
	return docker.Wait(ctx, what, missing)
}

// Mark implements scenario.World.
func (c *containers) Mark(context.Context) error {
	c.mark = time.Now()
	return nil
}

// Data implements scenario.Asks.
func (c *containers) Data() []string { return c.Nodes() }

// Primary implements scenario.Asks.
func (c *containers) Primary(ctx context.Context) (string, error) {
	st, err := c.AnyStatus(ctx)
	if err == nil && st.Primary == "" {
		err = errors.New("nobody serves as primary")
	}
	return st.Primary, err
}

// Elected implements scenario.Asks.
func (c *containers) Elected(ctx context.Context) (string, error) {
	st, err := c.newest(ctx)
	for _, m := range st.Members {
		if m.Role == "primary" {
			return m.Name, err
		}
	}
	return "", errors.Join(err, errors.New("nobody has been elected"))
}

// newest is the answer of the latest epoch, whether somebody serves in it or not.
func (c *containers) newest(ctx context.Context) (best stack.Status, err error) {
	var mu sync.Mutex
	var errs []error
	_ = together(c.Nodes(), func(n string) error {
		st, err := c.Status(ctx, n)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			errs = append(errs, err)
		} else if st.Epoch > best.Epoch {
			best = st
		}
		return nil
	})
	if best.Epoch == 0 {
		return best, errors.Join(append(errs, errors.New("nobody knows an epoch"))...)
	}
	return best, nil
}

// Leader implements scenario.Asks.
func (c *containers) Leader(ctx context.Context) (string, error) {
	st, err := c.AnyStatus(ctx)
	if err == nil && st.Leader == "" {
		err = errors.New("nobody leads")
	}
	return st.Leader, err
}

// Epoch implements scenario.Asks.
func (c *containers) Epoch(ctx context.Context) (uint64, error) {
	st, err := c.newest(ctx)
	return st.Epoch, err
}

// Outage implements scenario.Asks.
func (c *containers) Outage(context.Context) (time.Duration, bool, error) {
	d, _ := c.ledger.Snapshot().Since(c.mark.Add(-time.Second)).Outage()
	return d, false, nil
}

// Redundant implements scenario.Waits.
func (c *containers) Redundant(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.most)
	defer cancel()
	_, err := c.WaitRedundant(ctx, nil)
	return err
}

// Serves implements scenario.Waits. Asking for the status costs processor time, which the cluster needs for its
// failover: so the first sign is a write.
func (c *containers) Serves(ctx context.Context, suits func(string) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.most)
	defer cancel()
	if err := c.ledger.WaitAck(ctx); err != nil {
		return err
	}
	err := docker.Wait(ctx, "a primary that suits", func(ctx context.Context) error {
		p, err := c.Primary(ctx)
		if err != nil {
			return err
		}
		return suits(p)
	})
	if err != nil {
		return err
	}
	return c.ledger.WaitAck(ctx)
}

// Acked implements scenario.Waits.
func (c *containers) Acked(ctx context.Context, n int) error {
	since := time.Now()
	return c.poll(ctx, "writes to be acknowledged", func(context.Context) error {
		got := 0
		for _, a := range c.ledger.Snapshot() {
			if a.Outcome == ledger.Acknowledged && a.Start.After(since) {
				got++
			}
		}
		if got < n {
			return fmt.Errorf("%d are", got)
		}
		return nil
	})
}

// Ahead implements scenario.Waits.
func (c *containers) Ahead(ctx context.Context, node string, bytes uint64) error {
	const end = `select case when pg_is_in_recovery() then coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
		else pg_current_wal_flush_lsn() end`
	return c.poll(ctx, node+" to be ahead", func(ctx context.Context) error {
		mine, err := c.sql(ctx, node, end)
		if err != nil {
			return err
		}
		for _, o := range c.standbys(node) {
			if !c.runs(ctx, o) {
				continue
			}
			more, err := c.sql(ctx, o, fmt.Sprintf("select '%s'::pg_lsn - (%s) >= %d", mine, end, bytes))
			if err != nil {
				return err
			}
			if more != "t" {
				return fmt.Errorf("it ends at %s, and %s has that, but for less than %d bytes", mine, o, bytes)
			}
		}
		return nil
	})
}

// Followed implements scenario.Waits.
func (c *containers) Followed(ctx context.Context, rule, node string) error {
	return c.poll(ctx, "rule "+rule, func(ctx context.Context) error {
		n, err := c.Rule(ctx, rule, node)
		if err == nil && n == 0 {
			err = errors.New("no log says so")
		}
		return err
	})
}

// Rule implements scenario.Checks: the logs name the rule of every decision.
func (c *containers) Rule(ctx context.Context, rule, node string) (int, error) {
	nodes := c.Nodes()
	if node != "" {
		nodes = []string{node}
	}
	count := 0
	for _, n := range nodes {
		box, err := c.Container(ctx, n)
		if err != nil {
			continue // its volume and container are gone
		}
		res, err := docker.Command(ctx, "logs", "--since", c.mark.Format(time.RFC3339Nano), box.ID)
		if err != nil {
			return 0, err
		}
		count += strings.Count(res.Stdout+res.Stderr, "rule="+rule)
	}
	return count, nil
}

// Refused implements scenario.Waits: another node says so.
func (c *containers) Refused(ctx context.Context, node string) error {
	return c.poll(ctx, node+" to be refused", func(ctx context.Context) error {
		var errs []error
		for _, other := range c.Nodes() {
			if other == node {
				continue
			}
			st, err := c.Status(ctx, other)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			m := st.Member(node)
			if why := m.WhyNot + m.Trouble; strings.Contains(why, "rolled back") || strings.Contains(why, "quarantined") {
				return nil
			}
			errs = append(errs, fmt.Errorf("%s says that its state is %q, %q", other, m.State, m.WhyNot+m.Trouble))
		}
		return errors.Join(errs...)
	})
}

// NoLoss implements scenario.Checks.
func (c *containers) NoLoss(ctx context.Context) error {
	h := c.ledger.Snapshot()
	rep, err := c.ledger.Verify(ctx, h)
	if err == nil {
		err = rep.Missing()
	}
	if err != nil {
		return err
	}
	if st, err := c.AnyStatus(ctx); err == nil && st.Redundant {
		c.everyNode(h)
	}
	return nil
}

// OnePrimary implements scenario.Checks.
func (c *containers) OnePrimary(ctx context.Context) error {
	p, err := c.Primary(ctx)
	if err == nil {
		c.onePrimary(ctx, p)
	}
	return err
}

// NoWrite implements scenario.Checks. A slow machine can only make it miss a write, never see one that is not there.
func (c *containers) NoWrite(ctx context.Context, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	if c.ledger.WaitAck(ctx) == nil {
		return errors.New("a write was acknowledged")
	}
	return nil
}
