// SPDX-License-Identifier: Apache-2.0

package model

import (
	"unsafe"

	"github.com/pgquorum/pgquorum/cluster"
)

// Bounds of the representation; a World's bounds are smaller.
const (
	maxNodes = 5
	maxWAL   = 8 // records on one node
	maxChain = 6 // committed entries that some node has not applied yet
	maxGens  = 3 // incarnations of one container
)

// id names an incarnation: container + maxNodes * number of volumes it had before. The product's Incarnation is id+1.
type id uint8

// set is a set of ids.
type set uint16

func (i id) inc() cluster.Incarnation { return cluster.Incarnation(i) + 1 }
func idOf(inc cluster.Incarnation) id { return id(inc - 1) }
func (i id) slot() int                { return int(i) % maxNodes }
func (i id) set() set                 { return 1 << i }
func (s set) has(i id) bool           { return s&(1<<i) != 0 }
func (s set) each(f func(id)) {
	for i := id(0); s != 0; i, s = i+1, s>>1 {
		if s&1 != 0 {
			f(i)
		}
	}
}

func (s set) count() int {
	n := 0
	for ; s != 0; s &= s - 1 {
		n++
	}
	return n
}

func setOf(incs []cluster.Incarnation) set {
	var s set
	for _, inc := range incs {
		s |= idOf(inc).set()
	}
	return s
}

// record is one record of WAL: its timeline and the epoch whose primary wrote it. A primary never loses what it has
// flushed and an epoch has one primary, so (record, place) names its content.
type record uint8

func newRecord(t cluster.Timeline, e cluster.Epoch) record { return record(t)<<4 | record(e) }
func (r record) timeline() uint8                           { return uint8(r >> 4) }

// The modes of a Postgres.
const (
	pgDown      = 0
	pgRecovery  = 1
	pgReadWrite = 2
)

// node is one container. Fields that are not named durable are lost with PID 1; a node that is down has them zero.
// There is no padding: the bytes are hashed.
type node struct {
	list   set // as primary: the names in its list, itself left out
	grants set // as primary: voters whose grant it holds
	older  set // the same, of the voters before a change (4.6.a)
	forgot set // grants it holds that their voters do not remember; mutants only

	up       uint8
	gen      uint8 // durable: which volume
	boot     uint8 // durable
	seen     uint8 // the applied entry, counted in the chain
	promise  uint8 // durable
	pg       uint8
	gate     uint8 // clients are let in
	from     uint8 // the upstream file is ordered to this container, +1; zero: parked
	order    uint8 // the epoch in the name of that order
	n        uint8 // durable: records on disk
	floorTL  uint8 // durable (8.4)
	floorN   uint8
	k        uint8 // as primary: acknowledgements that a commit waits for
	bar      uint8 // as primary: what must be acknowledged under the list before it is settled
	fresh    uint8 // as primary: end of what recovery brought back (R of 5.7.c)
	flushed  uint8 // as primary: containers whose Flushed came
	deadID   uint8 // evidence about this incarnation, +1
	deadBoot uint8
	repE     uint8 // the election this node has reported for; the message may arrive after its sender's end
	repTL    uint8
	repN     uint8
	repFlags uint8
	ack      [maxNodes]uint8 // as primary: what each container has acknowledged
	wal      [maxWAL]record  // durable
	_        [1]uint8
}

const (
	repKnown  = 1
	repKilled = 2
)

func (n *node) position() cluster.Position {
	if n.n == 0 {
		return cluster.Position{}
	}
	return cluster.Position{Timeline: cluster.Timeline(n.wal[n.n-1].timeline()), LSN: cluster.LSN(n.n)}
}

func (n *node) floor() cluster.Position {
	return cluster.Position{Timeline: cluster.Timeline(n.floorTL), LSN: cluster.LSN(n.floorN)}
}

// holds: the first n records of what is history are on the node's disk.
func (n *node) holds(history *[maxWAL]record, count uint8) bool {
	return n.n >= count && samePrefix(&n.wal, history, count)
}

func samePrefix(a, b *[maxWAL]record, n uint8) bool {
	for i := range n {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// stop ends Postgres; a primary's connections end with it.
func (n *node) stop() {
	n.pg, n.gate, n.list, n.k, n.bar, n.fresh, n.flushed, n.ack = pgDown, 0, 0, 0, 0, 0, 0, [maxNodes]uint8{}
}

// die ends PID 1 and everything that is only in memory.
func (n *node) die() {
	n.stop()
	n.up, n.seen, n.from, n.order, n.grants, n.older, n.forgot, n.deadID, n.deadBoot = 0, 0, 0, 0, 0, 0, 0, 0, 0
}

// budget is what may still happen in a run.
type budget struct{ crashes, writes, changes, reverts, wipes, conf, rollbacks uint8 }

// state is a whole cluster at one instant.
type state struct {
	chain  [maxChain]uint16 // replicated states, by number in the book: from the oldest that a node is at to the newest
	length uint8
	ackN   uint8 // acknowledged to clients: the first ackN records of must
	mustN  uint8 // acknowledged or read by a client
	bestN  uint8 // of best
	must   [maxWAL]record
	best   [maxWAL]record // the WAL that the last election chose
	left   budget
	bad    violation
	nodes  [maxNodes]node
}

const (
	headSize  = unsafe.Offsetof(state{}.nodes)
	chainSize = unsafe.Sizeof([maxChain]uint16{})
	nodeSize  = int(unsafe.Sizeof(node{}))
)

func (n *node) bytes() []byte { return unsafe.Slice((*byte)(unsafe.Pointer(n)), nodeSize) }

// bytes are the state's own memory, without the nodes that the world does not have.
func (s *state) bytes(nodes int) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(s)), headSize+uintptr(nodes)*unsafe.Sizeof(node{}))
}

func (s *state) head() uint16 { return s.chain[s.length-1] }

func (s *state) id(i int) id { return id(i + maxNodes*int(s.nodes[i].gen)) }

// at is the container that is incarnation i now; -1: none.
func (s *state) at(i id) int {
	if n := i.slot(); s.id(n) == i {
		return n
	}
	return -1
}
