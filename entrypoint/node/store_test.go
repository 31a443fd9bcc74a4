// SPDX-License-Identifier: Apache-2.0

package node

import (
	"testing"

	"github.com/pgquorum/pgquorum/cluster"
)

// TestStoreOnlyGrows: what a node promised survives a restart, and is never lowered.
func TestStoreOnlyGrows(t *testing.T) {
	dir := t.TempDir()
	for _, step := range []struct{ epoch, promise cluster.Epoch }{{0, 0}, {2, 2}, {1, 2}, {5, 5}} {
		s, err := openStore(dir, "kernel")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.savePromise(step.epoch); err != nil {
			t.Fatal(err)
		}
		again, err := openStore(dir, "kernel")
		if err != nil {
			t.Fatal(err)
		}
		if s.promise != step.promise || again.promise != step.promise {
			t.Errorf("after %+v: promise %d in memory, %d on disk", step, s.promise, again.promise)
		}
	}
}
