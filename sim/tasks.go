// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/raft"
)

// job is a task that runs.
type job struct {
	l     *life
	t     agent.Task
	ended bool
	// cancelled: a Postgres that it has not started by now, it does not start
	cancelled bool
	pos       cluster.Position // of a mutant: the end of WAL when a fence began
}

func (j *job) finish(r agent.Result, err error) {
	if j.ended {
		return
	}
	j.ended = true
	delete(j.l.jobs, j.t.ID)
	if !quiet(j.t.Kind) || err != nil {
		j.l.trace("task %d %s ends: %v %s", j.t.ID, j.t.Kind, err, describe(r))
	}
	j.l.post(agent.Done{ID: j.t.ID, Err: err, Result: r})
}

func describe(r agent.Result) string {
	return fmt.Sprintf("disk=%s tl=%d pos=%s known=%v flush=%s", r.Disk, r.DiskTL, r.Position, r.Known, r.Flush)
}

func quiet(k agent.TaskKind) bool {
	return k == agent.TaskKeepHouse || k == agent.TaskVet || k == agent.TaskWatchFlush
}

// watching lists the jobs that watch the flushed end, in order.
func (l *life) watching() []*job {
	var js []*job
	for _, j := range l.jobs {
		if j.t.Kind == agent.TaskWatchFlush && !j.ended {
			js = append(js, j)
		}
	}
	slices.SortFunc(js, func(a, b *job) int { return int(a.t.ID) - int(b.t.ID) })
	return js
}

// do carries out an action of the machine.
func (l *life) do(a agent.Action) {
	w := l.w
	if w.watch != nil {
		w.watch(l.n.name, a)
	}
	switch a := a.(type) {
	case agent.Send:
		l.send(a)
	case agent.Propose:
		_ = l.core.Propose(a.Command.Encode())
		l.pumpSoon()
	case agent.ProposeConf:
		l.proposeConf(a.Change)
	case agent.Transfer:
		l.trace("raft: transfer to %s", w.nameOf(a.To))
		l.core.TransferLeader(uint64(a.To))
		l.pumpSoon()
	case agent.ForgetLeader:
		_ = l.core.ForgetLeader()
		if a.Campaign {
			_ = l.core.Campaign()
		}
		l.pumpSoon()
	case agent.SavePromise:
		w.check.promise(l, a.Epoch)
		l.fsync(byAgent, 200, 3000, func() {
			lost := l.vol.broken()
			if lost && w.opt.Mutant != MutantFsync {
				l.diskFailed("promise")
				return
			}
			if !lost && w.opt.Mutant != MutantPromise {
				l.vol.promise = max(l.vol.promise, a.Epoch)
			}
			l.post(agent.PromiseSaved(a))
		})
	case agent.Run:
		l.run(a.Task)
	case agent.Cancel:
		if j := l.jobs[a.ID]; j != nil {
			j.cancelled = true
			l.after(byAgent, w.us(100, 2000), func() { j.finish(agent.Result{}, errCancelled) })
		}
	case agent.Deadline:
		l.extend(a.At)
	case agent.Answer:
		l.trace("answer: %v %s", a.Response.OK, a.Response.Msg)
	case agent.Exit:
		l.end(true)
	case agent.Log:
		if a.Rule != "" && a.Msg != "state changed" && a.Msg != "task done" {
			l.note("%s %s %s [epoch %d]", a.Msg, a.Rule, a.Reason, a.Epoch)
		} else {
			l.trace("%s %s %s [epoch %d]", a.Msg, a.Rule, a.Reason, a.Epoch)
		}
	}
}

func (l *life) pumpSoon() { l.after(byAgent, l.w.us(10, 50), l.pumpRaft) }

func (l *life) send(a agent.Send) {
	env := a.Env
	env.ClusterID, env.From, env.Boot = l.clusterID(), l.vol.inc, l.boot
	l.w.check.sent(l, env)
	l.w.net.send(l, a.To, frame{env: &env})
}

