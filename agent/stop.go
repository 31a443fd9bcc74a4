// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// planState is a planned change of primary or a planned stop on its way (PROTOCOL 10).
type planState struct {
	leaving  bool // told to stop
	stopping bool
	hurry    bool // a second signal
	guard    guardState
	exited   bool
	stopAt   time.Duration

	phase   planPhase
	target  cluster.Incarnation
	began   time.Duration
	epoch   cluster.Epoch
	request *cluster.Request // to be answered
	from    cluster.Incarnation

	down *cluster.PgDown // the epoch is being given up for that reason
}

type planPhase uint8

const (
	planNone planPhase = iota
	planCheckpoint
	planClose    // waiting for the target to be close
	planHandover // stopping
	planElection // the election has been asked for
)

const (
	closeWait   = 5 * time.Second        // 10.1.b
	standbyWait = 200 * time.Millisecond // 10.3
	stackWait   = 3 * time.Second        // 10.3
	answerWait  = 15 * time.Second
)

func (p *planState) handover() bool {
	return p.phase == planCheckpoint || p.phase == planClose || p.phase == planHandover
}

// request carries out an operator's order, or passes it on to the node that can.
func (m *Machine) request(from cluster.Incarnation, r cluster.Request) {
	answer := func(ok bool, msg string) { m.answer(from, cluster.Response{ID: r.ID, OK: ok, Msg: msg}) }
	if m.st == nil {
		answer(false, "the cluster is not formed yet")
		return
	}
	if r.Op != "switchover" {
		answer(false, r.Op+" is not available yet")
		return
	}
	if !m.isPrimary() {
		p := m.peer(m.st.Primary())
		if from != m.opt.Self || m.electing() || p == nil || !p.linked() {
			answer(false, "there is no primary in reach of "+string(m.opt.Name)+"; nothing was done")
			return
		}
		m.send(p.inc, cluster.Envelope{Order: &r})
		return
	}
	target, why := m.target(r.Target)
	switch {
	case m.plan.phase != planNone && m.plan.epoch == m.epoch():
		answer(false, "a switchover is under way")
	case !m.node.serving:
		answer(false, "the primary is not serving yet; nothing was done")
	case target == 0:
		answer(false, why)
	default:
		m.beginHandover(target)
		m.plan.request, m.plan.from = &r, from
	}
}

func (m *Machine) answer(to cluster.Incarnation, r cluster.Response) {
	if to == m.opt.Self {
		m.do(Answer{Response: r})
		return
	}
	m.send(to, cluster.Envelope{OrderEnd: &r})
}

// target chooses who takes over: a member of the Set that streams and is not leaving itself.
func (m *Machine) target(name cluster.NodeName) (cluster.Incarnation, string) {
	var best *peer
	var bestFlush cluster.LSN
	for _, p := range m.peers {
		mb := m.st.Member(p.inc)
		if mb == nil || name != "" && mb.Name != name {
			continue
		}
		why, flush := m.whyNotTarget(p, mb)
		if why != "" {
			if name != "" {
				return 0, string(name) + " cannot take over: " + why + "; nothing was done"
			}
			continue
		}
		if best == nil || flush > bestFlush {
			best, bestFlush = p, flush
		}
	}
	switch {
	case best != nil:
		return best.inc, ""
	case name == m.opt.Name:
		return 0, string(name) + " is the primary already"
	case name != "":
		return 0, string(name) + " is not a member of this cluster"
	}
	return 0, "no standby can take over; nothing was done"
}

func (m *Machine) whyNotTarget(p *peer, mb *cluster.Member) (string, cluster.LSN) {
	switch {
	case !m.st.InSets(p.inc):
		return "not in the durability set", 0
	case !p.linked() || p.status == nil || m.now-p.statusAt > cluster.StatusFresh:
		return "not in reach", 0
	case p.leaving || p.status.Leaving:
		return "stopping", 0
	case !p.status.Eligible:
		return p.status.WhyNot, 0
	}
	name := cluster.SyncName(mb.Name, mb.Inc, m.epoch())
	for _, s := range m.pg.Senders {
		if s.App == name && s.State == "streaming" {
			return "", s.Flush
		}
	}
	return "not streaming", 0
}

