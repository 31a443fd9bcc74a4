// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"slices"

	"github.com/pgquorum/pgquorum/cluster"
)

func (m *Machine) taskIs(k TaskKind) bool { return m.task != nil && m.task.Kind == k }

func (m *Machine) sideIs(k TaskKind) bool {
	return slices.ContainsFunc(m.side, func(r *running) bool { return r.Kind == k })
}

// run starts a task unless one of its kind, or of the exclusive ones, is running.
func (m *Machine) run(t Task) {
	if t.Kind.beside() || m.task == nil {
		m.start(t)
	}
}

func (m *Machine) start(t Task) {
	m.idSeq++
	t.ID, t.Epoch = m.idSeq, m.epoch()
	r := &running{Task: t, began: m.now}
	if t.Kind.beside() {
		m.side = append(m.side, r)
	} else {
		m.task, m.note = r, ""
	}
	m.do(Run{Task: t})
}

// taskDone takes the end of a task. A task that was pre-empted still ends, and then only says that it did.
func (m *Machine) taskDone(e Done) {
	if m.task != nil && m.task.ID == e.ID {
		t := m.task
		m.task, m.note = nil, ""
		m.finished(t, e)
		return
	}
	i := slices.IndexFunc(m.side, func(r *running) bool { return r.ID == e.ID })
	if i < 0 {
		return
	}
	t := m.side[i]
	m.side = slices.Delete(m.side, i, i+1)
	if t.Kind.beside() {
		m.sideDone(t, e)
	}
}

func (m *Machine) finished(t *running, e Done) {
	if m.st == nil {
		return
	}
	if e.Err != nil {
		m.taskFailed(t, e)
		return
	}
	n := &m.node
	if t.Kind != TaskLook && t.Kind != TaskKill {
		n.failures, n.retryAt, n.failed = 0, 0, ""
	}
	n.timings = append(n.timings, cluster.NamedDuration{Name: string(t.Kind), MS: (m.now - t.began).Milliseconds()})
	if len(n.timings) > 16 {
		n.timings = n.timings[1:]
	}
	m.log(false, "task done", m.rule, string(t.Kind)+" in "+(m.now-t.began).String())
	r := e.Result
	switch t.Kind {
	case TaskKill:
		m.killed = true
		m.stoppedRunning()
		n.known = false
	case TaskStop:
		m.stoppedRunning()
		m.takeDisk(r)
	case TaskFence:
		n.attached, n.broken, n.ok = 0, false, nil
		m.takePosition(r)
	case TaskLook, TaskInit:
		m.takeDisk(r)
	case TaskPrepare:
		m.takeDisk(r)
		n.initialized, n.base = r.System != 0, r.Base
	case TaskRecovery:
		m.pg = Facts{Running: true}
		n.fresh, n.cloned = false, false
		if t.Host == "" {
			n.attached = 0
		}
	case TaskPrimary, TaskPromote:
		m.becamePrimary(t, r)
	case TaskAdmit:
		m.admitted()
	case TaskSettle:
		d, _ := m.st.ListedD()
		if t.Epoch == m.epoch() && m.st.Pending != nil && slices.Equal(t.Settings.Names, m.settings().Names) {
			n.settledX = &cluster.SettleD{Epoch: t.Epoch, From: m.opt.Self, X: d, Barrier: r.Barrier}
		}
	case TaskOrder:
		n.attachAt = m.now
		n.silentAt = 0
	case TaskClone, TaskRewind:
		m.stoppedRunning()
		n.disk, n.system, n.diskTL = cluster.DiskPresent, m.st.System, r.DiskTL
		n.pos, n.known, n.claim, n.unreadable = r.Position, r.Known, r.Claim, !r.Known && !r.Claim
		n.walGone = false
		n.diverged, n.noRewind, n.cloned, n.confirmed, n.ok, n.asks = false, false, true, false, nil, 0
		n.foreignWAL, n.cloneFailed = false, false
		n.floor, n.seen = t.Floor, cluster.Position{}
	case TaskHandover, TaskPreparePlan:
		m.handoverDone(t, r)
	case TaskVet, TaskWatchFlush, TaskKeepHouse, TaskFirstChkpt, TaskConfirmClone, TaskResume, TaskCloseGate, TaskOpenGate, TaskMakeBallast:
	}
}

