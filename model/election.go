// SPDX-License-Identifier: Apache-2.0

package model

import (
	"slices"

	"github.com/pgquorum/pgquorum/cluster"
)

// electKey is all that the leader's decision rests on: the replicated state and what each report says.
type electKey struct {
	from    uint16
	up      uint8
	reports [maxNodes]uint32
}

// outcome is one thing that the leader may do with the reports it has: an Elect (to is the new state), or a catch-up
// of taker from donor.
type outcome struct {
	to           uint16
	winner       id
	donor, taker id
}

func (m *Model) begin(s *state) bool {
	p := m.newest(s)
	if p.phase == cluster.PhaseElecting || p.phase == cluster.PhaseBlank || int(p.epoch) >= m.Epochs {
		return false
	}
	// What opens it is a matter of when, not of what is safe: any moment will do.
	c := cluster.BeginElection{Epoch: cluster.Epoch(p.epoch) + 1, Cause: cluster.CauseLeaseLapsed, Rule: "F350"}
	return m.propose(s, applyKey{kind: uint8(doBegin)}, cluster.Command{BeginElection: &c}, uint64(p.epoch)+1)
}

// elections: the leader has the reports of any set of nodes that sent one. Who leads raft does not matter: a leader
// knows reports and nothing else.
func (m *Model) elections(s *state) {
	from, ok := m.electingPage(s)
	if !ok || !m.commits(s) {
		return
	}
	p := &m.book.pages[from]
	have := 0
	for i := range m.Nodes {
		if n := &s.nodes[i]; n.repE == p.election || m.mut == OldReports && n.repE > 1 {
			have |= 1 << i
		}
	}
	for mask := have; mask > 0; mask = (mask - 1) & have {
		for j, o := range m.decide(s, from, mask) {
			if o.to == refused {
				m.try(s, act(doCatchUp, mask, j), func(t *state) bool { return m.catchUp(t, o) })
				continue
			}
			m.try(s, act(doElect, mask, j), func(t *state) bool { return m.elected(t, from, mask, o) })
		}
	}
}

// electingPage is the state whose open election can be concluded: the newest.
func (m *Model) electingPage(s *state) (uint16, bool) {
	if m.book.pages[s.head()].phase == cluster.PhaseElecting {
		return s.head(), true
	}
	if m.mut == GuardsNotRechecked { // a leader that has not applied the conclusion yet proposes another
		for i := range s.length {
			if p := &m.book.pages[s.chain[i]]; p.phase == cluster.PhaseElecting && p.election == m.newest(s).epoch &&
				m.newest(s).phase == cluster.PhasePromoting {
				return s.chain[i], true
			}
		}
	}
	return 0, false
}

func (m *Model) reports(s *state, p *page, mask int) (out []cluster.TimedReport, key [maxNodes]uint32) {
	for i := range m.Nodes {
		if mask&(1<<i) == 0 {
			continue
		}
		n := &s.nodes[i]
		r := cluster.Report{
			Inc: s.id(i).inc(), Boot: bootOf(n.boot), Election: uint64(p.election), Promise: cluster.Epoch(p.election),
			Known: n.repFlags&repKnown != 0, Killed: n.repFlags&repKilled != 0, HighestTL: cluster.Timeline(n.repTL),
			Eligible: n.repFlags&repKnown != 0,
		}
		if r.Known {
			r.Position = cluster.Position{Timeline: cluster.Timeline(n.repTL), LSN: cluster.LSN(n.repN)}
		}
		if m.mut == UnknownCounts && !r.Known && m.data(i) {
			r.Known, r.Position = true, cluster.Position{Timeline: cluster.Timeline(max(n.repTL, 1)), LSN: cluster.LSN(max(n.repN, 1))}
		}
		k := uint32(n.repFlags) | uint32(n.repTL)<<4 | uint32(n.repN)<<8 | uint32(n.boot)<<12 | 1<<31
		if m.outstanding(s, s.id(i)) {
			r.GrantLeaseMS = leaseMS
			k |= 1 << 16
		}
		if n.deadID != 0 {
			boot := n.deadBoot
			if m.mut == EvidenceOfOtherBoot || m.mut == EvidenceOutlivesGrant {
				boot = p.boots[n.deadID-1]
			}
			r.Evidence = &cluster.Evidence{Inc: id(n.deadID - 1).inc(), Boot: bootOf(boot), HeldTwice: true}
			k |= uint32(n.deadID)<<17 | uint32(n.deadBoot)<<22
		}
		out = append(out, cluster.TimedReport{Report: r})
		key[i] = k
	}
	slices.SortFunc(out, func(a, b cluster.TimedReport) int { return int(a.Inc) - int(b.Inc) })
	return out, key
}

// decide asks the product's failover table what a leader with these reports does. Which of the best wins at equal
// positions is left open: priorities may be anything.
func (m *Model) decide(s *state, from uint16, mask int) []outcome {
	p := &m.book.pages[from]
	reports, reps := m.reports(s, p, mask)
	key := electKey{from: from, reports: reps}
	for i := range m.Nodes {
		key.up |= s.nodes[i].up << i
	}
	out, ok := m.book.elected[key]
	if ok {
		return out
	}
	v := m.mut.leader(&cluster.LeaderView{State: p.state, Reports: reports, EnoughAt: patience, PhaseAge: cluster.PrimaryAlone}, s)
	for i := range m.Nodes {
		v.Peers = append(v.Peers, cluster.PeerView{Inc: s.id(i).inc(), Linked: s.nodes[i].up == 1})
	}
	slices.SortFunc(v.Peers, func(a, b cluster.PeerView) int { return int(a.Inc) - int(b.Inc) })
	m.book.calls++
	o := cluster.Decide(m.book.table, v).Outcome
	switch {
	case o.CatchUp != nil:
		out = append(out, outcome{to: refused, donor: idOf(o.CatchUp.Donor), taker: idOf(o.To)})
	case o.Command != nil:
		e := *o.Command.Elect
		for _, r := range e.Reports {
			e.Candidate = r.Inc
			if to := m.mut.elect(m.book, v.State, p.state, e); to != refused {
				out = append(out, outcome{to: to, winner: idOf(r.Inc)})
			}
		}
	}
	m.book.elected[key] = out
	return out
}

func (m *Model) elected(s *state, from uint16, mask int, o outcome) bool {
	old := &m.book.pages[from]
	if !m.push(s, o.to) {
		return false
	}
	m.checkElect(s, old, mask, o)
	c := &s.nodes[s.at(o.winner)]
	s.best, s.bestN = c.wal, min(c.n, c.repN)
	for i := s.bestN; i < maxWAL; i++ {
		s.best[i] = 0
	}
	m.kept(s)
	return true
}

// catchUp: both fenced, the taker's upstream file is ordered to the donor under a name in no list until it has the
// donor's end; then it reports again (5.4.c).
func (m *Model) catchUp(s *state, o outcome) bool {
	d, t := s.at(o.donor), s.at(o.taker)
	if d < 0 || t < 0 {
		return false
	}
	a, b, p := &s.nodes[d], &s.nodes[t], m.newest(s)
	if a.up == 0 || b.up == 0 || a.repE != p.election || b.repE != p.election || b.n == a.n {
		return false
	}
	if fit, _ := p.state.FitsTimeline(a.position(), b.position()); fit != cluster.FitPrefix {
		return false
	}
	b.wal, b.n = a.wal, a.n
	b.repTL, b.repN = uint8(b.position().Timeline), b.n
	return true
}
