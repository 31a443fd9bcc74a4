// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pgquorum/pgquorum/e2e/docker"
	"github.com/pgquorum/pgquorum/e2e/stack"
)

// Ports between the nodes.
const (
	raftPort     = 7432
	postgresPort = 5432
)

// Half a network: one of the two ways between a node and all others is cut, the other one stays.
var (
	cutRaftOfPrimary = fault{"raft of the primary cut, replication alive", moves, 0, nil, cut(thePrimary, raftPort, postgresPort, nil)}
	cutRaftOfStandby = fault{"raft of a standby cut, replication alive", stays, 0, nil, cut(aStandby, raftPort, postgresPort,
		func(m stack.Member) error { return not(m.Linked, m.Name+" is linked") })}
	cutWALOfPrimary = fault{"replication of the primary cut, raft alive", moves, 0, nil, cut(thePrimary, postgresPort, raftPort, nil)}
	cutWALOfStandby = fault{"replication of a standby cut, raft alive", stays, 0, nil, cut(aStandby, postgresPort, raftPort,
		func(m stack.Member) error { return not(m.Streaming, m.Name+" streams") })}
)

func not(yes bool, what string) error {
	if yes {
		return errors.New(what)
	}
	return nil
}

// cut cuts a node off from all others at one port. seen is what the primary has to notice of it before the fault counts.
func cut(victim func(context.Context, *world) (string, error), port, alive int, seen func(stack.Member) error) func(context.Context, *world) (heal, error) {
	return func(ctx context.Context, w *world) (heal, error) {
		node, err := victim(ctx, w)
		if err != nil {
			return nil, err
		}
		mend, err := w.cut(ctx, node, port, alive, w.standbys(node)...)
		if err != nil || seen == nil {
			return mend, err
		}
		return mend, docker.Wait(ctx, "the primary to notice", func(ctx context.Context) error {
			st, err := w.Status(ctx, w.primary())
			if err != nil {
				return err
			}
			return seen(st.Member(node))
		})
	}
}

func (w *world) cut(ctx context.Context, node string, port, alive int, peers ...string) (heal, error) {
	var cs []docker.Container
	for _, n := range peers {
		cs = append(cs, w.container(n))
	}
	return w.container(node).Cut(ctx, port, alive, cs...)
}

// behind cuts one standby off from the primary's WAL, waits until it is provably behind the other one, and kills the
// primary. It returns the two.
func (w *world) behind(ctx context.Context, late string) (heal, error) {
	p := w.primary()
	mend, err := w.cut(ctx, late, postgresPort, raftPort, p)
	if err != nil {
		return nil, err
	}
	var other string
	for _, n := range w.standbys(p) {
		if n != late {
			other = n
		}
	}
	if err := w.ledger.WaitAck(ctx); err != nil { // by the other one alone
		return nil, err
	}
	const end = `select coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'`
	behind, err := w.sql(ctx, late, end)
	if err != nil {
		return nil, err
	}
	ahead, err := w.sql(ctx, other, end+" > "+behind)
	if err != nil || ahead != "t" {
		return nil, errors.Join(err, fmt.Errorf("%s is not behind %s: %s", late, other, ahead))
	}
	c := w.container(p)
	return func(ctx context.Context) error {
		return errors.Join(c.Restart(ctx), mend(ctx))
	}, c.Kill(ctx)
}

// lateStandby: the standby that holds less must not win, for it lacks what was acknowledged.
func lateStandby(w *world) {
	late := w.other(w.primary())
	_, after := w.hurt(fault{"late standby", moves, 0, nil, func(ctx context.Context, w *world) (heal, error) { return w.behind(ctx, late) }})
	if after.Primary == late {
		w.t.Fatalf("%s won, which was behind", late)
	}
}

// catchUp: of two standbys the one that holds more may not be primary (its priority is 0), so the late one takes the
// rest of the WAL from it first, and wins (PROTOCOL 5.4.c).
func catchUp(w *world) {
	p := w.primary()
	if p == never {
		w.t.Fatalf("%s is primary, with priority 0", never)
	}
	var late string
	for _, n := range w.standbys(p) {
		if n != never {
			late = n
		}
	}
	const took = "rule=R220"
	count := func() int {
		text, err := w.container(late).Logs(w.ctx)
		w.must(err)
		return strings.Count(text, took)
	}
	before := count()
	_, after := w.hurt(fault{"catch-up", moves, 0, nil, func(ctx context.Context, w *world) (heal, error) { return w.behind(ctx, late) }})
	if after.Primary != late {
		w.t.Fatalf("%s is primary, not %s", after.Primary, late)
	}
	if count() == before {
		w.t.Fatalf("%s won without a catch-up: its log does not say %s", late, took)
	}
}
