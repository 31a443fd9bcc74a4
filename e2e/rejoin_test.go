// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pgquorum/pgquorum/e2e/docker"
)

// Rules of the reconcile table by which a node rejoins.
const (
	rewinds = "rule=R550"
	clones  = "rule=R520"
)

// diverged kills a primary that holds WAL which nobody else has. With the WAL gone from before its last checkpoint there
// is nothing that a rewind could read.
func diverged(walGone bool) func(*world) {
	return func(w *world) {
		p := w.primary()
		c := w.container(p)
		logged := func(rule string) int {
			text, err := c.Logs(w.ctx)
			w.must(err)
			return strings.Count(text, rule)
		}
		rewound, cloned := logged(rewinds), logged(clones)
		w.hurt(fault{"diverged ex-primary", moves, 0, nil, func(ctx context.Context, w *world) (heal, error) {
			keep, err := w.diverge(ctx, p)
			if err != nil {
				return nil, err
			}
			if err := c.Kill(ctx); err != nil {
				return nil, err
			}
			if !walGone {
				return c.Restart, nil
			}
			return c.Restart, w.dropWAL(ctx, p, keep)
		}})
		for _, n := range w.Nodes() {
			if there, err := w.sql(w.ctx, n, "select to_regclass('unconfirmed') is not null"); err != nil || there != "f" {
				w.t.Fatalf("%s holds what nobody confirmed: %s, %v", n, there, err)
			}
		}
		if now := logged(rewinds); now == rewound {
			w.t.Fatalf("%s did not try to rewind: it had not diverged", p)
		}
		if now := logged(clones); (now > cloned) != walGone {
			w.t.Fatalf("%s cloned %d times, want that only with its WAL gone (%t)", p, now-cloned, walGone)
		}
	}
}

// diverge writes to the primary what no standby gets, and proves it. It returns the first segment that a start of the
// primary needs.
func (w *world) diverge(ctx context.Context, p string) (string, error) {
	if _, err := w.cut(ctx, p, postgresPort, raftPort, w.standbys(p)...); err != nil { // ends with the container
		return "", err
	}
	for _, s := range []string{
		"set synchronous_commit = local; create table unconfirmed as select generate_series(1, 1000)",
		"select pg_switch_wal()", "checkpoint",
		"set synchronous_commit = local; insert into unconfirmed values (0)",
	} {
		if _, err := w.sql(ctx, p, s); err != nil {
			return "", err
		}
	}
	end, err := w.sql(ctx, p, "select pg_current_wal_flush_lsn()")
	if err != nil {
		return "", err
	}
	for _, n := range w.standbys(p) {
		if has, err := w.sql(ctx, n, "select pg_last_wal_receive_lsn() >= '"+end+"'"); err != nil || has != "f" {
			return "", errors.Join(err, fmt.Errorf("%s has the WAL up to %s: %s", n, end, has))
		}
	}
	return w.sql(ctx, p, "select pg_walfile_name(redo_lsn) from pg_control_checkpoint()")
}

// dropWAL takes away all segments before one, from the volume of a node that does not run.
func (w *world) dropWAL(ctx context.Context, node, keep string) error {
	line := `cd "$PGDATA"/pg_wal && n=0 && for f in $(ls | grep -E '^[0-9A-F]{24}$'); do if [ "${f:8}" \< "${0:8}" ]; then rm "$f"; n=$((n + 1)); fi; done; echo $n`
	res, err := docker.Command(ctx, "run", "--rm", "-v", w.Volume(node)+":/var/lib/postgresql", "--entrypoint", "bash", w.image, "-ec", line, keep)
	if err == nil && (strings.TrimSpace(res.Stdout) == "0" || res.Stdout == "") {
		err = fmt.Errorf("no segment before %s was there to take away: %s", keep, res.Stderr)
	}
	return err
}
