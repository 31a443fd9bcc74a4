// SPDX-License-Identifier: Apache-2.0

//go:build e2e && bench

package e2e

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/e2e/scenario"
	"github.com/pgquorum/pgquorum/e2e/seed"
)

// TestSoak plays random scenarios on one stack for PGQ_SOAK_MINUTES, or until one fails. sim.TestRandomScenarios plays such on virtual time.
func TestSoak(t *testing.T) {
	minutes, err := strconv.Atoi(os.Getenv("PGQ_SOAK_MINUTES"))
	if err != nil {
		t.Fatalf("PGQ_SOAK_MINUTES: %v", err)
	}
	c := newContainers(t, nil, 25471)
	first, played := seed.First(), 0
	for end := time.Now().Add(time.Duration(minutes) * time.Minute); time.Now().Before(end) && !t.Failed(); played++ {
		n := first + uint64(played)
		text := scenario.Random(n, 8)
		s, err := scenario.Parse("random.txt", text)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", n, err, text)
		}
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Log("\n" + text)
			c.play(t, s)
		})
	}
	t.Logf("%d scenarios from seed %d", played, first)
	c.finish()
}
