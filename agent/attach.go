// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// source is a primary that can be copied from: read-write on its timeline, with the checkpoint there (8.3.c).
func (m *Machine) source() *peer {
	if m.st.Phase != cluster.PhasePromoted || m.isPrimary() {
		return nil
	}
	p := m.peer(m.st.Primary())
	if p == nil || !p.linked() || p.status == nil || !p.status.Checkpoint || p.status.Epoch != m.epoch() ||
		p.status.Role != cluster.RoleServing && p.status.Role != cluster.RolePromoting {
		return nil
	}
	return p
}

// cloneFrom is whom to clone: a standby that follows this epoch and is close, because that costs the primary nothing,
// else the primary. After a clone that failed it is the primary's turn (PROTOCOL 8.5, 1.11).
func (m *Machine) cloneFrom() *peer {
	primary := m.peer(m.st.Primary())
	if m.st.Phase != cluster.PhasePromoted || m.isPrimary() || primary == nil || primary.status == nil {
		return nil
	}
	for _, p := range m.peers {
		s := p.status
		if m.node.cloneFailed || p == primary || m.st.Member(p.inc) == nil || !p.linked() || p.leaving || s == nil ||
			m.now > p.statusAt+cluster.StatusFresh || s.Role != cluster.RoleFollowing || s.Epoch != m.epoch() || !s.Streaming ||
			!s.Known || s.Position.LSN+cluster.SegmentBytes < primary.status.Position.LSN || s.Backlog > cluster.SegmentBytes {
			continue
		}
		return p
	}
	return m.source()
}

// ask sends our claim to the primary, faster at first (PROTOCOL 5.5.c).
func (m *Machine) ask() {
	n := &m.node
	p := m.peer(m.st.Primary())
	if n.catchUp != nil {
		p = m.peer(n.catchUp.Donor)
	}
	every := min(askEvery<<min(max(0, n.asks-20), 10), askMost)
	if n.asking { // each answer ends the slot's older WAL sender: a second question would end the stream of the first
		every = askLimit
	}
	if p == nil || !p.linked() || !n.known && !m.claims() || n.askedAt != 0 && m.now < n.askedAt+every {
		return
	}
	n.askedAt, n.asking = m.now, true
	n.asks++
	a := cluster.Attach{Epoch: m.epoch(), Claim: n.pos}
	if n.catchUp != nil {
		a.Election = n.catchUp.Election
	}
	m.send(p.inc, cluster.Envelope{Attach: &a})
}

// attachAsked is the upstream's side: quick checks first, then a look at the WAL senders and the end of WAL.
func (m *Machine) attachAsked(p *peer, a cluster.Attach) {
	mb := m.st.Member(p.inc)
	refuse := func(why string) {
		m.send(p.inc, cluster.Envelope{Diverged: &cluster.Diverged{Epoch: m.epoch(), Retry: true, Why: why}})
	}
	switch {
	case mb == nil || mb.Boot != p.boot || mb.Quarantined:
		refuse("not a member in good standing")
	case !m.pg.Running:
		if m.electing() && a.Election == m.st.Election.Index {
			m.node.donate = a.Election
		}
		refuse("postgres is not running")
	case m.hold(p, a):
	case m.electing() && a.Election == m.st.Election.Index && m.node.known && m.fenced() >= m.st.Election.Epoch:
		m.run(Task{Kind: TaskVet, Limit: 2 * time.Second, Slot: cluster.SlotName(p.inc), Peer: p.inc, Elected: a.Claim, Flush: 1})
	case a.Epoch != m.epoch() || !m.isPrimary() || m.promise > m.epoch() || m.plan.phase == planHandover:
		refuse("not the primary of that epoch")
	default:
		t := Task{Kind: TaskVet, Limit: 2 * time.Second, Slot: cluster.SlotName(p.inc), Peer: p.inc, Elected: a.Claim}
		if !m.pg.ReadWrite {
			m.plug(&t)
		}
		m.run(t)
	}
}

