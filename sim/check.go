// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/cluster"
)

// checker looks at every event whether an invariant of PROTOCOL 13 is broken.
type checker struct {
	w      *World
	err    error
	states map[uint64]uint64 // index -> hash of the state: every node applies the same

	acks   []uint64 // acknowledged transactions, in order
	tried  int
	newest *cluster.State  // the furthest state that anybody applied
	index  uint64          // of newest
	canon  map[uint64]bool // transactions in the WAL that the newest election chose
	saw    map[uint64]bool // elections checked

	off      bool                   // nothing is promised: it is about Postgres alone
	forged   map[cluster.Epoch]bool // epochs whose primary's links were reset by nobody of ours (6.7)
	reported map[cluster.Incarnation]reported

	admissions int
	lastAck    time.Duration
}

// reported is what a node said of itself in its last report for an election.
type reported struct {
	epoch cluster.Epoch
	pos   cluster.Position
}

// RuleOf is the invariant that an error says to be broken; empty: none.
func RuleOf(err error) string {
	var v *Violation
	if errors.As(err, &v) {
		return v.Rule
	}
	if err != nil {
		return "error"
	}
	return ""
}

// Violation is a broken invariant.
type Violation struct{ Rule, Text string }

func (v *Violation) Error() string { return v.Rule + ": " + v.Text }

func newChecker(w *World) *checker {
	return &checker{
		w: w, states: map[uint64]uint64{}, saw: map[uint64]bool{}, forged: map[cluster.Epoch]bool{},
		reported: map[cluster.Incarnation]reported{},
	}
}

func (c *checker) fail(rule, format string, args ...any) {
	if c.err == nil && !c.off {
		c.err = &Violation{rule, fmt.Sprintf(format, args...)}
		c.w.note("CHECK", "VIOLATION %v", c.err)
	}
}

func (c *checker) safe() bool { return c.w.opt.Mode == cluster.ModeQuorum }

// applied: the same index is the same state everywhere; epochs and timelines only grow (I3).
func (c *checker) applied(l *life, index uint64, s *cluster.State) {
	h := fnv.New64a()
	_, _ = h.Write(s.Encode())
	if was, ok := c.states[index]; ok && was != h.Sum64() {
		c.fail("I3", "%s has another state at index %d", l.n.name, index)
	}
	c.states[index] = h.Sum64()
	if index <= c.index && c.newest != nil {
		return
	}
	if old := c.newest; old != nil {
		c.grows(old, s)
	}
	c.newest, c.index = s, index
}

func (c *checker) grows(old, s *cluster.State) {
	if s.Epoch().Epoch < old.Epoch().Epoch || s.HighestTL < old.HighestTL {
		c.fail("I3", "epoch %d after %d, timeline %d after %d", s.Epoch().Epoch, old.Epoch().Epoch, s.HighestTL, old.HighestTL)
	}
	var last cluster.EpochRecord
	for i, e := range s.Epochs {
		if i > 0 && (e.Epoch <= last.Epoch || e.Timeline <= last.Timeline) {
			c.fail("I3", "epoch %d timeline %d after epoch %d timeline %d", e.Epoch, e.Timeline, last.Epoch, last.Timeline)
		}
		last = e
	}
	if s.Phase == cluster.PhaseElecting && old.Phase == s.Phase && old.Election.Epoch == s.Election.Epoch && old.Election.Index != s.Election.Index {
		c.fail("I4", "two open elections for epoch %d", s.Election.Epoch)
	}
	if s.Primary() != old.Primary() && s.Epoch().Epoch == old.Epoch().Epoch {
		c.fail("I14", "another primary in epoch %d", s.Epoch().Epoch)
	}
}

// founded: no second cluster comes to be while any data of the first may exist (I7).
func (c *checker) founded(l *life, id string) {
	for _, n := range c.w.nodes {
		if o := n.vol.genesis; o != nil && o.ClusterID != id {
			c.fail("I7", "%s becomes part of cluster %s, and the volume of %s is of %s", l.n.name, id, n.name, o.ClusterID)
		}
	}
	s := c.newest
	if s == nil || s.ClusterID == id {
		return
	}
	if s.Phase != cluster.PhaseBlank {
		c.fail("I7", "%s becomes part of cluster %s after %s had data", l.n.name, id, s.ClusterID)
	}
	c.newest, c.index = nil, 0 // it went with its only volume
	clear(c.states)
	clear(c.saw)
}

// command looks at each accepted command once.
func (c *checker) command(l *life, index uint64, old, s *cluster.State, cmd cluster.Command) {
	if c.saw[index] {
		return
	}
	c.saw[index] = true
	if cmd.BeginElection == nil && cmd.Elect == nil && cmd.ChangeD == nil && cmd.SettleD == nil && cmd.RevertD == nil {
		return
	}
	c.w.note("log", "%d %s", index, cmd.Encode())
	if cmd.Elect != nil {
		c.elected(l, old, s, *cmd.Elect)
	}
}

