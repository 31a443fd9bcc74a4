// SPDX-License-Identifier: Apache-2.0

// Command suite runs the stages of `make test`, counts their tests and prints the time of each. Its last line is
// "N passed, N failed, N skipped"; it exits with 1 when anything failed.
//
// Start with stages in stages.go. With arguments, only the stages named run.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pgquorum/pgquorum/e2e/docker"
)

// logDir keeps the whole output of each stage.
const logDir = ".cache/suite"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	total, err := run(ctx, os.Stdout, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(2)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", total.passed, total.failed, total.skipped)
	if total.failed > 0 {
		os.Exit(1)
	}
}

// run runs the stages named, or all, in order.
func run(ctx context.Context, out io.Writer, names []string) (counts, error) {
	var total counts
	for _, n := range names {
		if !slices.ContainsFunc(stages(), func(s stage) bool { return s.name == n }) {
			return total, fmt.Errorf("no stage is named %q", n)
		}
	}
	if err := os.MkdirAll(logDir, 0o755); err != nil {
		return total, fmt.Errorf("make the log directory: %w", err)
	}
	setSeed(ctx, out)
	noDocker := docker.Available(ctx)
	broken := false // the images could not be made: what needs them cannot run
	start := time.Now()
	var summary []string
	for _, s := range stages() {
		if len(names) > 0 && !slices.Contains(names, s.name) {
			continue
		}
		r := newReport(out)
		began := time.Now()
		fmt.Fprintf(out, "== %s: %s\n", s.name, s.what)
		switch {
		case s.docker && noDocker != nil:
			r.fail(s.name, fmt.Sprintf("did not run: containers cannot be had: %v", noDocker))
		case s.images && broken:
			r.fail(s.name, "did not run: the images could not be made")
		default:
			s.run(ctx, r)
		}
		if s.name == "images" && r.failed > 0 {
			broken = true
		}
		r.finish(filepath.Join(logDir, s.name+".log"))
		total.add(r.counts)
		line := fmt.Sprintf("   %-12s %8s  %s", s.name, time.Since(began).Round(100*time.Millisecond), r.counts)
		fmt.Fprintln(out, line)
		summary = append(summary, line)
	}
	fmt.Fprintf(out, "\n== summary, %s\n%s\n", time.Since(start).Round(time.Second), strings.Join(summary, "\n"))
	return total, nil
}
