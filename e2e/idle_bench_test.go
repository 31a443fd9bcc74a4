// SPDX-License-Identifier: Apache-2.0

//go:build e2e && bench

package e2e

import (
	"testing"
	"time"
)

const idleFor = 20 * time.Second

// TestIdle prints what an idle node costs: memory, which has limits, and processor time and wake-ups, which depend on the
// machine.
func TestIdle(t *testing.T) {
	s := idleStack(t, "pgq-idle", 26441)
	ctx := deadline(t, 2*time.Minute)
	c, err := s.Container(ctx, "pg1")
	if err != nil {
		t.Fatal(err)
	}
	hz, err := c.Exec(ctx, "getconf", "CLK_TCK")
	if err != nil {
		t.Fatal(err)
	}
	primary, err := s.Primary(ctx)
	if err != nil {
		t.Fatal(err)
	}
	before := map[string]footprint{}
	began := time.Now()
	for _, node := range s.Nodes() {
		before[node] = measure(t, s, node)
	}
	<-time.After(idleFor) // the measured time itself, not a wait for something
	for _, node := range s.Nodes() {
		after := measure(t, s, node)
		after.check(t)
		share, err := processorShare(after.ticks-before[node].ticks, time.Since(began), hz.Stdout)
		if err != nil {
			t.Fatal(err)
		}
		role := "standby"
		if node == primary {
			role = "primary"
		}
		took := time.Since(began)
		t.Logf("%s (%s): process 1 and watchdog take %.2f %% of one core and wake %.0f times a second, idle for %s (goal 1 %%)", node, role,
			share, float64(after.wakes-before[node].wakes)/took.Seconds(), took.Round(time.Second))
	}
}
