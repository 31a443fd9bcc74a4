// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/e2e/scenario"
	"github.com/pgquorum/pgquorum/e2e/seed"
)

const (
	scenarioDir = "../e2e/scenarios"
	controlDir  = "../e2e/scenarios/controls"
	// catchIn is within how many runs a broken build has to make a scenario fail.
	catchIn = 60
)

func loadScenarios(t *testing.T, dir string) []*scenario.Scenario {
	t.Helper()
	all, err := scenario.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// scenarioOptions is the cluster that a scenario asks for.
func scenarioOptions(s *scenario.Scenario, seed uint64) (o Options, lease time.Duration, never map[string]bool, err error) {
	o = Options{Seed: seed, Data: s.Nodes, Witnesses: s.Witness, Clients: 12}
	never = map[string]bool{}
	for _, set := range s.Settings {
		switch set.Name {
		case "PGQUORUM_DURABILITY":
			o.Mode = cluster.Mode(set.Value)
		case "PGQUORUM_LEASE":
			lease, err = time.ParseDuration(set.Value)
		case "PGQUORUM_PRIORITY":
			never[set.Node] = set.Value == "0"
		case "PGQUORUM_MAX_LAG":
			o.MaxLag, err = strconv.ParseUint(strings.TrimSuffix(set.Value, "kB"), 10, 32)
			o.MaxLag <<= 10
		default:
			err = fmt.Errorf("the simulator has no %s", set.Name)
		}
		if err != nil {
			return o, 0, nil, fmt.Errorf("%s: set %s=%s: %w", s.File, set.Name, set.Value, err)
		}
	}
	return o, lease, never, nil
}

// playScenario plays it once; a panic of the code under test is a failure.
func playScenario(t *testing.T, s *scenario.Scenario, seed uint64, m Mutant) (w *World, err error) {
	t.Helper()
	cryptotest.SetGlobalRandom(t, seed)
	opt, lease, never, err := scenarioOptions(s, seed)
	if err != nil {
		return nil, err
	}
	opt.Mutant = m
	if testing.Verbose() && *flagTrace {
		opt.Out = os.Stdout
	}
	w = New(opt)
	defer func() {
		if r := recover(); r != nil {
			err = &Violation{"panic", fmt.Sprintf("%v\n%s", r, debug.Stack())}
		}
	}()
	w.leaseMS = lease.Milliseconds()
	for _, n := range w.nodes {
		n.never = never[string(n.name)]
	}
	w.startAll()
	sw := newScenarioWorld(w, s.Noise)
	err = scenario.Play(t.Context(), s, sw, func(text string) { w.note("STEP", "%s", text) })
	if err == nil {
		err = sw.run(time.Second) // what the last step has set off
	}
	return w, err
}

// firstSeed is by the clock unless -start is given.
func firstSeed() uint64 {
	if *flagStart != 0 {
		return *flagStart
	}
	return seed.First()
}

// TestScenarios: what was found once, and what every cluster lives through, in e2e/scenarios. A scenario has no seed: it
// holds with any.
func TestScenarios(t *testing.T) {
	start := firstSeed()
	for _, s := range loadScenarios(t, scenarioDir) {
		t.Run(strings.TrimSuffix(s.File, ".txt"), func(t *testing.T) {
			if why := s.NotIn(scenario.Sim); why != "" {
				t.Skip(why)
			}
			began := time.Now()
			var virtual time.Duration
			runs := *flagRuns
			for seed := start; seed < start+uint64(runs); seed++ {
				w, err := playScenario(t, s, seed, MutantNone)
				if s.Open != "" {
					isOpen(t, s, err)
				}
				if err != nil {
					t.Fatalf("%v\nseed %d: %s\nagain: go test ./sim -run 'TestScenarios/%s$' -args -start %d",
						err, seed, w.Story(), strings.TrimSuffix(s.File, ".txt"), seed)
				}
				virtual += w.now
			}
			t.Logf("%s: %d runs of %s in %s each", s.About, runs, (virtual / time.Duration(runs)).Round(time.Second), (time.Since(began) / time.Duration(runs)).Round(time.Millisecond))
		})
	}
}

// isOpen ends the test of a defect that is known: it must still fail.
func isOpen(t *testing.T, s *scenario.Scenario, err error) {
	t.Helper()
	if err == nil {
		t.Fatalf("%s: open: %s: it passes now: remove the line", s.File, s.Open)
	}
	t.Skipf("open: %s: it fails, as it is known to: %v", s.Open, err)
}

// TestScenarioControls: scenarios that expect what does not happen. They must fail, and say so.
func TestScenarioControls(t *testing.T) {
	start := firstSeed()
	for _, s := range loadScenarios(t, controlDir) {
		t.Run(strings.TrimSuffix(s.File, ".txt"), func(t *testing.T) {
			if why := s.NotIn(scenario.Sim); why != "" {
				t.Skip(why)
			}
			_, err := playScenario(t, s, start, MutantNone)
			if s.Fails == "" || err == nil || !strings.Contains(err.Error(), s.Fails) {
				t.Fatalf("it ended with %v, and not with %q", err, s.Fails)
			}
			t.Log(err)
		})
	}
}

// TestScenariosCatch: the broken builds that a scenario names make it fail.
func TestScenariosCatch(t *testing.T) {
	start := firstSeed()
	for _, s := range loadScenarios(t, scenarioDir) {
		for _, name := range s.Catches {
			t.Run(strings.TrimSuffix(s.File, ".txt")+"/"+strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
				m := Mutant(name)
				if m == MutantNone || !knownMutant(m) {
					t.Fatalf("%s: catches %s: there is no such mutant: sim/mutant.go lists them", s.File, name)
				}
				for seed := start; seed < start+catchIn; seed++ {
					if _, err := playScenario(t, s, seed, m); err != nil {
						line, _, _ := strings.Cut(err.Error(), "\n")
						t.Logf("caught in run %d: %s", seed-start+1, line)
						return
					}
				}
				t.Errorf("%s does not catch %q in %d runs from seed %d", s.File, name, catchIn, start)
			})
		}
	}
}

