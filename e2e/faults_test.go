// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgquorum/pgquorum/e2e/docker"
	"github.com/pgquorum/pgquorum/e2e/stack"
)

// change is what the cluster has to do about a fault.
type change uint8

const (
	stays   change = iota // the same primary in the same epoch goes on
	moves                 // another node becomes primary
	renews                // a later epoch, of whichever node: the best position wins
	nothing               // nobody is left to do anything before it is healed
)

// heal undoes a fault; nil where the cluster, or Docker, heals itself.
type heal = func(context.Context) error

// fault is one way to hurt a cluster. inject returns when its effect is proven.
type fault struct {
	name   string
	then   change
	goal   time.Duration                       // of the median outage in the bench; 0: no write may fail
	ready  func(context.Context, *world) error // may be nil; brings about what the fault needs, before anything is measured
	inject func(context.Context, *world) (heal, error)
}

func step1(f fault) step { return step{f.name, func(w *world) { w.hurt(f) }} }

// hurt hurts, waits until the cluster did what it has to and writes again, heals, and waits until all is whole. It
// returns who was primary before and after the fault.
func (w *world) hurt(f fault) (before, after stack.Status) {
	w.t.Helper()
	ctx, cancel := w.limit(3 * time.Minute)
	defer cancel()
	if f.ready != nil {
		w.must(f.ready(ctx, w))
	}
	before = w.redundant(time.Minute)
	at := time.Now()
	cure, err := f.inject(ctx, w)
	w.must(err)
	after, err = w.react(ctx, f.then, before)
	w.must(err)
	if f.then != nothing {
		d, _ := w.ledger.Snapshot().Since(at.Add(-time.Second)).Outage()
		w.t.Logf("%s: write outage %s", f.name, d.Round(time.Millisecond))
		w.onePrimary(ctx, after.Primary)
	}
	if cure != nil {
		w.must(cure(ctx))
	}
	w.settle(f.name+", healed", 2*time.Minute)
	if now := w.primary(); f.then == stays && now != before.Primary {
		w.t.Fatalf("%s moved the primary from %s to %s", f.name, before.Primary, now)
	}
	return before, after
}

// react waits until writes are acknowledged by whom they shall be. Asking for the status costs processor time, which
// the cluster needs for its failover: so the first sign is a write.
func (w *world) react(ctx context.Context, then change, before stack.Status) (stack.Status, error) {
	if then == nothing {
		return before, nil
	}
	if err := w.ledger.WaitAck(ctx); err != nil || then == stays {
		return before, err
	}
	st, err := w.waitEpoch(ctx, before.Epoch)
	if err != nil {
		return st, err
	}
	if then == moves && st.Primary == before.Primary {
		return st, fmt.Errorf("%s is primary again, in epoch %d after %d", st.Primary, st.Epoch, before.Epoch)
	}
	return st, w.ledger.WaitAck(ctx)
}

// onePrimary checks that one node admits writes, and no other.
func (w *world) onePrimary(ctx context.Context, primary string) {
	w.t.Helper()
	for _, n := range w.Nodes() {
		dsn, err := w.NodeDSN(n)
		w.must(err)
		c, err := pgx.Connect(ctx, dsn)
		writes := false
		if err == nil {
			err = c.QueryRow(ctx, "select not pg_is_in_recovery()").Scan(&writes)
			c.Close(ctx)
		}
		if writes != (n == primary) {
			w.t.Fatalf("%s admits writes: %t, but %s is primary (%v)", n, writes, primary, err)
		}
	}
}

func killed(victim func(context.Context, *world) (string, error)) func(context.Context, *world) (heal, error) {
	return func(ctx context.Context, w *world) (heal, error) {
		node, err := victim(ctx, w)
		if err != nil {
			return nil, err
		}
		c := w.container(node)
		return c.Restart, c.Kill(ctx)
	}
}

func thePrimary(ctx context.Context, w *world) (string, error) { return w.Primary(ctx) }

func aStandby(ctx context.Context, w *world) (string, error) {
	p, err := w.Primary(ctx)
	return w.other(p), err
}

var errSameNode = errors.New("raft's leader is on the primary")

// theLeader is raft's leader, which shall not be on the primary's node.
func theLeader(ctx context.Context, w *world) (string, error) {
	st, err := w.AnyStatus(ctx)
	if err == nil && (st.Leader == "" || st.Leader == st.Primary) {
		err = errSameNode
	}
	return st.Leader, err
}

