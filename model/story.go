// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"strings"

	"github.com/pgquorum/pgquorum/cluster"
)

func (m *Model) names(s set) string {
	var out []string
	s.each(func(i id) { out = append(out, i.String()) })
	return strings.Join(out, ", ")
}

func (m *Model) opening(s *state) string {
	p := m.newest(s)
	text := fmt.Sprintf("%s is the primary of epoch 1 on timeline 1; the set is {%s} with k = %d; voters %s", p.primary, m.names(p.set), p.k, m.names(p.voters))
	if m.Witness != 0 {
		var w set
		for i := range m.Nodes {
			if !m.data(i) {
				w |= s.id(i).set()
			}
		}
		text += ", of which " + m.names(w) + " is a witness"
	}
	return text + "; everybody streams and holds record 1"
}

func walWords(n *node) string {
	var b strings.Builder
	for i := range n.n {
		if i == 0 || n.wal[i] != n.wal[i-1] {
			fmt.Fprintf(&b, " %d:%d", n.wal[i].timeline(), i+1)
		} else {
			fmt.Fprintf(&b, ",%d", i+1)
		}
	}
	return "[" + strings.TrimSpace(b.String()) + "]"
}

// entry says what a committed entry was, by what it changed.
func entry(old, p *page) string {
	switch {
	case p.phase == cluster.PhaseElecting && old.phase != p.phase:
		return fmt.Sprintf("the opening of the election for epoch %d", p.election)
	case p.epoch != old.epoch:
		return fmt.Sprintf("that %s was elected for epoch %d", p.primary, p.epoch)
	case p.phase == cluster.PhasePromoted && old.phase != p.phase:
		return fmt.Sprintf("that epoch %d is promoted", p.epoch)
	case p.boots != old.boots && p.members == old.members:
		return "a boot"
	case p.pending != old.pending, p.back != old.back:
		return "a change of durability"
	case p.config != old.config || p.members != old.members:
		return "a change of members"
	}
	return "an entry"
}

// words tells one step.
func (m *Model) words(was, s *state, a action) string {
	k, i, b := a.split()
	who := id(maxNodes*int(s.nodes[i%maxNodes].gen) + i%maxNodes)
	var text string
	switch {
	case k >= doChange:
		text = m.changeWords(was, s, k, i, b)
	case k <= doCatchUp:
		text = m.electionWords(was, s, k, i)
	case k == doRenew:
		text = fmt.Sprintf("%s grants %s its lease of epoch %d", s.id(b), who, m.view(s, i).epoch)
	case k == doExpire:
		text = fmt.Sprintf("the grant of %s to %s ends", id(b), who)
		if was.nodes[i].pg == pgReadWrite && s.nodes[i].pg == pgDown {
			text += fmt.Sprintf("; without a majority %s kills its Postgres", who)
		}
	default:
		text = m.nodeWords(was, s, k, i)
	}
	for p := range m.Nodes {
		if n := &s.nodes[p]; n.pg == pgReadWrite && n.gate == 1 && s.ackN > was.ackN {
			text += fmt.Sprintf("; clients of %s are told that everything up to record %d is committed", s.id(p), s.ackN)
			break
		}
	}
	if s.bad != 0 {
		text += ". BROKEN " + s.bad.String()
	}
	return text
}

func (m *Model) electionWords(was, s *state, k kind, i int) string {
	switch k {
	case doApply:
		text := fmt.Sprintf("%s applies %s", s.id(i), entry(m.view(was, i), &m.book.pages[was.chain[was.nodes[i].seen+1]]))
		if n := &s.nodes[i]; n.repE > was.nodes[i].repE {
			text += ", " + m.reportWords(s, i)
		}
		return text
	case doBegin:
		return fmt.Sprintf("an election for epoch %d is opened", m.newest(s).election)
	case doCatchUp:
		return "before the election ends " + m.moved(was, s) + " takes the last WAL from who has it"
	default:
		var of set
		for j := range m.Nodes {
			if i&(1<<j) != 0 {
				of |= s.id(j).set()
			}
		}
		p := m.newest(s)
		return fmt.Sprintf("with the reports of %s, %s is elected for epoch %d at %s, to be timeline %d",
			m.names(of), p.primary, p.epoch, p.elected, p.timeline)
	}
}

