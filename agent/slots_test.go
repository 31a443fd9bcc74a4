// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"maps"
	"testing"

	"github.com/pgquorum/pgquorum/cluster"
)

// TestSlotsOnStandbys: a standby moves the slot of who follows the epoch, and of the primary, and leaves the place of
// who is away, diverged or of another epoch (PROTOCOL 12.4). The primary moves none.
func TestSlotsOnStandbys(t *testing.T) {
	l := newLab(t, 2, healthy(), nil)
	tell := func(i cluster.Incarnation, s cluster.Status) { l.from(i, cluster.Envelope{Status: &s}) }
	check := func(what string, want map[string]cluster.LSN) {
		t.Helper()
		if got := l.m.advance(); !maps.Equal(got, want) {
			t.Errorf("%s: %v", what, got)
		}
	}
	check("nobody was heard", map[string]cluster.LSN{})
	at := cluster.Position{Timeline: 2, LSN: 0x9000}
	tell(1, cluster.Status{Epoch: 2, Known: true, Position: at})
	tell(3, cluster.Status{Epoch: 2, Known: true, Streaming: true, Position: cluster.Position{Timeline: 2, LSN: 0x8000}})
	check("all is well", map[string]cluster.LSN{cluster.SlotName(1): 0x9000, cluster.SlotName(3): 0x8000})
	for what, s := range map[string]cluster.Status{
		"it does not stream":           {Epoch: 2, Known: true, Position: at},
		"it is of another epoch":       {Epoch: 1, Known: true, Streaming: true, Position: at},
		"it does not know where it is": {Epoch: 2, Streaming: true, Position: at},
	} {
		tell(3, s)
		check(what, map[string]cluster.LSN{cluster.SlotName(1): 0x9000})
	}
	if p := serving(t); p.m.advance() != nil {
		t.Error("the primary's slots are moved by its WAL senders")
	}
}
