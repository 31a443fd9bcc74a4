// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/e2e/seed"
)

// samples is how many parts the quickly caught mutants are divided in; a run takes one, by the clock.
const samples = 5

// TestMutants: a checker that never fails proves nothing. Each broken build must be caught within some seeds, by an
// invariant of safety and not because the cluster does not get well.
func TestMutants(t *testing.T) {
	part := int(seed.First() % samples)
	if !*flagMutants {
		t.Logf("part %d of %d; make mutants runs all", part+1, samples)
	}
	for i, m := range mutants {
		if !*flagMutants && (i%samples != part || m.most > 100 || m.draft) {
			continue
		}
		t.Run(strings.ReplaceAll(string(m.name), " ", "_"), func(t *testing.T) {
			began := time.Now()
			for seed := uint64(1); seed <= uint64(m.most); seed++ {
				opt := seedOptions(seed)
				opt.Mutant, opt.With = m.name, m.with
				if m.opt != nil {
					m.opt(&opt)
				}
				_, o := runSeed(t, opt)
				if r := RuleOf(o.Err); r != "" && (r != "liveness" || m.liveness) {
					t.Logf("%s: caught by seed %d after %s: %v", m.name, seed, time.Since(began).Round(time.Millisecond), o.Err)
					return
				}
			}
			if m.draft {
				t.Logf("%s: a draft, not caught in %d seeds", m.name, m.most)
				return
			}
			t.Errorf("%s: not caught in %d seeds", m.name, m.most)
		})
	}
}

// TestMutantLSN: the old primary comes back with a tail that nobody else has, longer than what the next epoch has
// acknowledged until everybody dies. Chance does not hit that.
func TestMutantLSN(t *testing.T) {
	run := func(seed uint64, m Mutant) error {
		w := newWorld(t, Options{Seed: seed, Data: 3, Clients: 12, Mutant: m})
		w.startAll()
		if ok, err := w.Until(30*time.Second, func() bool { return w.Healthy() == "" }); err != nil || !ok {
			return errors.Join(err, errors.New(w.Healthy()))
		}
		p := w.serving()
		for i := range w.nodes {
			w.net.cutPG[p.idx][i], w.net.cutPG[i][p.idx] = true, true
		}
		if err := w.Run(150 * time.Millisecond); err != nil {
			return err
		}
		p.kill()
		w.net.heal()
		for n := len(w.check.acks); len(w.check.acks) == n && w.now < time.Minute; {
			if err := w.Run(100 * time.Microsecond); err != nil {
				return err
			}
		}
		for _, n := range w.nodes {
			n.kill()
			n.start()
		}
		return w.Run(20 * time.Second)
	}
	caught := 0
	for seed := uint64(1); seed <= 10; seed++ {
		if err := run(seed, MutantNone); err != nil {
			t.Fatalf("the right build, seed %d: %v", seed, err)
		}
		if err := run(seed, MutantLSN); err != nil {
			t.Logf("seed %d: %v", seed, err)
			caught++
		}
	}
	if caught == 0 {
		t.Error("not caught")
	}
}
