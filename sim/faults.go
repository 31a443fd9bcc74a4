// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"time"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/cluster"
)

type kindOfFault struct {
	name string
	do   func(*nemesis, *node)
}

// kindsOfFaults is everything that can go wrong.
func kindsOfFaults() []kindOfFault { return allFaults }

var allFaults = []kindOfFault{
	{name: "kill", do: (*nemesis).kill},
	{name: "kill and restart at once", do: (*nemesis).bounce},
	{name: "kill postgres", do: (*nemesis).killPostgres},
	{name: "freeze", do: (*nemesis).freeze},
	{name: "stop pid 1", do: (*nemesis).stall},
	{name: "hang postgres", do: (*nemesis).hang},
	{name: "isolate", do: (*nemesis).isolate},
	{name: "split", do: (*nemesis).split},
	{name: "slow link", do: (*nemesis).slowLink},
	{name: "cut one way", do: (*nemesis).cutOneWay},
	{name: "cut both ways", do: (*nemesis).cutBoth},
	{name: "cut links only", do: (*nemesis).cutLinks},
	{name: "cut replication", do: (*nemesis).cutReplication},
	{name: "close a link", do: (*nemesis).closeLink},
	{name: "forge resets", do: (*nemesis).forge},
	{name: "stop", do: (*nemesis).planned},
	{name: "stop all", do: (*nemesis).stopAll},
	{name: "kill all", do: (*nemesis).killAll},
	{name: "reboot", do: (*nemesis).reboot},
	{name: "switchover", do: (*nemesis).switchover},
	{name: "pause", do: func(m *nemesis, n *node) { m.pause(n, m.chance(0.3)) }},
	{name: "set lease", do: (*nemesis).setLease},
	{name: "wipe", do: (*nemesis).wipe},
	{name: "roll back", do: (*nemesis).rollBack},
	{name: "slow disk", do: (*nemesis).slowDisk},
	{name: "hung disk", do: (*nemesis).hungDisk},
	{name: "full disk", do: (*nemesis).fullDisk},
	{name: "tight disk", do: (*nemesis).tightDisk},
	{name: "block replay", do: (*nemesis).blockReplay},
	{name: "remove wal", do: (*nemesis).removeWAL},
	{name: "unasked promotion", do: (*nemesis).promote},
}

func (m *nemesis) kill(n *node) {
	n.kill()
	m.later(n.start)
}

func (m *nemesis) bounce(n *node) {
	n.kill()
	m.w.after(m.between(time.Millisecond, 150*time.Millisecond), n.start)
}

// reboot is one of the host's kernel: what was not fsynced is gone, and nobody knows what else.
func (m *nemesis) reboot(n *node) {
	n.kill()
	n.vol.served = false
	m.later(n.start)
}

func (m *nemesis) killPostgres(n *node) {
	l := n.life
	if l == nil || l.frozen || l.pg == nil {
		return
	}
	if p := l.pg; p.rw && m.chance(0.5) {
		p.orphan()
		return
	}
	l.pgExits("crashed")
}

// orphan: the postmaster is dead, its backends go on.
func (p *postgres) orphan() {
	p.l.note("postmaster killed, its backends live on")
	p.orphaned = true
	p.l.after(byAgent, p.w.us(100, 3000), func() { p.l.post(agent.Exited{Why: "postmaster killed"}) })
}

func (m *nemesis) freeze(n *node) {
	n.freeze()
	m.later(n.thaw)
}

func (m *nemesis) stall(n *node) {
	n.hold(byAgent, "PID 1")
	m.later(n.thaw)
}

func (m *nemesis) hang(n *node) {
	n.hold(byPostgres, "postgres")
	m.later(n.thaw)
}

func (m *nemesis) isolate(n *node) {
	for _, o := range m.w.nodes {
		if o != n {
			m.cut(n.idx, o.idx, true, true)
			m.cut(o.idx, n.idx, true, true)
		}
	}
}

func (m *nemesis) cut(i, j int, links, pg bool) {
	t := m.w.net
	t.cut[i][j] = t.cut[i][j] || links
	t.cutPG[i][j] = t.cutPG[i][j] || pg
	m.later(func() { t.cut[i][j], t.cutPG[i][j] = t.cut[i][j] && !links, t.cutPG[i][j] && !pg })
}

// split parts the nodes in two groups.
func (m *nemesis) split(*node) {
	side := make([]bool, len(m.w.nodes))
	for i := range side {
		side[i] = m.chance(0.5)
	}
	for i := range side {
		for j := range side {
			if side[i] != side[j] {
				m.cut(i, j, true, true)
			}
		}
	}
}

// slowLink: what one node sends to another arrives late, and in order.
func (m *nemesis) slowLink(n *node) {
	t, i, j := m.w.net, n.idx, m.other(n).idx
	t.delay[i][j] = m.between(50*time.Millisecond, 900*time.Millisecond)
	m.later(func() { t.delay[i][j] = 0 })
}

func (m *nemesis) other(n *node) *node {
	if len(m.w.nodes) == 1 {
		return n
	}
	return m.w.nodes[(n.idx+1+m.rng.IntN(len(m.w.nodes)-1))%len(m.w.nodes)]
}

