// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"slices"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/cluster"
)

// outage breaks something in a healthy cluster and says how long it took until a write was acknowledged again by
// another epoch, or by the same one if epochs is 0.
func outage(t *testing.T, w *World, epochs cluster.Epoch, fn func(primary *node)) time.Duration {
	t.Helper()
	healthy(t, w, 30*time.Second)
	if err := w.Run(3 * time.Second); err != nil {
		t.Fatal(err)
	}
	was := w.check.newest.Epoch().Epoch
	fn(w.serving())
	at, last, worst := w.now, w.check.lastAck, time.Duration(0)
	for w.now < at+20*time.Second {
		if err := w.Run(time.Millisecond); err != nil {
			t.Fatalf("%v\n%s", err, w.Tail())
		}
		if w.check.lastAck > last {
			worst, last = max(worst, w.check.lastAck-last), w.check.lastAck
		}
	}
	if got := w.check.newest.Epoch().Epoch; got != was+epochs || w.now-last > time.Second {
		t.Fatalf("epoch %d after %d, last acknowledgement %s ago\n%s", got, was, w.now-last, w.Tail())
	}
	return worst
}

// path is one way of a cluster's life.
type path struct {
	name    string
	data    int
	witness int
	epochs  cluster.Epoch
	most    time.Duration // the longest gap between acknowledged writes
	do      func(w *World, p *node)
}

func failures() []path {
	return []path{
		{"kill the primary", 3, 0, 1, 400 * time.Millisecond, func(w *World, p *node) {
			p.kill()
			w.after(time.Second, p.start)
		}},
		{"crash of postgres", 3, 0, 1, 600 * time.Millisecond, func(_ *World, p *node) {
			p.life.pgGone("crashed")
			p.life.post(agent.Exited{Why: "crashed"})
		}},
		// A client waits up to 3 s for an answer, so a gap is mostly its patience.
		{"freeze the primary", 3, 0, 1, 4 * time.Second, func(w *World, p *node) {
			p.freeze()
			w.after(6*time.Second, p.thaw)
		}},
		{"isolate the primary", 3, 0, 1, 4 * time.Second, func(w *World, p *node) {
			for _, o := range w.nodes {
				if o != p {
					w.net.cut[p.idx][o.idx], w.net.cut[o.idx][p.idx] = true, true
					w.net.cutPG[p.idx][o.idx], w.net.cutPG[o.idx][p.idx] = true, true
				}
			}
			w.after(6*time.Second, w.net.heal)
		}},
	}
}

func plans() []path {
	return []path{
		{"switchover", 3, 0, 1, 700 * time.Millisecond, func(_ *World, p *node) {
			p.life.post(agent.Requested{Request: cluster.Request{ID: 1, Op: "switchover"}})
		}},
		{"stop of the primary", 3, 0, 1, 700 * time.Millisecond, func(w *World, p *node) {
			p.life.post(agent.StopAsked{})
			w.after(5*time.Second, p.start)
		}},
		{"stop of a standby", 3, 0, 0, 300 * time.Millisecond, func(w *World, p *node) {
			o := w.nodes[(p.idx+1)%3]
			o.life.post(agent.StopAsked{})
			w.after(5*time.Second, o.start)
		}},
		{"loss of raft's leader", 3, 0, 0, 300 * time.Millisecond, func(w *World, _ *node) {
			for _, o := range w.nodes {
				if o.life != nil && o.life.core.Status().Leader == uint64(o.vol.inc) {
					o.kill()
					w.after(5*time.Second, o.start)
				}
			}
		}},
	}
}

func losses() []path {
	return []path{
		{"loss of a standby's volume", 3, 0, 0, 500 * time.Millisecond, func(w *World, p *node) {
			o := w.nodes[(p.idx+1)%3]
			o.wipe()
			w.after(time.Second, o.start)
		}},
		{"loss of the primary's volume", 3, 0, 1, 500 * time.Millisecond, func(w *World, p *node) {
			p.wipe()
			w.after(time.Second, p.start)
		}},
		{"restart of the whole stack", 3, 0, 0, 6 * time.Second, func(w *World, _ *node) {
			for _, n := range w.nodes {
				n.kill()
				w.after(w.between(time.Second, 1500*time.Millisecond), n.start)
			}
		}},
		{"kill the primary, with a witness", 2, 1, 1, 3 * time.Second, func(w *World, p *node) {
			p.kill()
			w.after(time.Second, p.start)
		}},
		{"kill the primary of five", 5, 0, 1, 400 * time.Millisecond, func(w *World, p *node) {
			p.kill()
			w.after(time.Second, p.start)
		}},
	}
}

// TestPaths: the planned and unplanned ways of a cluster's life, each with the longest gap between acknowledged
// writes that it may cost. Rejoining is part of each.
func TestPaths(t *testing.T) {
	for _, p := range slices.Concat(failures(), plans(), losses()) {
		t.Run(p.name, func(t *testing.T) {
			var all []time.Duration
			for seed := uint64(1); seed <= 8; seed++ {
				w := newWorld(t, Options{Seed: seed, Data: p.data, Witnesses: p.witness, Clients: 12})
				w.startAll()
				d := outage(t, w, p.epochs, func(n *node) { p.do(w, n) })
				healthy(t, w, 30*time.Second)
				if all = append(all, d.Round(time.Millisecond)); d > p.most {
					t.Errorf("seed %d: no write for %s, at most %s\n%s", seed, d, p.most, w.Tail())
				}
			}
			t.Log(all)
		})
	}
}