func (l *life) run(t agent.Task) {
	j := &job{l: l, t: t}
	l.jobs[t.ID] = j
	if !quiet(t.Kind) {
		l.trace("task %d %s: epoch %d timeline %d host %s app %s names %v k %d", t.ID, t.Kind, t.Epoch, t.Timeline, t.Host, t.App, t.Settings.Names, t.Settings.K)
	}
	l.after(byAgent, t.Limit, func() {
		if t.Kind == agent.TaskWatchFlush {
			j.finish(agent.Result{}, nil)
		}
		j.finish(agent.Result{}, errTimeout)
	})
	j.begin()
}

// later does the next step of a job unless it has ended.
func (j *job) later(from, to int64, fn func()) {
	j.l.after(byAgent, j.l.w.us(from, to), func() {
		switch {
		case j.ended:
		case j.l.held[byPostgres] && j.l.pg != nil && j.t.Kind != agent.TaskKill: // it does not answer
			j.later(1000, 20000, fn)
		default:
			fn()
		}
	})
}

func (j *job) begin() {
	l := j.l
	if l.w.faults && !quiet(j.t.Kind) && j.t.Kind != agent.TaskKill && l.w.chance(0.01) {
		j.later(1000, 100000, func() { j.finish(agent.Result{}, errors.New("injected failure")) })
		return
	}
	switch j.t.Kind {
	case agent.TaskKill:
		j.kill()
	case agent.TaskStop:
		j.stop()
	case agent.TaskFence:
		j.fence()
	case agent.TaskLook:
		j.later(500, 15000, func() { j.finish(l.look(), nil) })
	case agent.TaskInit:
		j.later(500000, 1500000, j.init)
	case agent.TaskPrepare:
		j.later(10000, 200000, func() { j.finish(l.look(), nil) })
	case agent.TaskRecovery:
		j.later(20000, 150000, func() { j.start(false) })
	case agent.TaskPrimary:
		j.later(20000, 150000, func() { j.start(true) })
	case agent.TaskPromote:
		j.promote()
	case agent.TaskAdmit:
		j.later(1000, 8000, j.admit)
	case agent.TaskSettle:
		j.later(2000, 20000, j.settle)
	case agent.TaskOrder:
		j.later(500, 4000, j.order)
	case agent.TaskClone, agent.TaskRewind:
		j.rejoin()
	case agent.TaskHandover:
		j.handover()
	case agent.TaskPreparePlan, agent.TaskFirstChkpt:
		j.later(10000, 300000, j.checkpoint)
	case agent.TaskVet:
		j.later(300, 5000, j.vet)
	case agent.TaskWatchFlush:
		j.later(200, 2500, j.watch)
	case agent.TaskResume:
		j.later(500, 5000, j.resume)
	case agent.TaskMakeBallast:
		j.later(1000, 100000, func() { j.finish(agent.Result{}, j.l.vol.disk.makeBallast()) })
	case agent.TaskKeepHouse, agent.TaskConfirmClone, agent.TaskCloseGate, agent.TaskOpenGate:
		j.later(500, 5000, func() { j.finish(agent.Result{}, nil) })
	}
}

var errNotRunning = errors.New("postgres is not running")

func (l *life) look() agent.Result {
	d := l.vol.pg
	r := agent.Result{Disk: d.kind}
	if d.kind != cluster.DiskPresent {
		return r
	}
	r.System, r.DiskTL, r.HighestTL = d.system, d.controlTL, d.highest
	if l.pg != nil && l.w.opt.Mutant == MutantFiles {
		r.Known, r.Position = true, d.end()
		return r
	}
	if l.pg != nil {
		return r
	}
	d.flushed = len(d.recs) // its files are fsynced before they are read (5.2.f)
	r.Known, r.Position, r.History = true, d.end(), d.history()
	l.w.opt.Mutant.position(l, &r)
	return r
}

func (j *job) init() {
	j.l.vol.pg.made(j.l.w)
	j.finish(j.l.look(), nil)
}