// vetted answers an Attach with the end of WAL that was read after the claim arrived.
func (m *Machine) vetted(t *running, e Done) {
	mb := m.st.Member(t.Peer)
	if mb == nil || e.Err != nil || t.Epoch != m.epoch() {
		return
	}
	claim, ep := t.Elected, m.st.Epoch()
	ok := &cluster.AttachOK{
		Epoch: ep.Epoch, Timeline: ep.Timeline, Port: m.opt.Port,
		App: cluster.SyncName(mb.Name, mb.Inc, ep.Epoch),
	}
	var fit cluster.Fit
	var fork cluster.LSN
	switch {
	case t.Flush != 0: // a catch-up between two fenced nodes
		if !m.electing() {
			return
		}
		fit, fork = m.st.FitsTimeline(m.node.pos, claim)
		ok.Election, ok.App = m.st.Election.Index, cluster.ClonePrefix+string(mb.Name)
	case !m.isPrimary() || m.promise > ep.Epoch:
		return
	case m.pg.ReadWrite && !m.node.promotedHere: // not by us, as far as we know yet
		return
	case m.pg.ReadWrite:
		fit, fork = cluster.CheckAttach(m.st.Lineage(), ep.Timeline, e.Result.Flush, claim)
	case e.Result.Flush != 0: // out of recovery, by our promotion or, onto another timeline, by somebody's: the next look tells
		return
	default:
		fit, fork = cluster.CheckAttach(m.st.Lineage(), ep.Timeline, ep.Elected.LSN, claim)
	}
	switch fit {
	case cluster.FitPrefix:
		if t.Flush == 0 && claim.LSN < e.Result.Oldest {
			m.send(t.Peer, cluster.Envelope{Diverged: &cluster.Diverged{
				Epoch: ep.Epoch, Gone: true, Why: "wal is kept from " + e.Result.Oldest.String() + " on: nothing leads there from " + claim.LSN.String(),
			}})
			return
		}
		m.send(t.Peer, cluster.Envelope{AttachOK: ok})
	case cluster.FitDiverged:
		m.send(t.Peer, cluster.Envelope{Diverged: &cluster.Diverged{Epoch: ep.Epoch, Fork: fork, Why: "diverged at " + fork.String()}})
	case cluster.FitAhead:
		if !m.isPrimary() || !m.pg.ReadWrite {
			return
		}
		m.log(true, "a standby is ahead of this primary: it lost wal that it had flushed", "", string(mb.Name)+" at "+claim.String())
		if m.st.InSets(t.Peer) { // 5.5.d
			m.plan.down = &cluster.PgDown{Epoch: ep.Epoch, Why: "lost wal that " + string(mb.Name) + " has", Cause: cluster.CausePgDown}
			return
		}
		// Nobody may elect it. What this primary writes from now on would meet the other bytes there (11.1).
		why := "ahead of the primary, whose wal ends at " + fork.String() + ": it lost wal that it had flushed"
		m.send(t.Peer, cluster.Envelope{Diverged: &cluster.Diverged{Epoch: ep.Epoch, Fork: fork, Gone: true, Why: why}})
	}
}

func (m *Machine) attachAnswered(p *peer, a cluster.AttachOK) {
	n := &m.node
	if a.Epoch != m.epoch() || !n.known && !m.claims() || p.host == "" {
		return
	}
	switch {
	case n.catchUp != nil && p.inc == n.catchUp.Donor && a.Election == n.catchUp.Election:
	case p.inc == m.st.Primary() && !m.electing() && !m.isPrimary():
	default:
		return
	}
	n.ok, n.okHost, n.diverged, n.asking = &a, p.host, false, false
}

func (m *Machine) attachRefused(p *peer, d cluster.Diverged) {
	if d.Epoch == m.epoch() || d.Retry {
		m.node.asking = false
	}
	if p.inc == m.st.Primary() && d.Epoch == m.epoch() && !d.Retry && (m.node.known || m.claims()) && m.node.attached == 0 {
		m.node.diverged, m.node.walGone = !d.Gone, d.Gone
		m.log(true, "diverged", "", d.Why)
	}
}

