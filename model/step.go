// SPDX-License-Identifier: Apache-2.0

package model

import (
	"github.com/pgquorum/pgquorum/cluster"
)

// kind is what an action does; a and b say to whom.
type kind uint8

const (
	doApply    kind = iota // a applies the next committed entry
	doBegin                // an election is opened
	doElect                // with the reports of mask a, candidate b
	doCatchUp              // before it: b takes the last WAL, reports of mask a
	doRenew                // b grants a its lease
	doExpire               // the grant of incarnation b to a ends
	doAttach               // a's upstream file is ordered
	doStream               // a receives one record
	doPromote              // a leaves recovery
	doPromoted             // and the log hears of it
	doStart                // a restarts read-write in its epoch
	doAdmit                // a opens the gate
	doWrite                // a client writes on a
	doCrash                // PID 1 of a dies
	doRestart              // and starts again, its boot is registered
	doSawDeath             // a has evidence that the primary died
	doRewind               // a's WAL is cut to what the primary has too
	doChange               // b joins or leaves the durability set
	doRevert               // the change is to be taken back
	doReload               // a lists the names of the state it has applied
	doSettle               // and has seen the barrier acknowledged
	doWipe                 // a's volume is lost; it comes back as a new incarnation
	doLearner              // that one becomes a learner
	doVoter                // and a voter
	doRemove               // incarnation b is removed
	doConfirm              // a has a lease from the newest voters
	doRollback             // a's volume is set back to an older copy
	doFence                // mutants only: the second half of a fence
)

// action packs kind, a and b.
type action uint32

func act(k kind, a, b int) action        { return action(k)<<16 | action(a)<<8 | action(b) }
func (a action) split() (kind, int, int) { return kind(a >> 16), int(a >> 8 & 255), int(a & 255) }

// Model steps a world.
type Model struct {
	World
	mut  Mutant
	want set // of violations
	book *book
	sym  *symmetry
	buf  []byte
	next func(action, *state)
	now  state // scratch for the successor
}

func (m *Model) view(s *state, i int) *page { return &m.book.pages[s.chain[s.nodes[i].seen]] }
func (m *Model) newest(s *state) *page      { return &m.book.pages[s.head()] }
func (m *Model) data(i int) bool            { return m.Witness&(1<<i) == 0 }

// try yields the successor that f makes, unless f says that the action is not possible.
func (m *Model) try(s *state, a action, f func(*state) bool) {
	if m.Skip>>(a>>16)&1 != 0 {
		return
	}
	m.now = *s
	if f(&m.now) {
		m.finish(s, &m.now)
		m.next(a, &m.now)
	}
}

// steps yields every successor of s.
func (m *Model) steps(s *state) {
	for i := range m.Nodes {
		m.steps1(s, i)
	}
	m.try(s, act(doBegin, 0, 0), m.begin)
	m.elections(s)
	m.changes(s)
}

func (m *Model) steps1(s *state, i int) {
	n := &s.nodes[i]
	if s.left.wipes > 0 {
		m.try(s, act(doWipe, i, 0), func(t *state) bool { return m.wipe(t, i) })
	}
	if n.up == 0 {
		m.try(s, act(doRestart, i, 0), func(t *state) bool { return m.restart(t, i) })
		if s.left.rollbacks > 0 {
			m.try(s, act(doRollback, i, 0), func(t *state) bool { return m.rollback(t, i) })
		}
		return
	}
	one := func(k kind, f func(*state, int) bool) {
		m.try(s, act(k, i, 0), func(t *state) bool { return f(t, i) })
	}
	one(doApply, m.applyNext)
	if s.left.crashes > 0 {
		one(doCrash, m.crash)
	}
	if m.mut == ReportBeforeFence || m.mut == OwnFenceBeforeKill {
		one(doFence, m.fenceLate)
	}
	for v := range m.Nodes {
		m.try(s, act(doRenew, i, v), func(t *state) bool { return m.renew(t, i, v) })
	}
	(n.grants | n.older).each(func(v id) {
		m.try(s, act(doExpire, i, int(v)), func(t *state) bool { return m.expire(t, i, v) })
	})
	if m.Evidence {
		one(doSawDeath, m.sawDeath)
	}
	if !m.data(i) || m.view(s, i).bar.has(s.id(i)) {
		return
	}
	one(doAttach, m.attach)
	one(doStream, m.stream)
	one(doPromote, m.promote)
	one(doPromoted, m.promoted)
	one(doStart, m.start)
	one(doAdmit, m.admit)
	one(doWrite, m.write)
	one(doRewind, m.rewind)
	one(doReload, m.reload)
	one(doSettle, m.settle)
	one(doConfirm, m.confirm)
}

// commits: raft can commit an entry now, because a majority of the newest voters is up. Who of them applies it when is
// left open, so a partition is nodes that apply late.
func (m *Model) commits(s *state) bool {
	v, up := m.newest(s).voters, 0
	v.each(func(i id) {
		if c := s.at(i); c >= 0 && s.nodes[c].up == 1 {
			up++
		}
	})
	return up >= cluster.Majority(v.count())
}

