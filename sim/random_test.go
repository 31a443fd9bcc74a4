// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/e2e/scenario"
)

// TestRandomScenarios: what `make soak` plays on containers holds here too.
func TestRandomScenarios(t *testing.T) {
	start := firstSeed()
	began := time.Now()
	var virtual time.Duration
	runs := 10 * *flagRuns
	for seed := start; seed < start+uint64(runs); seed++ {
		text := scenario.Random(seed, 8)
		s, err := scenario.Parse("random.txt", text)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, text)
		}
		w, err := playScenario(t, s, seed, MutantNone)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s\n%s", seed, err, text, w.Story())
		}
		virtual += w.now
	}
	t.Logf("%d scenarios from seed %d, %s virtual time in %s", runs, start, virtual.Round(time.Second), time.Since(began).Round(time.Millisecond))
}
