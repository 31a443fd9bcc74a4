// SPDX-License-Identifier: Apache-2.0

//go:build e2e && bench

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/e2e/docker"
	"github.com/pgquorum/pgquorum/e2e/ledger"
)

// sample is one round of one fault.
type sample struct {
	libpq, prober, back time.Duration
	failed              int // writes of the libpq client that were not acknowledged
}

func benched() []fault {
	return []fault{killPrimary, killPostmaster, pausePrimary, stopPrimary, switchOver, killStandby, killLeader}
}

// benchNumber is a number from the environment.
func benchNumber(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is not a number above 0", name, text)
	}
	return n
}

// TestBenchFailover prints the outages; it demands nothing of them. It demands that no acknowledged row is lost and
// that the cluster is whole again after every round.
func TestBenchFailover(t *testing.T) {
	rounds := benchNumber(t, "PGQ_BENCH_ROUNDS", 10)
	w := startWorld(t, setup{project: "pgq-bench", port: 26421})
	w.ledger.Stop() // startWorld's two writers: the bench has its own, paced as the figures are defined
	var table strings.Builder
	fmt.Fprintf(&table, "%-20s %6s %8s %8s %10s %10s %6s %4s %9s %9s %8s\n", "fault", "rounds", "p50 ms", "max ms", "prober p50",
		"prober max", "failed", "lost", "back p50", "back max", "goal ms")
	only := os.Getenv("PGQ_BENCH_FAULT")
	for _, f := range benched() {
		if only != "" && f.name != only {
			continue
		}
		var got []sample
		for range rounds {
			s, err := w.round(f)
			if errors.Is(err, errSameNode) {
				t.Logf("%s: round not counted: %v", f.name, err)
				continue
			}
			w.must(err)
			t.Logf("%s: libpq %s, prober %s, redundant %s after the return", f.name, s.libpq, s.prober, s.back)
			got = append(got, s)
		}
		if len(got) == 0 {
			fmt.Fprintf(&table, "%-20s %6d\n", f.name, 0)
			continue
		}
		failed := 0
		for _, s := range got {
			failed = max(failed, s.failed)
		}
		libpq50, libpqMax := spread(got, func(s sample) time.Duration { return s.libpq })
		prober50, proberMax := spread(got, func(s sample) time.Duration { return s.prober })
		back50, backMax := spread(got, func(s sample) time.Duration { return s.back })
		fmt.Fprintf(&table, "%-20s %6d %8d %8d %10d %10d %6d %4d %9d %9d %8d\n", f.name, len(got), libpq50, libpqMax, prober50, proberMax, failed, 0,
			back50, backMax, f.goal.Milliseconds())
	}
	w.saveLogs(os.Getenv("PGQ_BENCH_LOGS"))
	t.Logf("write outage seen by a client of libpq's multi-host list and by a prober of each host; rows of both are checked\n%s", table.String())
}

// spread is the median and the largest, in milliseconds.
func spread(list []sample, of func(sample) time.Duration) (p50, most int64) {
	var all []time.Duration
	for _, s := range list {
		all = append(all, of(s))
	}
	slices.Sort(all)
	return all[(len(all)-1)/2].Milliseconds(), all[len(all)-1].Milliseconds()
}

// clients write while a round lasts: one as libpq does with its list of hosts, one that probes each host.
type clients []*ledger.Ledger

func startClients(ctx context.Context, w *world) (clients, error) {
	dsn, err := w.DSN()
	if err != nil {
		return nil, err
	}
	libpq, err := ledger.Start(ctx, ledger.Options{DSN: dsn})
	if err != nil {
		return nil, err
	}
	prober, err := ledger.Start(ctx, ledger.Options{DSN: dsn, PerHost: true})
	if err != nil {
		libpq.Stop()
		return nil, err
	}
	return clients{libpq, prober}, nil
}

// quietly waits until both clients write again after a failure. Asking the nodes starts programs in their containers,
// which would take the processor away from what is measured. A fault without a failed write ends it after some time.
func (c clients) quietly(ctx context.Context, since time.Time) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for _, l := range c {
		_ = docker.Wait(ctx, "a write after a failed one", func(context.Context) error {
			var failed, acked time.Time
			for _, a := range l.Snapshot().Since(since) {
				if a.Outcome == ledger.Acknowledged && a.Done.After(acked) {
					acked = a.Done
				} else if a.Outcome != ledger.Acknowledged && a.Done.After(failed) {
					failed = a.Done
				}
			}
			if failed.IsZero() || acked.Before(failed) {
				return errors.New("not yet")
			}
			return nil
		})
	}
}

func (c clients) stop() {
	for _, l := range c {
		l.Stop()
	}
}

func (c clients) acked(ctx context.Context) error {
	for _, l := range c {
		if err := l.WaitAck(ctx); err != nil {
			return err
		}
	}
	return nil
}

// check stops the clients and holds what they were told against what is there.
func (c clients) check(ctx context.Context) error {
	for _, l := range c {
		rep, err := l.Verify(ctx, l.Stop())
		if err == nil {
			err = rep.Err()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// round hurts, waits for the cluster to write again, heals, waits until it is whole and checks every row.
func (w *world) round(f fault) (sample, error) {
	var s sample
	ctx, cancel := w.limit(4 * time.Minute)
	defer cancel()
	w.redundant(2 * time.Minute)
	if f.ready != nil {
		if err := f.ready(ctx, w); err != nil {
			return s, err
		}
	}
	before := w.redundant(2 * time.Minute)
	c, err := startClients(ctx, w)
	if err != nil {
		return s, err
	}
	defer c.stop()
	if err := c.acked(ctx); err != nil {
		return s, err
	}
	since := time.Now().Add(-100 * time.Millisecond) // with writes before the fault, or its beginning has no mark
	cure, err := f.inject(ctx, w)
	if err != nil {
		return s, err
	}
	if f.then != stays {
		c.quietly(ctx, since)
		if _, err := w.waitEpoch(ctx, before.Epoch); err != nil {
			return s, err
		}
	}
	if err := c.acked(ctx); err != nil {
		return s, err
	}
	h := c[0].Snapshot().Since(since)
	s.libpq, _ = h.Outage()
	s.failed = h.Count(ledger.Failed) + h.Count(ledger.Unknown)
	s.prober, _ = c[1].Snapshot().Since(since).Outage()
	returned := time.Now()
	if cure != nil {
		if err := cure(ctx); err != nil {
			return s, err
		}
	}
	if _, err := w.WaitRedundant(ctx, nil); err != nil {
		return s, err
	}
	s.back = time.Since(returned)
	if err := c.check(ctx); err != nil {
		return s, fmt.Errorf("%s: %w", f.name, err)
	}
	return s, nil
}

// saveLogs keeps what the nodes printed, to see where the time goes; "" keeps nothing.
func (w *world) saveLogs(dir string) {
	if dir == "" {
		return
	}
	ctx, cancel := w.limit(time.Minute)
	defer cancel()
	for _, name := range w.Nodes() {
		text, err := w.container(name).Logs(ctx)
		w.must(err)
		w.must(os.WriteFile(filepath.Join(dir, name+".log"), []byte(text), 0o600))
	}
}
