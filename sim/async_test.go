// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// TestAsyncLimit: in async mode a standby that is a little behind takes over, after the lease; standbys that are
// further behind than PGQUORUM_MAX_LAG wait for the old primary (PROTOCOL 3.5.b).
func TestAsyncLimit(t *testing.T) {
	w := newWorld(t, Options{Seed: 51, Data: 3, Clients: 3, Mode: cluster.ModeAsync})
	w.startAll()
	healthy(t, w, 30*time.Second)
	p := w.serving()
	p.kill()
	ok, err := w.Until(6*time.Second, func() bool { return w.serving() != nil && w.serving() != p })
	if err != nil || !ok {
		t.Fatalf("no failover: %v\n%s", err, w.Tail())
	}
	p.start()
	healthy(t, w, 30*time.Second)

	p = w.serving()
	for _, n := range w.nodes {
		if n != p {
			w.net.cutPG[p.idx][n.idx], w.net.cutPG[n.idx][p.idx] = true, true
		}
	}
	from := p.vol.pg.end().LSN
	ok, err = w.Until(30*time.Second, func() bool { return p.vol.pg.end().LSN > from+2<<20 })
	if err != nil || !ok {
		t.Fatalf("the primary does not write: %v\n%s", err, w.Tail())
	}
	p.kill()
	w.net.heal()
	if ok, err = w.Until(10*time.Second, func() bool { return w.serving() != nil }); err != nil || ok {
		t.Fatalf("%s lost more than the limit: %v\n%s", w.serving().name, err, w.Tail())
	}
	p.start()
	healthy(t, w, 30*time.Second)
	if w.serving() != p {
		t.Fatalf("%s serves, not the old primary\n%s", w.serving().name, w.Tail())
	}
}
