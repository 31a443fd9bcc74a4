// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/binary"
	"slices"

	"github.com/pgquorum/pgquorum/cluster"
)

// renaming maps a container to the one it is called instead. Containers that began alike may change names: what they
// do afterwards is the same. Container A, the first primary, keeps its own.
type renaming [maxNodes]uint8

// symmetry knows the renamings of a world.
type symmetry struct {
	all   []renaming
	index [3125]uint8 // of a renaming, read as a number in base 5
	class [maxNodes]uint8
}

func (r renaming) number() int {
	n := 0
	for _, x := range r {
		n = n*maxNodes + int(x)
	}
	return n
}

func (r renaming) id(i id) id { return i - id(i.slot()) + id(r[i.slot()]) }

func (r renaming) set(s set) set {
	var t set
	s.each(func(i id) { t |= r.id(i).set() })
	return t
}

func (w World) symmetry() *symmetry {
	y := &symmetry{}
	for i := range maxNodes {
		y.class[i] = w.Witness>>i&1 | w.Set>>i&1<<1 | w.Outside>>i&1<<2
		if i == 0 || i >= w.Nodes {
			y.class[i] = 8 + uint8(i)
		}
	}
	var grow func(r renaming, used, i int)
	grow = func(r renaming, used, i int) {
		if i == maxNodes {
			y.index[r.number()] = uint8(len(y.all))
			y.all = append(y.all, r)
			return
		}
		for j := range maxNodes {
			if used&(1<<j) == 0 && y.class[i] == y.class[j] {
				r[i] = uint8(j)
				grow(r, used|1<<j, i+1)
			}
		}
	}
	grow(renaming{}, 0, 0)
	return y
}

// rename gives a replicated state other names.
func (r renaming) rename(s *cluster.State) *cluster.State {
	c := s.Clone()
	incs := func(in []cluster.Incarnation) []cluster.Incarnation {
		out := slices.Clone(in)
		for i, x := range out {
			out[i] = r.id(idOf(x)).inc()
		}
		slices.Sort(out)
		return out
	}
	for i := range c.Members {
		m := &c.Members[i]
		m.Inc = r.id(idOf(m.Inc)).inc()
		m.Name = nodeName(idOf(m.Inc))
	}
	slices.SortFunc(c.Members, func(a, b cluster.Member) int { return int(a.Inc) - int(b.Inc) })
	for i := range c.Configs {
		c.Configs[i].Voters = incs(c.Configs[i].Voters)
	}
	for i := range c.Epochs {
		c.Epochs[i].Primary = r.id(idOf(c.Epochs[i].Primary)).inc()
	}
	c.D.Set = incs(c.D.Set)
	if c.Pending != nil {
		c.Pending.Set = incs(c.Pending.Set)
	}
	return c
}

func (b *book) renamed(n uint16, y *symmetry, r uint8) uint64 {
	p := &b.pages[n]
	if p.names == nil {
		p.names = make([]uint64, len(y.all))
	}
	if p.names[r] == 0 {
		p.names[r] = hash(y.all[r].rename(p.state).Encode()) | 1
	}
	return p.names[r]
}

// signature is what a node is, without the names of others.
func (n *node) signature() uint64 {
	c := *n
	c.list, c.grants, c.older, c.forgot, c.flushed, c.deadID, c.ack = 0, 0, 0, 0, 0, 0, [maxNodes]uint8{}
	c.from = min(c.from, 1)
	return hash(c.bytes())
}

// canonical hashes a state so that states which differ in names alone have one hash: nodes that can be told apart are
// put in order; among those that cannot, the least hash of all orders is taken.
func (m *Model) canonical(s *state) uint64 {
	if len(m.sym.all) == 1 {
		return m.hashAs(s, 0)
	}
	var sig [maxNodes]uint64
	for i := 1; i < m.Nodes; i++ {
		sig[i] = s.nodes[i].signature()
	}
	best := ^uint64(0)
	for r := range m.sym.all {
		if m.ordered(&sig, &m.sym.all[r]) {
			best = min(best, m.hashAs(s, uint8(r)))
		}
	}
	return best
}

// ordered: under the renaming, nodes of a class stand in the order of their signatures.
func (m *Model) ordered(sig *[maxNodes]uint64, r *renaming) bool {
	for i := 1; i < m.Nodes; i++ {
		for j := i + 1; j < m.Nodes; j++ {
			if m.sym.class[i] == m.sym.class[j] && sig[i] != sig[j] && (sig[i] < sig[j]) != (r[i] < r[j]) {
				return false
			}
		}
	}
	return true
}

func (m *Model) hashAs(s *state, index uint8) uint64 {
	r := &m.sym.all[index]
	buf := m.buf[:0]
	for _, n := range s.chain[:s.length] {
		buf = binary.LittleEndian.AppendUint64(buf, m.book.renamed(n, m.sym, index))
	}
	buf = append(buf, s.bytes(0)[chainSize:]...)
	at := len(buf)
	buf = buf[:at+m.Nodes*nodeSize]
	for i := range m.Nodes {
		n := s.nodes[i]
		if index != 0 {
			o := n
			n.list, n.grants, n.older, n.forgot = r.set(n.list), r.set(n.grants), r.set(n.older), r.set(n.forgot)
			n.flushed = uint8(r.set(set(n.flushed)))
			if n.from != 0 {
				n.from = r[n.from-1] + 1
			}
			if n.deadID != 0 {
				n.deadID = uint8(r.id(id(n.deadID-1))) + 1
			}
			for j := range m.Nodes {
				n.ack[r[j]] = o.ack[j]
			}
		}
		copy(buf[at+int(r[i])*nodeSize:], n.bytes())
	}
	return hash(buf)
}
