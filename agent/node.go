// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// mayWrite: Postgres runs read-write here, or is on the way there.
func (m *Machine) mayWrite() bool {
	return m.pg.Running && m.pg.ReadWrite || m.taskIs(TaskPromote) || m.taskIs(TaskPrimary)
}

// fenced is the epoch below which nothing of this node helps any more: its durable promise, provided that the
// upstream file is parked with no WAL receiver left, or ordered for a catch-up under a name in no list, and nothing
// here can write (PROTOCOL 1.9, 1.11).
func (m *Machine) fenced() cluster.Epoch {
	if m.node.attached != 0 && !m.catchingUp() || m.mayWrite() || m.killing() {
		return 0
	}
	return m.promise
}

func (m *Machine) view() *cluster.NodeView {
	n := &m.node
	src := m.source()
	v := &cluster.NodeView{
		State: m.st, Self: m.opt.Self, Registered: m.registered(), Promise: m.promise,
		Disk: n.disk, DiskSystem: n.system, DiskTL: n.diskTL, HighestTL: n.highestTL,
		Running: m.pg.Running, ReadWrite: m.pg.Running && m.pg.ReadWrite,
		FencedFor: m.fenced(), Position: n.pos, PositionKnown: n.known || m.claims(), Cloned: n.cloned, Unreadable: n.unreadable,
		ForeignWAL: n.foreignWAL, Donor: m.electing() && n.donate == m.st.Election.Index,
		Initialized: n.initialized, Attached: n.attached, Broken: n.broken, AttachOK: n.ok != nil,
		Diverged: n.diverged || n.walGone, NoRewind: n.noRewind || n.walGone, Rejoin: m.opt.Rejoin, Source: src != nil, CloneFrom: m.cloneFrom() != nil, CatchUp: n.catchUp != nil,
		LeaseValid: m.leaseValid(), PromotedHere: n.promotedHere, PromoteTried: n.promoteTried && !m.taskIs(TaskPromote), Serving: n.serving,
		FlushQuorum: m.flushQuorum(), MarginOver: m.marginOver(), SameKernel: m.opt.LastServed || !n.fresh,
		Spare: m.spare(), CouldFailover: m.couldFailover(), FreshBoot: n.fresh, GaveUp: n.gaveUp != nil,
		Settled: n.settledX != nil && m.st.Pending != nil,
	}
	v.CatchingUp = n.catchUp != nil && n.attached != 0
	v.CatchUpOK = n.catchUp != nil && n.ok != nil && n.ok.Election == n.catchUp.Election && n.catchUp.Election != 0
	return v
}

// claims: the end of WAL of a new copy is known well enough to ask the primary for the rest.
func (m *Machine) claims() bool { return m.node.cloned && m.node.claim && !m.pg.Running }

// decideNode asks the node's table and carries out what it says.
func (m *Machine) decideNode() {
	m.watchOrder()
	m.confirmVoters()
	m.repeatProposals()
	m.planFollowUp()
	if m.plan.guard.on && m.guardStop() {
		m.leave()
	}
	if m.plan.stopping && m.stopStep() {
		return
	}
	if m.plan.handover() {
		m.handoverStep()
		return
	}
	d := cluster.Decide(cluster.NodeTable(), m.view())
	early := d.Outcome.Act == cluster.ActGiveUp && m.taskIs(TaskKill) && !m.killing()
	if m.task != nil && d.Outcome.Act != cluster.ActFence && !early {
		if m.taskIs(TaskSettle) { // it may wait for a member that has to be cloned first, from a primary that keeps house
			m.besides()
		}
		return // what is under way decides; the table is asked again when it has ended
	}
	if d.Rule != m.rule || d.Outcome.Why != m.decision.Why {
		m.log(d.Outcome.Trouble, "node", d.Rule, d.Outcome.Why)
	}
	m.rule, m.decision = d.Rule, d.Outcome
	m.node.trouble = m.node.failed
	if d.Outcome.Trouble {
		m.node.trouble = d.Outcome.Why
	}
	if d.Outcome.Act == cluster.ActFence {
		m.fence()
		return
	}
	m.carryOut(d.Outcome.Act)
	m.besides()
}

