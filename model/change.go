// SPDX-License-Identifier: Apache-2.0

package model

import (
	"slices"

	"github.com/pgquorum/pgquorum/cluster"
)

// changes are the steps of durability and membership that a leader or an operator proposes. Why one is made is left
// open; whether it is allowed is the product's guard.
func (m *Model) changes(s *state) {
	if s.left.changes > 0 {
		for i := range m.Nodes {
			if m.data(i) {
				m.try(s, act(doChange, 0, int(s.id(i))), func(t *state) bool { return m.change(t, s.id(i)) })
			}
		}
	}
	if s.left.reverts > 0 {
		m.try(s, act(doRevert, 0, 0), m.revert)
	}
	if m.Conf == 0 {
		return
	}
	for i := range m.Nodes {
		m.try(s, act(doLearner, i, 0), func(t *state) bool { return m.learner(t, i) })
		m.try(s, act(doVoter, i, 0), func(t *state) bool { return m.voter(t, i) })
	}
	if s.left.conf > 0 {
		m.newest(s).members.each(func(i id) {
			m.try(s, act(doRemove, 0, int(i)), func(t *state) bool { return m.remove(t, i) })
		})
	}
}

func (m *Model) change(s *state, i id) bool {
	s.left.changes--
	p := m.newest(s)
	d := p.state.D
	if slices.Contains(d.Set, i.inc()) {
		d = d.Without(i.inc())
	} else {
		d = d.With(i.inc())
	}
	if !m.commits(s) {
		return false
	}
	return m.push(s, m.mut.changeD(m.book, s.head(), applyKey{kind: uint8(doChange), a: uint8(i)}, d))
}

func (m *Model) revert(s *state) bool {
	s.left.reverts--
	c := cluster.RevertD{Epoch: cluster.Epoch(m.newest(s).epoch), Rule: "M120"}
	return m.propose(s, applyKey{kind: uint8(doRevert)}, cluster.Command{RevertD: &c}, 0)
}

// reload: the primary lists what its applied state says; from this end of WAL on every commit waits for the new list
// (3.3.a). That a new session shows it and older WAL senders are gone is part of the step.
func (m *Model) reload(s *state, i int) bool {
	n, v := &s.nodes[i], m.view(s, i)
	list, k := v.list, v.listK
	if p := v.state.Pending; m.mut == PrimaryOutsideSet && p != nil {
		list, k = setOf(p.Set)&^s.id(i).set(), uint8(p.K)
	}
	if n.pg != pgReadWrite || v.primary != s.id(i) || v.phase != cluster.PhasePromoted || n.list == list && n.k == k {
		return false
	}
	n.list, n.k, n.bar = list, k, n.n
	return true
}

// settle: everything up to the barrier is acknowledged under the list.
func (m *Model) settle(s *state, i int) bool {
	n, v := &s.nodes[i], m.view(s, i)
	if n.pg != pgReadWrite || v.primary != s.id(i) || v.phase != cluster.PhasePromoted || !v.pending {
		return false
	}
	if m.mut != SettledUnlisted && (n.list != v.list || n.k != v.listK) {
		return false
	}
	free := m.mut == NoBarrier || m.mut == NoBarrierBack && v.back
	if !free && n.released(m, s, i) < n.bar {
		return false
	}
	c := cluster.SettleD{Epoch: cluster.Epoch(v.epoch), From: s.id(i).inc(), X: v.target, Barrier: cluster.LSN(n.bar)}
	if !m.commits(s) {
		return false
	}
	if s.chain[s.nodes[i].seen] == s.head() {
		return m.push(s, m.book.apply(s.head(), applyKey{kind: uint8(doSettle), a: uint8(s.id(i))}, cluster.Command{SettleD: &c}, 0))
	}
	return m.push(s, m.book.applyNow(m.newest(s).state, cluster.Command{SettleD: &c}, 0))
}

// configIndex names the configuration that the next change makes.
func configIndex(p *page) uint64 { return p.config + 1 }

// wipe: the volume is lost. The container comes back with another incarnation and knows nothing.
func (m *Model) wipe(s *state, i int) bool {
	n := &s.nodes[i]
	s.left.wipes--
	gen, boot := n.gen, n.boot
	if gen+1 >= maxGens {
		return false
	}
	*n = node{up: 1, gen: gen + 1, boot: 1, seen: s.length - 1}
	if m.mut == IncarnationReused {
		n.gen, n.boot = gen, boot
		for p := range m.Nodes {
			s.nodes[p].forgot |= (s.nodes[p].grants | s.nodes[p].older) & s.id(i).set()
		}
		return true
	}
	for p := range m.Nodes { // the dead incarnation's acknowledgements are no longer asked about
		s.nodes[p].ack[i], s.nodes[p].flushed = 0, s.nodes[p].flushed&^(1<<i)
	}
	return true
}

