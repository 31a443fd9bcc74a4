// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// peer is what this node knows of another.
type peer struct {
	inc       cluster.Incarnation
	name      cluster.NodeName
	boot      cluster.Boot
	host      string // where we reached it
	out, in   bool   // a link in that direction is up
	changedAt time.Duration
	heldTwice bool

	status   *cluster.Status
	statusAt time.Duration
	told     *cluster.Evidence // what it told us it saw
	saw      *cluster.Evidence // what we saw of its own death
	sawAt    time.Duration
	join     *cluster.Member
	leaving  bool
	leavingP bool // it was primary when it said so
}

func (p *peer) linked() bool { return p.out && p.in }

func (m *Machine) peer(inc cluster.Incarnation) *peer {
	i, ok := slices.BinarySearchFunc(m.peers, inc, func(p *peer, i cluster.Incarnation) int { return cmp.Compare(p.inc, i) })
	if !ok {
		return nil
	}
	return m.peers[i]
}

func (m *Machine) addPeer(inc cluster.Incarnation) *peer {
	i, ok := slices.BinarySearchFunc(m.peers, inc, func(p *peer, i cluster.Incarnation) int { return cmp.Compare(p.inc, i) })
	if ok {
		return m.peers[i]
	}
	p := &peer{inc: inc, changedAt: m.now}
	m.peers = slices.Insert(m.peers, i, p)
	return p
}

func (m *Machine) linkUp(e LinkUp) {
	if e.Inc == m.opt.Self || e.Inc == 0 {
		return
	}
	p := m.addPeer(e.Inc)
	was := p.linked()
	if p.boot != e.Boot { // another run of its PID 1: what we knew is of the past
		m.upstreamRestarted(p, e.Boot)
		*p = peer{inc: e.Inc, changedAt: m.now, told: nil, saw: p.saw, sawAt: p.sawAt, host: p.host}
	}
	p.boot, p.name = e.Boot, e.Name
	if e.Out {
		p.out, p.host, p.heldTwice = true, e.Host, e.HeldTwice
	} else {
		p.in = true
	}
	if p.linked() != was {
		p.changedAt = m.now
		m.statusAt = 0
	}
}

// upstreamRestarted: within one order nobody but the same PID 1 may serve us (PROTOCOL 5.5.c).
func (m *Machine) upstreamRestarted(p *peer, b cluster.Boot) {
	if m.st != nil && m.node.attached == m.epoch() && m.st.Primary() == p.inc && m.node.attachBoot != b {
		m.node.broken = true
		m.node.known = false
	}
}

func (m *Machine) linkDown(e LinkDown) {
	p := m.peer(e.Inc)
	if p == nil || p.boot != e.Boot {
		return
	}
	was := p.linked()
	if e.Out {
		p.out = false
	} else {
		p.in = false
	}
	if was {
		p.changedAt = m.now
	}
	if e.Evidence == nil || m.st == nil {
		return
	}
	ev := *e.Evidence
	p.saw, p.sawAt = &ev, m.now
	p.out, p.in = false, false
	m.log(false, "peer's container died", "", string(p.name))
	for _, q := range m.peers {
		m.send(q.inc, cluster.Envelope{Evidence: &ev})
	}
	m.statusAt = 0
	if m.raftLeader == p.inc { // PROTOCOL 6.6
		m.do(ForgetLeader{Campaign: m.lowestAlive()})
	}
}

// lowestAlive: of the voters that are linked, this node has the lowest id.
func (m *Machine) lowestAlive() bool {
	for _, p := range m.peers {
		if p.inc < m.opt.Self && p.linked() && m.st.IsVoter(p.inc) {
			return false
		}
	}
	return m.st.IsVoter(m.opt.Self)
}

// dropEvidence forgets evidence about other boots of the primary than the registered one (PROTOCOL 6.4).
func (m *Machine) dropEvidence(inc cluster.Incarnation, b cluster.Boot) {
	if p := m.peer(inc); p != nil && p.saw != nil && p.saw.Boot != b {
		p.saw = nil
	}
}

// evidence is what this node itself saw of the present primary's death.
func (m *Machine) evidence() *cluster.Evidence {
	if p := m.peer(m.st.Primary()); p != nil {
		return p.saw
	}
	return nil
}

func (m *Machine) received(e Received) {
	p := m.addPeer(e.From)
	if p.boot != (cluster.Boot{}) && p.boot != e.Boot {
		return // from another run than the link's
	}
	if !p.in && p.boot == e.Boot {
		// It comes on a link that the peer dialled. After a silence the end of an older link may be told after the
		// beginning of the new one; without this the peer would seem unlinked for ever.
		p.in = true
		if p.linked() {
			p.changedAt = m.now
		}
	}
	env := e.Env
	if env.Join != nil {
		j := env.Join.Member
		p.join = &j
	}
	if m.st == nil {
		return
	}
	switch {
	case env.Renew != nil:
		m.renewAsked(p, *env.Renew)
	case env.Grant != nil:
		m.lease.Granted(p.inc, *env.Grant)
	case env.Refuse != nil:
		// the promise of another node is above our epoch: an election is open or was; the log will say
	case env.Status != nil:
		m.statusOf(p, *env.Status)
	case env.Evidence != nil:
		ev := *env.Evidence
		p.told = &ev
	case env.PgDown != nil:
		if p.inc == m.st.Primary() && env.PgDown.Epoch == m.epoch() {
			d := *env.PgDown
			m.lead.down = &d
		}
	case env.Report != nil:
		m.reportOf(p, *env.Report)
	case env.CatchUp != nil:
		m.catchUpAsked(*env.CatchUp)
	case env.Proposed != nil:
		m.electionProposed(*env.Proposed)
	case env.Attach != nil:
		m.attachAsked(p, *env.Attach)
	case env.AttachOK != nil:
		m.attachAnswered(p, *env.AttachOK)
	case env.Diverged != nil:
		m.attachRefused(p, *env.Diverged)
	case env.Detach != nil:
		m.detached(p, *env.Detach)
	case env.Flushed != nil:
		m.flushedBy(p, *env.Flushed)
	case env.Leaving != nil:
		p.leaving, p.leavingP = true, env.Leaving.Primary
	case env.Order != nil:
		m.request(p.inc, *env.Order)
	case env.OrderEnd != nil:
		m.do(Answer{Response: *env.OrderEnd})
	}
}

