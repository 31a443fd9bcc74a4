// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"time"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/raft"
)

// Bounds of the transport that is imitated.
const (
	linkSilence = 3 * time.Second
	dialEvery   = 60 * time.Millisecond
)

// network is what lies between the nodes: the links of PID 1s, and the replication of Postgres.
type network struct {
	w     *World
	conns [][]*conn // by dialler, by other
	cut   [][]bool  // packets from i to j are lost: links of PID 1
	cutPG [][]bool  // the same for replication
	delay [][]time.Duration
	envs  int // delivered
}

// conn is a link, dialled by from. Frames go both ways in reality; here each node sends on the one it dialled.
type conn struct {
	from, to *life
	held     []frame // sent while cut: TCP repeats them after the cut
	last     time.Duration
	since    time.Duration // since when it is silent; zero: it is not
	closed   bool
}

// frame is a raft message or an envelope; every wireEach-th of those goes through its encoding.
type frame struct {
	raft []byte
	env  *cluster.Envelope
}

const wireEach = 16

func newNetwork(w *World, n int) *network {
	t := &network{w: w}
	for range n {
		t.conns = append(t.conns, make([]*conn, n))
		t.cut = append(t.cut, make([]bool, n))
		t.cutPG = append(t.cutPG, make([]bool, n))
		t.delay = append(t.delay, make([]time.Duration, n))
	}
	return t
}

func (t *network) anyCut(i, j int) bool { return t.cut[i][j] || t.cut[j][i] }

// started dials everybody for as long as the life lasts.
func (t *network) started(n *node) {
	l := n.life
	for _, o := range t.w.nodes {
		if o != n {
			l.after(byAgent, t.w.between(time.Millisecond, dialEvery), func() { t.dial(l, o) })
		}
	}
}

func (t *network) dial(l *life, o *node) {
	defer func() { l.after(byAgent, t.w.between(dialEvery/2, dialEvery), func() { t.dial(l, o) }) }()
	i, j := l.n.idx, o.idx
	if c := t.conns[i][j]; c != nil {
		t.watch(c)
		return
	}
	p := o.life
	if p == nil || p.silent() || t.anyCut(i, j) || !p.welcome(l) || !l.welcome(p) {
		return
	}
	c := &conn{from: l, to: p}
	t.conns[i][j] = c
	l.after(byAgent, t.w.us(500, 3000), func() {
		if c.closed {
			return
		}
		l.post(agent.LinkUp{Inc: p.vol.inc, Name: o.name, Boot: p.boot, Out: true, Host: string(o.name), HeldTwice: true})
	})
	p.after(byAgent, t.w.us(500, 3000), func() {
		if !c.closed {
			p.post(agent.LinkUp{Inc: l.vol.inc, Name: l.n.name, Boot: l.boot, HeldTwice: true})
		}
	})
}

// welcome refuses links of boots that are over, and of volumes that were rolled back (PROTOCOL 1.13).
func (l *life) welcome(o *life) bool {
	if l.st == nil || l.w.opt.Mutant == MutantOldBoot {
		return true
	}
	return l.st.MayLink(o.vol.inc, o.boots, l.logged)
}

// watch closes a link that has been silent for long, on both sides: no evidence.
func (t *network) watch(c *conn) {
	i, j := c.from.n.idx, c.to.n.idx
	if !t.anyCut(i, j) && !c.to.silent() && !c.to.dead {
		if c.since != 0 {
			c.since = 0
			t.flush(c)
		}
		return
	}
	if c.since == 0 {
		c.since = t.w.now
	}
	if t.w.now >= c.since+t.w.opt.Mutant.silence() {
		if t.w.opt.Mutant == MutantEvidence {
			t.close(c, &cluster.Evidence{Inc: c.to.vol.inc, Boot: c.to.boot, HeldTwice: true})
		}
		t.close(c, nil)
		return
	}
	if c.to.dead && !t.anyCut(i, j) { // the far end answers with a reset now
		t.close(c, &cluster.Evidence{Inc: c.to.vol.inc, Boot: c.to.boot, HeldTwice: true})
	}
}