func knownMutant(m Mutant) bool {
	for _, x := range Mutants() {
		if x == m {
			return true
		}
	}
	return m == MutantLSN
}

// draft is a plan as a scenario: a seed means nothing at another commit, and the faults of its plan do.
func draft(opt Options, p Plan, err error) string {
	var b strings.Builder
	line, _, _ := strings.Cut(fmt.Sprint(err), "\n")
	fmt.Fprintf(&b, "about %s\nfound simulation, seed %d\nonly sim: its faults are those of a plan\nnodes %d\n", line, opt.Seed, opt.Data)
	if opt.Witnesses > 0 {
		fmt.Fprintf(&b, "witness %d\n", opt.Witnesses)
	}
	if opt.Mode == cluster.ModeAsync {
		b.WriteString("set PGQUORUM_DURABILITY=async\n")
	}
	if p.Noise {
		b.WriteString("noise\n")
	}
	if b.WriteString("\n"); !p.Early {
		b.WriteString("wait redundant\n")
	}
	var now time.Duration
	pass := func(to time.Duration) {
		if to > now {
			fmt.Fprintf(&b, "pass %s\n", to-now)
			now = to
		}
	}
	for _, f := range p.Faults {
		pass(f.At)
		who := fmt.Sprintf("pg%d", f.Node+1)
		if f.Primary {
			who = "primary/" + who
		}
		fmt.Fprintf(&b, "fault %q %s seed %d\n", f.Kind, who, f.Seed)
	}
	pass(p.Length)
	b.WriteString("heal\npass 11s\nstart all\nwait redundant\n")
	if opt.Mode == cluster.ModeAsync {
		b.WriteString("expect no second primary\n")
	} else {
		b.WriteString("expect no loss\n")
	}
	return b.String()
}

// TestDraft: what a failing seed prints as a scenario is one, with the faults of its plan.
func TestDraft(t *testing.T) {
	for seed := uint64(1); seed <= 8; seed++ {
		opt := seedOptions(seed)
		opt.Without = []string{"roll back"} // an operator empties such a volume, and a draft has none
		p := Draw(opt)
		s, err := scenario.Parse("draft.txt", draft(opt, p, nil))
		if err != nil {
			t.Fatal(err)
		}
		w, err := playScenario(t, s, seed, MutantNone)
		if err != nil {
			t.Fatalf("%v\n%s", err, w.Story())
		}
		story := w.Story()
		for _, f := range p.Faults {
			if !strings.Contains(story, " nemesis "+f.Kind+" ") {
				t.Errorf("seed %d: %s did not happen", seed, f)
			}
		}
	}
}
