// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// guardState is a planned stop that waits for the other nodes (PGQUORUM_STOP_GUARD): so that an orchestrator which
// restarts all containers at once stops them one after the other. Until it is over the node does all that it did, and
// may even become the primary.
type guardState struct {
	on      bool
	since   time.Duration
	waiting string // for what, as said last
}

// guardLook is how long a node listens before it believes that the others are well: they may have been told to stop
// in the same moment, and say so with their next status.
const guardLook = 5 * statusEvery

// neighbour is another data member as a node that is to stop sees it.
type neighbour struct {
	name    cluster.NodeName
	here    bool // linked, and it says something
	leaving bool
	well    bool // it serves, or streams and counts
	guarded bool // it waits to stop, like this one
	primary bool
}

// before: of nodes that wait to stop, standbys go first, so that the primary moves once, and then by name.
func before(a, b neighbour) bool {
	if a.primary != b.primary {
		return b.primary
	}
	return a.name < b.name
}

// stopWaits says what a planned stop of self has to wait for; empty: nothing.
func stopWaits(self neighbour, others []neighbour) string {
	var why []string
	for _, o := range others {
		switch {
		case !o.here:
			why = append(why, string(o.name)+" is not in reach")
		case o.leaving:
			why = append(why, string(o.name)+" is stopping")
		case !o.well:
			why = append(why, string(o.name)+" is not in sync")
		case o.guarded && before(o, self):
			why = append(why, string(o.name)+" is to stop first")
		}
	}
	return strings.Join(why, ", ")
}

// guardStop begins or ends the wait; true: the stop may go on.
func (m *Machine) guardStop() bool {
	g := &m.plan.guard
	self, others := m.neighbours()
	if !g.on {
		if m.opt.StopGuard == 0 || len(others) == 0 {
			return true
		}
		g.on, g.since = true, m.now
		m.statusAt = 0
		return false
	}
	waits := stopWaits(self, others)
	switch {
	case m.now > g.since+m.opt.StopGuard:
		m.log(waits != "", "planned stop waits no longer", "", cmp.Or(waits, "the other nodes are well"))
	case m.now < g.since+guardLook:
		return false
	case waits != "":
		if waits != g.waiting {
			g.waiting = waits
			m.log(false, "planned stop waits", "", waits)
		}
		return false
	}
	g.on = false
	return true
}

func (m *Machine) neighbours() (self neighbour, others []neighbour) {
	self = neighbour{name: m.opt.Name, primary: m.isPrimary()}
	for i := range m.st.Members {
		mb := &m.st.Members[i]
		if mb.Witness || mb.Inc == m.opt.Self {
			continue
		}
		o := neighbour{name: mb.Name, primary: mb.Inc == m.st.Primary() && !m.electing()}
		if p := m.peer(mb.Inc); p != nil && p.linked() && p.status != nil && m.now-p.statusAt <= cluster.StatusFresh {
			s := p.status
			o.here, o.leaving, o.guarded = true, p.leaving || s.Leaving, s.Guarded
			o.well = s.Serving || s.Role == cluster.RoleFollowing && s.Streaming && slices.Contains(m.st.D.Set, mb.Inc)
		}
		others = append(others, o)
	}
	return self, others
}