func (t *network) close(c *conn, ev *cluster.Evidence) {
	if c.closed {
		return
	}
	c.closed = true
	i, j := c.from.n.idx, c.to.n.idx
	if t.conns[i][j] == c {
		t.conns[i][j] = nil
	}
	c.from.post2(agent.LinkDown{Inc: c.to.vol.inc, Boot: c.to.boot, Out: true, Evidence: ev})
	c.to.post2(agent.LinkDown{Inc: c.from.vol.inc, Boot: c.from.boot})
}

// post2 posts to a life that may be dead or frozen.
func (l *life) post2(e agent.Event) { l.now(byAgent, func() { l.post(e) }) }

// ended closes the links of a life that ended: with a goodbye, or as a death that peers can prove.
func (t *network) ended(l *life, planned bool) {
	for _, o := range t.w.nodes {
		if o == l.n {
			continue
		}
		i, j := o.idx, l.n.idx
		if c := t.conns[j][i]; c != nil && c.from == l { // ours to them
			if t.anyCut(i, j) {
				c.closed = true
				t.conns[j][i] = nil
				c.to.after(byAgent, linkSilence, func() {
					c.to.post(agent.LinkDown{Inc: l.vol.inc, Boot: l.boot})
				})
			} else {
				t.w.after(t.w.us(500, 3000), func() { t.close(c, nil) })
			}
		}
		c := t.conns[i][j]
		if c == nil || c.to != l || t.anyCut(i, j) {
			continue // a cut link ends by silence, or by a reset when it is healed
		}
		var ev *cluster.Evidence
		if !planned {
			ev = &cluster.Evidence{Inc: l.vol.inc, Boot: l.boot, HeldTwice: true}
		}
		t.w.after(t.w.us(2000, 10000), func() { t.close(c, ev) })
	}
}

// send hands a frame to the link that from dialled; without one it is dropped.
func (t *network) send(from *life, to cluster.Incarnation, f frame) {
	for j, c := range t.conns[from.n.idx] {
		if c != nil && c.to.vol.inc == to {
			t.sendNode(from, t.w.nodes[j], f)
			return
		}
	}
}

// sendNode is send to whoever has a name.
func (t *network) sendNode(from *life, to *node, f frame) {
	i, j := from.n.idx, to.idx
	c := t.conns[i][j]
	if c == nil || c.closed || c.from != from {
		return
	}
	if t.cut[i][j] || c.since != 0 && len(c.held) > 0 {
		if len(c.held) < 4096 {
			c.held = append(c.held, f)
		}
		return
	}
	t.deliver(c, f, 0)
}

func (t *network) flush(c *conn) {
	held := c.held
	c.held = nil
	d := t.w.us(0, 200000)
	for _, f := range held {
		t.deliver(c, f, d)
	}
}

func (t *network) deliver(c *conn, f frame, extra time.Duration) {
	d := t.w.us(50, 500) + extra + t.delay[c.from.n.idx][c.to.n.idx]
	if t.w.faults && t.w.chance(0.002) {
		d += t.w.us(1000, 300000)
	}
	at := max(t.w.now+d, c.last+time.Microsecond)
	c.last = at
	t.w.at(at, func() { c.to.now(byAgent, func() { c.receive(t, f) }) })
}

func (c *conn) receive(t *network, f frame) {
	switch {
	case c.closed:
	case t.cut[c.from.n.idx][c.to.n.idx]:
		c.held = append(c.held, f)
	case f.raft != nil:
		if c.to.core == nil {
			return
		}
		m, err := raft.Decode(c.to.clusterID(), f.raft)
		if err != nil {
			t.w.check.fail("raft", "%v", err)
			return
		}
		_ = c.to.core.Step(m)
		c.to.pumpRaft()
	default:
		env := *f.env
		if t.envs++; t.envs%wireEach == 0 {
			var err error
			if env, err = cluster.DecodeEnvelope(f.env.Encode()); err != nil {
				t.w.check.fail("wire", "%v", err)
				return
			}
		}
		switch {
		case c.to.forming != nil:
			if env.Offer == nil && env.Genesis == nil {
				return
			}
		case env.Offer != nil:
			c.to.answerOffer(*env.Offer)
			return
		case env.Genesis != nil || env.ClusterID != c.to.clusterID():
			return
		}
		c.to.post(agent.Received{From: c.from.vol.inc, Boot: c.from.boot, Env: env})
	}
}

// heal ends every cut.
func (t *network) heal() {
	for i := range t.cut {
		clear(t.cut[i])
		clear(t.cutPG[i])
		clear(t.delay[i])
	}
}