func (m *Machine) becamePrimary(t *running, r Result) {
	n := &m.node
	m.pg = Facts{Running: true, ReadWrite: true}
	n.fresh, n.known, n.attached = false, false, 0
	n.flush = r.Flush // what standbys told while it was on its way counts
	n.highestTL = max(n.highestTL, m.st.Epoch().Timeline)
	if t.Kind == TaskPromote && t.Epoch == m.epoch() {
		n.promotedHere, n.promoted = true, r
		delete(m.proposed, "promoted")
	}
	if t.Kind == TaskPrimary {
		n.checkpoint = true // the end of recovery wrote one on this timeline
		n.promotedHere = true
	}
	m.houseAt = 0
}

func (m *Machine) admitted() {
	m.node.serving = true
	m.statusAt = 0
	m.lead.served()
	m.do(Propose{Command: cluster.Command{Admitted: &cluster.Admitted{
		Epoch: m.epoch(), From: m.opt.Self,
		Timings: slices.Clone(m.node.timings),
	}}})
}

func (m *Machine) takeDisk(r Result) {
	n := &m.node
	if r.Disk != "" {
		n.disk, n.system, n.diskTL = r.Disk, r.System, r.DiskTL
	}
	m.takePosition(r)
}

func (m *Machine) takePosition(r Result) {
	n := &m.node
	n.highestTL = max(n.highestTL, r.HighestTL)
	n.pos, n.known = r.Position, r.Known
	if r.DiskTL != 0 {
		n.diskTL = r.DiskTL
	}
	n.diverged, n.ok, n.asks, n.claim, n.unreadable = false, nil, 0, r.Claim, !r.Known && !r.Claim
	m.pg.Backlog = r.Backlog
	if n.foreignWAL = !m.st.Assigned(n.pos.Timeline) || !m.st.Assigned(n.diskTL); n.foreignWAL {
		n.known, n.claim = false, false
		n.floor = m.raised(m.before(r))
		m.log(true, "foreign timeline", "", fmt.Sprintf("the data are at %s, control file on timeline %d, which no election assigned: somebody promoted this Postgres by hand",
			n.pos, n.diskTL))
	}
	delete(m.proposed, "report of position")
}

func (m *Machine) taskFailed(t *running, e Done) {
	n := &m.node
	m.log(true, "task failed", m.rule, string(t.Kind)+": "+e.Err.Error())
	m.note = ""
	n.failed = string(t.Kind) + ": " + e.Err.Error()
	m.backoff()
	switch t.Kind {
	case TaskKill: // nothing else may happen before it worked
		m.start(Task{Kind: TaskKill, Limit: t.Limit})
	case TaskPromote, TaskPrimary:
		if t.Epoch == m.epoch() {
			n.gaveUp = nil
			m.promiseTo(m.epoch() + 1)
			n.promoteTried = true
			m.decision.Why = string(t.Kind) + ": " + e.Err.Error()
		}
		m.pg.Running, m.pg.ReadWrite = true, true // whatever is left of it
		m.kill()
		m.plan.down = &cluster.PgDown{Epoch: t.Epoch, Why: m.decision.Why, Cause: cluster.CausePgDown}
	case TaskRecovery:
		m.pg.Running = true // whatever is left of it
		m.kill()
	case TaskFence: // unknown position; tried again
		n.known = false
	case TaskOrder:
		n.broken, n.known = true, false
	case TaskRewind:
		n.noRewind = !m.opt.Rejoin.NoClone // else there is nothing but to try again
		n.disk, n.known = cluster.DiskUnknown, false
	case TaskClone, TaskInit, TaskPrepare, TaskLook:
		n.cloneFailed = t.Kind == TaskClone && !n.cloneFailed
		n.disk, n.known = cluster.DiskUnknown, false
	case TaskHandover, TaskPreparePlan:
		m.handoverFailed(e.Err)
	case TaskStop:
		m.kill()
	case TaskAdmit, TaskSettle:
	case TaskVet, TaskWatchFlush, TaskKeepHouse, TaskFirstChkpt, TaskConfirmClone, TaskResume, TaskCloseGate, TaskOpenGate, TaskMakeBallast:
	}
}

func (m *Machine) sideDone(t *running, e Done) {
	if e.Err != nil && t.Kind != TaskWatchFlush {
		m.log(true, "task failed", "", string(t.Kind)+": "+e.Err.Error())
	}
	switch t.Kind {
	case TaskVet:
		m.vetted(t, e)
	case TaskFirstChkpt:
		m.node.checkpoint = e.Err == nil && t.Epoch == m.epoch()
		m.statusAt = 0
	case TaskConfirmClone:
		m.node.confirmed = e.Err == nil
	case TaskCloseGate, TaskOpenGate:
		m.gateMoved(t, e)
	default:
	}
}