func (m *Machine) statusOf(p *peer, s cluster.Status) {
	was := p.status != nil && p.status.Serving
	p.status, p.statusAt = &s, m.now
	p.leaving = s.Leaving
	if s.Evidence != nil {
		p.told = s.Evidence
	}
	if p.inc == m.st.Primary() && s.Epoch == m.epoch() && s.Position.Compare(m.node.primaryEnd) > 0 {
		m.node.primaryEnd = s.Position
	}
	if s.Serving && !was && p.inc == m.st.Primary() {
		m.lead.served()
	}
	if s.Serving && s.Epoch == m.epoch() && p.inc == m.st.Primary() {
		m.endWatch() // it waits for no flush any more
	}
}

// status tells every peer what this node is: each 100 ms, and at once when its role changed. At rest, with young grants,
// that may wait for company, and only the leader hears all of it; the others judge nothing by less than StatusFresh.
func (m *Machine) status(force bool) {
	news := force || m.statusAt == 0
	if !news && m.now < m.statusAt+statusEvery-statusEarly {
		return
	}
	m.statusAt = m.now
	calm := m.Calm() && !m.st.Async() && m.now < m.grants.Last+cluster.RenewEvery(m.st.Lease())*3/2
	rest := calm && m.restful && !news
	all := !rest || m.raftLeader == 0 || m.now >= m.toldAllAt+statusToAll-statusEarly
	if all {
		m.toldAllAt = m.now
	}
	m.restful = calm
	s := m.Status()
	for _, p := range m.peers {
		if p.out && (all || p.inc == m.raftLeader) {
			m.do(Send{To: p.inc, Env: cluster.Envelope{Status: &s}, Later: rest})
		}
	}
	if m.st.Member(m.opt.Self) == nil {
		m.askToJoin()
	}
}

// askToJoin: a node that is no member, which may not even have a state yet, asks the leader to be added (PROTOCOL 9.5).
func (m *Machine) askToJoin() {
	if !m.due("join", statusEvery) {
		return
	}
	j := cluster.Join{Member: m.member()}
	for _, p := range m.peers {
		if p.out {
			m.send(p.inc, cluster.Envelope{Join: &j})
		}
	}
}

func (m *Machine) member() cluster.Member {
	return cluster.Member{Inc: m.opt.Self, Name: m.opt.Name, Witness: m.opt.Witness, Priority: m.opt.Priority, Boot: m.opt.Boot}
}

// Status is what this node says of itself.
func (m *Machine) Status() cluster.Status {
	s := cluster.Status{
		Role: m.role(), Epoch: m.epoch(), Promise: m.promise, Position: m.node.pos, Known: m.node.known,
		Streaming: m.pg.Streaming, GrantAgeMS: -1, Backlog: m.pg.Backlog, ReplayLSN: m.pg.Replay,
		Serving: m.node.serving, Checkpoint: m.node.checkpoint, Task: m.doing(), TaskNote: m.note,
		Trouble: m.node.trouble, Leaving: m.plan.leaving, RaftMatch: m.applied, Port: m.opt.Port,
		LeaseMS: m.opt.LeaseMS, DiskFree: m.space.Free, Ballast: m.space.Ballast,
	}
	if m.pg.Running && !m.node.known && !m.node.foreignWAL {
		s.Position, s.Known = m.pg.Position, m.node.floor.Compare(m.pg.Position) <= 0
	}
	if s.Trouble == "" && m.pg.Mute >= muteTold {
		s.Trouble = fmt.Sprintf("postgres runs and has answered nothing for %d s", int(m.pg.Mute.Seconds()))
	}
	s.Known = s.Known && !m.foreign()
	s.Eligible, s.WhyNot = m.eligible()
	if m.st == nil {
		return s
	}
	s.Foreign, s.Guarded = m.foreign(), m.plan.guard.on
	s.GrantAgeMS = (m.now - m.grants.Last).Milliseconds()
	s.Evidence = m.evidence()
	if m.isPrimary() {
		s.Senders = m.pg.Senders
		s.LeaseLeftMS = max(0, m.leaseEnds()-m.now).Milliseconds()
		s.StuckMS = max(m.pg.Stuck, m.pg.Mute).Milliseconds()
		if m.pg.ReadWrite {
			s.Position, s.Known = m.pg.Position, true
		}
	}
	return s
}

func (m *Machine) doing() string {
	if m.task != nil {
		return string(m.task.Kind)
	}
	return m.decision.Why
}

func (m *Machine) eligible() (bool, string) {
	switch {
	case m.opt.Witness:
		return false, "witness"
	case m.opt.Priority == 0:
		return false, "priority 0"
	case m.plan.leaving:
		return false, "stopping"
	case m.node.disk != cluster.DiskPresent:
		return false, "no data"
	case m.foreign():
		return false, "data of another cluster"
	case !m.space.MayPromote():
		return false, m.space.shortage()
	}
	return true, ""
}

// foreign: the data here are another Postgres cluster's.
func (m *Machine) foreign() bool { return m.st != nil && m.st.Foreign(m.node.disk, m.node.system) }
