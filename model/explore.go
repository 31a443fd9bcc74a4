// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"time"
	"unsafe"
)

// Result is what an exploration found.
type Result struct {
	States      int // distinct
	Transitions int
	Depth       int // steps from the start to the furthest state
	Pages       int // distinct replicated states
	Calls       int // of the product's Apply, ApplyConf and Decide
	Took        time.Duration
	Complete    bool // everything within the bounds was seen
	Broken      violation
	Story       []string
}

func (r Result) String() string {
	done := "complete"
	if !r.Complete {
		done = "stopped"
	}
	return fmt.Sprintf("%d states, %d transitions, depth %d, %d replicated states, %s, %s", r.States, r.Transitions, r.Depth, r.Pages,
		r.Took.Round(10*time.Millisecond), done)
}

// seen is the set of states by hash, open addressing; a slot is the hash and the state's number + 1. Two states with
// one hash of 64 bits would be taken for one: with ten million states a chance of three in a million.
type seen struct {
	hashes  []uint64
	numbers []uint32
	count   int
}

func newSeen() *seen { return &seen{hashes: make([]uint64, 1<<16), numbers: make([]uint32, 1<<16)} }

// add reports whether the hash is new, and remembers it as number n.
func (t *seen) add(h uint64, n uint32) bool {
	if t.count*4 > len(t.hashes)*3 {
		old := *t
		*t = seen{hashes: make([]uint64, 2*len(old.hashes)), numbers: make([]uint32, 2*len(old.hashes)), count: old.count}
		for i, x := range old.hashes {
			if old.numbers[i] != 0 {
				t.put(x, old.numbers[i])
			}
		}
	}
	if !t.put(h, n+1) {
		return false
	}
	t.count++
	return true
}

func (t *seen) put(h uint64, n uint32) bool {
	mask := uint64(len(t.hashes) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		switch {
		case t.numbers[i] == 0:
			t.hashes[i], t.numbers[i] = h, n
			return true
		case t.hashes[i] == h:
			return false
		}
	}
}

// hash mixes eight bytes at a time.
func hash(b []byte) uint64 {
	h := uint64(len(b)) ^ 0x9e3779b97f4a7c15
	mix := func(x uint64) {
		hi, lo := bits.Mul64(h^x, 0xd6e8feb86659fd93)
		h = hi ^ lo ^ bits.RotateLeft64(x, 29)
	}
	for ; len(b) >= 8; b = b[8:] {
		mix(binary.LittleEndian.Uint64(b))
	}
	var tail [8]byte
	copy(tail[:], b)
	mix(binary.LittleEndian.Uint64(tail[:]))
	mix(0x2545f4914f6cdd1d)
	return h
}

// step is how a state was reached first.
type step struct {
	parent uint32
	action action
}

// explorer is a breadth-first search: the first violation it meets has the shortest story.
type explorer struct {
	m       *Model
	known   *seen
	steps   []step
	level   []byte // the states of this depth, packed
	next    []byte
	size    int
	limit   int
	result  Result
	current uint32
}

// Explore visits every state within the bounds, or stops at the first violation or after limit states (zero: none).
func (m *Model) Explore(limit int) (Result, error) {
	began := time.Now()
	s, err := m.initial()
	if err != nil {
		return Result{}, err
	}
	x := &explorer{m: m, known: newSeen(), size: len(s.bytes(m.Nodes)), limit: limit}
	m.next = x.visit
	m.normalise(s)
	x.current = 0
	x.visit(0, s)
	x.result.Complete = true
	first := uint32(0)
	for depth := 0; len(x.next) > 0 && x.result.Broken == 0; depth++ {
		x.result.Depth = depth
		x.level, x.next = x.next, x.level[:0]
		for off := 0; off < len(x.level) && x.result.Broken == 0; off += x.size {
			x.current = first
			first++
			var at state
			copy(at.bytes(m.Nodes), x.level[off:off+x.size])
			m.steps(&at)
			if limit > 0 && len(x.steps) > limit {
				x.result.Complete, x.next = false, x.next[:0]
				break
			}
		}
	}
	x.result.States, x.result.Took = len(x.steps), time.Since(began)
	x.result.Pages, x.result.Calls = len(m.book.pages), m.book.calls
	return x.result, nil
}

func (x *explorer) visit(a action, s *state) {
	if x.result.Broken != 0 {
		return
	}
	x.result.Transitions++
	b := s.bytes(x.m.Nodes)
	if !x.known.add(x.m.canonical(s), uint32(len(x.steps))) {
		return
	}
	x.steps = append(x.steps, step{x.current, a})
	x.next = append(x.next, b...)
	if s.bad != 0 {
		x.result.Broken, x.result.Complete = s.bad, false
		x.result.Depth++
		x.tell(uint32(len(x.steps) - 1))
	}
}

// tell replays the shortest way to a state and says each step in words.
func (x *explorer) tell(n uint32) {
	var way []action
	for ; n != 0; n = x.steps[n].parent {
		way = append(way, x.steps[n].action)
	}
	m := x.m
	at, err := m.initial()
	if err != nil {
		return
	}
	x.result.Story = append(x.result.Story, m.opening(at))
	for i := len(way) - 1; i >= 0; i-- {
		var after state
		m.next = func(a action, s *state) {
			if a == way[i] {
				after = *s
			}
		}
		m.steps(at)
		x.result.Story = append(x.result.Story, m.words(at, &after, way[i]))
		*at = after
	}
	m.next = x.visit
}

// A node has no padding, so that equal nodes are equal bytes.
const _ = uint(2*4+22+maxNodes+maxWAL+1) - uint(unsafe.Sizeof(node{}))
