// SPDX-License-Identifier: Apache-2.0

package model

import "github.com/pgquorum/pgquorum/cluster"

// violation is a broken invariant of PROTOCOL 13; zero: none.
type violation uint8

const (
	brokenI1     violation = iota + 1 // an acknowledged commit is missing
	brokenI2                          // two leases, or two primaries that serve
	brokenI3                          // a timeline belongs to two epochs, or numbers went back
	brokenI4                          // an Elect without majority, coverage or the end of the lease
	brokenI5                          // a client read what a later primary lacks
	brokenI11                         // an acknowledgement beyond the report
	brokenI12                         // an order without a common history
	brokenI13                         // a report of what is not held
	brokenI14                         // a step before the barrier of the one before
	brokenSwitch                      // the winner is not at the position it was elected for
	violations
)

func (v violation) String() string {
	return [...]string{
		"", "I1: an acknowledged commit is not in the WAL of a later primary",
		"I2: two nodes hold a lease, or two primaries serve clients",
		"I3: a timeline belongs to two epochs, or a number went back",
		"I4: elected without a majority, coverage or the end of the old lease",
		"I5: a client has read what a later primary lacks",
		"I11: after its report an acknowledgement of a node was used beyond what it reported",
		"I12: an upstream file was ordered although the node's WAL is no prefix of the upstream's",
		"I13: a report claims what is not held, or less than the floor",
		"I14: a step of membership before the barrier of the one before",
		"5.6.c: the winner's WAL is not the one that was elected",
	}[v]
}

func (m *Model) fail(s *state, v violation) {
	if s.bad == 0 && m.want.has(id(v)) {
		s.bad = v
	}
}

// told: a client now knows the first n records of primary i, as acknowledged or by reading. Every later primary must
// have them. The moment of the acknowledgement is the earliest possible one: that asks most of the protocol.
func (m *Model) told(s *state, i int, n uint8, acked bool) {
	w := &s.nodes[i]
	why := brokenI5
	if acked {
		why = brokenI1
	}
	if !samePrefix(&w.wal, &s.must, min(n, s.mustN)) {
		m.fail(s, why)
		return
	}
	if n > s.mustN {
		copy(s.must[:n], w.wal[:n])
		s.mustN = n
	}
	if acked {
		s.ackN = max(s.ackN, n)
	}
	// A primary of a superseded epoch: the epochs after it were elected without this.
	if m.view(s, i).epoch < m.newest(s).epoch && (n > s.bestN || !samePrefix(&w.wal, &s.best, n)) {
		m.fail(s, why)
	}
}

// kept: the WAL that was elected holds what clients know.
func (m *Model) kept(s *state) {
	if s.bestN < s.ackN || !samePrefix(&s.best, &s.must, s.ackN) {
		m.fail(s, brokenI1)
	}
	if s.bestN < s.mustN || !samePrefix(&s.best, &s.must, s.mustN) {
		m.fail(s, brokenI5)
	}
}

// checkVotes: a majority of every configuration that counts.
func (m *Model) checkVotes(s *state, old *page, who set) {
	for _, c := range old.state.Configs {
		if v := setOf(c.Voters); 2*(v&who).count() <= v.count() {
			m.fail(s, brokenI4)
		}
	}
}

// checkElect is I4 and I13 by counting, not by the product's arithmetic.
func (m *Model) checkElect(s *state, old *page, mask int, o outcome) {
	var who, known set
	alone := false
	for i := range m.Nodes {
		n := &s.nodes[i]
		if mask&(1<<i) == 0 {
			continue
		}
		who |= s.id(i).set()
		if n.repFlags&repKnown == 0 {
			continue
		}
		known |= s.id(i).set()
		alone = alone || s.id(i).inc() == old.state.Primary() // decision 0004; whether that is right I1 shows
		if n.repN > n.n || n.repN > 0 && n.wal[n.repN-1].timeline() != n.repTL {
			m.fail(s, brokenI13)
		}
		if n.floor().Compare(n.position()) > 0 {
			m.fail(s, brokenI13)
		}
		if n.promise < old.election && !m.mut.forgetsPromise() {
			m.fail(s, brokenI13)
		}
	}
	m.checkVotes(s, old, who)
	ds := []cluster.Durability{old.state.D}
	if old.state.Pending != nil {
		ds = append(ds, *old.state.Pending)
	}
	for _, d := range ds {
		// The largest part of Set that did not report is too small to have acknowledged anything.
		if missing := (setOf(d.Set) &^ known).count(); missing > d.K && !alone {
			m.fail(s, brokenI4)
		}
	}
	for p := range m.Nodes {
		n := &s.nodes[p]
		if n.pg == pgReadWrite && m.view(s, p).epoch == old.epoch && m.leased(s, p) {
			m.fail(s, brokenI2)
		}
	}
}

