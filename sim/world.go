// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/cluster"
)

// Options of a World.
type Options struct {
	Seed      uint64
	Data      int // data nodes
	Witnesses int
	Clients   int
	Mode      cluster.Mode
	MaxLag    uint64 // in bytes; 1 MB
	Adopted   bool   // the first node brings data, so clients come before a second one has it (9.4)
	Mutant    Mutant
	With      []string  // kinds of faults that are drawn in any case
	Without   []string  // and those that are not
	Early     bool      // things break before the cluster has grown
	Founded   bool      // but not before it has data
	Out       io.Writer // the whole trace, if set
}

// World is one simulated cluster with its surroundings.
type World struct {
	opt   Options
	now   time.Duration
	seq   uint64
	q     queue
	rng   *rand.Rand
	nodes []*node
	net   *network
	check *checker
	log   *slog.Logger

	lines   []string // the last of the trace
	story   []string // what matters of it
	hash    uint64
	uid     uint64
	clients []*client
	formed  cluster.Formed
	leaseMS int64                                // what nodes ask for at their start; zero: nothing
	faults  bool                                 // messages may be delayed for long
	watch   func(cluster.NodeName, agent.Action) // is shown what machines want done, if set
}

const keepLines = 220

// New makes a world whose nodes are all down and empty.
func New(opt Options) *World {
	if opt.Mode == "" {
		opt.Mode = cluster.ModeQuorum
	}
	if opt.MaxLag == 0 {
		opt.MaxLag = 1 << 20
	}
	w := &World{
		opt: opt, rng: rand.New(rand.NewPCG(opt.Seed, 0x706771756f72756d)), log: slog.New(slog.DiscardHandler),
		hash: fnv.New64a().Sum64(),
	}
	w.check = newChecker(w)
	n := opt.Data + opt.Witnesses
	w.net = newNetwork(w, n)
	for i := range n {
		w.nodes = append(w.nodes, newNode(w, i, i >= opt.Data))
	}
	w.formed = cluster.Formed{Cluster: "sim", LeaseMS: 2000, Mode: opt.Mode, MaxLag: opt.MaxLag}
	for _, n := range w.nodes {
		w.formed.Peers = append(w.formed.Peers, n.name)
	}
	if opt.Adopted {
		w.nodes[0].vol.pg.made(w)
	}
	for i := range opt.Clients {
		w.clients = append(w.clients, newClient(w, i))
	}
	return w
}

func (w *World) at(t time.Duration, fn func()) {
	w.seq++
	w.q.push(timed{at: max(t, w.now), seq: w.seq, fn: fn})
}

func (w *World) after(d time.Duration, fn func()) { w.at(w.now+d, fn) }

// Run carries the world on for d. It returns at the first violation.
func (w *World) Run(d time.Duration) error {
	end := w.now + d
	for len(w.q) > 0 && w.q[0].at <= end && w.check.err == nil {
		e := w.q.pop()
		w.now = e.at
		w.mix(uint64(e.at))
		if e.life != nil {
			e.life.now(e.class, e.fn)
		} else {
			e.fn()
		}
	}
	w.now = max(w.now, end)
	return w.check.err
}

// Until runs until ok holds, at most d.
func (w *World) Until(d time.Duration, ok func() bool) (bool, error) {
	end := w.now + d
	for w.now < end {
		if ok() {
			return true, nil
		}
		if err := w.Run(10 * time.Millisecond); err != nil {
			return false, err
		}
	}
	return ok(), nil
}

func (w *World) mix(v uint64) {
	w.hash ^= v
	w.hash *= 1099511628211
}

// Hash sums up everything that happened: two runs of a seed have the same.
func (w *World) Hash() uint64 { return w.hash }

// note is a trace that belongs to the story.
func (w *World) note(who, format string, args ...any) {
	w.story = append(w.story, w.trace(who, format, args...))
}

// Story is what happened, in short.
func (w *World) Story() string { return strings.Join(w.story, "\n") }

