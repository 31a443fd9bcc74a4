// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"

	"github.com/pgquorum/pgquorum/cluster"
)

func TestStopWaits(t *testing.T) {
	well := func(name cluster.NodeName, f func(*neighbour)) neighbour {
		n := neighbour{name: name, here: true, well: true}
		if f != nil {
			f(&n)
		}
		return n
	}
	guarded := func(n *neighbour) { n.guarded = true }
	for _, c := range []struct {
		name   string
		self   neighbour
		others []neighbour
		want   string
	}{
		{"all are well", well("pg2", nil), []neighbour{well("pg1", nil), well("pg3", nil)}, ""},
		{"alone", well("pg1", nil), nil, ""},
		{"one is down, one clones", well("pg2", nil), []neighbour{{name: "pg1"}, well("pg3", func(n *neighbour) { n.well = false })},
			"pg1 is not in reach, pg3 is not in sync"},
		{"one is on its way out", well("pg2", nil), []neighbour{well("pg1", func(n *neighbour) { n.leaving = true })}, "pg1 is stopping"},
		{"both standbys and the primary are to stop: the first", well("pg2", nil), []neighbour{
			well("pg1", func(n *neighbour) { n.guarded, n.primary = true, true }), well("pg3", guarded),
		}, ""},
		{"the second", well("pg3", nil), []neighbour{
			well("pg1", func(n *neighbour) { n.guarded, n.primary = true, true }), well("pg2", guarded),
		}, "pg2 is to stop first"},
		{"the primary goes last", well("pg1", func(n *neighbour) { n.primary = true }), []neighbour{well("pg2", guarded), well("pg3", nil)},
			"pg2 is to stop first"},
	} {
		if got := stopWaits(c.self, c.others); got != c.want {
			t.Errorf("%s: waits for %q, want %q", c.name, got, c.want)
		}
	}
	// Of any two that wait for each other exactly one goes: no deadlock, no two at once.
	for _, a := range []neighbour{well("pg1", nil), well("pg1", func(n *neighbour) { n.primary = true })} {
		b := well("pg2", func(n *neighbour) { n.primary = !a.primary })
		if before(a, b) == before(b, a) {
			t.Errorf("%+v and %+v have no order", a, b)
		}
	}
}
