// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/raft"
)

const (
	raftTick      = 50 * time.Millisecond
	electionTicks = 10
	pgPort        = 5432
)

// node is a container's place: its name, its volume, and the life that runs in it, if any.
type node struct {
	w       *World
	idx     int
	name    cluster.NodeName
	witness bool
	vol     *volume
	old     *volume // what its volume was at the end of an earlier boot
	life    *life
	last    *cluster.Report // its last one; for a mutant
	base    time.Duration   // its clock: base + rate * virtual time
	rate    float64
	never   bool // it may not be primary: its priority is 0
}

// volume is what survives a life.
type volume struct {
	inc     cluster.Incarnation
	boots   []cluster.Boot // PROTOCOL 1.13
	promise cluster.Epoch
	floor   cluster.Position
	served  bool
	genesis *cluster.GenesisCopy // nil: it belongs to no cluster yet
	store   *simStore            // of raft's log; nil: there is none yet
	pg      *pgDisk
	disk    disk
}

func newNode(w *World, i int, witness bool) *node {
	n := &node{
		w: w, idx: i, name: cluster.NodeName(fmt.Sprintf("pg%d", i+1)), witness: witness,
		base: w.between(0, time.Hour), rate: 1 + (w.rng.Float64()-0.5)*0.0098,
	} // two clocks differ by 1 % at most
	if w.opt.Mutant == MutantClock {
		n.rate = 1 + (w.rng.Float64()-0.5)*1.2
	}
	n.vol = n.newVolume()
	return n
}

func (n *node) newVolume() *volume {
	inc := cluster.Incarnation(n.w.rng.Uint64()>>1 + 1)
	return &volume{inc: inc, pg: &pgDisk{kind: cluster.DiskEmpty}, disk: disk{w: n.w}}
}

// life is one run of a container: PID 1, its machine, its raft, its Postgres.
type life struct {
	w      *World
	n      *node
	vol    *volume
	boot   cluster.Boot
	boots  []cluster.Boot // what its volume listed when it began
	m      *agent.Machine
	core   *raft.Core
	st     *cluster.State
	logged *cluster.LoggedBoots
	dead   bool
	frozen bool          // the whole container
	held   [3]bool       // one class of it
	thawed time.Duration // when it was thawed last

	forming   *forming // until there is a machine
	events    []agent.Event
	draining  bool
	deferred  [3][]func()
	saving    bool // a write of raft's log is under way
	tickAt    time.Duration
	tickTimer time.Duration
	tickGen   uint64
	jobs      map[uint64]*job
	deadline  time.Duration // watchdog, local clock
	armed     uint64

	up      upstreamFile
	pg      *postgres
	pgGen   uint64
	applied uint64
	memory  memory
}

// class says which process of a container does something.
type class int

const (
	byAgent class = iota
	byPostgres
	byWatchdog
)

// after does something in the container later, unless it has died; a frozen one does it when it thaws.
func (l *life) after(c class, d time.Duration, fn func()) {
	w := l.w
	w.seq++
	w.q.push(timed{at: w.now + max(d, 0), seq: w.seq, life: l, class: c, fn: fn})
}

func (l *life) now(c class, fn func()) {
	switch {
	case l.dead:
	case l.frozen || l.held[c]:
		l.deferred[c] = append(l.deferred[c], fn)
	default:
		fn()
	}
}

func (l *life) local() time.Duration {
	return l.n.base + time.Duration(float64(l.w.now)*l.n.rate)
}

func (l *life) untilLocal(t time.Duration) time.Duration {
	return time.Duration(float64(t-l.local())/l.n.rate) + time.Microsecond
}

func (l *life) trace(format string, args ...any) { l.w.trace(string(l.n.name), format, args...) }
func (l *life) note(format string, args ...any)  { l.w.note(string(l.n.name), format, args...) }

// start begins a life.
func (n *node) start() {
	if n.life != nil {
		return
	}
	v := n.vol
	if v.broken() { // boot number, raft's log: nothing of it can be read or written
		n.w.trace(string(n.name), "does not start: the disk fails")
		return
	}
	if len(v.boots) > 0 && n.w.chance(0.3) {
		n.old = v.copyOf()
	}
	v.boots = cluster.NextBoots(v.boots, n.w.rng.Uint64()>>1+1)
	l := &life{w: n.w, n: n, vol: v, boot: v.boots[len(v.boots)-1], boots: v.boots, jobs: map[uint64]*job{}, memory: newMemory()}
	n.life = l
	l.note("container starts: incarnation %s boot %d", v.inc, l.boot.Number)
	n.w.net.started(n)
	if v.store == nil {
		l.form()
		return
	}
	l.serve()
}

func (n *node) priority() int {
	if n.never {
		return 0
	}
	return 100
}