// finish is run after every action: what follows from it at once, what must hold, and the form in which equal states
// are the same bytes.
func (m *Model) finish(was, s *state) {
	holders, serving := 0, 0
	for i := range m.Nodes {
		n := &s.nodes[i]
		if n.promise < was.nodes[i].promise && n.gen == was.nodes[i].gen && !m.mut.forgetsPromise() && s.left.rollbacks == was.left.rollbacks {
			m.fail(s, brokenI3)
		}
		if n.up == 0 {
			continue
		}
		if n.grants|n.older != 0 && m.leased(s, i) {
			holders++
		}
		if n.pg == pgReadWrite && n.gate == 1 {
			serving++
			if x := n.released(m, s, i); x > 0 {
				m.told(s, i, x, true)
			}
			m.checkReported(s, i)
		}
	}
	if holders > 1 || serving > 1 {
		m.fail(s, brokenI2)
	}
	m.checkHead(was, s)
	m.normalise(s)
}

// checkHead looks at what the last entry did.
func (m *Model) checkHead(was, s *state) {
	h := m.newest(s)
	if o := m.newest(was); h != o {
		if h.epoch < o.epoch || h.state.HighestTL < o.state.HighestTL || h.epoch > o.epoch && h.timeline <= o.timeline {
			m.fail(s, brokenI3)
		}
		if h.pending && len(h.state.Configs) > 1 || len(h.state.Configs) > 2 {
			m.fail(s, brokenI14)
		}
	}
}

// checkReported is I11.
func (m *Model) checkReported(s *state, p int) {
	n := &s.nodes[p]
	for f := range m.Nodes {
		if o := &s.nodes[f]; o.repE > m.view(s, p).epoch && n.list.has(s.id(f)) && n.ack[f] > o.repN && o.repFlags&repKnown != 0 {
			m.fail(s, brokenI11)
		}
	}
}

// quiet: the entry after this one was a boot or the end of a promotion. A node that has not applied it yet may do less
// than one that has, and nothing else; so all apply it at once.
func (m *Model) quiet(s *state, seen uint8) bool {
	a, b := &m.book.pages[s.chain[seen]], &m.book.pages[s.chain[seen+1]]
	return a.epoch == b.epoch && a.primary == b.primary && a.config == b.config && a.members == b.members && a.bar == b.bar && a.pending == b.pending &&
		a.back == b.back && a.set == b.set && a.confirm == b.confirm && a.election == b.election
}

func (m *Model) normalise(s *state) {
	old := true // an older epoch's primary may still tell clients something
	for i := range m.Nodes {
		n := &s.nodes[i]
		for n.up == 1 && n.seen+1 < s.length && m.quiet(s, n.seen) {
			n.seen++
		}
		if v := m.view(s, i); n.up == 1 && v.primary == s.id(i) && v.epoch < m.newest(s).epoch {
			old = false
		}
	}
	if old {
		s.best, s.bestN = [maxWAL]record{}, 0
	}
	m.trim(s)
	election := m.newest(s).election
	for i := range m.Nodes {
		n := &s.nodes[i]
		for j := n.n; j < maxWAL; j++ {
			n.wal[j] = 0
		}
		if n.repE != 0 && n.repE != election && m.mut != OldReports && m.view(s, i).election == 0 {
			n.repE, n.repTL, n.repN, n.repFlags = 0, 0, 0, 0
		}
		if n.floorN != 0 && n.position().Compare(n.floor()) >= 0 {
			n.floorTL, n.floorN = 0, 0
		}
	}
}

// trim forgets the entries that every node has applied. A node that is down applies everything before it does anything.
func (m *Model) trim(s *state) {
	low := s.length - 1
	for i := range m.Nodes {
		if n := &s.nodes[i]; n.up == 1 {
			low = min(low, n.seen)
		}
	}
	if low > 0 {
		copy(s.chain[:], s.chain[low:s.length])
		s.length -= low
		for i := range m.Nodes {
			if n := &s.nodes[i]; n.up == 1 {
				n.seen -= low
			}
		}
	}
	for i := s.length; i < maxChain; i++ {
		s.chain[i] = 0
	}
}