func (m *nemesis) cutOneWay(n *node) { m.cut(n.idx, m.other(n).idx, true, m.chance(0.5)) }

func (m *nemesis) cutBoth(n *node) {
	o := m.other(n)
	pg := m.chance(0.5)
	m.cut(n.idx, o.idx, true, pg)
	m.cut(o.idx, n.idx, true, pg)
}

// cutLinks: PID 1 is cut off from everybody, and replication goes on.
func (m *nemesis) cutLinks(n *node) {
	for _, o := range m.w.nodes {
		if o != n {
			m.cut(n.idx, o.idx, true, false)
			m.cut(o.idx, n.idx, true, false)
		}
	}
}

func (m *nemesis) cutReplication(n *node) {
	for _, o := range m.w.nodes {
		if o != n && m.chance(0.6) {
			m.cut(n.idx, o.idx, false, true)
			m.cut(o.idx, n.idx, false, true)
		}
	}
}

// closeLink is our own code closing the links of a node, for a reason that proves nothing (PROTOCOL 6.3).
func (m *nemesis) closeLink(n *node) {
	all := m.chance(0.5)
	for _, o := range m.w.nodes {
		c := m.w.net.conns[o.idx][n.idx]
		if c == nil || !all && m.chance(0.5) {
			continue
		}
		var ev *cluster.Evidence
		if m.w.opt.Mutant == MutantOwnClose {
			ev = &cluster.Evidence{Inc: c.to.vol.inc, Boot: c.to.boot, HeldTwice: true}
		}
		m.w.net.close(c, ev)
	}
}

// forge resets every link of a node that lives: what PROTOCOL 6.7 assumes that nobody does. It may cost stale reads,
// and never an acknowledged commit.
func (m *nemesis) forge(n *node) {
	l := n.life
	if l == nil {
		return
	}
	if m.w.opt.Mode == cluster.ModeQuorum { // in async mode evidence counts for nothing
		if l.pg != nil {
			m.w.check.forged[l.pg.epoch] = true
		}
		if s := m.w.check.newest; s != nil && s.Primary() == l.vol.inc { // its Postgres may be starting
			m.w.check.forged[s.Epoch().Epoch] = true
		}
	}
	for _, o := range m.w.nodes {
		if c := m.w.net.conns[o.idx][n.idx]; o != n && c != nil {
			ev := &cluster.Evidence{Inc: l.vol.inc, Boot: l.boot, HeldTwice: true}
			m.w.after(m.w.us(0, 5000), func() { m.w.net.close(c, ev) })
		}
		if c := m.w.net.conns[n.idx][o.idx]; o != n && c != nil {
			m.w.after(m.w.us(0, 5000), func() { m.w.net.close(c, nil) })
		}
	}
	if m.chance(0.5) {
		m.cutLinks(n)
	}
}

// planned is docker stop: SIGTERM, and SIGKILL after ten seconds.
func (m *nemesis) planned(n *node) {
	l := n.life
	if l == nil {
		return
	}
	l.now(byAgent, func() { l.post(agent.StopAsked{}) })
	m.w.after(10*time.Second, func() {
		if !l.dead {
			l.note("did not stop in ten seconds")
			l.end(false)
		}
	})
	m.w.after(10*time.Second+m.soon(), n.start)
}

func (m *nemesis) stopAll(*node) {
	for _, n := range m.w.nodes {
		m.planned(n)
	}
}

func (m *nemesis) killAll(*node) {
	for _, n := range m.w.nodes {
		m.w.after(m.between(0, 100*time.Millisecond), n.kill)
		m.w.after(time.Second+m.soon(), n.start)
	}
}

func (m *nemesis) switchover(n *node) {
	l := n.life
	if l == nil {
		return
	}
	r := cluster.Request{ID: m.w.nextUID(), Op: "switchover"}
	if m.chance(0.5) {
		r.Target = m.other(n).name
	}
	l.now(byAgent, func() { l.post(agent.Requested{Request: r}) })
}

func (m *nemesis) order(n *node, c cluster.Command) {
	if l := n.life; l != nil && l.core != nil {
		l.now(byAgent, func() {
			_ = l.core.Propose(c.Encode())
			l.pumpSoon()
		})
	}
}

func (m *nemesis) pause(n *node, on bool) {
	m.order(n, cluster.Command{Pause: &cluster.Pause{Paused: on}})
}

func (m *nemesis) setLease(n *node) {
	m.order(n, cluster.Command{SetLease: &cluster.SetLease{LeaseMS: cluster.LeaseMinMS + m.rng.Int64N(4000)}})
}

// wipe takes a volume away, one at a time and only from a cluster that is whole: two would be a disaster that no
// protocol survives. Before there are data one may go that is not the founder's.
func (m *nemesis) wipe(n *node) {
	if m.w.opt.Data == 1 && !n.witness || m.w.Healthy() != "" && (m.wiped > 0 || !m.w.unborn(n)) {
		return
	}
	m.wiped++
	n.wipe()
	m.later(n.start)
}