// fence stops granting, makes the promise durable, and then ends what could acknowledge or write.
func (m *Machine) fence() {
	target := m.epoch()
	if m.electing() {
		target = m.st.Election.Epoch
		m.promiseTo(target)
	}
	switch {
	case m.taskIs(TaskRecovery) && m.node.attached != 0: // started under an order of before
		m.kill()
	case m.mayWrite():
		if m.promise >= target || !m.electing() { // the old primary: promise, then kill (5.2.a)
			m.kill()
		}
	case m.pg.Running && m.task == nil && (m.node.attached != 0 || !m.node.known):
		m.run(Task{Kind: TaskFence, Limit: 5 * time.Second})
	case m.pg.Running && m.task != nil && (m.taskIs(TaskAdmit) || m.taskIs(TaskSettle)):
		m.do(Cancel{ID: m.task.ID})
	}
}

func (m *Machine) promiseTo(e cluster.Epoch) {
	if m.promiseNow < e {
		m.promiseNow = e
		m.do(SavePromise{Epoch: e})
	}
}

// kill pre-empts whatever runs.
func (m *Machine) kill() {
	if m.taskIs(TaskKill) {
		return
	}
	if m.taskIs(TaskHandover) {
		m.handoverCutOff("postgres was killed during the hand-over")
	}
	if m.task != nil {
		m.do(Cancel{ID: m.task.ID})
		m.side = append(m.side, m.task)
		m.task = nil
	}
	m.node.serving, m.killSent = false, false
	m.node.known, m.node.claim = false, false // what a promotion has written is read when all is gone
	m.start(Task{Kind: TaskKill, Limit: 10 * time.Second})
}

// killing: a kill is under way that may not have reached every process yet. What is killed writes and acknowledges nothing
// any more; only its files must not be read before it is gone (PROTOCOL 4.5.b).
func (m *Machine) killing() bool {
	return m.taskIs(TaskKill) && (!m.killSent || m.st.Primary() != m.opt.Self)
}

func (m *Machine) carryOut(a cluster.NodeAct) {
	if m.now < m.node.retryAt && a != cluster.ActGiveUp {
		return
	}
	n := &m.node
	switch a {
	case cluster.ActNone, cluster.ActFence:
	case cluster.ActStop:
		if m.pg.Running {
			m.run(Task{Kind: TaskStop, Limit: 20 * time.Second})
		}
	case cluster.ActInit:
		m.run(Task{Kind: TaskInit, Limit: time.Hour})
	case cluster.ActPrepare:
		m.run(Task{Kind: TaskPrepare, Limit: time.Hour})
	case cluster.ActPosition:
		if m.pg.Running {
			m.run(Task{Kind: TaskFence, Limit: 5 * time.Second})
		} else {
			m.run(Task{Kind: TaskLook, Limit: time.Minute})
		}
	case cluster.ActPromote:
		if n.gate != gateClosed {
			m.closeGate(m.settings())
			return
		}
		n.promoteTried = true
		e := m.st.Epoch()
		m.arm()
		m.run(Task{
			Kind: TaskPromote, Limit: 10 * time.Second, Timeline: e.Timeline, Parent: e.Elected.Timeline, Lineage: m.st.Lineage(),
			Elected: e.Elected, Settings: m.settings(), Slots: m.slots(), LetGo: m.letGo(),
		})
	case cluster.ActStartPrimary:
		n.flushed = nil
		m.arm()
		e := m.st.Epoch()
		m.run(Task{Kind: TaskPrimary, Limit: time.Hour, Timeline: e.Timeline, Settings: m.settings(), Slots: m.slots(), LetGo: m.letGo()})
	case cluster.ActStartRecovery:
		m.startRecovery()
	case cluster.ActAdmit:
		m.run(Task{Kind: TaskAdmit, Limit: 5 * time.Second, Settings: m.settings()})
	case cluster.ActSettle:
		x := m.settings()
		m.run(Task{
			Kind: TaskSettle, Limit: time.Hour, Settings: x, FromZero: m.st.D.K == 0,
			FromAsync: !x.Async && m.st.Async(), // also when a change to async is taken back
		})
	case cluster.ActGiveUp:
		if d := m.plan.down; d == nil || d.Epoch != m.epoch() { // a hand-over that waits for its promise has a target to name
			m.plan.down = &cluster.PgDown{Epoch: m.epoch(), Why: m.decision.Why, Cause: cluster.CausePgDown}
		}
		m.planFollowUp()
	case cluster.ActClone, cluster.ActRewind:
		m.rejoin(a)
	case cluster.ActAsk:
		m.ask()
	case cluster.ActOrder:
		m.order()
	case cluster.ActOrderCatchUp:
		m.orderCatchUp()
	}
}