// serve makes the machine and raft of a volume that belongs to a cluster.
func (l *life) serve() {
	n, v := l.n, l.vol
	l.m = agent.New(agent.Options{
		Self: v.inc, Name: n.name, Boot: l.boot, Boots: l.boots, Witness: n.witness, Priority: n.priority(), Port: pgPort,
		Promise: v.promise, Floor: v.floor, LastServed: v.served || n.w.opt.Mutant == MutantReboot, Watchdog: true, LeaseMS: n.w.leaseMS, StopTimeout: 8 * time.Second, Start: l.local(),
	})
	l.logged = &cluster.LoggedBoots{}
	if err := raft.Logged(v.store, l.logged.Saw); err != nil {
		n.w.check.fail("raft", "%s: %v", n.name, err)
		return
	}
	core, err := raft.New(raft.Options{
		ID: uint64(v.inc), Store: v.store, FSM: &fsm{l}, Logger: n.w.log,
		ElectionTicks: electionTicks, HeartbeatTicks: 1, SnapshotEvery: 200, KeepEntries: 100, SendEarly: l.sendRaft,
	})
	if err != nil {
		n.w.check.fail("raft", "%s: %v", n.name, err)
		return
	}
	l.core = core
	if len(l.events) > 0 {
		l.draining = true
		l.after(byAgent, n.w.us(10, 100), l.drain)
	}
	l.after(byAgent, n.w.us(100, 50000), l.raftTicks)
	l.scheduleTick()
	l.after(byAgent, 20*time.Millisecond, l.observe)
	if !n.witness {
		l.after(byAgent, 10*time.Millisecond, l.watchSpace)
	}
}

// end is the end of a life, on purpose or not.
func (l *life) end(planned bool) {
	if l.dead {
		return
	}
	if planned && l.pg != nil {
		l.w.check.fail("6.1", "%s exits on purpose while its postgres runs", l.n.name)
	}
	l.pgGone("container ended")
	l.dead = true
	l.n.life = nil
	l.note("container ends (planned %v)", planned)
	if l.vol.store != nil {
		if err := l.vol.store.crash(l.saving); err != nil {
			l.w.check.fail("raft", "crash: %v", err)
		}
	}
	if l.vol.pg.working {
		l.vol.pg.interrupted(l.w)
	}
	l.w.net.ended(l, planned)
}

func (n *node) kill() {
	if n.life != nil {
		n.life.end(false)
	}
}

// wipe empties the volume of a node that is down.
func (n *node) wipe() {
	n.kill()
	was := n.vol
	n.vol = n.newVolume()
	if n.w.opt.Mutant == MutantSameInc {
		n.vol.inc, n.vol.boots = was.inc, was.boots
	}
	n.w.note(string(n.name), "volume wiped: incarnation %s", n.vol.inc)
}

func (n *node) freeze() {
	if l := n.life; l != nil && !l.frozen {
		l.frozen = true
		l.note("frozen")
	}
}

func (n *node) thaw() {
	l := n.life
	if l == nil || !l.frozen && l.held == [3]bool{} {
		return
	}
	l.note("thawed")
	l.frozen, l.held, l.thawed = false, [3]bool{}, n.w.now
	for c := range l.deferred {
		todo := l.deferred[c]
		l.deferred[c] = nil
		d := n.w.us(0, 4000)
		for _, fn := range todo {
			d += n.w.us(0, 5)
			l.after(class(c), d, fn)
		}
	}
}

// hold stops one class of a container's processes.
func (n *node) hold(c class, what string) {
	if l := n.life; l != nil && !l.frozen && !l.held[c] {
		l.held[c] = true
		l.note("%s stopped", what)
	}
}

// silent: PID 1 answers nobody.
func (l *life) silent() bool { return l.frozen || l.held[byAgent] }

// post hands an event to the machine.
func (l *life) post(e agent.Event) {
	if l.forming != nil {
		l.early(e)
		return
	}
	l.events = append(l.events, e)
	if !l.draining {
		l.draining = true
		l.after(byAgent, l.w.us(10, 100), l.drain)
	}
}

func (l *life) drain() {
	l.draining = false
	for len(l.events) > 0 && !l.dead {
		e := l.events[0]
		l.events = l.events[1:]
		l.step(e)
	}
}

func (l *life) step(e agent.Event) {
	m := l.w.opt.Mutant
	if m != MutantNone {
		if e = m.event(l, e); l.dead {
			return
		}
	}
	for _, a := range l.m.Step(l.local(), e) {
		if m != MutantNone {
			a = m.action(l, a)
		}
		l.do(a)
		if l.dead {
			return
		}
	}
	l.scheduleTick()
	l.w.check.stepped(l)
}

// scheduleTick imitates the loop's timer, which every event resets.
func (l *life) scheduleTick() {
	every := 25 * time.Millisecond
	if !l.m.Calm() {
		every = 4 * time.Millisecond
	}
	l.tickAt = l.w.now + every
	if l.tickTimer == 0 || l.tickTimer > l.tickAt {
		l.armTick()
	}
}