func (m *Model) member(s *state, k applyKey, kind cluster.ChangeKind, mb cluster.Member) bool {
	p := m.newest(s)
	c := cluster.MemberChange{Kind: kind, Member: mb, Epoch: cluster.Epoch(p.epoch), Rule: "M"}
	return m.commits(s) && m.push(s, m.mut.conf(m.book, s.head(), k, c, configIndex(p)))
}

// learner: a new incarnation whose predecessor is no member any more.
func (m *Model) learner(s *state, i int) bool {
	n := &s.nodes[i]
	if n.up == 0 || m.newest(s).members.has(s.id(i)) {
		return false
	}
	if m.mut == JointSwap {
		return m.swap(s, i)
	}
	k := applyKey{kind: uint8(doLearner), a: uint8(s.id(i))}
	mb := cluster.Member{Inc: s.id(i).inc(), Name: nodeName(s.id(i)), Witness: !m.data(i), Boot: bootOf(n.boot)}
	if !m.member(s, k, cluster.AddLearner, mb) {
		return false
	}
	n.seen = s.length - 1
	return true
}

// swap is what 9.7 forbids: the new incarnation takes the old one's place in one step.
func (m *Model) swap(s *state, i int) bool {
	t, old := m.newest(s).state.Clone(), s.id(i)-maxNodes
	at := t.Member(old.inc())
	if at == nil || t.InSets(old.inc()) || !m.commits(s) || t.Phase != cluster.PhasePromoted {
		return false
	}
	at.Inc, at.Boot = s.id(i).inc(), bootOf(s.nodes[i].boot)
	slices.SortFunc(t.Members, func(a, b cluster.Member) int { return int(a.Inc) - int(b.Inc) })
	v := setOf(t.Voters())&^old.set() | s.id(i).set()
	c := cluster.VoterConfig{Index: configIndex(m.newest(s))}
	v.each(func(i id) { c.Voters = append(c.Voters, i.inc()) })
	t.Configs = append(t.Configs, c)
	s.nodes[i].seen = s.length
	return m.push(s, m.book.number(t))
}

// voter: 9.6. How far it has come is a matter of liveness.
func (m *Model) voter(s *state, i int) bool {
	p := m.newest(s)
	if !p.members.has(s.id(i)) || p.voters.has(s.id(i)) || s.nodes[i].up == 0 {
		return false
	}
	return m.member(s, applyKey{kind: uint8(doVoter), a: uint8(s.id(i))}, cluster.AddVoter, *p.state.Member(s.id(i).inc()))
}

func (m *Model) remove(s *state, i id) bool {
	s.left.conf--
	mb := m.newest(s).state.Member(i.inc())
	return m.member(s, applyKey{kind: uint8(doRemove), a: uint8(i)}, cluster.Remove, *mb)
}

// confirm: a majority of the newest voters renewed the lease (4.6.a).
func (m *Model) confirm(s *state, i int) bool {
	n, v := &s.nodes[i], m.view(s, i)
	if v.primary != s.id(i) || v.phase != cluster.PhasePromoted || v.confirm || !m.mayServe(s, i) || !m.book.lease(v.voters, n.grants) {
		return false
	}
	c := cluster.ConfirmVoters{Epoch: cluster.Epoch(v.epoch), From: s.id(i).inc(), Config: v.config}
	return m.propose(s, applyKey{kind: uint8(doConfirm), a: uint8(s.id(i)), b: uint8(v.config)}, cluster.Command{ConfirmVoters: &c}, 0)
}

// rollback: the node's volume is set back to the copy that was made when the cluster was formed: its first record, its
// first boot, no promise. Its next boot number is one that was registered already (1.13).
func (m *Model) rollback(s *state, i int) bool {
	n := &s.nodes[i]
	if n.boot < 2 && !m.SameBoot || n.boot > copied || n.n < 2 {
		return false
	}
	s.left.rollbacks--
	if n.boot > 1 {
		n.boot = copied + 1
	}
	n.promise, n.n, n.floorN, n.floorTL, n.repE = 1, 1, 0, 0, 0
	n.repTL, n.repN, n.repFlags = 0, 0, 0
	return true
}
