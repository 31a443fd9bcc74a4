// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"testing"
	"time"
)

// TestLeaseChanges: every node is restarted with a longer lease, then with a short one. Each time the log ends up with
// it, and a failover afterwards waits out what was granted (PROTOCOL 4.2, 4.7); the checkers watch I2 meanwhile.
func TestLeaseChanges(t *testing.T) {
	w := newWorld(t, Options{Seed: 11})
	w.startAll()
	healthy(t, w, 30*time.Second)
	for _, ms := range []int64{6000, 1500} {
		w.leaseMS = ms
		for i, n := range w.nodes {
			w.after(time.Duration(i)*4*time.Second, func() {
				n.kill()
				w.after(500*time.Millisecond, n.start)
			})
		}
		if err := w.Run(14 * time.Second); err != nil {
			t.Fatalf("%v\n%s", err, w.Tail())
		}
		healthy(t, w, 30*time.Second)
		if got := w.check.newest.LeaseMS; got != ms {
			t.Fatalf("the lease is %d ms, every node asks for %d\n%s", got, ms, w.Tail())
		}
		p := w.serving()
		p.freeze()
		w.after(12*time.Second, p.thaw)
		if err := w.Run(20 * time.Second); err != nil {
			t.Fatalf("%v\n%s", err, w.Tail())
		}
		healthy(t, w, 30*time.Second)
	}
}
