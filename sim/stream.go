// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"math"
	"slices"
	"time"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/cluster"
)

// stream is a WAL sender and its receiver.
type stream struct {
	w        *World
	up, down *postgres
	host     string
	app      string
	slot     string
	acked    cluster.LSN // as the sender knows it
	flushLSN cluster.LSN // as the receiver reports it
	shown    cluster.LSN // as pg_stat_wal_receiver says: with a new timeline it restarts at the segment's start (S0.8)
	fed      bool        // WAL has come
	diverged bool        // attached although it must not be: it acknowledges what it does not hold
	flight   bool
	closed   bool
	stuck    time.Duration // since when the network is cut
	quiet    bool          // the receiver has gone; acknowledgements on their way still count
	ended    bool          // the sender was ended by its own side: nothing counts any more
}

// receiverLoop is the startup process: it asks for a WAL receiver while it wants WAL and the file is ordered.
func (p *postgres) receiverLoop() {
	if p.dead || p.rw {
		return
	}
	p.l.after(byPostgres, p.w.us(5000, 15000), p.receiverLoop)
	if p.recv == nil && p.child == nil && p.l.up.host != "" && p.asksForWAL() {
		c := &stream{w: p.w, down: p, app: p.l.up.app, host: p.l.up.host} // what the file says when it is born
		p.child = c
		p.l.after(byPostgres, p.w.us(100, 4000), func() {
			if p.child == c {
				p.child = nil
				p.connect(c)
			}
		})
	}
}

// asksForWAL: a replay that is paused asks for none, not even when there is nothing left to replay (E55).
func (p *postgres) asksForWAL() bool { return !p.paused && p.replayed == len(p.d.recs) }

// upstream is the Postgres at the other end of a name, if packets get there.
func (l *life) upstream(host string) *postgres {
	o := l.w.nodeNamed(host)
	if o == nil || o.life == nil || o.life.pg == nil || o.life.frozen || o.life.held[byPostgres] ||
		l.w.net.cutPG[o.idx][l.n.idx] || l.w.net.cutPG[l.n.idx][o.idx] {
		return nil
	}
	return o.life.pg
}

func (p *postgres) connect(s *stream) {
	u := p.l.upstream(s.host)
	s.slot = cluster.SlotName(p.l.vol.inc)
	if p.dead || p.rw || p.recv != nil || u == nil || u == p || u.stop || slices.ContainsFunc(u.senders, func(o *stream) bool { return o.slot == s.slot }) {
		return
	}
	s.up = u
	mine, theirs := p.d.recs, u.d.recs[:u.d.flushed]
	if n := len(mine); n > len(theirs) || n > 0 && mine[n-1].uid != theirs[n-1].uid {
		if u.d.system != p.d.system || !u.d.serves(p.d.end()) {
			return
		}
		s.diverged = true
		p.l.note("DIVERGED receiver attaches to %s as %s at %s, upstream at %s", s.host, s.app, p.d.end(), u.d.end())
	}
	if len(mine) < u.d.removed {
		return // refused: the requested WAL segment has already been removed
	}
	p.learns(u.timeline())
	p.recv = s
	u.senders = append(u.senders, s)
	p.l.note("streams from %s as %s at %s", s.host, s.app, p.d.end())
	p.w.check.attached(s)
	s.flushLSN = p.d.end().LSN
	s.shown = s.flushLSN
	if u.timeline() > p.d.viewTL {
		s.shown, p.d.viewTL = s.flushLSN&^(walSegment-1), u.timeline()
	}
	p.l.after(byPostgres, p.w.us(500, 4000), func() {
		if !s.closed {
			s.reply()
			s.pump()
		}
	})
	s.watch()
}

// learns: a WAL receiver fetches the history files up to its upstream's timeline, stubs too.
func (p *postgres) learns(tl cluster.Timeline) {
	p.d.plugged = max(p.d.plugged, tl+1)
	p.reach = math.MaxInt
	p.replay()
}

// serves says whether a WAL sender takes a receiver with that position, whose WAL it does not have: from the start of the
// receiver's segment, if that is on the sender's own history. So one that has diverged in the same segment is taken, be it
// ahead of the sender or behind (S0.1).
func (d *pgDisk) serves(p cluster.Position) bool {
	from := p.LSN &^ (walSegment - 1)
	if p.Timeline == d.end().Timeline {
		return from <= d.end().LSN // else: requested starting point is ahead of the WAL flush position of this server
	}
	for _, h := range d.history() {
		if h.Timeline == p.Timeline {
			return from < h.Switch // at the switch point nothing is streamed, beyond it: not in this server's history
		}
	}
	return false // not in this server's history, or: highest timeline of the primary is behind recovery timeline
}