// order points the upstream file at the primary. From the moment it is asked for, nothing is known of our end of WAL.
func (m *Machine) order() {
	n := &m.node
	if m.promise < m.epoch() { // before it follows E its promise is at least E (5.5.b)
		m.promiseTo(m.epoch())
		return
	}
	p := m.peer(m.st.Primary())
	if p == nil || n.ok == nil {
		return
	}
	ok := n.ok
	m.ordered(p)
	m.run(Task{
		Kind: TaskOrder, Limit: 5 * time.Second, Host: n.okHost, Port: ok.Port, App: ok.App, Timeline: ok.Timeline,
		Lineage: m.st.Lineage(), Slots: m.slots(), Tight: m.space.Tight(), LetGo: m.letGoToFollow(ok.Timeline),
	})
}

// startRecovery starts Postgres parked, or, for a new copy whose claim the primary has accepted, under that order: a
// rewound directory is consistent only once it has the source's WAL of the time of the rewind.
func (m *Machine) startRecovery() {
	n := &m.node
	t := Task{Kind: TaskRecovery, Limit: time.Hour, Slots: m.slots()}
	if fit, _ := m.st.FitsState(n.pos, 0); n.known && fit == cluster.FitPrefix && !m.electing() {
		t.Timeline, t.Lineage = m.st.Epoch().Timeline, m.st.Lineage()
	}
	if p := m.peer(m.st.Primary()); n.cloned && n.ok != nil && p != nil && !m.electing() {
		if m.promise < m.epoch() {
			m.promiseTo(m.epoch())
			return
		}
		t.Host, t.Port, t.App = n.okHost, n.ok.Port, n.ok.App
		n.claim = false
		m.ordered(p)
	}
	if m.isPrimary() && t.Timeline != 0 {
		m.plug(&t)
	}
	m.run(t)
}

// plug: before anybody follows a Postgres that has still to be promoted, it cannot leave recovery onto another timeline
// than that of the epoch, whoever promotes it (PROTOCOL 5.6.b).
func (m *Machine) plug(t *Task) {
	if e := m.st.Epoch(); e.Elected.Timeline != 0 {
		t.Timeline, t.Parent = e.Timeline, e.Elected.Timeline
	}
}

// ordered: from here on the upstream file is, or is about to be, that of the agreement with p.
func (m *Machine) ordered(p *peer) {
	n := &m.node
	n.attached, n.attachHost, n.attachBoot, n.known, n.ok, n.asks = m.epoch(), n.okHost, p.boot, false, nil, 0
	n.attachAt, n.silentAt, n.asking = m.now, 0, false
	delete(m.proposed, "watch")
}

func (m *Machine) detached(p *peer, d cluster.Detach) {
	if p.inc == m.st.Primary() && d.Epoch == m.epoch() && m.node.attached == m.epoch() {
		m.node.broken, m.node.known = true, false
		m.log(false, "upstream asks to detach", "", d.Why)
	}
}

// watchOrder: for some time replay has wanted WAL and no receiver streamed (PROTOCOL 5.5.c).
func (m *Machine) watchOrder() {
	n := &m.node
	if n.attached == 0 || !m.pg.Running || m.taskIs(TaskOrder) || n.catchUp != nil && m.electing() {
		n.silentAt = 0
		m.catchUpReached()
		return
	}
	if m.pg.Streaming {
		n.silentAt, n.vain = 0, 0
		return
	}
	if !m.pg.WantsWAL {
		n.silentAt = 0
		return
	}
	if n.silentAt == 0 {
		n.silentAt = m.now
	}
	p := m.peer(m.st.Primary())
	if m.now >= n.silentAt+min(silence<<min(n.vain, 10), silenceMost) && !n.broken && p != nil && p.linked() {
		n.vain++
		n.broken, n.known, n.silentAt = true, false, 0
	}
}