// push appends a committed entry. No node may be further behind than the world's Lag.
func (m *Model) push(s *state, n uint16) bool {
	if n == refused || n == s.head() || int(s.length) > m.Lag {
		return false
	}
	s.chain[s.length] = n
	s.length++
	return true
}

func (m *Model) propose(s *state, k applyKey, c cluster.Command, index uint64) bool {
	return m.commits(s) && m.push(s, m.book.apply(s.head(), k, c, index))
}

// applyNext: node i applies the next entry and does at once what it demands.
func (m *Model) applyNext(s *state, i int) bool {
	n := &s.nodes[i]
	if n.seen+1 >= s.length {
		return false
	}
	old := m.view(s, i)
	n.seen++
	m.react(s, i, old)
	return true
}

// react is what a node does about its Postgres and its promise when its applied state moves on.
func (m *Model) react(s *state, i int, old *page) {
	n, v := &s.nodes[i], m.view(s, i)
	if !v.members.has(s.id(i)) || v.bar.has(s.id(i)) { // R020, R030
		n.stop()
		n.from, n.order, n.grants, n.older = 0, 0, 0, 0
		return
	}
	if v.config != old.config && v.primary == s.id(i) { // 4.6.a
		if m.mut != GrantsOfOldVoters || n.older == 0 {
			n.older = n.grants
		}
		n.grants = 0
	}
	if v.confirm && m.mut != GrantsOfOldVoters {
		n.older = 0
		if n.pg == pgReadWrite && !m.leased(s, i) && m.mut != NoKill { // while the voters of before still remember: 4.5.a
			n.stop()
		}
	}
	if v.phase == cluster.PhaseElecting {
		m.fence(s, i)
		return
	}
	if v.epoch != old.epoch { // 3.1.c
		if n.order != v.epoch {
			n.from, n.order = 0, 0
		}
		n.grants, n.older, n.forgot = 0, 0, 0
	}
}

// fence and report (5.2): one step, because nothing between the two can change what is reported.
func (m *Model) fence(s *state, i int) {
	n, v := &s.nodes[i], m.view(s, i)
	if n.repE == v.election {
		return
	}
	n.promise = max(n.promise, v.election)
	pos := n.position()
	if m.mut == PositionByReceived && n.from != 0 {
		pos.Timeline = max(pos.Timeline, v.timeline)
	}
	n.repE, n.repTL, n.repN, n.repFlags = v.election, uint8(pos.Timeline), uint8(pos.LSN), 0
	known := n.position().Compare(n.floor()) >= 0 || m.mut == FloorForgotten
	if m.data(i) && n.n > 0 && known {
		n.repFlags |= repKnown
	}
	if v.primary == s.id(i) {
		n.repFlags |= repKilled
	}
	if m.mut == ReportBeforeFence || m.mut == OwnFenceBeforeKill && n.pg == pgReadWrite {
		return
	}
	if n.pg == pgReadWrite {
		n.stop()
	}
	n.from, n.order = 0, 0
	if m.mut != GrantAfterFence {
		n.grants, n.older, n.forgot = 0, 0, 0
	}
}

// fenceLate is the rest of a mutant's fence.
func (m *Model) fenceLate(s *state, i int) bool {
	n := &s.nodes[i]
	if n.repE == 0 || n.from == 0 && n.pg != pgReadWrite {
		return false
	}
	if n.pg == pgReadWrite {
		n.stop()
	}
	n.from, n.order, n.grants, n.older = 0, 0, 0, 0
	return true
}

func (m *Model) crash(s *state, i int) bool {
	s.left.crashes--
	s.nodes[i].die()
	if m.mut == PromiseNotDurable || m.mut == PromiseLostUnregistered {
		s.nodes[i].promise = 0
	}
	return true
}

// restart: PID 1 is back and its boot is registered. Until then it only carries raft messages (1.13), so a node that
// registers late is one that restarts late.
func (m *Model) restart(s *state, i int) bool {
	n := &s.nodes[i]
	n.up = 1
	before := n.boot
	if before == copied+1 {
		before = 1 // the copy is of that boot
	}
	n.boot++
	p := m.newest(s)
	if !m.boots() { // nothing in this world looks at boots, but the entry needs its majority
		n.boot = 1
		if !m.commits(s) {
			return false
		}
	} else if p.members.has(s.id(i)) {
		k := applyKey{kind: uint8(doRestart), a: uint8(s.id(i)), b: n.boot}
		c := cluster.Command{Register: &cluster.Register{Inc: s.id(i).inc(), Boot: bootOf(n.boot), Boots: []cluster.Boot{bootOf(before)}}}
		if m.mut == OldBootAccepted {
			n.boot &^= copied
			n.boot = max(n.boot, p.boots[s.id(i)]+1)
			k.b, c.Register.Boot, c.Register.Boots[0] = n.boot, bootOf(n.boot), bootOf(p.boots[s.id(i)])
		}
		if !m.propose(s, k, c, 0) {
			return false
		}
	}
	if m.mut == PromiseLostUnregistered { // raft's commit index is not durable (P9): it may know less than it did
		n.seen = 0
		return true
	}
	n.seen = s.length - 1
	n.repE, n.repTL, n.repN, n.repFlags = 0, 0, 0, 0 // its boot is another now
	m.forget(s, i)
	m.react(s, i, m.view(s, i))
	return true
}