// watch ends a stream whose network has been cut for wal_receiver_timeout.
func (s *stream) watch() {
	s.w.after(200*time.Millisecond, func() {
		if s.closed {
			return
		}
		i, j := s.up.l.n.idx, s.down.l.n.idx
		cut := s.w.net.cutPG[i][j] || s.w.net.cutPG[j][i] || s.up.l.frozen || s.down.l.frozen || s.up.l.held[byPostgres] || s.down.l.held[byPostgres]
		switch {
		case !cut:
			s.stuck = 0
			s.pump()
			s.reply()
		case s.stuck == 0:
			s.stuck = s.w.now
		case s.w.now > s.stuck+5*time.Second:
			s.close()
			return
		}
		s.watch()
	})
}

func (s *stream) close() {
	if s.closed {
		return
	}
	s.closed = true
	s.up.senders = slices.DeleteFunc(s.up.senders, func(o *stream) bool { return o == s })
	if s.down.recv == s {
		s.down.recv = nil
	}
	if !s.down.dead { // a receiver flushes what it has before it exits
		s.down.flushedTo(len(s.down.d.recs))
	}
}

// pump sends what the upstream has flushed.
func (s *stream) pump() {
	if s.closed || s.flight || s.up.dead || s.quiet {
		return
	}
	n := s.up.d.flushed
	if !s.diverged && n <= len(s.down.d.recs) || s.diverged && s.up.d.end().LSN <= s.flushLSN {
		return
	}
	if s.w.net.cutPG[s.up.l.n.idx][s.down.l.n.idx] {
		return
	}
	s.flight = true
	batch := s.up.d.recs[:n]
	d := s.w.us(50, 800)
	if s.w.faults && s.w.chance(0.01) {
		d += s.w.us(1000, 200000)
	}
	s.up.l.after(byPostgres, 0, func() {
		s.down.l.after(byPostgres, d, func() { s.arrived(batch) })
	})
}

func (s *stream) arrived(batch []rec) {
	s.flight = false
	if s.closed || s.quiet || s.down.dead {
		return
	}
	if s.w.net.cutPG[s.up.l.n.idx][s.down.l.n.idx] {
		return // sent again by watch
	}
	s.fed = true
	if s.diverged {
		s.flushLSN = max(s.flushLSN, batch[len(batch)-1].end)
		s.reply()
	} else if n := len(s.down.d.recs); n < len(batch) {
		if s.down.d.posAt(n).Timeline != batch[len(batch)-1].tl && s.down.l.vol.disk.free() < promoteNeeds {
			s.close() // a new timeline begins with a new segment: the receiver ends, and another is tried
			return
		}
		s.down.learns(batch[len(batch)-1].tl)
		s.down.d.recs = append(s.down.d.recs, batch[n:]...)
		s.down.flush()
	}
	s.pump()
}

// reply tells the sender what is flushed here.
func (s *stream) reply() {
	if s.closed {
		return
	}
	if !s.diverged {
		s.flushLSN = s.down.d.end().LSN
	}
	if s.fed {
		s.shown = s.flushLSN
	}
	s.down.l.flushSeen(s)
	if s.w.net.cutPG[s.down.l.n.idx][s.up.l.n.idx] {
		return
	}
	lsn := s.flushLSN
	s.down.l.after(byPostgres, s.w.us(50, 800), func() {
		s.up.l.now(byPostgres, func() {
			if s.up.dead || s.ended || s.w.net.cutPG[s.down.l.n.idx][s.up.l.n.idx] {
				return
			}
			// the sender reads what is in its socket even when the receiver is gone since
			s.w.check.ackUsed(s, lsn)
			s.acked = max(s.acked, lsn)
			if s.closed {
				s.up.senders = append(s.up.senders, s)
				s.up.release()
				s.up.senders = slices.DeleteFunc(s.up.senders, func(o *stream) bool { return o == s })
				return
			}
			s.up.release()
		})
	})
}

// flushSeen imitates the watcher of PROTOCOL 5.7.c.
func (l *life) flushSeen(s *stream) {
	for _, j := range l.watching() {
		pos := cluster.Position{Timeline: s.up.timeline(), LSN: s.flushLSN} // not shown: something is always written soon
		if l.w.opt.Mutant == MutantFlushed {
			pos = cluster.Position{Timeline: j.t.Timeline, LSN: 1 << 60}
			l.after(byAgent, l.w.us(200, 2500), func() { l.post(agent.FlushSeen{Position: pos}) })
			continue
		}
		if l.w.opt.Mutant == MutantFlushedTL {
			pos.Timeline = j.t.Timeline
			l.after(byAgent, l.w.us(200, 2500), func() { l.post(agent.FlushSeen{Position: pos}) })
			continue
		}
		if pos.Timeline == j.t.Timeline && (l.vol.pg.end().Timeline == pos.Timeline || s.diverged) {
			l.after(byAgent, l.w.us(200, 2500), func() { l.post(agent.FlushSeen{Position: pos}) })
		}
	}
}

func (w *World) nodeNamed(name string) *node {
	for _, n := range w.nodes {
		if string(n.name) == name {
			return n
		}
	}
	return nil
}
