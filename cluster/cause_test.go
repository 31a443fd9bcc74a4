// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"testing"
	"time"
)

// TestCutOff: the leader takes a primary for cut off when it does not hear it and hears from the others that its commits
// reach nobody; what it does not know counts for the primary (PROTOCOL 5.1.e).
func TestCutOff(t *testing.T) {
	view := func(change func(*LeaderView)) bool {
		v := &LeaderView{
			State: &State{
				Phase: PhasePromoted, Epochs: []EpochRecord{{Epoch: 2, Primary: 1, Timeline: 1, Promoted: true}},
				D: Durability{Set: []Incarnation{1, 2, 3}, K: 1, Mode: ModeQuorum},
			},
			Self: 2,
		}
		for _, i := range []Incarnation{1, 2, 3} {
			v.Peers = append(v.Peers, PeerView{Inc: i, Linked: true, Status: &Status{Epoch: 2}})
		}
		v.Peers[0].Linked, v.Peers[0].StatusAge = false, time.Minute
		if change != nil {
			change(v)
		}
		return v.CutOff()
	}
	if !view(nil) {
		t.Error("unheard, and nobody streams from it: not cut off")
	}
	for what, change := range map[string]func(*LeaderView){
		"heard":               func(v *LeaderView) { v.Peers[0].StatusAge = 0 },
		"one streams":         func(v *LeaderView) { v.Peers[2].Status.Streaming = true },
		"one is not heard":    func(v *LeaderView) { v.Peers[2].StatusAge = time.Minute },
		"one said nothing":    func(v *LeaderView) { v.Peers[2].Status = nil },
		"one is not known":    func(v *LeaderView) { v.Peers = v.Peers[:2] },
		"async":               func(v *LeaderView) { v.State.D.Mode = ModeAsync },
		"it waits for nobody": func(v *LeaderView) { v.State.D.K = 0 },
		"not promoted yet":    func(v *LeaderView) { v.State.Phase = PhasePromoting },
	} {
		if view(change) {
			t.Errorf("%s: cut off", what)
		}
	}
}
