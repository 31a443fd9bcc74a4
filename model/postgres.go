// SPDX-License-Identifier: Apache-2.0

package model

import "github.com/pgquorum/pgquorum/cluster"

// attach orders the upstream file of node i to the primary of its epoch (5.5.c). Both sides check, with the product's
// CheckAttach.
func (m *Model) attach(s *state, i int) bool {
	n, v := &s.nodes[i], m.view(s, i)
	u := s.at(v.primary)
	if u < 0 || u == i || n.n == 0 || v.phase == cluster.PhaseElecting || n.promise > v.epoch || n.order == v.epoch && n.from != 0 ||
		!v.members.has(s.id(i)) || v.bar.has(s.id(i)) || n.pg == pgReadWrite {
		return false
	}
	w, up := &s.nodes[u], m.view(s, u)
	if w.up == 0 || w.pg == pgDown || up.epoch != v.epoch || up.phase == cluster.PhaseElecting || w.promise > v.epoch ||
		up.boots[s.id(i)] != n.boot || !up.members.has(s.id(i)) {
		return false
	}
	end := uint8(0)
	if w.pg == pgReadWrite {
		end = w.n
	}
	if !m.fits(s.chain[w.seen], n.position(), end) {
		return false
	}
	if !n.holds(&w.wal, min(n.n, w.n)) || n.n > w.n {
		m.fail(s, brokenI12)
	}
	n.pg, n.promise = pgRecovery, max(n.promise, v.epoch)
	n.from, n.order = uint8(u)+1, v.epoch
	m.acknowledge(s, i)
	return true
}

func (m *Model) fits(view uint16, claim cluster.Position, end uint8) bool {
	fit := m.book.attach(view, claim, end)
	p := &m.book.pages[view]
	switch m.mut {
	case DivergedAttached:
		return true
	case RecoveringUnchecked, SendersAndUnchecked:
		return fit == cluster.FitPrefix || end == 0
	case VoidAttached:
		return fit == cluster.FitPrefix || claim.Timeline < p.timeline && claim.LSN <= p.elected.LSN
	default:
		return fit == cluster.FitPrefix
	}
}

// stream: node i receives one record. A WAL receiver that has diverged brings nothing that a walk of the records would
// find, but its acknowledgements rise: Postgres' own mistake (S0.1).
func (m *Model) stream(s *state, i int) bool {
	n := &s.nodes[i]
	if n.from == 0 || n.pg != pgRecovery {
		return false
	}
	w := &s.nodes[n.from-1]
	if w.up == 0 || w.pg == pgDown {
		return false
	}
	if n.n <= w.n && n.holds(&w.wal, n.n) {
		if n.n == w.n {
			return false
		}
		n.wal[n.n] = w.wal[n.n]
		n.n++
		m.acknowledge(s, i)
		return true
	}
	if was := w.ack[i]; w.pg == pgReadWrite && m.named(s, i) && was < w.n {
		w.ack[i] = was + 1
		return true
	}
	return false
}

// named: the upstream counts node i's acknowledgements, because its name is of the upstream's epoch.
func (m *Model) named(s *state, i int) bool {
	n := &s.nodes[i]
	u := int(n.from) - 1
	return m.mut == NameWithoutEpoch || n.order == m.view(s, u).epoch
}

// acknowledge: the upstream hears how far node i has flushed, and node i's PID 1 says it too (5.7.c).
func (m *Model) acknowledge(s *state, i int) {
	n := &s.nodes[i]
	u := int(n.from) - 1
	w := &s.nodes[u]
	if w.pg != pgReadWrite || !m.named(s, i) {
		return
	}
	w.ack[i] = max(w.ack[i], n.n)
	if n.n >= w.fresh && n.wal[n.n-1].timeline() == uint8(m.view(s, u).timeline) {
		w.flushed |= 1 << i
	}
}

// promote: 5.6. The names are written first, the switch LSN is the elected position.
func (m *Model) promote(s *state, i int) bool {
	n, v := &s.nodes[i], m.view(s, i)
	if v.phase != cluster.PhasePromoting || v.primary != s.id(i) || n.pg == pgReadWrite || n.n >= maxWAL || n.promise > v.epoch {
		return false
	}
	if n.position().Timeline == v.timeline || !m.leased(s, i) && m.mut != PromotionWithoutLease {
		return false
	}
	if n.position().Compare(v.elected) != 0 {
		m.fail(s, brokenSwitch)
		return true
	}
	n.promise = max(n.promise, v.epoch)
	n.wal[n.n] = newRecord(v.timeline, cluster.Epoch(v.epoch))
	n.n++
	m.readWrite(s, i)
	return true
}

// start: 5.8, the same epoch again; also when the promotion's record had reached the disk (5.6.e).
func (m *Model) start(s *state, i int) bool {
	n, v := &s.nodes[i], m.view(s, i)
	if v.phase == cluster.PhaseElecting || v.primary != s.id(i) || n.pg == pgReadWrite || n.promise > v.epoch ||
		n.position().Timeline != v.timeline || v.bar.has(s.id(i)) {
		return false
	}
	if !m.leased(s, i) && m.mut != RestartWithoutLease {
		return false
	}
	m.readWrite(s, i)
	if m.mut == RestartUnadmitted {
		return m.open(s, i)
	}
	return true
}

