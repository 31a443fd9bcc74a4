// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"slices"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/pgquorum/pgquorum/e2e/seed"
)

// TestFormation: while nodes look for each other they are frozen, cut off, killed, and one is emptied. However that
// ends, one cluster comes to be, and every volume belongs to it (PROTOCOL 9.2, I7).
func TestFormation(t *testing.T) {
	kinds := []string{"wipe", "freeze", "isolate", "cut both ways", "cut one way", "kill and restart at once", "slow link", "hung disk"}
	start := *flagStart
	if start == 0 {
		start = seed.First()
	}
	t.Logf("seeds from %d", start)
	for i := range max(*flagSeeds/5, 100) {
		opt := seedOptions(start + uint64(i))
		opt.Early, opt.Clients, opt.With = true, 1, kinds
		p := Draw(opt)
		p.Faults = slices.DeleteFunc(p.Faults, func(f Fault) bool { return !slices.Contains(kinds, f.Kind) })
		for i := range p.Faults { // within a few seconds
			p.Faults[i].At = time.Duration(4e9 * p.Faults[i].At.Seconds() / p.Length.Seconds())
		}
		p.Length = 10 * time.Second
		if opt.Data == 1 {
			continue
		}
		if w, o := runPlan(t, opt, p); o.Err != nil {
			t.Fatalf("seed %d: %v\n%s", opt.Seed, o.Err, w.Story())
		}
	}
}

// TestFormationOfTwo: a node has not heard one of the others and so does not take part when they form the cluster. That
// one is emptied, and the other is out of reach: what it offered before is no offer any more. A second cluster, of the node
// and the empty one, must not come to be (PROTOCOL 9.2, I7).
func TestFormationOfTwo(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	w := New(Options{Seed: 1, Data: 3, Clients: 1})
	for _, n := range w.nodes {
		n.start()
	}
	emptied, away := w.nodes[0], w.nodes[1]
	cut := func(i, j int, on bool) { w.net.cut[i][j], w.net.cutPG[i][j] = on, on }
	cut(0, 2, true)
	if _, err := w.Until(3*time.Second, func() bool { return away.vol.genesis != nil }); err != nil {
		t.Fatalf("%v\n%s", err, w.Story())
	}
	for _, i := range []int{0, 2} {
		cut(i, 1, true)
		cut(1, i, true)
	}
	emptied.wipe()
	cut(0, 2, false)
	emptied.start()
	if err := w.Run(10 * time.Second); err != nil {
		t.Fatalf("%v\n%s", err, w.Story())
	}
	w.net.heal()
	if ok, err := w.Until(healIn, func() bool { return w.Healthy() == "" }); !ok || err != nil {
		t.Fatalf("%v %s\n%s", err, w.Healthy(), w.Story())
	}
}