func (m *Machine) beginHandover(target cluster.Incarnation) {
	m.plan.phase, m.plan.target, m.plan.began, m.plan.epoch = planCheckpoint, target, m.now, m.epoch()
	m.log(false, "switchover begins", "", "to "+string(m.st.NameOf(target)))
	m.run(Task{Kind: TaskPreparePlan, Limit: time.Minute})
}

// handoverStep carries a switchover on; an election that was opened meanwhile ends it.
func (m *Machine) handoverStep() {
	p := &m.plan
	if !m.isPrimary() || p.epoch != m.epoch() || m.promise > m.epoch() {
		p.phase = planNone
		return
	}
	if m.task != nil {
		if p.phase == planCheckpoint && !m.taskIs(TaskPreparePlan) && m.now > p.began+closeWait {
			m.handoverFailedSoft("the primary is busy: " + string(m.task.Kind))
		}
		return
	}
	switch p.phase {
	case planCheckpoint: // the checkpoint has not begun: another task was running
		m.run(Task{Kind: TaskPreparePlan, Limit: time.Minute})
	case planClose:
		mb := m.st.Member(p.target)
		q := m.peer(p.target)
		if mb == nil || q == nil {
			m.handoverFailedSoft("the target is gone")
			return
		}
		why, flush := m.whyNotTarget(q, mb)
		switch {
		case why == "" && flush+cluster.SegmentBytes > m.pg.Position.LSN:
			m.stopForTarget()
		case q.leaving: // a whole stack that stops: waiting would outlive the others, and with them the lease (10.3)
			m.handoverFailedSoft("the target is stopping too")
		case m.now > p.began+closeWait:
			m.handoverFailedSoft("the target does not catch up: " + why)
		}
	case planNone, planHandover, planElection:
	}
}

// stopForTarget is PROTOCOL 10.1.c to e.
func (m *Machine) stopForTarget() {
	m.plan.phase = planHandover
	m.node.serving = false
	for _, q := range m.peers {
		if q.inc != m.plan.target {
			m.send(q.inc, cluster.Envelope{Detach: &cluster.Detach{Epoch: m.epoch(), Why: "switchover"}})
		}
	}
	m.run(Task{Kind: TaskHandover, Limit: 6 * time.Second, Slot: cluster.SlotName(m.plan.target)})
}

func (m *Machine) handoverDone(t *running, r Result) {
	switch t.Kind {
	case TaskPreparePlan:
		if m.plan.phase == planCheckpoint {
			m.plan.phase = planClose
		}
	case TaskHandover:
		m.stoppedRunning()
		m.killed = true
		m.takePosition(r)
		m.plan.phase = planElection
		m.plan.down = &cluster.PgDown{Epoch: t.Epoch, Why: "handed over", Cause: cluster.CauseSwitchover, Target: m.plan.target}
	default:
	}
}

// handoverFailedSoft: nothing has been stopped yet; the primary goes on.
func (m *Machine) handoverFailedSoft(why string) {
	m.plan.phase = planNone
	m.log(true, "switchover failed", "", why)
	m.answerPlan(false, why+"; the primary goes on")
}

func (m *Machine) handoverFailed(err error) {
	if m.plan.phase == planHandover {
		m.pg.Running, m.pg.ReadWrite = true, true
		m.kill()
		m.handoverCutOff(err.Error())
		return
	}
	m.handoverFailedSoft(err.Error())
}

// handoverCutOff: it is half stopped, and there is no way back: the others elect.
func (m *Machine) handoverCutOff(why string) {
	m.plan.phase = planElection
	m.plan.down = &cluster.PgDown{Epoch: m.plan.epoch, Why: why, Cause: cluster.CauseSwitchover, Target: m.plan.target}
}

func (m *Machine) answerPlan(ok bool, msg string) {
	if m.plan.request != nil {
		m.answer(m.plan.from, cluster.Response{ID: m.plan.request.ID, OK: ok, Msg: msg})
		m.plan.request = nil
	}
}