// made is what initdb leaves.
func (d *pgDisk) made(w *World) {
	*d = pgDisk{kind: cluster.DiskPresent, system: cluster.SystemID(w.rng.Uint64()>>1 + 1), controlTL: 1, highest: 1}
	d.recs = []rec{{tl: 1, end: 0x1500000, uid: w.nextUID()}}
	d.flushed = 1
}

// stop is a clean shutdown; a primary writes its last record and sends it to whoever still streams.
func (j *job) stop() {
	l := j.l
	j.later(5000, 60000, func() {
		p := l.pg
		if p == nil {
			j.finish(l.look(), nil)
			return
		}
		p.lastRecord() // the product ends the WAL senders that hold the stop up
		j.later(5000, 50000, func() {
			l.pgGone("stopped")
			j.finish(l.look(), nil)
		})
	})
}

func (j *job) start(rw bool) {
	l := j.l
	d := l.vol.pg
	switch {
	case j.cancelled:
		j.finish(agent.Result{}, errCancelled)
		return
	case l.pg != nil:
		j.finish(agent.Result{}, errors.New("postgres is running"))
		return
	case l.vol.broken():
		j.finish(agent.Result{}, errDisk)
		return
	case d.kind != cluster.DiskPresent:
		l.w.check.fail("I8", "%s starts postgres on a directory that is %s", l.n.name, d.kind)
		return
	}
	d.flushed = len(d.recs)
	j.letGo()
	l.up = upstreamFile{}
	if !d.bare { // a start needs those below, and no others
		d.plugged = d.end().Timeline + 1
		if l.w.opt.Mutant == MutantGap {
			d.plugged = 0
		}
	}
	p := l.pgStart(rw)
	if !rw {
		j.plug()
		if j.t.Host != "" { // a new copy is started under its order
			l.ordered(upstreamFile{host: j.t.Host, app: j.t.App})
		}
		j.finish(agent.Result{}, nil)
		return
	}
	l.w.check.restarted(l, l.vol.served)
	l.vol.served = true
	p.epoch, p.armed = j.t.Epoch, j.t.Settings.K > 0
	p.tell(j.t.Settings)
	l.w.check.readWrite(l, j.t)
	r := p.write(d.end().Timeline, 0)
	p.began = r
	d.flushed = len(d.recs)
	d.controlTL = r.tl
	j.finish(agent.Result{Flush: r.end}, nil)
}

// plug is what stub history files do: this Postgres can leave recovery only onto the epoch's timeline (PROTOCOL 5.6.b).
func (j *job) plug() {
	if j.t.Parent != 0 {
		j.l.vol.pg.plugged = j.t.Timeline
	}
}

func (p *postgres) tell(s agent.Settings) {
	p.names, p.k, p.async, p.rounds = s.Names, s.K, s.Async, 0
	if p.w.opt.Mutant == MutantEmpty && !p.gate && p.k > 0 { // it is written when the first client has come
		k := p.k
		p.k = 0
		p.l.after(byPostgres, 300*time.Millisecond, func() { p.k = k })
	}
	p.armed = p.armed && p.k > 0
	if p.k == 0 { // else a wait ends with the next reply of a standby
		p.release()
	}
}

func (j *job) promote() {
	l := j.l
	l.vol.served = true
	slow := int64(1)
	if l.w.faults && l.w.chance(0.03) {
		slow = 200
	}
	j.later(3000, 12000, func() {
		p := l.pg
		if p == nil {
			j.finish(agent.Result{}, errNotRunning)
			return
		}
		p.endSessions()
		p.unblock() // readers are sessions
		p.tell(j.t.Settings)
		j.letGo()
		p.epoch = j.t.Epoch // its names are
		j.plug()
		j.later(8000*slow, 40000*slow, func() {
			if p.dead {
				j.finish(agent.Result{}, errNotRunning)
				return
			}
			if l.vol.disk.free() < promoteNeeds { // the startup process ends, and Postgres with it (E15)
				l.pgExits("no space left on device")
				j.finish(agent.Result{}, errDisk)
				return
			}
			r, err := p.promote(j.t.Timeline, j.t.Elected, j.t.Epoch)
			if err == nil {
				l.w.check.readWrite(l, j.t)
				p.maybeCheckpoint()
				if l.w.faults && l.w.chance(0.01) {
					err = errors.New("promoted, and the connection broke")
				}
			}
			j.finish(r, err)
		})
	})
}