var (
	killPrimary    = fault{"container SIGKILL", moves, 300 * time.Millisecond, nil, killed(thePrimary)}
	killPostmaster = fault{"postmaster SIGKILL", renews, 300 * time.Millisecond, nil, noPostmaster}
	pausePrimary   = fault{"docker pause", moves, 2500 * time.Millisecond, nil, frozen}
	stopPrimary    = fault{"docker stop", moves, 300 * time.Millisecond, nil, stopped}
	switchOver     = fault{"switchover", moves, 300 * time.Millisecond, nil, switchedOver}
	killStandby    = fault{"standby SIGKILL", stays, 0, nil, killed(aStandby)}
	killLeader     = fault{"raft leader SIGKILL", stays, 0, leaderElsewhere, killed(theLeader)}

	killInit    = fault{"PID 1 SIGKILL, from the host", moves, 0, nil, noInit}
	wipeStandby = fault{"wiped standby", stays, 0, nil, wiped(aStandby)}
	wipePrimary = fault{"wiped ex-primary", moves, 0, nil, wiped(thePrimary)}
	stopAll     = fault{"whole stack stopped", nothing, 0, nil, allGone(func(ctx context.Context, c docker.Container) error {
		_, err := c.Stop(ctx, 20*time.Second)
		return err
	})}
	killAll = fault{"whole stack SIGKILLed", nothing, 0, nil, allGone(func(ctx context.Context, c docker.Container) error { return c.Kill(ctx) })}
)

func noPostmaster(ctx context.Context, w *world) (heal, error) {
	return nil, w.killPostmaster(ctx, w.primary())
}

func (w *world) killPostmaster(ctx context.Context, node string) error {
	_, err := w.exec(ctx, node, `p=$(head -1 $PGDATA/postmaster.pid) && kill -9 $p && while kill -0 $p 2>/dev/null; do sleep 0.01; done`)
	return err
}

func frozen(ctx context.Context, w *world) (heal, error) {
	c := w.container(w.primary())
	return c.Unpause, c.Pause(ctx)
}

func stopped(ctx context.Context, w *world) (heal, error) {
	c := w.container(w.primary())
	code, err := c.Stop(ctx, 20*time.Second)
	if err == nil && code != 0 {
		err = fmt.Errorf("docker stop: exit code %d", code)
	}
	return c.Restart, err
}

func switchedOver(ctx context.Context, w *world) (heal, error) {
	_, err := w.exec(ctx, w.primary(), "pgquorum switchover")
	return nil, err
}

// noInit leaves it to the restart policy to bring the container back.
func noInit(ctx context.Context, w *world) (heal, error) {
	return nil, w.container(w.primary()).KillInit(ctx)
}

// leaderElsewhere waits until raft's leader has left the primary's node (PROTOCOL 7.1).
func leaderElsewhere(ctx context.Context, w *world) error {
	return docker.Wait(ctx, "raft's leader to leave the primary's node", func(ctx context.Context) error {
		_, err := theLeader(ctx, w)
		return err
	})
}

// wiped kills a node; healing gives it an empty volume: the same name, a new incarnation.
func wiped(victim func(context.Context, *world) (string, error)) func(context.Context, *world) (heal, error) {
	return func(ctx context.Context, w *world) (heal, error) {
		node, err := victim(ctx, w)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context) error {
			if err := w.Wipe(ctx, node); err != nil {
				return err
			}
			return w.Up(ctx, node)
		}, w.container(node).Kill(ctx)
	}
}

// allGone ends every node at once.
func allGone(end func(context.Context, docker.Container) error) func(context.Context, *world) (heal, error) {
	return func(ctx context.Context, w *world) (heal, error) {
		nodes := w.Nodes()
		done := make(chan error, len(nodes))
		for _, n := range nodes {
			c := w.container(n)
			go func() { done <- end(ctx, c) }()
		}
		var errs []error
		for range nodes {
			errs = append(errs, <-done)
		}
		return func(ctx context.Context) error {
			for _, n := range nodes {
				if err := w.container(n).Restart(ctx); err != nil {
					return err
				}
			}
			return nil
		}, errors.Join(errs...)
	}
}