func (l *life) armTick() {
	l.tickGen++
	gen := l.tickGen
	l.tickTimer = l.tickAt
	l.after(byAgent, l.tickAt-l.w.now, func() {
		switch {
		case gen != l.tickGen:
		case l.w.now < l.tickAt:
			l.armTick()
		default:
			l.tickTimer = 0
			l.step(agent.Tick{})
		}
	})
}

func (l *life) raftTicks() {
	l.core.Tick()
	l.pumpRaft()
	l.after(byAgent, raftTick, l.raftTicks)
}

// pumpRaft carries out what raft has ready. What follows from it, messages and applied entries, is seen when its write
// is on disk; until then the loop is busy, and a crash may find the write torn.
func (l *life) pumpRaft() {
	if l.core == nil || l.saving || !l.core.HasReady() {
		return
	}
	from := len(l.events)
	out, ok, err := l.core.Ready()
	if err != nil {
		if !errors.Is(err, errDisk) {
			l.w.check.fail("raft", "%s: %v", l.n.name, err)
			return
		}
		l.trace("raft: %v: PID 1 ends", err)
		l.end(false)
		return
	}
	if !ok {
		return
	}
	news := slices.Clone(l.events[from:])
	l.events = l.events[:from]
	l.saving = true
	l.fsync(byAgent, 200, 3000, func() {
		l.saving = false
		l.sendRaft(out.Messages)
		for _, e := range news {
			l.post(e)
		}
		if r := out.Role; r != nil {
			l.trace("raft: term %d leader %s %s", r.Term, l.w.nameOf(cluster.Incarnation(r.Leader)), r.Self)
			l.post(agent.RaftChanged{Term: r.Term, Leader: cluster.Incarnation(r.Leader)})
		}
		l.pumpRaft()
	})
}

func (l *life) sendRaft(ms []*raftpb.Message) {
	for _, m := range ms {
		if b, err := raft.Encode(l.clusterID(), m); err == nil {
			l.w.net.send(l, cluster.Incarnation(m.GetTo()), frame{raft: b})
		}
	}
}

// clusterID is empty until the volume belongs to a cluster.
func (l *life) clusterID() string {
	if g := l.vol.genesis; g != nil {
		return g.ClusterID
	}
	return ""
}

func (w *World) nameOf(i cluster.Incarnation) string {
	for _, n := range w.nodes {
		if n.vol.inc == i {
			return string(n.name)
		}
	}
	if i == 0 {
		return "-"
	}
	return i.String()
}

// fsm imitates the real one.
type fsm struct{ l *life }

func (f *fsm) changed(index uint64, s *cluster.State, events []cluster.Event) {
	f.l.st, f.l.applied = s, index
	if f.l.logged != nil && f.l.logged.Over(index) {
		f.l.logged = nil
	}
	if me := s.Member(f.l.vol.inc); me != nil && me.Boot == f.l.boot {
		f.l.vol.boots = []cluster.Boot{me.Boot}
	}
	f.l.w.check.applied(f.l, index, s)
	if m := f.l.w.opt.Mutant; m != MutantNone {
		s = m.seen(s, f.l.vol.inc)
	}
	f.l.events = append(f.l.events, agent.Applied{Index: index, State: s, Events: events})
}

func (l *life) apply(index uint64, c cluster.Command) (*cluster.State, []cluster.Event) {
	if m := l.w.opt.Mutant; m != MutantNone {
		return m.apply(l.st, index, c)
	}
	return cluster.Apply(l.st, index, c)
}

// Apply implements raft.FSM.
func (f *fsm) Apply(index, _ uint64, data []byte) {
	if len(data) == 0 || f.l.st == nil {
		return
	}
	c, err := cluster.DecodeCommand(data)
	if err != nil {
		return
	}
	old := f.l.st
	s, events := f.l.apply(index, c)
	if s != old {
		f.l.w.check.command(f.l, index, old, s, c)
	}
	f.changed(index, s, events)
}

// ApplyConf implements raft.FSM.
func (f *fsm) ApplyConf(index, _ uint64, change raft.ConfChange) bool {
	if f.l.st == nil {
		return true
	}
	c, err := cluster.DecodeMemberChange(change.Context)
	if err != nil || uint64(c.Member.Inc) != change.ID {
		return false
	}
	s, events, ok := cluster.ApplyConf(f.l.st, index, c)
	f.changed(index, s, events)
	return ok
}

// Snapshot implements raft.FSM.
func (f *fsm) Snapshot() []byte {
	if f.l.st == nil {
		return nil
	}
	return f.l.st.Encode()
}

// Restore implements raft.FSM.
func (f *fsm) Restore(index uint64, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	s, err := cluster.DecodeState(data)
	if err != nil {
		return err
	}
	f.changed(index, s, nil)
	return nil
}