// elected is I4 in another way than the guards of Apply, and I1 at the moment of choice.
func (c *checker) elected(l *life, old, s *cluster.State, e cluster.Elect) {
	known := map[cluster.Incarnation]bool{}
	var who []cluster.Incarnation
	var best cluster.Position
	for _, r := range e.Reports { // a donor's position may have been left out since
		if r.Position.Compare(best) > 0 {
			best = r.Position
		}
	}
	for _, r := range e.Reports {
		if r.Known {
			known[r.Inc] = true
		}
		// What somebody promoted by hand since it reported still has what it had, and a catch-up that was ordered while this
		// command was on its way takes nobody further than the best.
		v := c.w.volume(r.Inc)
		if r.Known && v != nil && old.Assigned(v.pg.end().Timeline) && v.pg.end().Compare(r.Position) > 0 && v.pg.end().Compare(best) > 0 && c.reported[r.Inc] != (reported{e.Epoch, r.Position}) {
			c.fail("I4", "epoch %d elected by a report of %s that it did not make: %s", e.Epoch, c.w.nameOf(r.Inc), r.Position)
		}
		who = append(who, r.Inc)
		if v := c.w.volume(r.Inc); v != nil && v.promise < e.Epoch {
			c.fail("I13", "%s reported for epoch %d and has promised %d durably", c.w.nameOf(r.Inc), e.Epoch, v.promise)
		}
	}
	for _, cfg := range old.Configs {
		votes := 0
		for _, inc := range cfg.Voters {
			if slices.Contains(who, inc) {
				votes++
			}
		}
		if votes*2 <= len(cfg.Voters) {
			c.fail("I4", "epoch %d elected by %d of %d voters", e.Epoch, votes, len(cfg.Voters))
		}
	}
	c.covered(old, e, known)
	c.leaseOver(old, e)
	c.explained(s, e)
	c.choose(s, e)
}

// covered: enough of every set that can have acknowledged a commit (3.2.a).
func (c *checker) covered(old *cluster.State, e cluster.Elect, known map[cluster.Incarnation]bool) {
	for _, d := range []*cluster.Durability{&old.D, old.Pending} {
		if d == nil || d.Mode == cluster.ModeAsync || known[old.Primary()] {
			continue
		}
		n := 0
		for _, inc := range d.Set {
			if known[inc] {
				n++
			}
		}
		if n < len(d.Set)-d.K {
			c.fail("I4", "epoch %d elected with %d of the set of %d, k %d", e.Epoch, n, len(d.Set), d.K)
		}
	}
}

// explained: a change of primary has a cause, rules and positions (I10).
func (c *checker) explained(s *cluster.State, e cluster.Elect) {
	what := map[string]bool{}
	for _, d := range s.History {
		if d.Epoch == e.Epoch && d.Rule != "" && d.Detail != "" {
			what[d.What] = true
		}
	}
	if !what["begin_election"] || !what["elect"] || len(e.Reports) == 0 {
		c.fail("I10", "the history does not say why epoch %d was elected", e.Epoch)
	}
}

// leaseOver: in true time the lease of the old primary has ended, or its processes have (I2). What somebody promoted by hand
// has none, and lives until its PID 1 sees it (PROTOCOL 15.e).
func (c *checker) leaseOver(old *cluster.State, e cluster.Elect) {
	for _, n := range c.w.nodes {
		l := n.life
		if c.forged[old.Epoch().Epoch] || n.vol.inc != old.Primary() || l == nil || l.pg == nil || !l.pg.rw || l.pg.orphaned || l.pg.unasked {
			continue
		}
		left := l.deadline + cluster.KillMargin - l.local()
		if left > 0 {
			c.fail("I2", "epoch %d elected (%s) while the lease of %s runs for %s more", e.Epoch, e.Wait, n.name, left)
		} else if !l.frozen && c.w.now > l.thawed+20*time.Millisecond {
			c.fail("I2", "epoch %d elected (%s) and postgres of %s still runs", e.Epoch, e.Wait, n.name)
		}
	}
}

