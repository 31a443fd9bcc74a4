// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/e2e/docker"
)

// TestCluster is the life of a cluster on the shipped compose file. After each fault it is whole again, and every
// acknowledged row is on every node exactly once.
func TestCluster(t *testing.T) {
	w := startWorld(t, setup{project: "pgq-e2e", port: 25321})
	w.steps([]step{
		{"formed", formed},
		step1(killPrimary),
		step1(killPostmaster),
		step1(switchOver),
		step1(pausePrimary),
		step1(stopPrimary),
		step1(killInit),
		step1(killStandby),
		step1(killLeader),
		step1(wipeStandby),
		step1(wipePrimary),
		{"diverged ex-primary, rewound", diverged(false)},
		{"diverged ex-primary whose WAL is gone, cloned", diverged(true)},
		{"late standby does not win", lateStandby},
		step1(cutRaftOfStandby),
		step1(cutWALOfStandby),
		step1(cutRaftOfPrimary),
		step1(cutWALOfPrimary),
		step1(stopAll),
		step1(killAll),
	})
	w.finish()
	w.steps([]step{
		{"dumps of all nodes", dumpsAgree},
		{"one wiped volume alone", oneWiped},
		{"two wiped volumes and an absent node", twoWiped},
	})
}

// formed: the init hooks ran on one node, once.
func formed(w *world) {
	w.settle("formed", 30*time.Second)
	all := w.Logs(w.ctx)
	if n := strings.Count(all, "running /docker-entrypoint-initdb.d/10_once.sql"); n != 1 {
		w.t.Fatalf("the init hook ran %d times on all nodes", n)
	}
	w.must(w.CheckPassword(w.ctx))
	other, err := w.Elsewhere(w.ctx, w.t.TempDir())
	w.must(err)
	if err := other.CheckPassword(w.ctx); err == nil || !strings.Contains(err.Error(), "make destroy") {
		w.t.Errorf("with the password of another checkout: %v", err)
	}
}

// oneWiped: an empty node that sees nobody founds no cluster of its own, and joins the old one when that is back.
func oneWiped(w *world) {
	nodes := w.Nodes()
	h := w.ledger.Snapshot()
	for _, n := range nodes {
		w.must(w.container(n).Kill(w.ctx))
	}
	w.must(w.Wipe(w.ctx, nodes[0]))
	w.must(w.Up(w.ctx, nodes[0]))
	w.waitsEmpty([]string{"waiting for " + nodes[1] + " (", nodes[2] + " ("}, nodes[0])
	for _, n := range nodes[1:] {
		w.must(w.container(n).Restart(w.ctx))
	}
	w.redundant(2 * time.Minute)
	w.everyNode(h)
}

// twoWiped: two empty nodes must not found a second cluster over the third's data. They wait and say for whom.
func twoWiped(w *world) {
	nodes := w.Nodes()
	for _, n := range nodes {
		w.must(w.container(n).Kill(w.ctx))
	}
	w.must(w.Wipe(w.ctx, nodes[0]))
	w.must(w.Wipe(w.ctx, nodes[1]))
	w.must(w.Up(w.ctx, nodes[0], nodes[1]))
	w.waitsEmpty([]string{"waiting for " + nodes[2] + " ("}, nodes[:2]...)
}

// waitsEmpty waits until each node says for whom it waits, without data of its own.
func (w *world) waitsEmpty(says []string, nodes ...string) {
	w.t.Helper()
	ctx, cancel := w.limit(60 * time.Second)
	defer cancel()
	for _, n := range nodes {
		c := w.container(n)
		w.must(docker.Wait(ctx, n+" to say for whom it waits", func(ctx context.Context) error {
			res, err := c.Exec(ctx, "pgquorum", "status")
			if err != nil {
				return err
			}
			if err := holds(strings.Join(strings.Fields(res.Stdout), " "), says); err != nil || res.Code != 2 { // lines are broken
				return fmt.Errorf("exit code %d: %s", res.Code, res.Stdout)
			}
			return nil
		}))
		if files, err := w.exec(w.ctx, n, "ls $PGDATA"); err != nil || files != "" {
			w.t.Errorf("%s has data, it founded a cluster by itself: %s, %v", n, files, err)
		}
	}
}
