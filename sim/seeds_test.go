// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/e2e/seed"
)

func seedOptions(seed uint64) Options {
	o := Options{Seed: seed, Data: 3, Clients: 3}
	switch seed % 16 {
	case 4:
		o.Data, o.Clients = 1, 2
	case 5:
		o.Mode = cluster.ModeAsync
	case 6, 14:
		o.Data, o.Witnesses = 2, 1
	case 7, 15:
		o.Data = 5
	}
	return o
}

// runSeed runs one seed; raft draws its time-outs from crypto/rand, which is seeded too.
func runSeed(t *testing.T, opt Options) (w *World, o Outcome) {
	t.Helper()
	return runPlan(t, opt, Draw(opt))
}

func runPlan(t *testing.T, opt Options, p Plan) (w *World, o Outcome) {
	t.Helper()
	t.Run(fmt.Sprint(opt.Seed), func(t *testing.T) {
		cryptotest.SetGlobalRandom(t, opt.Seed)
		w, o = RunPlan(opt, p)
	})
	return w, o
}

// explain prints what a failing seed shrinks to.
func explain(t *testing.T, opt Options) {
	t.Helper()
	whole := Draw(opt)
	w, o := runPlan(t, opt, whole)
	plan, tried := Shrink(whole, RuleOf(o.Err), *flagShrink, func(p Plan) error {
		_, o := runPlan(t, opt, p)
		return o.Err
	})
	if len(plan.Faults) < len(whole.Faults) || plan.Noise != whole.Noise {
		w, o = runPlan(t, opt, plan)
	}
	detail := w.Story()
	if *flagTrace {
		detail = w.Tail()
	}
	t.Errorf("seed %d: %v\n%d data nodes, %d witnesses, %s; of %d faults %d are enough (%d runs):\n%s\n%s\nagain: make sim-seed SEED=%d\nas a scenario, for e2e/scenarios when it is mended:\n%s",
		opt.Seed, o.Err, opt.Data, opt.Witnesses, w.opt.Mode, len(whole.Faults), len(plan.Faults), tried, plan, detail, opt.Seed, draft(opt, plan, o.Err))
}

func TestSeeds(t *testing.T) {
	start := *flagStart
	if start == 0 {
		start = seed.First()
	}
	t.Logf("seeds %d to %d", start, start+uint64(*flagSeeds)-1)
	began := time.Now()
	var virtual time.Duration
	acked, admissions, failed := 0, 0, 0
	for i := range *flagSeeds {
		opt := seedOptions(start + uint64(i))
		_, o := runSeed(t, opt)
		virtual, acked, admissions = virtual+o.Virtual, acked+o.Acked, admissions+o.Admissions
		if o.Err != nil {
			if failed++; *flagBrief {
				t.Errorf("seed %d: %v", opt.Seed, o.Err)
			} else {
				explain(t, opt)
			}
			if failed >= *flagMax {
				break
			}
		}
	}
	took := time.Since(began)
	t.Logf("%d failed; %.1f virtual hours in %s: %.0f virtual hours per real hour; %d transactions acknowledged, %d admissions",
		failed, virtual.Hours(), took.Round(time.Millisecond), virtual.Hours()/took.Hours(), acked, admissions)
}

func TestSeed(t *testing.T) {
	if *flagSeed == 0 {
		t.Skip("no -seed given")
	}
	opt := seedOptions(*flagSeed)
	if _, o := runSeed(t, opt); o.Err != nil {
		explain(t, opt)
		return
	}
	if testing.Verbose() {
		opt.Out = os.Stdout
	}
	_, o := runSeed(t, opt)
	t.Logf("%+v", o)
}

// TestHash prints what TestDeterminism compares.
func TestHash(t *testing.T) {
	if !*flagHash {
		t.Skip("run by TestDeterminism in another process")
	}
	for seed := uint64(1); seed <= hashes; seed++ {
		_, o := runSeed(t, seedOptions(seed))
		fmt.Printf("hash %d %x\n", seed, o.Hash)
	}
}

const hashes = 16

// TestDeterminism: a failing seed is worth nothing if it does not fail again, also in another process.
func TestDeterminism(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(exe, "-test.run", "^TestHash$", "-hash").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for seed := uint64(1); seed <= hashes; seed++ {
		_, o := runSeed(t, seedOptions(seed))
		if want := fmt.Sprintf("hash %d %x\n", seed, o.Hash); !strings.Contains(string(out), want) {
			t.Errorf("another process has not printed %q:\n%s", want, out)
		}
	}
}
