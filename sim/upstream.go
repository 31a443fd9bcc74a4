// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"errors"
	"slices"
	"time"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/cluster"
)

// rejoin is a clone or a rewind.
func (j *job) rejoin() {
	l := j.l
	l.vol.floor = j.t.Floor
	d := l.vol.pg
	rewind := j.t.Kind == agent.TaskRewind
	source := func() *postgres { return l.upstream(j.t.Host) }
	j.later(5000, 100000, func() {
		p := source()
		if p == nil || l.pg != nil {
			j.finish(agent.Result{}, errors.New("source is not reachable, or postgres runs"))
			return
		}
		if rewind && l.w.opt.Mutant != MutantRewind && p.d.controlTL != j.t.Timeline {
			j.finish(agent.Result{}, errors.New("the source's checkpoint is not done"))
			return
		}
		if rewind && d.nothingToRewind(p.d) {
			d.trusted = l.w.opt.Mutant == MutantRewind
			j.finish(l.look(), nil)
			return
		}
		d.working = rewind
		j.l.after(byAgent, l.w.us(50000, 1500000), func() {
			if !d.working && rewind {
				return
			}
			q := source()
			d.working = false
			if q != p || j.ended {
				if rewind {
					d.interrupted(l.w)
				}
				j.finish(agent.Result{}, errors.New("source is gone"))
				return
			}
			if rewind || !p.rw {
				d.becomes(p.d)
				j.finish(l.look(), nil)
				return
			}
			j.backedUp(p, p.switchWAL())
		})
	})
}

// backedUp: a base backup of a primary ends with a switch of the segment, and with the WAL up to there.
func (j *job) backedUp(source *postgres, end rec) {
	j.later(100, 1000, func() {
		switch d := j.l.vol.pg; {
		case source.dead:
			j.finish(agent.Result{}, errors.New("source is gone"))
		case source.d.end().LSN < end.end:
			j.backedUp(source, end)
		default:
			d.becomes(source.d)
			j.finish(j.l.look(), nil)
		}
	})
}

// nothingToRewind: pg_rewind of 15 compares the timelines of the control files, after it has recovered the target, and
// finds no difference before the source's first checkpoint on its own (S0.4). Those of 17 and 18 know better.
func (d *pgDisk) nothingToRewind(source *pgDisk) bool {
	d.controlTL = max(d.controlTL, d.posAt(len(d.recs)).Timeline)
	return d.controlTL == source.controlTL
}

// becomes makes a directory a copy of another, by a base backup or a rewind.
func (d *pgDisk) becomes(source *pgDisk) {
	*d = pgDisk{
		kind: cluster.DiskPresent, system: source.system, recs: slices.Clone(source.recs[:source.flushed]),
		flushed: source.flushed, controlTL: source.controlTL, highest: max(d.highest, source.highest), plugged: source.end().Timeline + 1,
	}
}

func (j *job) kill() {
	l := j.l
	if l.w.opt.Mutant == MutantNoKill {
		j.later(30000, 80000, func() { j.finish(agent.Result{}, nil) })
		return
	}
	if p := l.pg; p != nil && (l.w.opt.Mutant == MutantFiles || l.w.opt.Mutant == MutantPostm) {
		d := 60 * time.Millisecond
		if l.w.opt.Mutant == MutantPostm {
			d = 2 * time.Second
		}
		l.after(byPostgres, d, func() {
			if l.pg == p {
				l.pgGone("its last process has ended")
			}
		})
		j.later(500, 30000, func() { j.finish(agent.Result{}, nil) })
		return
	}
	j.later(100, 1500, func() {
		l.pgGone("killed")
		l.post(agent.Killed{ID: j.t.ID})
		j.later(30000, 80000, func() { j.finish(agent.Result{}, nil) })
	})
}

// fence is PROTOCOL 5.2.b: the file is parked, every WAL receiver born before ends, then the end of WAL is read.
func (j *job) fence() {
	l := j.l
	p := l.pg
	if p == nil {
		j.later(500, 1000, func() { j.finish(agent.Result{}, errNotRunning) })
		return
	}
	m := l.w.opt.Mutant
	if m == MutantPark { // parked when it is done
		l.after(byAgent, 30*time.Millisecond, func() { l.up = upstreamFile{} })
	} else {
		l.up = upstreamFile{}
	}
	early := m == MutantReport
	if early {
		j.later(100, 300, j.fenced)
	}
	j.pos = l.vol.pg.end()
	if p.child == nil && p.recv == nil {
		if !early {
			j.later(300, 2000, j.fenced)
		}
		return
	}
	l.after(byAgent, l.w.us(300, 6000), func() { l.endReceiver(p, j) })
}

// endReceiver is a SIGTERM: the receiver flushes what it has, says so, and exits; one inside an fsync ends that first.
func (l *life) endReceiver(p *postgres, j *job) {
	if p.dead {
		j.finish(agent.Result{}, errNotRunning)
		return
	}
	if l.w.opt.Mutant != MutantUntitled {
		p.child = nil
	}
	s := p.recv
	if l.w.opt.Mutant == MutantConninfo && !p.rereads() {
		s = nil
	}
	if s == nil {
		l.after(byAgent, l.w.us(10, 300), j.fenced)
		return
	}
	l.fsync(byPostgres, 10, 500, func() {
		if !p.dead {
			p.flushedTo(len(p.d.recs))
			s.quiet = true
			s.close()
		}
		l.after(byAgent, l.w.us(10, 300), j.fenced)
	})
}

// rereads: the startup process looks at primary_conninfo, and ends the receiver, when it wants more WAL (S0.2).
func (p *postgres) rereads() bool { return !p.paused && !p.reader }

// fenced ends the task with the position.
func (j *job) fenced() {
	l := j.l
	d := l.vol.pg
	r := agent.Result{HighestTL: d.highest}
	if l.pg == nil {
		j.finish(r, errNotRunning)
		return
	}
	if !l.w.opt.Mutant.fencesLate() {
		d.flushed = len(d.recs)
	}
	r.Known, r.Position = true, d.end()
	if l.w.opt.Mutant == MutantEarly {
		r.Position = j.pos
	}
	l.w.opt.Mutant.position(l, &r)
	j.finish(r, nil)
}

func (j *job) order() {
	l := j.l
	if l.pg == nil {
		j.finish(agent.Result{}, errNotRunning)
		return
	}
	j.letGo()
	l.ordered(upstreamFile{host: j.t.Host, app: j.t.App})
	j.finish(agent.Result{}, nil)
}

// ordered renames the ordered file into place.
func (l *life) ordered(f upstreamFile) {
	l.up = f
	l.w.check.ordered(l, f)
}

// handover is PROTOCOL 10.1.c to e.
func (j *job) handover() {
	l := j.l
	p := l.pg
	if p == nil {
		j.later(100, 200, func() { j.finish(agent.Result{}, errNotRunning) })
		return
	}
	j.later(3000, 12000, func() {
		if p.dead {
			j.finish(agent.Result{}, errNotRunning)
			return
		}
		for _, s := range slices.Clone(p.senders) {
			if s.slot != j.t.Slot {
				s.ended = true
				s.close()
			}
		}
		last := p.lastRecord()
		until := l.w.now + 2*time.Second
		var wait func()
		wait = func() {
			if !p.drained(last) && l.w.now < until && !p.dead {
				j.later(500, 2000, wait)
				return
			}
			l.pgGone("handed over")
			j.finish(l.look(), nil)
		}
		wait()
	})
}