// planFollowUp gives the epoch up when a plan says so, and answers the operator when the next primary serves.
func (m *Machine) planFollowUp() {
	p := &m.plan
	if d := p.down; d != nil {
		switch {
		case d.Epoch != m.epoch() || m.electing() || !m.isPrimary():
			p.down = nil
		case m.node.gaveUp == nil && !m.killing():
			c := *d
			m.giveUp(&c)
		}
	}
	if p.phase != planElection {
		return
	}
	if m.epoch() > p.epoch && !m.electing() {
		q := m.peer(m.st.Primary())
		if m.isPrimary() || q != nil && q.status != nil && q.status.Serving && q.status.Epoch == m.epoch() {
			p.phase = planNone
			m.answerPlan(m.st.Primary() == p.target, string(m.st.NameOf(m.st.Primary()))+" is the primary now")
		}
	}
	if m.now > p.began+answerWait {
		p.phase = planNone
		m.answerPlan(false, "the election takes long; see the status")
	}
}

// stopAsked: SIGTERM or SIGINT. A second one skips the hand-over.
func (m *Machine) stopAsked() {
	if m.st == nil {
		m.exit(0)
		return
	}
	if m.plan.leaving || m.plan.guard.on {
		m.plan.hurry = true
	}
	if !m.plan.leaving && (m.plan.hurry || m.guardStop()) {
		m.leave()
	}
}

// leave begins a planned stop that waits for nobody any more.
func (m *Machine) leave() {
	m.plan.guard.on = false
	m.plan.leaving, m.plan.stopping, m.plan.stopAt = true, true, m.now
	primary := m.isPrimary()
	for _, p := range m.peers {
		m.send(p.inc, cluster.Envelope{Leaving: &cluster.Leaving{Primary: primary}})
	}
	m.statusAt = 0
	if m.leading() {
		for _, p := range m.peers {
			if p.linked() && !p.leaving && m.st.IsVoter(p.inc) {
				m.do(Transfer{To: p.inc})
				break
			}
		}
	}
	if primary && m.node.serving && !m.plan.handover() && !m.plan.hurry {
		if t, _ := m.target(""); t != 0 {
			m.beginHandover(t)
		}
	}
}

// stopStep carries a planned stop on; true: nothing else may be done.
func (m *Machine) stopStep() bool {
	p := &m.plan
	if p.exited {
		return true
	}
	late := p.hurry || m.now > p.stopAt+m.opt.StopTimeout
	switch {
	case m.taskIs(TaskStop) && m.task.Patience > 0 && late:
		m.task.Patience = 0
		m.do(Cancel{ID: m.task.ID}) // of the patience: it goes on with a fast stop
		return true
	case m.taskIs(TaskStop) || m.taskIs(TaskKill):
		return true
	case late:
	case p.handover():
		return false
	case p.phase == planElection || m.electing() && m.killed: // until somebody else is elected
		if m.someoneStays() && (m.electing() || m.epoch() <= p.epoch || m.isPrimary()) {
			return false
		}
	case !m.isPrimary() && m.now < p.stopAt+m.standbyPatience():
		return false
	}
	if m.task != nil && !late {
		return true
	}
	if m.pg.Running {
		if late && m.task != nil {
			m.kill()
		} else {
			m.run(m.lastStop(late))
		}
		return true
	}
	m.exit(0)
	return true
}

// lastStop is the stop of Postgres at the end of a planned stop. PGQUORUM_STOP_MODE=smart leaves sessions the rest of
// the budget, but for the second that the fast stop after it needs.
func (m *Machine) lastStop(late bool) Task {
	t := Task{Kind: TaskStop, Limit: 10 * time.Second}
	if left := m.plan.stopAt + m.opt.StopTimeout - m.now - time.Second; m.opt.StopSmart && !late && left > 0 {
		t.Patience = left
		t.Limit += left
	}
	return t
}

// someoneStays: a linked node has not been told to stop. Without one nobody will be elected (PROTOCOL 10.3).
func (m *Machine) someoneStays() bool {
	return slices.ContainsFunc(m.peers, func(p *peer) bool { return p.linked() && !p.leaving && m.st.IsVoter(p.inc) })
}

// standbyPatience is how long a standby stays up for others that leave too (PROTOCOL 10.3).
func (m *Machine) standbyPatience() time.Duration {
	for _, p := range m.peers {
		if p.linked() && p.leaving && (p.leavingP || p.inc == m.st.Primary()) {
			return stackWait
		}
	}
	return standbyWait
}

func (m *Machine) exit(code int) {
	if !m.plan.exited {
		m.plan.exited = true
		m.do(Exit{Code: code})
	}
}