// giveUp is the primary's own word that this epoch cannot go on with it: promise, kill, then say so (5.1.b).
func (m *Machine) giveUp(d *cluster.PgDown) {
	m.promiseTo(m.epoch() + 1)
	if m.mayWrite() || m.pg.Running && !m.killed {
		m.kill()
		return
	}
	if m.promise <= m.epoch() {
		return // not durable yet
	}
	d.Killed = true
	m.killed = true
	m.node.gaveUp, m.node.gaveUpAt = d, 0
	m.log(true, "giving up the epoch", m.rule, d.Why)
	m.sayDown()
}

// sayDown tells the leader that this primary has given up, until the election is open.
func (m *Machine) sayDown() {
	n := &m.node
	if n.gaveUp != nil && !m.electing() && (n.gaveUpAt == 0 || m.now >= n.gaveUpAt+statusEvery) {
		n.gaveUpAt = m.now
		if m.leading() {
			m.lead.down = n.gaveUp
		}
		m.send(m.raftLeader, cluster.Envelope{PgDown: n.gaveUp})
	}
}

// repeatProposals says again what the log, or the leader, has not taken up yet.
func (m *Machine) repeatProposals() {
	n := &m.node
	switch {
	case m.st.Phase == cluster.PhaseBlank && n.initialized:
		m.propose("initialized", cluster.Command{Initialized: &cluster.Initialized{
			From: m.opt.Self, System: n.system, Timeline: n.diskTL, Base: n.base,
		}})
	case m.isPrimary() && m.st.Phase == cluster.PhasePromoting && n.promotedHere:
		m.propose("promoted", cluster.Command{Promoted: &cluster.Promoted{
			Epoch: m.epoch(), From: m.opt.Self,
			Timeline: m.st.Epoch().Timeline, Switch: n.promoted.Switch, NextXID: n.promoted.NextXID,
		}})
	case m.isPrimary() && n.settledX != nil && m.st.Pending != nil:
		m.propose("settle", cluster.Command{SettleD: n.settledX})
	}
	m.sayDown()
}

// settings are what the primary of this epoch must tell its Postgres (PROTOCOL 3.3.b).
func (m *Machine) settings() Settings { return m.settingsIn(m.st, m.node.serving) }

func (m *Machine) settingsIn(st *cluster.State, serving bool) Settings {
	d, _ := st.ListedD()
	s := Settings{K: d.K, Async: d.Mode == cluster.ModeAsync, FastWAL: !serving && st.Phase == cluster.PhasePromoting && !m.space.Tight()}
	if d.K > 0 {
		s.Names = st.SyncNames(d)
	}
	return s
}

func (m *Machine) slots() []string {
	var names []string
	for _, mb := range m.st.Members {
		if mb.Inc != m.opt.Self && !mb.Witness {
			names = append(names, cluster.SlotName(mb.Inc))
		}
	}
	return names
}

// advance says how far the slots of the other members may move on a standby, so that after a failover it has the WAL
// that each of them needs, and not much more (PROTOCOL 12.4). Only who follows the present epoch counts, and the primary
// itself: what another node says of its end may be of a history that it has to give up. A member that is away keeps its
// place.
func (m *Machine) advance() map[string]cluster.LSN {
	if m.isPrimary() {
		return nil // its WAL senders move them
	}
	to := map[string]cluster.LSN{}
	for _, p := range m.peers {
		s := p.status
		if s != nil && m.st.Member(p.inc) != nil && s.Known && s.Epoch == m.epoch() && (s.Streaming || p.inc == m.st.Primary()) {
			to[cluster.SlotName(p.inc)] = s.Position.LSN
		}
	}
	return to
}

