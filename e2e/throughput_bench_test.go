// SPDX-License-Identifier: Apache-2.0

//go:build e2e && bench

package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/e2e/docker"
)

const (
	throughputGoal = 0.97
	warmUp         = 2 * time.Second
)

// sameSettings are given to both: nothing may run beside the commits that has its own rhythm.
var sameSettings = []string{
	"-c", "autovacuum=off", "-c", "checkpoint_timeout=1h", "-c", "max_wal_size=16GB", "-c", "min_wal_size=1GB",
}

// ourSettings are what pgquorum sets and plain Postgres does not, and what may matter to a commit. The run checks that
// nothing else differs.
var ourSettings = []string{
	"-c", "wal_log_hints=on", "-c", "wal_keep_size=512MB", "-c", "wal_receiver_timeout=5s", "-c", "wal_sender_timeout=5s",
	"-c", "wal_receiver_status_interval=1s", "-c", "tcp_user_timeout=10s", "-c", "restart_after_crash=off",
	"-c", "max_wal_senders=14", "-c", "max_replication_slots=14",
}

// mayDiffer are settings that say where something is or who somebody is.
const mayDiffer = `('config_file', 'hba_file', 'ident_file', 'ssl_cert_file', 'ssl_key_file', 'synchronous_standby_names',
	'primary_conninfo', 'primary_slot_name', 'external_pid_file', 'port', 'cluster_name')`

// sides are the two clusters that are compared.
type sides struct {
	ours, theirs docker.Container // the primaries
	world        *world
	hz           string
}

// turn is one round of both.
type turn struct {
	ours, theirs float64 // transactions a second
	busy, idle   float64 // our processes' share of one core in percent: while ours works, while theirs does
}

// TestBenchThroughput prints what a quorum commit of ours costs beside Postgres' own replication with the same settings:
// both clusters are there at once, and the rounds alternate.
func TestBenchThroughput(t *testing.T) {
	length := benchNumber(t, "PGQ_BENCH_SECONDS", 5)
	rounds := benchNumber(t, "PGQ_BENCH_ROUNDS", 5)
	var table strings.Builder
	fmt.Fprintf(&table, "%-4s %8s %7s %11s %11s %23s %10s %10s\n", "tls", "clients", "rounds", "ours tps", "theirs tps", "ratio min/median/max", "busy %", "idle %")
	for _, tls := range []bool{true, false} {
		word := map[bool]string{true: "on", false: "off"}[tls]
		if only := os.Getenv("PGQ_BENCH_TLS"); only != "" && only != word {
			continue
		}
		t.Run("tls "+word, func(t *testing.T) {
			s := startSides(t, tls)
			for _, clients := range []int{1, 8, 32} {
				got := s.compare(t, clients, rounds, time.Duration(length)*time.Second)
				fmt.Fprintf(&table, "%-4s %8d %s\n", word, clients, summary(got))
			}
			s.world.settle("after the load", time.Minute)
		})
	}
	t.Logf("pgbench simple-update, ANY 1 of 2 standbys, goal of the median %.2f; busy and idle: one core's share of our processes on all"+
		" nodes, while ours and while theirs is measured\n%s", throughputGoal, table.String())
}

func startSides(t *testing.T, tls bool) *sides {
	t.Helper()
	w := startWorld(t, setup{
		project: "pgq-throughput", port: 26451, args: sameSettings,
		env: map[string]string{"PGQUORUM_REPLICATION_TLS": map[bool]string{true: "on", false: "off"}[tls]},
	})
	w.ledger.Stop()
	_, tag, _ := strings.Cut(image(), ":")
	s := &sides{world: w, ours: w.container(w.primary())}
	s.theirs = startPlain(t, plainSetup{image: "postgres:" + tag, tls: tls, args: slices.Concat(sameSettings, ourSettings)})
	ctx := deadline(t, 2*time.Minute)
	hz, err := s.ours.Exec(ctx, "getconf", "CLK_TCK")
	w.must(err)
	s.hz = hz.Stdout
	var said []string
	for _, c := range []docker.Container{s.ours, s.theirs} {
		_, err := bench(ctx, c, "pgbench", "-i", "-q", "-s", "10")
		w.must(err)
		// TLS of the replication itself, not of the setting alone.
		text, err := bench(ctx, c, "psql", "-XAtqc", `select string_agg(ssl::text, ' ') from pg_stat_replication join pg_stat_ssl using (pid)`)
		w.must(err)
		if want := map[bool]string{true: "true true", false: "false false"}[tls]; text != want {
			t.Fatalf("replication uses TLS: %s, want %s", text, want)
		}
		text, err = bench(ctx, c, "psql", "-XAtqc", `select name || '=' || setting from pg_settings where name not in `+mayDiffer+
			` order by 1`)
		w.must(err)
		said = append(said, text)
	}
	if d := difference(said[0], said[1]); d != "" {
		t.Fatalf("the settings differ, ours (-) and theirs (+):\n%s", d)
	}
	return s
}

