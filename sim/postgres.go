// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/cluster"
)

// rec is a record of write-ahead log. Two histories are the same up to a record when both hold its uid there.
type rec struct {
	tl  cluster.Timeline
	end cluster.LSN
	uid uint64
	id  uint64 // of a client's transaction; zero: something else
}

// pgDisk is a data directory.
type pgDisk struct {
	kind      cluster.DiskKind
	system    cluster.SystemID
	recs      []rec
	flushed   int // how many are on disk
	controlTL cluster.Timeline
	highest   cluster.Timeline
	working   bool             // a rewind or an init is changing it
	trusted   bool             // by a mutant: a rewind that did nothing
	viewTL    cluster.Timeline // what pg_stat_wal_receiver last said (S0.8)
	removed   int              // WAL before this record is not kept any more
	plugged   cluster.Timeline // the numbers below this one have history files or stubs
	bare      bool             // nobody looks after them at a start
}

func (d *pgDisk) interrupted(w *World) {
	if w.opt.Mutant == MutantMarker { // some files are new, some are old
		d.recs = d.recs[:w.rng.IntN(len(d.recs)+1)]
		d.flushed, d.working = len(d.recs), false
		return
	}
	*d = pgDisk{kind: cluster.DiskInterrupted}
}

// end is the position of the last record on disk.
func (d *pgDisk) end() cluster.Position { return d.posAt(d.flushed) }

func (d *pgDisk) posAt(n int) cluster.Position {
	if n == 0 {
		return cluster.Position{}
	}
	r := d.recs[n-1]
	return cluster.Position{Timeline: r.tl, LSN: r.end}
}

// history is what the history file of the newest timeline says.
func (d *pgDisk) history() cluster.History {
	var h cluster.History
	for i := 1; i < len(d.recs); i++ {
		if was := d.recs[i-1]; was.tl != d.recs[i].tl {
			h = append(h, cluster.HistoryEntry{Timeline: was.tl, Switch: was.end})
		}
	}
	return h
}

// reach is how far recovery gets: it counts timelines up from the control file's, and goes no further than the first number
// without a history file.
func (d *pgDisk) reach() int {
	tl := d.controlTL
	for i, r := range d.recs {
		if r.tl > tl+1 && r.tl > d.plugged {
			return i
		}
		tl = max(tl, r.tl)
	}
	return math.MaxInt
}

// crash loses what was not flushed, or a part of it.
func (d *pgDisk) crash(w *World) {
	if n := len(d.recs) - d.flushed; n > 0 {
		d.recs = d.recs[:d.flushed+w.rng.IntN(n+1)]
		d.flushed = len(d.recs)
	}
}

// upstreamFile is the one thing that decides where a node's WAL comes from (PROTOCOL 1.8).
type upstreamFile struct {
	host string // empty: parked
	app  string
}

// postgres is a running postmaster and its children.
type postgres struct {
	w    *World
	l    *life
	d    *pgDisk
	rw   bool
	gate bool // open
	dead bool
	stop bool // shutting down: takes no more writes
	// orphaned: the postmaster is dead, its backends live on (PROTOCOL 4.5.b)
	orphaned bool
	mute     time.Duration // how long looks at it have gone unanswered

	names    []string
	k        int
	async    bool
	armed    bool // the flag that makes commits wait: set by the checkpointer (S0.5)
	senders  []*stream
	recv     *stream
	child    *stream // a child of the postmaster that will be the WAL receiver: it has no title yet (PROTOCOL 5.2.b)
	replayed int     // records
	reach    int     // records up to the end that recovery knows of
	paused   bool    // replay is (S0.2): it asks for nothing, not even when there is nothing left to replay
	reader   bool    // one is in the way of what comes next (S0.11)
	asked    bool    // pg_promote() was called, and waits for the reader
	unasked  bool    // somebody promoted it by hand
	busy     bool    // its checkpointer is in a long checkpoint
	rounds   int     // checkpoints since the list was read
	waiting  []*commit
	flushing bool
	epoch    cluster.Epoch // as which it was promoted or started; for the checkers
	progress time.Duration
	began    rec // the first record that it wrote itself: R of PROTOCOL 5.7.c
}

// commit is a transaction that waits for its quorum.
type commit struct {
	id   uint64
	lsn  cluster.LSN
	n    int  // records up to and with it
	free bool // the flag was not set when it came, or its session was in async mode: it does not wait for others
	done func(acked bool)
}

func (l *life) pgStart(rw bool) *postgres {
	p := &postgres{w: l.w, l: l, d: l.vol.pg, rw: rw, progress: l.w.now, armed: !rw} // a standby lists a name that is nobody's
	p.reach = p.d.reach()
	p.replayed = min(len(p.d.recs), p.reach)
	p.d.viewTL = 0 // it is in shared memory
	l.pg = p
	l.pgGen++
	if !rw {
		l.after(byPostgres, l.w.us(1000, 15000), p.receiverLoop)
	}
	return p
}