// flushQuorum: k others of the listed Set have flushed on this timeline what recovery brought back (5.7.c).
func (m *Machine) flushQuorum() bool {
	if !m.isPrimary() || m.node.flush == 0 {
		return false
	}
	d, _ := m.st.ListedD()
	if d.Mode == cluster.ModeAsync {
		return true
	}
	n := 0
	for _, f := range m.node.flushed {
		if f.inc != m.opt.Self && slices.Contains(d.Set, f.inc) &&
			f.pos.Timeline == m.st.Epoch().Timeline && f.pos.LSN >= m.node.flush {
			n++
		}
	}
	return n >= d.K
}

// spare: the primary of this epoch is about to serve, and enough others to confirm its commits are in reach.
func (m *Machine) spare() bool {
	if m.electing() || m.isPrimary() || m.st.Primary() == 0 || m.now > m.epochAt+spareLimit {
		return false
	}
	d, _ := m.st.ListedD()
	n, about := 0, false
	for _, p := range m.peers {
		switch {
		case !p.linked() || p.status == nil || m.now-p.statusAt > cluster.StatusFresh || p.leaving:
		case p.inc == m.st.Primary():
			about = !p.status.Serving || p.status.Epoch != m.epoch()
		case slices.Contains(d.Set, p.inc):
			n++
		}
	}
	return about && n >= max(d.K, 1)
}

// marginOver: after evidence some milliseconds pass, in which the dead container's last process ends (5.7.d).
func (m *Machine) marginOver() bool {
	for _, p := range m.peers {
		if p.saw == nil {
			continue
		}
		margin := defaultMargin
		if !p.saw.HeldTwice {
			margin = largeMargin
		}
		if m.now < p.sawAt+margin {
			return false
		}
	}
	return true
}

func (m *Machine) flushedBy(p *peer, f cluster.Flushed) {
	if f.Epoch != m.epoch() || !m.isPrimary() {
		return
	}
	pos := cluster.Position{Timeline: f.Timeline, LSN: f.LSN}
	for i := range m.node.flushed {
		if m.node.flushed[i].inc == p.inc {
			m.node.flushed[i].pos = pos
			return
		}
	}
	m.node.flushed = append(m.node.flushed, flushedBy{p.inc, pos})
}

// endWatch ends the task that watches what this standby flushes; it polls every 2 ms.
func (m *Machine) endWatch() {
	for _, r := range m.side {
		if r.Kind == TaskWatchFlush {
			m.do(Cancel{ID: r.ID})
		}
	}
}

func (m *Machine) flushSeen(pos cluster.Position) {
	if m.node.attached == m.epoch() && !m.isPrimary() && !m.electing() {
		m.node.seen = pos
		m.send(m.st.Primary(), cluster.Envelope{Flushed: &cluster.Flushed{Epoch: m.epoch(), Timeline: pos.Timeline, LSN: pos.LSN}})
	}
}

func (m *Machine) observed(f Facts) {
	if !m.pg.Running || m.task != nil && m.taskIs(TaskKill) {
		return // an answer from before it was ended
	}
	f.Running = true
	f.ReadWrite = f.ReadWrite || m.pg.ReadWrite
	m.pg = f
	if !m.pg.ReadWrite && m.node.attached == 0 && !m.node.known {
		m.node.pos = f.Position
	}
}

func (m *Machine) exited(e Exited) {
	m.log(true, "postgres ended", "", e.Why)
	m.stoppedRunning()
	m.node.known = false
	if e.Permanent {
		m.node.trouble = e.Why
		m.node.failures = 8
	}
	m.backoff()
	if m.isPrimaryState() && m.plan.phase != planHandover {
		if m.plan.handover() {
			m.handoverFailedSoft("postgres ended")
		}
		m.node.retryAt = 0
		m.kill() // its backends outlive it (PROTOCOL 4.5.b)
	}
}

func (m *Machine) isPrimaryState() bool { return m.st != nil && m.isPrimary() }

func (m *Machine) stoppedRunning() {
	m.pg = Facts{}
	m.node.serving = false
	m.node.attached = 0
	m.node.broken, m.node.unreadable = false, false
	m.node.fresh = false
	m.node.promotedHere = false                                  // or it is proposed although it has to be repeated
	m.node.gate, m.node.gateTask, m.node.held = gateOpen, 0, nil // it starts with its gate open
}