// compare measures in turn, each side first every other time.
func (s *sides) compare(t *testing.T, clients, rounds int, length time.Duration) []turn {
	t.Helper()
	ctx := deadline(t, 2*warmUp+time.Duration(rounds)*2*(length+10*time.Second)+time.Minute)
	for _, c := range []docker.Container{s.ours, s.theirs} {
		_, err := bench(ctx, c, "psql", "-qc", "checkpoint")
		s.world.must(err)
		_, err = tps(ctx, c, clients, warmUp)
		s.world.must(err)
	}
	var got []turn
	for i := range rounds {
		var r turn
		mine := func() {
			var err error
			r.busy = s.share(t, func() { r.ours, err = tps(ctx, s.ours, clients, length) })
			s.world.must(err)
		}
		other := func() {
			var err error
			r.idle = s.share(t, func() { r.theirs, err = tps(ctx, s.theirs, clients, length) })
			s.world.must(err)
		}
		if i%2 == 0 {
			mine()
			other()
		} else {
			other()
			mine()
		}
		t.Logf("%d clients: ours %.0f, theirs %.0f, ratio %.3f", clients, r.ours, r.theirs, r.ours/r.theirs)
		got = append(got, r)
	}
	return got
}

// share is what our processes of all nodes take of one core, in percent, while f runs.
func (s *sides) share(t *testing.T, f func()) float64 {
	t.Helper()
	ticks := func() int {
		n := 0
		for _, node := range s.world.Nodes() {
			n += measure(t, s.world.Stack, node).ticks
		}
		return n
	}
	before, began := ticks(), time.Now()
	f()
	took := time.Since(began)
	percent, err := processorShare(ticks()-before, took, s.hz)
	s.world.must(err)
	return percent
}

// tps runs pgbench's simple update for a while, without the time to connect.
func tps(ctx context.Context, c docker.Container, clients int, length time.Duration) (float64, error) {
	text, err := bench(ctx, c, "pgbench", "-n", "-N", "-M", "prepared", "-c", strconv.Itoa(clients), "-j", strconv.Itoa(min(clients, 2)),
		"-T", strconv.Itoa(int(length.Seconds())))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(text, "\ntps = ")
	word, _, _ := strings.Cut(rest, " ")
	n, err := strconv.ParseFloat(word, 64)
	if !ok || err != nil || n == 0 {
		return 0, fmt.Errorf("read the rate of pgbench: %w: %s", err, text)
	}
	return n, nil
}

func summary(list []turn) string {
	column := func(of func(turn) float64) []float64 {
		var all []float64
		for _, r := range list {
			all = append(all, of(r))
		}
		slices.Sort(all)
		return all
	}
	mid := func(all []float64) float64 { return all[(len(all)-1)/2] }
	ratio := column(func(r turn) float64 { return r.ours / r.theirs })
	return fmt.Sprintf("%7d %11.0f %11.0f %7.3f %7.3f %7.3f %10.1f %10.1f", len(list), mid(column(func(r turn) float64 { return r.ours })),
		mid(column(func(r turn) float64 { return r.theirs })), ratio[0], mid(ratio), ratio[len(ratio)-1],
		mid(column(func(r turn) float64 { return r.busy })), mid(column(func(r turn) float64 { return r.idle })))
}