func (w *World) trace(who, format string, args ...any) string {
	l := fmt.Sprintf("%12.6f %-7s ", w.now.Seconds(), who) + fmt.Sprintf(format, args...)
	for i := range len(l) {
		w.mix(uint64(l[i]))
	}
	if w.opt.Out != nil {
		fmt.Fprintln(w.opt.Out, l)
	}
	if len(w.lines) >= 2*keepLines {
		w.lines = append(w.lines[:0], w.lines[keepLines:]...)
	}
	w.lines = append(w.lines, l)
	return l
}

// Tail is the end of the trace.
func (w *World) Tail() string {
	return strings.Join(w.lines[max(0, len(w.lines)-keepLines):], "\n")
}

// between draws a duration.
func (w *World) between(a, b time.Duration) time.Duration {
	if b <= a {
		return a
	}
	return a + time.Duration(w.rng.Int64N(int64(b-a)))
}

// us draws a duration between two numbers of microseconds; one in a hundred is ten times as long.
func (w *World) us(a, b int64) time.Duration {
	d := w.between(time.Duration(a)*time.Microsecond, time.Duration(b)*time.Microsecond)
	if w.rng.IntN(100) == 0 {
		d *= 10
	}
	return d
}

func (w *World) chance(p float64) bool { return w.rng.Float64() < p }

func (w *World) nextUID() uint64 {
	w.uid++
	return w.uid
}

// timed is something that will happen: in a life, if one is given, else in the world.
type timed struct {
	at    time.Duration
	seq   uint64
	life  *life
	class class
	fn    func()
}

func (a *timed) before(b *timed) bool { return a.at < b.at || a.at == b.at && a.seq < b.seq }

// queue is a heap of four branches, written out because it is a quarter of a run's time.
type queue []timed

func (q *queue) push(e timed) {
	*q = append(*q, e)
	h := *q
	i := len(h) - 1
	for i > 0 {
		p := (i - 1) / 4
		if !e.before(&h[p]) {
			break
		}
		h[i] = h[p]
		i = p
	}
	h[i] = e
}

func (q *queue) pop() timed {
	h := *q
	top, n := h[0], len(h)-1
	e := h[n]
	h[n] = timed{}
	h = h[:n]
	*q = h
	if n == 0 {
		return top
	}
	i := 0
	for {
		c := 4*i + 1
		if c >= n {
			break
		}
		for k := c + 1; k < min(c+4, n); k++ {
			if h[k].before(&h[c]) {
				c = k
			}
		}
		if !h[c].before(&e) {
			break
		}
		h[i] = h[c]
		i = c
	}
	h[i] = e
	return top
}

// client writes one transaction after the other on whoever admits it.
type client struct {
	w   *World
	i   int
	gen int
}

func newClient(w *World, i int) *client {
	c := &client{w: w, i: i}
	w.after(w.us(1000, 20000), c.next)
	return c
}

func (c *client) next() {
	c.gen++
	gen := c.gen
	d := c.w.between(2*time.Millisecond, 60*time.Millisecond)
	again := func() {
		if gen == c.gen {
			c.w.after(d, c.next)
		}
	}
	var open []*postgres
	for _, n := range c.w.nodes {
		if n.life != nil && n.life.pg != nil && n.life.pg.gate && n.life.pg.rw {
			open = append(open, n.life.pg)
		}
	}
	if len(open) == 0 {
		again()
		return
	}
	p := open[c.w.rng.IntN(len(open))]
	if c.w.chance(0.8) { // most have heard of the newest primary
		p = slices.MaxFunc(open, func(a, b *postgres) int { return int(a.epoch) - int(b.epoch) })
	}
	id := c.w.nextUID()
	c.w.check.tried++
	p.l.after(byPostgres, c.w.us(50, 500), func() {
		if p.dead || !p.gate || !p.commit(id, func(acked bool) { again() }) {
			again()
		}
	})
	c.w.after(c.w.between(300*time.Millisecond, 3*time.Second), func() { // it gives up waiting; the outcome is unknown
		if gen == c.gen {
			c.next()
		}
	})
}
