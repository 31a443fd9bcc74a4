// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"slices"
	"time"
)

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
