// SPDX-License-Identifier: Apache-2.0

package wal

import "github.com/pgquorum/pgquorum/cluster"

// chain is a timeline with its ancestors, oldest first. begins[i] is where timelines[i] left the one before.
type chain struct {
	timelines []cluster.Timeline
	begins    []cluster.LSN
}

func newChain(t cluster.Timeline, h cluster.History) chain {
	c := chain{begins: []cluster.LSN{0}}
	for _, e := range h {
		if e.Timeline >= t { // a history that goes on past t: stop at t
			break
		}
		c.timelines = append(c.timelines, e.Timeline)
		c.begins = append(c.begins, e.Switch)
	}
	c.timelines = append(c.timelines, t)
	return c
}

func (c chain) index(t cluster.Timeline) int {
	for i, x := range c.timelines {
		if x == t {
			return i
		}
	}
	return -1
}

func (c chain) begin(i int) cluster.LSN { return c.begins[i] }

// end is where the chain left timeline i; for the last one there is none.
func (c chain) end(i int) cluster.LSN {
	if i+1 < len(c.begins) {
		return c.begins[i+1]
	}
	return ^cluster.LSN(0)
}

// at is the index of the timeline that a byte before lsn belongs to, among the first n timelines: the newest one
// that begins before lsn. A node whose WAL ends at a switch point is not yet on the new timeline.
func (c chain) at(lsn cluster.LSN, n int) int {
	for i := n - 1; i > 0; i-- {
		if c.begins[i] < lsn {
			return i
		}
	}
	return 0
}

// TimelineAt is the timeline of the byte before lsn in the history of t.
func TimelineAt(t cluster.Timeline, h cluster.History, lsn cluster.LSN) cluster.Timeline {
	c := newChain(t, h)
	return c.timelines[c.at(lsn, len(c.timelines))]
}
