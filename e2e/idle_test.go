// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/e2e/docker"
	"github.com/pgquorum/pgquorum/e2e/stack"
)

// Limits of an idle node's memory, in kB.
const (
	rssLimit = 25 << 10 // of process 1
	pssLimit = 45 << 10 // of all our processes
)

// footprint is what our processes of one node take.
type footprint struct {
	node     string
	processN int
	rss, pss int // kB
	ticks    int // of the processor, since their start
	wakes    int // times that a thread of ours slept, since their start
}

// measure reads from the host, by pid: in the container nobody may read the maps of a process that has dropped its
// privileges, and not every daemon may give a command more.
func measure(t *testing.T, s *stack.Stack, node string) footprint {
	t.Helper()
	ctx := deadline(t, 30*time.Second)
	c, err := s.Container(ctx, node)
	if err != nil {
		t.Fatal(err)
	}
	state, err := c.State(ctx)
	if err != nil {
		t.Fatal(err)
	}
	top, err := docker.Command(ctx, "top", c.ID, "-eo", "pid")
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", state.Pid))
	if err != nil {
		t.Fatalf("%s: this test needs root and the daemon's pids: %v", node, err)
	}
	f := footprint{node: node}
	for _, pid := range strings.Fields(top.Stdout)[1:] {
		if other, err := os.Readlink("/proc/" + pid + "/exe"); err != nil || other != exe {
			continue // Postgres, or gone meanwhile
		}
		rss, pss, ticks, err := process(pid)
		if err != nil {
			t.Fatalf("%s: %v", node, err)
		}
		f.processN++
		f.wakes += wakes(pid)
		f.pss += pss
		f.ticks += ticks
		if pid == strconv.Itoa(state.Pid) {
			f.rss = rss
		}
	}
	if f.rss == 0 || f.pss == 0 {
		t.Fatalf("%s: nothing measured: pid %d of %q", node, state.Pid, top.Stdout)
	}
	return f
}

// process reads memory in kB and processor time in ticks.
func process(pid string) (rss, pss, ticks int, err error) {
	rollup, err := os.ReadFile("/proc/" + pid + "/smaps_rollup")
	if err != nil {
		return 0, 0, 0, err
	}
	for line := range strings.Lines(string(rollup)) {
		// Other lines do not match, which is all that an error means here.
		_, _ = fmt.Sscanf(line, "Rss: %d kB", &rss)
		_, _ = fmt.Sscanf(line, "Pss: %d kB", &pss)
	}
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0, 0, 0, err
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(f)
		if err != nil {
			return 0, 0, 0, fmt.Errorf("read the times of %s: %w", pid, err)
		}
		ticks += n
	}
	return rss, pss, ticks, nil
}

// wakes is how often the threads of a process have slept and were woken.
func wakes(pid string) int {
	total := 0
	files, _ := filepath.Glob("/proc/" + pid + "/task/*/status")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for line := range strings.Lines(string(text)) {
			var n int
			// Other lines do not match, which is all that an error means here.
			_, _ = fmt.Sscanf(line, "voluntary_ctxt_switches: %d", &n)
			total += n
		}
	}
	return total
}

func (f footprint) check(t *testing.T) {
	t.Helper()
	t.Logf("%s: process 1 has %.1f MB resident; %d processes share %.1f MB", f.node, float64(f.rss)/1024, f.processN, float64(f.pss)/1024)
	if f.rss > rssLimit {
		t.Errorf("%s: process 1 has %d kB resident, at most %d", f.node, f.rss, rssLimit)
	}
	if f.pss > pssLimit {
		t.Errorf("%s: all our processes have %d kB (PSS), at most %d", f.node, f.pss, pssLimit)
	}
}

// idleStack is a formed stack that nobody uses.
func idleStack(t *testing.T, project string, port int) *stack.Stack {
	t.Helper()
	w := startWorld(t, setup{project: project, port: port})
	w.ledger.Stop()
	return w.Stack
}

// TestIdleMemory is a gate: the supervisor must never be the fat process of the container.
func TestIdleMemory(t *testing.T) {
	s := idleStack(t, "pgq-memory", 26431)
	for _, node := range s.Nodes() {
		measure(t, s, node).check(t)
	}
}

// processorShare is the share of one core, in percent, that ticks within d are.
func processorShare(ticks int, d time.Duration, perSecond string) (float64, error) {
	hz, err := strconv.ParseFloat(strings.TrimSpace(perSecond), 64)
	if err != nil || hz == 0 {
		return 0, fmt.Errorf("read the ticks per second %q: %w", perSecond, err)
	}
	return 100 * float64(ticks) / hz / d.Seconds(), nil
}