// rejoin makes the data directory one that can follow (PROTOCOL 8).
func (m *Machine) rejoin(a cluster.NodeAct) {
	n := &m.node
	p := m.source()
	if a == cluster.ActClone {
		p = m.cloneFrom()
	}
	if p == nil {
		return
	}
	if m.pg.Running {
		m.run(Task{Kind: TaskStop, Limit: 30 * time.Second})
		return
	}
	ep := m.st.Epoch()
	t := Task{
		Kind: TaskClone, Limit: 24 * time.Hour, Host: p.host, Port: p.status.Port, System: m.st.System,
		Timeline: ep.Timeline, Lineage: m.st.Lineage(), Floor: m.newFloor(),
	}
	if a == cluster.ActRewind {
		t.Kind, t.Limit = TaskRewind, time.Hour
		if n.known {
			_, t.Flush = m.st.FitsState(n.pos, 0) // where the histories part: what is behind is saved
		}
	}
	n.known = false
	if a == cluster.ActClone {
		m.log(false, "cloning", m.rule, "from "+string(m.st.NameOf(p.inc)))
	}
	m.run(t)
}

// newFloor is the old end of WAL cut to the current lineage (PROTOCOL 8.4): what this incarnation may have
// acknowledged, and must have again before it claims a position.
func (m *Machine) newFloor() cluster.Position {
	n := &m.node
	if !n.known || n.pos.Timeline == 0 {
		return n.floor
	}
	return m.raised(n.pos)
}

// raised is the floor of a node that held everything up to end.
func (m *Machine) raised(end cluster.Position) cluster.Position {
	if fit, fork := m.st.FitsState(end, 0); fit == cluster.FitDiverged {
		end.LSN = min(end.LSN, fork)
		end.Timeline = m.st.TimelineAt(end.LSN, end.Timeline)
	}
	if floor := m.node.floor; end.Compare(floor) < 0 {
		return floor
	}
	return end
}

// before is where WAL of a foreign timeline left the cluster's own: up to there the node may have acknowledged it. Without
// the history it is taken for all that is there.
func (m *Machine) before(r Result) cluster.Position {
	for _, h := range slices.Backward(r.History) {
		if m.st.Assigned(h.Timeline) {
			return cluster.Position{Timeline: h.Timeline, LSN: h.Switch}
		}
	}
	return r.Position
}

func (m *Machine) catchUpAsked(c cluster.CatchUp) {
	if m.electing() && c.Election == m.st.Election.Index && m.fenced() >= m.st.Election.Epoch {
		m.node.catchUp, m.node.ok, m.node.asks, m.node.askedAt = &c, nil, 0, 0
		m.ask()
	}
}

// catchUpLimit is how long a taker streams from its donor before it says how far it came.
const catchUpLimit = 5 * time.Second

// catchingUp: the order in force is that of a catch-up in the open election.
func (m *Machine) catchingUp() bool { return m.node.catchUp != nil && m.node.catching && m.electing() }

// orderCatchUp streams from the donor under a name in no list, both of us fenced (PROTOCOL 5.4.c).
func (m *Machine) orderCatchUp() {
	n := &m.node
	ok := n.ok
	if ok == nil {
		m.ask()
		return
	}
	n.attached, n.known, n.ok, n.catching = m.epoch(), false, nil, true
	n.attachAt = m.now
	m.run(Task{Kind: TaskOrder, Limit: 5 * time.Second, Host: n.okHost, Port: ok.Port, App: ok.App, Tight: m.space.Tight()})
}

// catchUpReached parks again when the donor's end is here: the fence that follows reads the new position.
func (m *Machine) catchUpReached() {
	n := &m.node
	if n.catchUp == nil || n.attached == 0 || !m.electing() || m.taskIs(TaskOrder) || m.task != nil {
		return
	}
	if m.pg.Position.LSN >= n.catchUp.End.LSN || m.now > n.attachAt+catchUpLimit {
		n.catchUp, n.catching = nil, false
		m.run(Task{Kind: TaskFence, Limit: 5 * time.Second})
	}
}