// pgGone ends every process of Postgres at once.
func (l *life) pgGone(why string) {
	p := l.pg
	if p == nil {
		return
	}
	l.pg = nil
	p.dead, p.gate = true, false
	l.note("postgres gone: %s", why)
	for _, c := range p.waiting {
		c.done(false)
	}
	p.waiting = nil
	for _, s := range slices.Clone(p.senders) {
		s.close()
	}
	if p.recv != nil {
		p.recv.close()
	}
	p.child = nil
	p.d.crash(l.w)
}

// write appends a record; it is flushed soon.
func (p *postgres) write(tl cluster.Timeline, id uint64) rec {
	var end cluster.LSN = 0x1000000
	if n := len(p.d.recs); n > 0 {
		end = p.d.recs[n-1].end
	}
	return p.add(rec{tl: tl, end: end + cluster.LSN(100+p.w.rng.IntN(4000)), uid: p.w.nextUID(), id: id})
}

// switchWAL is pg_switch_wal(): its record counts to the end of the segment (E55).
func (p *postgres) switchWAL() rec {
	r := rec{tl: p.timeline(), end: p.d.posAt(len(p.d.recs)).LSN&^(walSegment-1) + walSegment, uid: p.w.nextUID()}
	return p.add(r)
}

func (p *postgres) add(r rec) rec {
	p.d.recs = append(p.d.recs, r)
	p.flush()
	return r
}

// replay follows what is flushed unless something is in its way.
func (p *postgres) replay() {
	if !p.paused && !p.reader || p.rw {
		p.replayed = min(p.d.flushed, p.reach)
	}
}

// unblock resumes replay and ends what it waits for (PROTOCOL 5.5.g).
func (p *postgres) unblock() {
	p.paused, p.reader = false, false
	p.replay()
	if p.asked {
		p.promoteUnasked()
	}
}

// pgExits is an end that nobody asked for.
func (l *life) pgExits(why string) {
	l.pgGone(why)
	l.tellExit(l.w.us(100, 3000), why)
}

// tellExit: the end of a Postgres is told before the start of the next one, or not at all.
func (l *life) tellExit(d time.Duration, why string) {
	gen := l.pgGen
	l.after(byAgent, d, func() {
		if gen == l.pgGen {
			l.post(agent.Exited{Why: why})
		}
	})
}

func (p *postgres) timeline() cluster.Timeline { return p.d.posAt(len(p.d.recs)).Timeline }

// flush brings to disk what is there when it begins.
func (p *postgres) flush() {
	if p.flushing || p.dead || p.d.flushed == len(p.d.recs) {
		return
	}
	p.flushing = true
	n := len(p.d.recs)
	p.l.fsync(byPostgres, 200, 3000, func() {
		p.flushing = false
		if p.dead {
			return
		}
		if p.l.vol.broken() { // an fsync that failed is a PANIC
			p.l.pgExits("panic")
			return
		}
		p.flushedTo(n)
		p.flush()
	})
}

func (p *postgres) flushedTo(n int) {
	p.d.flushed = max(p.d.flushed, n)
	p.replay()
	p.d.highest = max(p.d.highest, p.d.end().Timeline)
	if p.recv != nil {
		p.recv.reply()
	}
	for _, s := range slices.Clone(p.senders) {
		s.pump()
	}
	p.release()
}

// commit is a client's transaction.
func (p *postgres) commit(id uint64, done func(acked bool)) bool {
	if p.dead || !p.rw || p.stop {
		return false
	}
	r := p.write(p.timeline(), id)
	p.waiting = append(p.waiting, &commit{id: id, lsn: r.end, n: len(p.d.recs), free: !p.armed || p.async, done: done})
	return true
}

// release answers the commits that enough listed senders have acknowledged.
func (p *postgres) release() {
	p.waiting = slices.DeleteFunc(p.waiting, func(c *commit) bool {
		if p.d.flushed < c.n || !c.free && p.acks(c.lsn) < p.k {
			return false
		}
		p.progress = p.w.now
		if c.id != 0 {
			p.w.check.acked(p, c)
		}
		c.done(true)
		return true
	})
	if len(p.waiting) == 0 {
		p.progress = p.w.now
	}
}

// acks counts as Postgres does: by application_name, and by LSN without a timeline (S0.1).
func (p *postgres) acks(lsn cluster.LSN) int {
	n := 0
	for _, s := range p.senders {
		if s.acked >= lsn && slices.Contains(p.names, s.app) {
			n++
		}
	}
	return n
}

// checkpoint is one that somebody asked for. The second after a change of the list has seen it for certain (S0.5).
func (p *postgres) checkpoint() {
	p.d.controlTL = p.write(p.timeline(), 0).tl
	p.rounds++
	p.armed = p.k > 0 && (p.armed || p.rounds > 1)
}

// maybeCheckpoint: Postgres begins one by itself after a promotion.
func (p *postgres) maybeCheckpoint() {
	p.l.after(byPostgres, p.w.us(20000, 3000000), func() {
		switch {
		case p.dead || !p.rw:
		case p.busy:
			p.maybeCheckpoint()
		default:
			p.d.controlTL = p.timeline()
		}
	})
}