// readWrite: what a primary is when recovery has ended. Its followers' receivers reconnect by themselves.
func (m *Model) readWrite(s *state, i int) {
	n, v := &s.nodes[i], m.view(s, i)
	n.stop()
	n.pg, n.from, n.order = pgReadWrite, 0, 0
	n.list, n.k = v.list, v.listK
	if m.mut == EmptyListAtStart {
		n.list, n.k = 0, 0
	}
	if m.mut == ListsOldD {
		d := v.state.D
		n.list, n.k = setOf(d.Set)&^s.id(i).set(), uint8(d.K)
	}
	n.fresh, n.bar = n.n, n.n
	for f := range m.Nodes {
		if o := &s.nodes[f]; o.up == 1 && o.from == uint8(i)+1 && o.n > 0 {
			m.acknowledge(s, f)
		}
	}
}

func (m *Model) promoted(s *state, i int) bool {
	n, v := &s.nodes[i], m.view(s, i)
	if v.phase != cluster.PhasePromoting || v.primary != s.id(i) || n.pg != pgReadWrite {
		return false
	}
	c := cluster.Promoted{Epoch: cluster.Epoch(v.epoch), From: s.id(i).inc(), Timeline: v.timeline, Switch: v.elected.LSN}
	return m.propose(s, applyKey{kind: uint8(doPromoted), a: v.epoch}, cluster.Command{Promoted: &c}, 0)
}

// admit: 5.7.
func (m *Model) admit(s *state, i int) bool {
	n, v := &s.nodes[i], m.view(s, i)
	if n.pg != pgReadWrite || n.gate == 1 || v.primary != s.id(i) || v.phase != cluster.PhasePromoted && m.mut != AdmittedEarly ||
		!m.mayServe(s, i) || !m.leased(s, i) && m.mut != PromotionWithoutLease && m.mut != RestartWithoutLease {
		return false
	}
	if n.k > 0 && m.mut != AdmittedUnflushed {
		have := 0
		for f := range m.Nodes {
			if n.list.has(s.id(f)) && (n.flushed&(1<<f) != 0 || (m.mut == SendersAsProof || m.mut == SendersAndUnchecked) && n.ack[f] >= n.fresh) {
				have++
			}
		}
		if have < int(n.k) {
			return false
		}
	}
	return m.open(s, i)
}

// open: clients read everything that recovery brought back.
func (m *Model) open(s *state, i int) bool {
	n := &s.nodes[i]
	n.gate = 1
	m.told(s, i, n.fresh, false)
	return true
}

func (m *Model) write(s *state, i int) bool {
	n := &s.nodes[i]
	if n.gate == 0 || s.left.writes == 0 || n.n >= maxWAL {
		return false
	}
	v := m.view(s, i)
	s.left.writes--
	n.wal[n.n] = newRecord(v.timeline, cluster.Epoch(v.epoch))
	n.n++
	return true
}

// released is how far commits on primary i are acknowledged: k of its list have flushed it.
func (n *node) released(m *Model, s *state, i int) uint8 {
	for x := n.n; x > 0; x-- {
		have := 0
		for f := range m.Nodes {
			if n.list.has(s.id(f)) && n.ack[f] >= x {
				have++
			}
		}
		if have >= int(n.k) {
			return x
		}
	}
	return 0
}

// rewind: node i has what the primary's history does not, or has no data. It notes its floor (8.4), and then its WAL
// begins at the last common checkpoint: here the first record.
func (m *Model) rewind(s *state, i int) bool {
	n, v := &s.nodes[i], m.view(s, i)
	p := s.at(v.primary)
	if p < 0 || p == i || v.phase != cluster.PhasePromoted || n.from != 0 || n.pg == pgReadWrite || !v.members.has(s.id(i)) || v.bar.has(s.id(i)) {
		return false
	}
	w := &s.nodes[p]
	if w.up == 0 || w.pg != pgReadWrite || m.view(s, p).epoch != v.epoch || m.view(s, p).phase != cluster.PhasePromoted {
		return false
	}
	if n.n == 0 { // a clone is consistent at the end of the copy
		n.floorTL, n.floorN = uint8(w.position().Timeline), w.n
	} else {
		pos := n.position()
		fit, fork := v.state.FitsState(pos, 0)
		if fit != cluster.FitDiverged {
			return false
		}
		cut := cluster.Position{LSN: min(pos.LSN, fork)}
		cut.Timeline = v.state.TimelineAt(cut.LSN, pos.Timeline)
		if cut.Compare(n.floor()) > 0 {
			n.floorTL, n.floorN = uint8(cut.Timeline), uint8(cut.LSN)
		}
	}
	n.pg, n.n = pgDown, 1
	n.wal = [maxWAL]record{w.wal[0]}
	return true
}