// letGo deletes the ballast if the machine says so.
func (j *job) letGo() {
	if j.t.LetGo {
		j.l.note("ballast let go")
		j.l.vol.disk.letGo()
	}
}

func (j *job) admit() {
	p := j.l.pg
	if p == nil || !p.rw || p.stop {
		j.finish(agent.Result{}, errNotRunning)
		return
	}
	p.gate = true
	j.l.note("gate open: epoch %d", p.epoch)
	j.l.w.check.admitted(p)
	j.finish(agent.Result{}, nil)
}

func (j *job) settle() {
	p := j.l.pg
	if p == nil || !p.rw {
		j.finish(agent.Result{}, errNotRunning)
		return
	}
	p.tell(j.t.Settings)
	m := j.l.w.opt.Mutant
	if p.k == 0 || p.async || m == MutantBarrier {
		j.finish(agent.Result{Barrier: p.d.end().LSN}, nil)
		return
	}
	if !p.armed && m == MutantArmed { // some checkpoint will come
		j.l.after(byPostgres, j.l.w.us(500000, 5000000), func() { p.armed = true })
	}
	if p.armed || m == MutantArmed {
		j.barrier(p)
		return
	}
	j.later(5000, 300000, func() {
		p.checkpoint()
		p.checkpoint()
		j.barrier(p)
	})
}

func (j *job) barrier(p *postgres) {
	if p.dead {
		j.finish(agent.Result{}, errNotRunning)
		return
	}
	r := p.write(p.timeline(), 0)
	p.waiting = append(p.waiting, &commit{lsn: r.end, n: len(p.d.recs), free: !p.armed || p.async, done: func(ok bool) {
		if !ok {
			j.finish(agent.Result{}, errNotRunning)
			return
		}
		j.finish(agent.Result{Barrier: r.end}, nil)
	}})
}

func (j *job) vet() {
	p := j.l.pg
	if p == nil {
		j.finish(agent.Result{}, errNotRunning)
		return
	}
	j.plug()
	for _, s := range slices.Clone(p.senders) {
		if s.slot == j.t.Slot {
			s.ended = true
			s.close()
		}
	}
	j.later(100, 2000, func() {
		if p.dead {
			j.finish(agent.Result{}, errNotRunning)
			return
		}
		r := agent.Result{Oldest: p.d.oldest()}
		if p.rw {
			r.Flush = p.d.end().LSN
		}
		j.finish(r, nil)
	})
}

func (j *job) watch() {
	if j.l.pg == nil {
		j.finish(agent.Result{}, errNotRunning)
		return
	}
	if s := j.l.pg.recv; s != nil {
		j.l.flushSeen(s)
	}
}

func (j *job) resume() {
	if p := j.l.pg; p != nil && j.l.w.opt.Mutant != MutantReader {
		p.unblock()
	}
	j.finish(agent.Result{}, nil)
}

func (j *job) checkpoint() {
	p := j.l.pg
	if p == nil || !p.rw {
		j.finish(agent.Result{}, errNotRunning)
		return
	}
	p.checkpoint()
	j.finish(agent.Result{}, nil)
}

func (l *life) proposeConf(c cluster.MemberChange) {
	kind := raft.AddLearner
	switch c.Kind {
	case cluster.AddLearner:
	case cluster.AddVoter:
		kind = raft.AddVoter
	case cluster.Remove:
		kind = raft.Remove
	}
	_ = l.core.ProposeConf(raft.ConfChange{Type: kind, ID: uint64(c.Member.Inc), Context: c.Encode()})
	l.pumpSoon()
}
