// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"slices"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/cluster"
)

// apart cuts one node off from all others.
func (w *World) apart(n *node) {
	for _, o := range w.nodes {
		if o != n {
			w.net.cut[n.idx][o.idx], w.net.cut[o.idx][n.idx] = true, true
			w.net.cutPG[n.idx][o.idx], w.net.cutPG[o.idx][n.idx] = true, true
		}
	}
}

// standbys are the data nodes that do not serve.
func (w *World) standbys() []*node {
	return slices.DeleteFunc(slices.Clone(w.nodes), func(n *node) bool { return n == w.serving() || n.witness })
}

// TestUnaskedPromotion: somebody calls pg_promote() on a standby that is cut off, which is told neither of that nor of the
// epoch that follows elsewhere. The numbers of the two timelines differ, so that the node's WAL tells what it is, also
// to a PID 1 that was not there when it happened (PROTOCOL 5.5.h).
func TestUnaskedPromotion(t *testing.T) {
	w := newWorld(t, Options{Seed: 31})
	w.startAll()
	healthy(t, w, 30*time.Second)
	s, target := w.standbys()[0], w.standbys()[1]
	w.apart(s)
	s.life.pg.promoteUnasked()
	tl := s.vol.pg.end().Timeline
	s.kill()
	w.serving().life.post(agent.Requested{Request: cluster.Request{ID: 1, Op: "switchover", Target: target.name}})
	if err := w.Run(4 * time.Second); err != nil {
		t.Fatalf("%v\n%s", err, w.Tail())
	}
	if got := w.check.newest.Epoch(); got.Epoch != 2 || got.Timeline == tl {
		t.Fatalf("epoch %d is on timeline %d, and so is what somebody promoted\n%s", got.Epoch, got.Timeline, w.Tail())
	}
	w.net.heal()
	s.start()
	healthy(t, w, 30*time.Second)
	if slices.ContainsFunc(s.vol.pg.recs, func(r rec) bool { return r.tl == tl }) {
		t.Fatalf("%s follows, and holds timeline %d that nobody assigned", s.name, tl)
	}
}

// TestUnaskedPromotionOfTheElected: the node that was elected is promoted by somebody else, while others follow it
// already. They all hold what they received, so it must not be worthless (PROTOCOL 5.6.b).
func TestUnaskedPromotionOfTheElected(t *testing.T) {
	for seed := range uint64(50) { // in some of them somebody follows before it has promoted
		if unaskedOfTheElected(t, seed) {
			return
		}
	}
	t.Fatal("it promoted before anybody followed, each time: this test proves nothing")
}

func unaskedOfTheElected(t *testing.T, seed uint64) bool {
	w := newWorld(t, Options{Seed: seed})
	w.startAll()
	healthy(t, w, 30*time.Second)
	was := w.serving()
	was.wipe()
	var c *node
	for c == nil || len(c.life.pg.senders) == 0 { // until somebody follows who was elected
		if err := w.Run(time.Millisecond); err != nil || w.now > time.Minute {
			t.Fatalf("nobody follows: %v\n%s", err, w.Tail())
		}
		if s := w.check.newest; s.Phase == cluster.PhasePromoting {
			c = w.nodeNamed(string(s.NameOf(s.Primary())))
		}
	}
	if c.life.pg.rw {
		return false
	}
	c.life.pg.promoteUnasked()
	was.start()
	healthy(t, w, 30*time.Second)
	return true
}