// unborn: there is no data anywhere, and no genesis that rests on this node, or will when the last write is done.
func (w *World) unborn(n *node) bool {
	held := 0
	for _, o := range w.nodes {
		if l := o.life; o != n && (l == nil || l.forming == nil || l.forming.f == nil || l.forming.f.Holds(n.vol.inc)) {
			held++
		}
		if o.vol.pg.kind != cluster.DiskEmpty || o.life != nil && o.life.pg != nil {
			return false
		}
		if g := o.vol.genesis; g != nil {
			if s, err := cluster.DecodeState(g.State); err == nil && s.Founder == n.vol.inc {
				return false
			}
		}
	}
	return held < len(w.nodes)-1
}

// rollBack brings back what the volume was at the end of an earlier boot, unless nobody could tell (PROTOCOL 1.13).
func (m *nemesis) rollBack(n *node) {
	if m.w.Healthy() != "" || len(m.w.nodes) == 1 || n.old == nil || n.old.inc != n.vol.inc {
		return
	}
	n.kill()
	if !m.tells(n) {
		n.start()
		return
	}
	n.vol, n.old = n.old, nil
	n.w.note(string(n.name), "volume rolled back to the end of boot %d", n.vol.boots[len(n.vol.boots)-1].Number)
	m.later(n.start)
}

// tells reports whether every majority that the old volume of n could vote in has a node that knows of a later boot.
func (m *nemesis) tells(n *node) bool {
	s := m.w.check.newest
	var unaware []cluster.Incarnation
	for _, o := range m.w.nodes {
		if o.life == nil || o.life.st == nil || !knowsLater(o.life.st, n) {
			unaware = append(unaware, o.vol.inc)
		}
	}
	return knowsLater(s, n) && !s.HasMajority(unaware)
}

func knowsLater(s *cluster.State, n *node) bool {
	mb := s.Member(n.old.inc)
	return mb != nil && !mb.Follows(n.old.boots)
}

func (m *nemesis) slowDisk(n *node) {
	d := &n.vol.disk
	d.slow = 2 + 100*m.rng.Float64()*m.rng.Float64()
	m.later(func() { d.slow = 0 })
}

func (m *nemesis) hungDisk(n *node) {
	n.vol.disk.hung = max(n.vol.disk.hung, m.w.now+m.soon()+m.soon())
}

func (m *nemesis) fullDisk(n *node) { n.vol.disk.full(m.soon()) }

// tightDisk leaves room for PID 1, and more or less of it for Postgres.
func (m *nemesis) tightDisk(n *node) {
	n.vol.disk.crowd(uint64(m.rng.IntN(200))<<20, m.soon()+m.soon())
}

// blockReplay is a pause of it, or a reader.
func (m *nemesis) blockReplay(n *node) {
	if l := n.life; l != nil && l.pg != nil && !l.pg.rw {
		if m.chance(0.5) {
			l.pg.paused = true
		} else {
			l.pg.reader = true
		}
	}
}

// removeWAL: a slot was lost, and the primary keeps only the newest WAL.
func (m *nemesis) removeWAL(n *node) {
	if l := n.life; l != nil && l.pg != nil {
		l.pg.d.removed = max(0, l.pg.d.flushed-m.rng.IntN(20))
	}
}

// oldest is where the WAL that is kept begins.
func (d *pgDisk) oldest() cluster.LSN {
	if d.removed == 0 || d.removed > len(d.recs) {
		return 0
	}
	return d.recs[d.removed-1].end
}

// promote is somebody's pg_promote(). It takes a copy away, as a wipe does: only if those that stay cover.
func (m *nemesis) promote(n *node) {
	if l := n.life; l != nil && l.pg != nil && !l.held[byPostgres] && m.w.coveredWithout(n) {
		p := l.pg
		l.now(byPostgres, func() { // now, while the others cover, and not when a reader ends
			if !p.dead {
				p.unblock()
			}
			p.promoteUnasked()
		})
	}
}

// coveredWithout: the others hold enough copies that can be counted for an election.
func (w *World) coveredWithout(n *node) bool {
	s := w.check.newest
	if s == nil {
		return false
	}
	var who []cluster.Incarnation
	for _, o := range w.nodes {
		v := o.vol
		m := s.Member(v.inc)
		if o != n && !o.witness && m != nil && !m.Quarantined && m.Follows(v.boots) && v.pg.kind == cluster.DiskPresent &&
			!v.pg.working && s.Assigned(v.pg.end().Timeline) && v.floor.Compare(v.pg.end()) <= 0 {
			who = append(who, v.inc)
		}
	}
	return s.CoveredInFull(who)
}

// copyOf is a backup of a volume, as a hypervisor makes it.
func (v *volume) copyOf() *volume {
	c := *v
	d := *v.pg
	d.recs = d.recs[:len(d.recs):len(d.recs)]
	c.pg = &d
	if v.store == nil {
		return nil
	}
	st, err := v.store.copyOf()
	if err != nil {
		return nil
	}
	st.disk = &c.disk
	c.store = st
	return &c
}