// choose: the WAL that was chosen has every acknowledged transaction.
func (c *checker) choose(s *cluster.State, e cluster.Elect) {
	v := c.w.volume(e.Candidate)
	if v == nil {
		return
	}
	elected := s.Epoch().Elected
	canon := map[uint64]bool{}
	for _, r := range v.pg.recs[:v.pg.flushed] {
		if r.tl > elected.Timeline || r.tl == elected.Timeline && r.end > elected.LSN {
			break
		}
		if r.id != 0 {
			canon[r.id] = true
		}
	}
	if got := v.pg.end(); got.Compare(elected) < 0 {
		c.fail("I13", "%s was elected at %s and ends at %s", c.w.nameOf(e.Candidate), elected, got)
	}
	c.canon = canon
	c.has(canon, fmt.Sprintf("election of epoch %d: the WAL of %s", e.Epoch, c.w.nameOf(e.Candidate)))
}

func (c *checker) has(ids map[uint64]bool, who string) {
	if !c.safe() {
		return
	}
	for _, id := range c.acks {
		if !ids[id] {
			c.fail("I1", "%s lacks acknowledged transaction %d", who, id)
			return
		}
	}
}

func (w *World) volume(inc cluster.Incarnation) *volume {
	for _, n := range w.nodes {
		if n.vol.inc == inc {
			return n.vol
		}
	}
	return nil
}

func idsOf(d *pgDisk) map[uint64]bool {
	ids := map[uint64]bool{}
	for _, r := range d.recs {
		if r.id != 0 {
			ids[r.id] = true
		}
	}
	return ids
}

// acked: a client was told that its transaction is safe.
func (c *checker) acked(p *postgres, t *commit) {
	c.acks = append(c.acks, t.id)
	c.lastAck = c.w.now
	if !c.safe() || c.newest == nil || p.epoch >= c.newest.Epoch().Epoch {
		return
	}
	if !c.canon[t.id] {
		c.fail("I1", "%s acknowledges transaction %d as primary of epoch %d, and epoch %d does not have it",
			p.l.n.name, t.id, p.epoch, c.newest.Epoch().Epoch)
	}
}

// readWrite: a Postgres has begun to run read-write.
func (c *checker) readWrite(l *life, t agent.Task) {
	if got := l.pg.timeline(); got != t.Timeline {
		c.fail("I3", "%s runs read-write on timeline %d in epoch %d, whose timeline is %d", l.n.name, got, t.Epoch, t.Timeline)
	}
	if c.newest == nil || t.Epoch < c.newest.Epoch().Epoch {
		return // superseded while it started; it cannot acknowledge
	}
	c.has(idsOf(l.pg.d), fmt.Sprintf("epoch %d: the WAL of %s", t.Epoch, l.n.name))
}

// admitted: clients are let in (I1, I2).
func (c *checker) admitted(p *postgres) {
	c.admissions++
	if c.newest != nil && p.epoch < c.newest.Epoch().Epoch {
		return
	}
	if p.l.st.Fresh {
		c.fail("9.4", "%s admits clients of a new cluster before a second node holds commits", p.l.n.name)
	}
	c.has(idsOf(p.d), fmt.Sprintf("epoch %d: admitting %s", p.epoch, p.l.n.name))
	c.inherited(p)
	for _, n := range c.w.nodes {
		if o := n.life; o != nil && o != p.l && !c.forged[o.pgEpoch()] && o.pg != nil && o.pg.gate && !o.frozen && c.w.now > o.thawed+20*time.Millisecond {
			c.fail("I2", "%s is admitted in epoch %d while %s serves epoch %d", p.l.n.name, p.epoch, n.name, o.pg.epoch)
		}
	}
}

// inherited: what clients will read on the primary is on enough other disks (I5).
func (c *checker) inherited(p *postgres) {
	d, _ := p.l.st.ListedD() // of a pending change its target: elections need coverage under both (3.3.b)
	if !c.safe() || d.K == 0 {
		return
	}
	n := 0
	for _, o := range c.w.nodes {
		v := o.vol
		if o != p.l.n && slices.Contains(d.Set, v.inc) && slices.ContainsFunc(v.pg.recs[:v.pg.flushed], func(r rec) bool { return r.uid == p.began.uid }) {
			n++
		}
	}
	if n < d.K {
		c.fail("I5", "%s is admitted in epoch %d and %d others hold what its recovery brought back, not %d", p.l.n.name, p.epoch, n, d.K)
	}
}

func (l *life) pgEpoch() cluster.Epoch {
	if l.pg == nil {
		return 0
	}
	return l.pg.epoch
}

// restarted: a primary starts read-write in the epoch that it had (5.8).
func (c *checker) restarted(l *life, served bool) {
	if !served && l.st != nil && len(l.st.D.Set) > 1 {
		c.fail("5.8", "%s starts read-write after a reboot of its host", l.n.name)
	}
}

// attached: a listed name is borne by a node that holds a prefix of its upstream's history (I12).
func (c *checker) attached(s *stream) {
	if s.diverged && slices.Contains(s.up.names, s.app) {
		c.fail("I12", "%s streams from %s as %s and holds what it does not", s.down.l.n.name, s.host, s.app)
	}
}

