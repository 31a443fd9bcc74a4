// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

const gateLimit = 5 * time.Second

// electionProposed closes the gate while the entry that elects this node is on its way (PROTOCOL 14.1, step 6). It
// costs the sessions of this standby if the entry loses.
func (m *Machine) electionProposed(p cluster.Proposed) {
	e := p.Elect
	if !m.electing() || e.Election != m.st.Election.Index || !m.pg.Running || m.mayWrite() || m.fenced() < m.st.Election.Epoch {
		return
	}
	next, _ := cluster.Apply(m.st, m.applied+1, cluster.Command{Elect: &e})
	if next.Phase == cluster.PhasePromoting && next.Primary() == m.opt.Self {
		m.closeGate(m.settingsIn(next, false))
	}
}

// closeGate keeps users out, and has Postgres read the names of the epoch with the same reload.
func (m *Machine) closeGate(s Settings) {
	n := &m.node
	if n.gate == gateClosing || n.gate == gateClosed && !m.isPrimary() || m.now < n.retryAt {
		return
	}
	n.gate = gateClosing
	m.run(Task{Kind: TaskCloseGate, Limit: gateLimit, Settings: s})
	n.gateTask = m.idSeq
}

// openGate lets readers in again when another node was elected.
func (m *Machine) openGate() {
	n := &m.node
	if n.gate == gateClosed && !m.electing() && !m.isPrimary() && m.pg.Running && m.due("open gate", statusEvery) {
		n.gate = gateOpening
		m.run(Task{Kind: TaskOpenGate, Limit: gateLimit})
		n.gateTask = m.idSeq
	}
}

// gateMoved takes the end of a task on the gate of the Postgres that runs.
func (m *Machine) gateMoved(t *running, e Done) {
	n := &m.node
	if t.ID != n.gateTask {
		return
	}
	switch {
	case t.Kind == TaskCloseGate && e.Err != nil: // half closed: it is closed again, or opened
		n.gate = gateOpen
		if !m.isPrimary() {
			n.gate = gateClosed
		}
		m.backoff()
	case t.Kind == TaskCloseGate:
		n.gate = gateClosed
		held := n.held
		n.held = nil
		for _, h := range held {
			if p := m.peer(h.from); p != nil {
				m.attachAsked(p, h.Attach)
			}
		}
	case e.Err != nil:
		n.gate = gateClosed
	default:
		n.gate = gateOpen
	}
}

// hold keeps a question until the gate is closed: a connection that is still shaking hands when it closes has no title
// yet, and would be ended with the users'.
func (m *Machine) hold(p *peer, a cluster.Attach) bool {
	n := &m.node
	if !m.isPrimary() || m.st.Phase != cluster.PhasePromoting || m.pg.ReadWrite || n.gate == gateClosed || a.Epoch != m.epoch() {
		return false
	}
	for i := range n.held {
		if n.held[i].from == p.inc {
			n.held[i].Attach = a
			return true
		}
	}
	n.held = append(n.held, heldAttach{p.inc, a})
	return true
}