// boots: something in this world tells one boot from another.
func (m *Model) boots() bool { return m.Evidence || m.Rollbacks > 0 || m.Wipes > 0 }

// forget: 4.2 says that a voter that restarted assumes a grant. The mutant does not.
func (m *Model) forget(s *state, i int) {
	if m.mut != RestartForgetsGrant {
		return
	}
	for p := range m.Nodes {
		s.nodes[p].forgot |= (s.nodes[p].grants | s.nodes[p].older) & s.id(i).set()
	}
}

// renew: voter v grants primary p its lease. The decision is the product's; the request's clock is not needed, because
// a grant ends for the primary before it ends for the voter (4.1).
func (m *Model) renew(s *state, p, v int) bool {
	n, w := &s.nodes[p], &s.nodes[v]
	view := m.view(s, p)
	if w.up == 0 || n.grants.has(s.id(v)) || view.primary != s.id(p) || !m.mayServe(s, p) {
		return false
	}
	wv := m.view(s, v)
	r := cluster.Renew{Epoch: cluster.Epoch(view.epoch), LeaseMS: leaseMS, Config: view.config}
	if wv.config != view.config || !m.mayGrant(s, wv, v, s.id(p).inc(), w.promise, r) {
		return false
	}
	n.grants |= s.id(v).set()
	if w.deadID == uint8(s.id(p))+1 && m.mut != EvidenceKept && m.mut != EvidenceOutlivesGrant {
		w.deadID, w.deadBoot = 0, 0 // 6.4
	}
	return true
}

func (m *Model) mayServe(s *state, p int) bool {
	v := m.view(s, p)
	if v.bar.has(s.id(p)) { // R020
		return false
	}
	if m.mut == GrantAfterFence {
		return true
	}
	return v.phase != cluster.PhaseElecting && v.phase != cluster.PhaseBlank && s.nodes[p].promise <= v.epoch
}

func (m *Model) mayGrant(s *state, view *page, v int, from cluster.Incarnation, promise uint8, r cluster.Renew) bool {
	st := view.state
	if m.mut == GrantAfterFence { // its memory of the fence is not looked at
		c := st.Clone()
		c.Phase, promise, st = cluster.PhasePromoted, 0, c
	}
	if m.mut == LearnerCounted && !st.IsVoter(s.id(v).inc()) && view.members.has(s.id(v)) {
		return true
	}
	return cluster.MayGrant(st, s.id(v).inc(), from, cluster.Epoch(promise), r)
}

// leased: node p holds a lease, under the newest voters or, until they are confirmed, under the ones before.
func (m *Model) leased(s *state, p int) bool {
	n, v := &s.nodes[p], m.view(s, p)
	if n.up == 0 || v.primary != s.id(p) || n.grants|n.older == 0 {
		return false
	}
	voters := v.voters
	switch m.mut {
	case LeaderOnlyLease:
		return n.grants&voters&^s.id(p).set() != 0
	case GrantsOfOldVoters:
		if n.older.count() >= cluster.Majority(m.Nodes) {
			return true
		}
	case LearnerCounted:
		return (n.grants & v.members).count() >= cluster.Majority(voters.count())
	default:
	}
	if m.book.lease(voters, n.grants) {
		return true
	}
	if n.older == 0 || v.confirm {
		return false
	}
	for _, c := range v.state.Configs[:len(v.state.Configs)-1] {
		if m.book.lease(setOf(c.Voters), n.older) {
			return true
		}
	}
	return false
}

// expire: a grant ends. The primary kills before its lease is over (4.5.a).
func (m *Model) expire(s *state, p int, v id) bool {
	n := &s.nodes[p]
	n.grants &^= v.set()
	n.older &^= v.set()
	n.forgot &^= v.set()
	if n.pg == pgReadWrite && !m.leased(s, p) && m.mut != NoKill {
		n.stop()
	}
	return true
}

// outstanding: a voter remembers a grant that may still run.
func (m *Model) outstanding(s *state, v id) bool {
	if m.mut == NoLeaseWait {
		return false
	}
	for p := range m.Nodes {
		n := &s.nodes[p]
		if (n.grants|n.older)&^n.forgot&v.set() != 0 {
			return true
		}
	}
	return false
}

// sawDeath: the kernel closed the primary's link and a redial was refused (6.2): only a dead PID 1 does that.
func (m *Model) sawDeath(s *state, i int) bool {
	n, v := &s.nodes[i], m.view(s, i)
	p := s.at(v.primary)
	if p < 0 || p == i || s.nodes[p].up == 1 && m.mut != TimeoutIsEvidence || n.deadID == uint8(v.primary)+1 && n.deadBoot == s.nodes[p].boot {
		return false
	}
	n.deadID, n.deadBoot = uint8(v.primary)+1, s.nodes[p].boot
	return true
}