// ordered is the same at the moment of the order, whatever the name.
func (c *checker) ordered(l *life, f upstreamFile) {
	o := c.w.nodeNamed(f.host)
	if o == nil || o.life == nil || l.pg == nil || o.life.pg == nil || l.pg.rw { // out of recovery nothing reads the file
		return
	}
	mine, theirs := l.pg.d.recs, o.vol.pg.recs
	if n := len(mine); n > len(theirs) || n > 0 && mine[n-1].uid != theirs[n-1].uid {
		c.fail("I12", "the upstream file of %s is ordered to %s, which does not have all of its WAL", l.n.name, f.host)
	}
}

// ackUsed: nothing that a node acknowledges after its report counts for an older epoch beyond what it reported (I11).
func (c *checker) ackUsed(s *stream, lsn cluster.LSN) {
	r, ok := c.reported[s.down.l.vol.inc]
	if ok && s.up.rw && s.up.epoch < r.epoch && lsn > s.acked && lsn > r.pos.LSN && slices.Contains(s.up.names, s.app) {
		c.fail("I11", "%s reported %s for epoch %d and acknowledges %s of epoch %d", s.down.l.n.name, r.pos, r.epoch, lsn, s.up.epoch)
	}
}

// promise: it only grows (I13).
func (c *checker) promise(l *life, e cluster.Epoch) {
	if e < l.vol.promise {
		c.fail("I13", "%s promises %d after %d", l.n.name, e, l.vol.promise)
	}
}

// sent looks at messages: a report rests on what is durable (I13).
func (c *checker) sent(l *life, env cluster.Envelope) {
	r := env.Report
	if s := c.newest; s != nil && (r != nil || env.Grant != nil) {
		if m := s.Member(env.From); m != nil && m.Quarantined {
			c.fail("I6", "%s takes part and is quarantined", l.n.name)
		}
	}
	if r == nil {
		return
	}
	if r.Known && l.st != nil {
		c.reported[r.Inc] = reported{l.st.Election.Epoch, r.Position}
	}
	if r.Promise > l.vol.promise {
		c.fail("I13", "%s reports promise %d, durable is %d", l.n.name, r.Promise, l.vol.promise)
	}
	if r.Known && l.vol.pg.end().Compare(r.Position) < 0 {
		c.fail("I13", "%s reports %s and holds %s", l.n.name, r.Position, l.vol.pg.end())
	}
	if r.Known && r.Position.Compare(l.vol.floor) < 0 {
		c.fail("I13", "%s reports %s below its floor %s", l.n.name, r.Position, l.vol.floor)
	}
}

// stepped is called after each step of a machine.
func (c *checker) stepped(*life) {}

// Healthy says what is missing until the cluster is as it should be; empty: nothing.
func (w *World) Healthy() string {
	s := w.check.newest
	if s == nil {
		return "no state"
	}
	if s.Phase != cluster.PhasePromoted || s.Pending != nil || !s.VotersConfirmed() {
		return fmt.Sprintf("phase %s, pending %v, configurations %d", s.Phase, s.Pending, len(s.Configs))
	}
	if len(s.Members) != len(w.nodes) || len(s.Voters()) != len(w.nodes) || len(s.D.Set) != w.opt.Data {
		return fmt.Sprintf("%d members, %d voters, set of %d", len(s.Members), len(s.Voters()), len(s.D.Set))
	}
	for _, n := range w.nodes {
		l := n.life
		switch {
		case l == nil || l.frozen:
			return string(n.name) + " is down"
		case !s.IsVoter(n.vol.inc):
			return string(n.name) + " runs from a volume that does not vote yet"
		case s.Member(n.vol.inc).Boot != l.boot:
			return string(n.name) + " is not registered"
		case n.witness:
		case l.pg == nil:
			return string(n.name) + " has no postgres"
		case n.vol.inc == s.Primary():
			if !l.pg.gate || !l.pg.rw || len(l.pg.senders) != w.opt.Data-1 {
				return fmt.Sprintf("%s is the primary, gate open %v, %d senders", n.name, l.pg.gate, len(l.pg.senders))
			}
		case l.pg.gate || l.pg.rw:
			return string(n.name) + " is not the primary and runs read-write"
		case l.pg.recv == nil || l.pg.recv.up.l.vol.inc != s.Primary() || l.pg.recv.diverged:
			return string(n.name) + " does not stream from the primary"
		}
	}
	return ""
}

// Primary is the node that the newest state names, if it serves.
func (w *World) serving() *node {
	for _, n := range w.nodes {
		if n.life != nil && n.life.pg != nil && n.life.pg.gate && !n.life.frozen {
			return n
		}
	}
	return nil
}
