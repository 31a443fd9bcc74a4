// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Random is the text of a scenario that nobody wrote: faults of both worlds, and after each of them what a cluster of three
// owes then. Two nodes that nothing has befallen and that hear each other must serve; all three, once whole, must be redundant, and
// nothing may be lost. The same seed gives the same text.
func Random(seed uint64, faults int) string {
	d := &dice{rng: rand.New(rand.NewPCG(seed, 1))}
	d.say("about a random scenario, seed %d\n", seed)
	for i := range d.nodes {
		d.nodes[i] = intact
	}
	d.say("wait redundant")
	for range faults {
		d.fault()
		if d.serving() > 1 && d.rng.IntN(10) < 7 {
			d.say("wait primary")
			d.say("write %d", 1+d.rng.IntN(20))
		}
		if d.rng.IntN(5) == 0 {
			d.mend()
		}
	}
	d.mend()
	return d.text.String()
}

// state is what the steps have made of a node.
type state struct {
	up, frozen, cut bool
	mute            bool // its Postgres is cut off and its process 1 is not
	whole           bool // nothing has befallen it; else it may have to be rewound, which takes a primary that serves
	running         bool // its Postgres surely does
}

var intact = state{up: true, whole: true, running: true}

// well reports whether a fault can befall it.
func (s *state) well() bool { return s.up && !s.frozen && !s.cut }

type dice struct {
	rng   *rand.Rand
	text  strings.Builder
	nodes [3]state
	fresh bool // nothing has happened since the cluster was redundant
}

func (d *dice) say(format string, args ...any) { fmt.Fprintf(&d.text, format+"\n", args...) }

// serving counts the nodes that can elect, and be elected. A node that votes and cannot replicate may have what nobody else
// has: then the others wait for it (PROTOCOL 5.1.f).
func (d *dice) serving() int {
	n := 0
	for _, s := range d.nodes {
		if s.mute && s.up {
			return 0
		}
		if s.well() && s.whole {
			n++
		}
	}
	return n
}

// mend ends every fault.
func (d *dice) mend() {
	d.say("heal")
	for i := range d.nodes {
		if !d.nodes[i].up {
			d.say("start pg%d", i+1)
		}
		d.nodes[i] = intact
	}
	d.say("wait redundant\nexpect no second primary\nexpect no loss")
	d.fresh = true
}

// fault draws until one fits.
func (d *dice) fault() {
	for {
		if d.try(d.rng.IntN(20), d.rng.IntN(len(d.nodes))) {
			d.fresh = false
			return
		}
	}
}

func (d *dice) try(kind, i int) bool {
	s := &d.nodes[i]
	name := fmt.Sprintf("pg%d", i+1)
	switch {
	case kind > 15:
		return d.all(kind, name, s)
	case kind > 11 && s.well():
		return d.quietly(kind, i, name, s)
	case kind == 15 && (s.frozen || s.cut):
		d.heal()
	case kind < 3 && s.well():
		d.say("kill %s container", name)
		s.up = false
	case kind < 5 && s.well() && s.running:
		d.say("kill %s postgres", name)
		s.running = false
	case kind < 7 && s.well() && s.running:
		d.say("bounce %s", name)
		s.running = false
	case kind == 7 && s.well():
		d.say("stop %s", name)
		s.up = false
	case kind < 12 && !s.up:
		d.say("start %s", name)
		s.up, s.running = true, false
		return true
	default:
		return false
	}
	s.whole = false
	return true
}

// quietly is a fault that no socket tells of.
func (d *dice) quietly(kind, i int, name string, s *state) bool {
	switch {
	case kind == 12 && s.running:
		d.say("freeze %s %s", name, d.one("container", "postgres", "init"))
		s.frozen = true
	case kind < 15 && d.serving() == len(d.nodes): // a cut is proved from the others
		links, from := d.one("raft", "replication", "all"), ""
		if d.rng.IntN(3) == 0 { // one link is missing
			from = fmt.Sprintf(" from pg%d", 1+(i+1+d.rng.IntN(2))%len(d.nodes))
		}
		d.say("cut %s %s%s", name, links, from)
		s.cut, s.mute = true, links == "replication"
	default:
		return false
	}
	s.whole = false
	return true
}

func (d *dice) heal() {
	d.say("heal")
	for j := range d.nodes {
		if n := &d.nodes[j]; n.frozen || n.cut {
			*n = state{up: n.up, whole: n.whole}
		}
	}
}

// all is what concerns more than one node, or a cluster that is redundant.
func (d *dice) all(kind int, name string, s *state) bool {
	switch {
	case kind == 16 && d.serving() == len(d.nodes):
		d.say("kill all container")
		for j := range d.nodes { // whoever is started first needs nobody else
			d.nodes[j] = state{whole: d.fresh}
		}
	case kind == 17 && d.fresh:
		d.say("wipe %s\nstart %s", name, name)
		s.whole, s.running = false, false
	case kind > 17 && d.fresh:
		d.say("switchover to standby%d", 1+d.rng.IntN(2))
		for j := range d.nodes {
			d.nodes[j].running = false
		}
	default:
		return false
	}
	return true
}

func (d *dice) one(words ...string) string { return words[d.rng.IntN(len(words))] }