func (m *Model) moved(was, s *state) string {
	for i := range m.Nodes {
		if was.nodes[i].n != s.nodes[i].n {
			return s.id(i).String()
		}
	}
	return "a node"
}

func (m *Model) reportWords(s *state, i int) string {
	n := &s.nodes[i]
	at := "an unknown position"
	if n.repFlags&repKnown != 0 {
		at = fmt.Sprintf("%d:%d, its WAL being %s", n.repTL, n.repN, walWords(n))
	}
	if n.from != 0 {
		return "goes on streaming and reports " + at
	}
	return "fences and reports " + at
}

func (m *Model) nodeWords(was, s *state, k kind, i int) string {
	n, who := &s.nodes[i], s.id(i)
	e := m.view(s, i).epoch
	switch k {
	case doAttach:
		return fmt.Sprintf("%s %s attaches to %s for epoch %d", who, walWords(n), s.id(int(n.from)-1), n.order)
	case doStream:
		if n.n == was.nodes[i].n {
			return fmt.Sprintf("%s %s has diverged and acknowledges record %d to %s all the same", who, walWords(n), s.nodes[n.from-1].ack[i], s.id(int(n.from)-1))
		}
		return fmt.Sprintf("%s receives record %d from %s", who, n.n, s.id(int(n.from)-1))
	case doPromote:
		return fmt.Sprintf("%s promotes: %s", who, walWords(n))
	case doPromoted:
		return fmt.Sprintf("the log says that epoch %d is promoted", e)
	case doStart:
		return fmt.Sprintf("%s starts read-write again in epoch %d: %s", who, e, walWords(n))
	case doAdmit:
		return fmt.Sprintf("%s lets clients in for epoch %d; they read everything up to record %d", who, e, n.fresh)
	case doWrite:
		return fmt.Sprintf("a client writes record %d on %s", n.n, who)
	case doCrash:
		return fmt.Sprintf("%s dies %s", who, walWords(n))
	case doRestart:
		text := fmt.Sprintf("%s starts again, boot %d", who, n.boot&^copied)
		if n.repE > was.nodes[i].repE {
			text += ", " + m.reportWords(s, i)
		}
		return text
	case doSawDeath:
		return fmt.Sprintf("%s has evidence that %s died", who, id(n.deadID-1))
	default:
		return fmt.Sprintf("%s gives up its own WAL after record %d and is to follow %s (floor %s)", who, n.n, m.view(s, i).primary, n.floor())
	}
}

func (m *Model) changeWords(was, s *state, k kind, i, b int) string {
	p, who := m.newest(s), s.id(i)
	switch k {
	case doChange:
		return fmt.Sprintf("the set is to become {%s} with k = %d", m.names(setOf(p.target.Set)), p.target.K)
	case doRevert:
		return "that change is to be taken back"
	case doReload:
		n := &s.nodes[i]
		return fmt.Sprintf("%s reloads: commits after record %d wait for %d of %s", who, n.bar, n.k, m.names(n.list))
	case doSettle:
		return fmt.Sprintf("%s settles it: the set is {%s} with k = %d", who, m.names(p.set), p.k)
	case doWipe:
		return fmt.Sprintf("the volume of %s is lost; it comes back empty as %s", was.id(i), who)
	case doLearner:
		return fmt.Sprintf("%s becomes a learner", who)
	case doVoter:
		return fmt.Sprintf("%s becomes a voter", who)
	case doRemove:
		return fmt.Sprintf("%s is removed; voters are %s", id(b), m.names(p.voters))
	case doConfirm:
		return fmt.Sprintf("%s has a lease of the voters %s and confirms them", who, m.names(p.voters))
	case doRollback:
		return fmt.Sprintf("the volume of %s is set back to an old copy %s", who, walWords(&s.nodes[i]))
	default:
		return fmt.Sprintf("%s ends its WAL receiver", who)
	}
}
