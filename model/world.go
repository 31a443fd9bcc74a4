// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"slices"

	"github.com/pgquorum/pgquorum/cluster"
)

// World is a cluster and the bounds within which it is explored.
type World struct {
	Name    string
	Nodes   int
	Witness uint8 // mask of containers
	Set     uint8 // mask of the members of the durability set at the start; container 0, the primary, is one
	Outside uint8 // mask of containers that are no member at the start

	Epochs    int  // the highest
	Lag       int  // entries that a node may be behind
	Crashes   int  // of PID 1, in all
	Writes    int  // by clients, in all
	Changes   int  // of the durability set
	Reverts   int  // of a pending change
	Wipes     int  // of a volume
	Conf      int  // removals of a member; zero: no membership at all
	Rollbacks int  // of a volume
	SameBoot  bool // the copy may be of the node's present boot
	Evidence  bool
	Skip      uint32 // kinds of actions that do not happen: a shorter search for a known story
}

func (w World) String() string { return w.Name + ": " + w.bounds() }

func (w World) bounds() string {
	s := fmt.Sprintf("%d nodes, set of %d, epochs to %d, lag %d", w.Nodes, set(w.Set).count(), w.Epochs, w.Lag)
	for _, o := range []struct {
		n    int
		what string
	}{
		{w.Crashes, "crash"}, {w.Writes, "write"}, {w.Changes, "change of the set"}, {w.Reverts, "revert"}, {w.Wipes, "wipe"},
		{w.Conf, "removal"}, {w.Rollbacks, "rollback"},
	} {
		if o.n > 0 {
			s += fmt.Sprintf(", %d %s", o.n, o.what)
		}
	}
	if w.Evidence {
		s += ", evidence"
	}
	return s
}

// New makes a model of a world with one mutant, or with none (Sound).
func New(w World, mut Mutant) *Model {
	m := &Model{World: w, mut: mut, book: newBook(), sym: w.symmetry(), buf: make([]byte, 0, 1024)}
	m.want = 1<<violations - 1
	if row := mut.row(); row.Breaks != 0 {
		m.want = row.Breaks
	}
	return m
}

// initial is a formed cluster whose primary, container A, serves and whose other members stream: everything in it was
// made by the product's Genesis and Apply.
func (m *Model) initial() (*state, error) {
	st, err := m.formed()
	if err != nil {
		return nil, err
	}
	s := &state{length: 1, ackN: 1, mustN: 1, bestN: 1}
	s.left = budget{
		crashes: uint8(m.Crashes), writes: uint8(m.Writes), changes: uint8(m.Changes), reverts: uint8(m.Reverts),
		wipes: uint8(m.Wipes), conf: uint8(m.Conf), rollbacks: uint8(m.Rollbacks),
	}
	s.chain[0] = m.book.number(st)
	root := newRecord(1, 1)
	s.must[0], s.best[0] = root, root
	p := m.newest(s)
	for i := range m.Nodes {
		n := &s.nodes[i]
		n.up, n.boot = 1, 1
		if m.Outside&(1<<i) != 0 {
			continue
		}
		n.promise = 1
		s.nodes[0].grants |= s.id(i).set()
		if !m.data(i) {
			continue
		}
		n.n, n.wal[0] = 1, root
		if i == 0 {
			n.pg, n.gate, n.fresh, n.list, n.k = pgReadWrite, 1, 1, p.list, p.listK
			continue
		}
		n.pg, n.from, n.order = pgRecovery, 1, 1
		s.nodes[0].ack[i] = 1
		s.nodes[0].flushed |= 1 << i
	}
	return s, nil
}

func (m *Model) formed() (*cluster.State, error) {
	var offers []cluster.Offer
	f := cluster.Formed{Cluster: "model", LeaseMS: leaseMS, Mode: cluster.ModeQuorum}
	for i := range m.Nodes {
		if m.Outside&(1<<i) == 0 {
			f.Peers = append(f.Peers, nodeName(id(i)))
		}
	}
	for i := range m.Nodes {
		if m.Outside&(1<<i) == 0 {
			offers = append(offers, cluster.Offer{Name: nodeName(id(i)), Inc: id(i).inc(), Witness: !m.data(i), Settings: f})
		}
	}
	st, err := cluster.Genesis(offers)
	if err != nil {
		return nil, fmt.Errorf("form %s: %w", m.Name, err)
	}
	do := func(c cluster.Command) {
		t, ev := cluster.Apply(st, 1, c)
		if ev[0].Kind == "rejected" && err == nil {
			err = fmt.Errorf("form %s: %s", m.Name, ev[0].Detail)
		}
		st = t
	}
	for _, o := range offers {
		do(cluster.Command{Register: &cluster.Register{Inc: o.Inc, Boot: bootOf(1)}})
	}
	do(cluster.Command{Initialized: &cluster.Initialized{From: 1, System: 1, Timeline: 1}})
	for i := 1; i < m.Nodes; i++ {
		if m.Set&(1<<i) == 0 || slices.Contains(st.D.Set, id(i).inc()) {
			continue
		}
		d := st.D.With(id(i).inc())
		do(cluster.Command{ChangeD: &cluster.ChangeD{Epoch: 1, D: d, Rule: "M320"}})
		do(cluster.Command{SettleD: &cluster.SettleD{Epoch: 1, From: 1, X: d}})
	}
	return st.Clone(), err
}