// lastRecord begins a fast shutdown.
func (p *postgres) lastRecord() cluster.LSN {
	p.endSessions()
	p.stop = true
	if !p.rw {
		return 0
	}
	r := p.write(p.timeline(), 0)
	p.d.controlTL = r.tl
	return r.end
}

// drained: a fast shutdown ends when every standby that streams has flushed the last record.
func (p *postgres) drained(last cluster.LSN) bool {
	return !slices.ContainsFunc(p.senders, func(s *stream) bool { return s.acked < last })
}

// endSessions is what closing the gate does to clients.
func (p *postgres) endSessions() {
	p.gate = false
	p.waiting = slices.DeleteFunc(p.waiting, func(c *commit) bool {
		if c.id != 0 {
			c.done(false)
		}
		return c.id != 0
	})
}

var (
	errTimeout   = errors.New("timed out")
	errCancelled = errors.New("cancelled")
)

// promote leaves recovery onto a timeline (PROTOCOL 5.6.c).
func (p *postgres) promote(tl cluster.Timeline, elected cluster.Position, e cluster.Epoch) (agent.Result, error) {
	if p.rw {
		return agent.Result{}, errors.New("not in recovery")
	}
	p.child = nil
	if p.recv != nil {
		p.recv.close()
	}
	p.d.flushed = len(p.d.recs)
	end := p.d.posAt(min(len(p.d.recs), p.reach))
	if end != elected {
		return agent.Result{}, fmt.Errorf("switched at %s, elected at %s", end, elected)
	}
	p.rw, p.epoch = true, e
	r := p.write(tl, 0)
	p.began = r
	p.d.flushed = len(p.d.recs)
	p.d.highest = max(p.d.highest, tl)
	p.flushedTo(len(p.d.recs))
	return agent.Result{Switch: elected.LSN, NextXID: 1000, Flush: r.end}, nil
}

// promoteUnasked is a pg_promote() that somebody called: Postgres takes the next free timeline by itself. A paused replay
// goes on for it; one that waits for a reader does not (S0.11).
func (p *postgres) promoteUnasked() {
	if p.rw || p.dead {
		return
	}
	p.paused = false
	if p.asked = p.reader; p.asked {
		return
	}
	end := p.d.posAt(len(p.d.recs))
	tl := max(end.Timeline+1, p.d.plugged)
	p.l.note("promoted by somebody, unasked, onto timeline %d", tl)
	p.unasked = true
	p.replay()
	_, _ = p.promote(tl, end, p.epoch)
	p.maybeCheckpoint()
}

// facts is what the observer sees.
func (p *postgres) facts() agent.Facts {
	f := agent.Facts{Running: true, ReadWrite: p.rw, Replay: p.d.posAt(p.replayed).LSN, Position: p.d.end()}
	f.Backlog = uint64(f.Position.LSN - f.Replay)
	if !p.rw {
		f.Streaming = p.recv != nil
		f.WantsWAL = p.asksForWAL()
		return f
	}
	for _, s := range p.senders {
		f.Senders = append(f.Senders, cluster.Sender{App: s.app, Flush: s.acked, Replay: s.acked, State: "streaming", Sync: "quorum"})
	}
	if len(p.waiting) > 0 {
		f.Stuck = p.w.now - p.progress
	}
	return f
}

// observe imitates the observer of the real node.
func (l *life) observe() {
	on, every := l.m.Watching()
	if on && l.pg != nil && l.held[byPostgres] { // a look ends after a second
		p := l.pg
		l.after(byAgent, time.Second, func() {
			if l.pg == p && l.held[byPostgres] {
				p.mute += time.Second
				l.post(agent.Unanswered{For: p.mute})
			}
			l.observe()
		})
		return
	}
	if on && l.pg != nil {
		l.pg.mute = 0
		f := l.pg.facts()
		l.after(byAgent, l.w.us(200, 3000), func() { l.post(agent.Observed{PG: f}) })
	}
	if every == 0 {
		every = 50 * time.Millisecond
	}
	l.after(byAgent, every, l.observe)
}

// extend moves the watchdog's deadline.
func (l *life) extend(at time.Duration) {
	l.deadline = at
	l.armed++
	gen := l.armed
	if at == 0 {
		return
	}
	l.after(byWatchdog, max(0, l.untilLocal(at)), func() { l.bark(gen) })
}

func (l *life) bark(gen uint64) {
	if gen != l.armed || l.deadline == 0 || l.w.opt.Mutant == MutantNoKill || l.w.opt.Mutant == MutantWatchdog {
		return
	}
	if l.local() < l.deadline {
		l.after(byWatchdog, l.untilLocal(l.deadline), func() { l.bark(gen) })
		return
	}
	if l.pg != nil {
		l.pgGone("watchdog")
		l.tellExit(l.w.us(1000, 40000), "killed by the watchdog")
	}
}
