// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"flag"
	"os"
	"runtime/debug"
	"testing"
)

var (
	flagSeed    = flag.Uint64("seed", 0, "the seed of TestSeed")
	flagSeeds   = flag.Int("seeds", 500, "how many seeds TestSeeds runs")
	flagStart   = flag.Uint64("start", 0, "the first of them; 0: by the clock")
	flagMax     = flag.Int("max", 1, "after how many failing seeds TestSeeds stops")
	flagShrink  = flag.Int("shrink", 150, "how many runs a failing seed may take to be made shorter")
	flagBrief   = flag.Bool("brief", false, "do not make failing seeds shorter")
	flagHash    = flag.Bool("hash", false, "TestHash prints")
	flagMutants = flag.Bool("mutants", false, "all mutants, not a sample")
	flagRuns    = flag.Int("runs", 10, "how many times TestScenarios plays each, with other latencies each time")
	flagTrace   = flag.Bool("trace", false, "print the whole trace")
)

// TestMain: a world is small and short-lived; collecting it less often makes the runs a fifth faster.
func TestMain(m *testing.M) {
	flag.Parse()
	debug.SetGCPercent(400)
	os.Exit(m.Run())
}