func (m *Machine) backoff() {
	m.node.failures++
	m.node.retryAt = m.now + min(retryFirst<<min(m.node.failures-1, 10), retryMost)
}

// report tells the leader where this node is, for the open election (PROTOCOL 5.2).
func (m *Machine) report() {
	if !m.electing() || m.catchingUp() || m.fenced() < m.st.Election.Epoch || !m.registered() || m.opt.Witness && m.promise < m.st.Election.Epoch {
		return
	}
	n := &m.node
	key := "report"
	if n.known {
		key = "report of position"
	}
	if !m.due(key, statusEvery) {
		return
	}
	r := cluster.Report{
		Inc: m.opt.Self, Boot: m.opt.Boot, Election: m.st.Election.Index, Promise: m.promise,
		Known: n.known && !m.foreign() && n.floor.Compare(n.pos) <= 0, Position: n.pos, HighestTL: max(n.highestTL, n.diskTL, n.pos.Timeline),
		GrantAgeMS: (m.now - m.grants.At).Milliseconds(), GrantLeaseMS: m.grants.Lease.Milliseconds(),
		Killed:   m.st.Primary() == m.opt.Self,
		Evidence: m.evidence(), Priority: m.opt.Priority, Backlog: m.pg.Backlog, Running: m.pg.Running,
	}
	r.Eligible, r.WhyNot = m.eligible()
	r.PrimaryEnd = n.primaryEnd
	if m.st.Primary() == m.opt.Self {
		r.Evidence = nil
		if r.Known && r.Position.Compare(r.PrimaryEnd) > 0 {
			r.PrimaryEnd = r.Position
		}
	}
	if m.leading() {
		m.lead.report(m.now, r)
	}
	m.send(m.raftLeader, cluster.Envelope{Report: &r})
}

// besides starts what runs beside the main task.
func (m *Machine) besides() {
	n := &m.node
	if !m.pg.Running {
		return
	}
	if m.now >= m.houseAt+houseEvery && !m.sideIs(TaskKeepHouse) && (m.pg.ReadWrite || n.attached == m.epoch()) {
		m.houseAt = m.now
		primary := m.pg.ReadWrite && m.isPrimary()
		m.run(Task{
			Kind: TaskKeepHouse, Limit: 10 * time.Second, Slots: m.slots(), Advance: m.advance(), Primary: primary,
			Timeline: m.st.Epoch().Timeline, Tight: m.space.Tight(),
			Settings: Settings{FastWAL: primary && !n.serving && !m.space.Tight()},
		})
	}
	if m.isPrimary() && m.pg.ReadWrite && !n.checkpoint && !m.sideIs(TaskFirstChkpt) &&
		(n.serving || m.now > m.phaseAt+retryFirst) && m.st.Phase == cluster.PhasePromoted {
		m.run(Task{Kind: TaskFirstChkpt, Limit: 10 * time.Minute})
	}
	m.openGate()
	m.makeBallast()
	if p := m.peer(m.st.Primary()); n.attached == m.epoch() && !m.isPrimary() && !m.sideIs(TaskWatchFlush) &&
		(p == nil || p.status == nil || !p.status.Serving || p.status.Epoch != m.epoch()) && m.due("watch", statusEvery) {
		m.run(Task{Kind: TaskWatchFlush, Limit: 10 * time.Second, Timeline: m.st.Epoch().Timeline})
	}
	if n.seen.LSN != 0 && m.sideIs(TaskWatchFlush) && m.due("flushed", statusEvery) {
		m.flushSeen(n.seen) // a message may be lost, and nothing new may come for long
	}
	// A paused replay, or a reader in its way, keeps Postgres from starting a WAL receiver (PROTOCOL 5.5.g).
	if n.attached == m.epoch() && !m.isPrimary() && !m.pg.Streaming && !m.pg.WantsWAL && m.st.Member(m.opt.Self) != nil &&
		!m.sideIs(TaskResume) && m.due("resume", 2*statusEvery) {
		m.run(Task{Kind: TaskResume, Limit: 5 * time.Second})
	}
	if m.pg.Streaming && n.attached == m.epoch() && !n.confirmed && !m.sideIs(TaskConfirmClone) {
		m.run(Task{Kind: TaskConfirmClone, Limit: time.Hour})
	}
}
