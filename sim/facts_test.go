// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/e2e/seed"
	"github.com/pgquorum/pgquorum/pgctl/pgtest/facts"
)

// TestFacts: the simulated Postgres does what pgctl/pgtest/facts says of the real one, with other latencies each time.
func TestFacts(t *testing.T) {
	first := seed.First()
	t.Logf("seeds from %d", first)
	for _, f := range facts.All() {
		t.Run(strings.ReplaceAll(f.Name, " ", "_"), func(t *testing.T) {
			for s := first; s < first+10; s++ {
				w := factsWorld(t, s)
				if err := f.Try(w); err != nil {
					t.Fatalf("%s (%s), seed %d: %v\n%s", f.Name, f.Finding, s, err, w.w.Tail())
				}
			}
		})
	}
}

// simFacts is a world of Postgres alone: its containers have no PID 1 that would do something of its own.
type simFacts struct {
	t    *testing.T
	w    *World
	used int // nodes
	ids  uint64
	lie  lie // a wrong Postgres: facts_control_test.go
}

func factsWorld(t *testing.T, seed uint64) *simFacts {
	w := newWorld(t, Options{Seed: seed, Data: 4})
	w.check.off = true
	return &simFacts{t: t, w: w}
}

// Version implements facts.World: the model is of the oldest, which is the worst where they differ.
func (s *simFacts) Version() int { return 15 }

const (
	factsLimit = time.Minute
	factsHeld  = 3 * time.Second
)

// Until implements facts.World.
func (s *simFacts) Until(ok func() bool) bool {
	begin, step := s.w.now, 100*time.Microsecond
	for !ok() {
		if s.w.now >= begin+factsLimit {
			return false
		}
		if s.w.now > begin+time.Second {
			step = 10 * time.Millisecond
		}
		s.run(step)
	}
	return true
}

// Stays implements facts.World.
func (s *simFacts) Stays(ok func() bool) bool {
	for end := s.w.now + factsHeld; s.w.now < end; s.run(5 * time.Millisecond) {
		if !ok() {
			return false
		}
	}
	return true
}

func (s *simFacts) run(d time.Duration) {
	if err := s.w.Run(d); err != nil {
		s.t.Fatal(err)
	}
}

func (s *simFacts) must(what string, ok func() bool) {
	s.t.Helper()
	if !s.Until(ok) {
		s.t.Fatalf("in vain: %s\n%s", what, s.w.Tail())
	}
}

// server is a node whose events nobody handles.
func (s *simFacts) server(name string, list []string) *simServer {
	n := s.w.nodes[s.used]
	s.used++
	n.life = &life{w: s.w, n: n, vol: n.vol, jobs: map[uint64]*job{}, memory: newMemory(), draining: true}
	n.life.note("is %s", name)
	return &simServer{s: s, n: n, l: n.life, list: list}
}

// Primary implements facts.World.
func (s *simFacts) Primary(name string, list ...string) facts.Server {
	p := s.server(name, list)
	p.do(agent.Task{Kind: agent.TaskInit})
	p.Start()
	return s.shown(p)
}

// shown is what a statement sees of a server.
func (s *simFacts) shown(p *simServer) facts.Server {
	if s.lie != "" {
		return liar{p}
	}
	return p
}

type simServer struct {
	s    *simFacts
	n    *node
	l    *life
	list []string
	up   upstreamFile
}

// do runs a task as the real code would, and returns its result.
func (p *simServer) do(t agent.Task) agent.Result {
	p.s.t.Helper()
	t.ID, t.Limit = p.s.w.nextUID(), time.Minute
	p.l.events = nil
	p.l.run(t)
	var done *agent.Done
	p.s.must(string(t.Kind), func() bool {
		for _, e := range p.l.events {
			if d, ok := e.(agent.Done); ok && d.ID == t.ID {
				done = &d
			}
		}
		return done != nil
	})
	if done.Err != nil {
		p.s.t.Fatalf("%s: %v\n%s", t.Kind, done.Err, p.s.w.Tail())
	}
	return done.Result
}

func (p *simServer) settings() agent.Settings {
	return agent.Settings{Names: p.list, K: min(1, len(p.list))}
}

// pg is its Postgres, which must run.
func (p *simServer) pg() *postgres {
	p.s.t.Helper()
	if p.l.pg == nil {
		p.s.t.Fatalf("%s has no postgres\n%s", p.n.name, p.s.w.Tail())
	}
	return p.l.pg
}

// Backup implements facts.Server.
func (p *simServer) Backup(name, slot string, list ...string) facts.Server {
	b := p.s.server(name, list)
	b.n.vol.inc = 0 // the slot is that of the incarnation
	for _, c := range []byte(slot) {
		b.n.vol.inc = b.n.vol.inc*31 + cluster.Incarnation(c)
	}
	b.do(agent.Task{Kind: agent.TaskClone, Host: string(p.n.name)})
	return p.s.shown(b)
}

// Start implements facts.Server.
func (p *simServer) Start() { p.do(agent.Task{Kind: agent.TaskPrimary, Settings: p.settings()}) }

// StartStandby implements facts.Server.
func (p *simServer) StartStandby() {
	p.n.vol.pg.bare = true
	p.do(agent.Task{Kind: agent.TaskRecovery})
	p.pg().tell(p.settings())
	p.l.up = p.up
}

// Stop implements facts.Server.
func (p *simServer) Stop() {
	last := p.pg().lastRecord()
	p.s.must("the standbys have the last record", func() bool { return p.pg().drained(last) })
	p.l.pgGone("stopped")
	p.look()
}

// Kill implements facts.Server.
func (p *simServer) Kill() {
	p.l.pgGone("killed")
	p.look()
}

// look reads the files of a Postgres that is gone; they are fsynced before.
func (p *simServer) look() { p.do(agent.Task{Kind: agent.TaskLook}) }

// KillPostmaster implements facts.Server.
func (p *simServer) KillPostmaster() { p.pg().orphan() }

// Order implements facts.Server.
func (p *simServer) Order(up facts.Server, app string) {
	p.up = upstreamFile{host: string(nodeOf(up).name), app: app}
	p.l.up = p.up
}

func nodeOf(s facts.Server) *node { return s.(interface{ node() *node }).node() }

func (p *simServer) node() *node { return p.n }

// OrderSilent implements facts.Server.
func (p *simServer) OrderSilent(up facts.Server, app string) {
	p.Order(up, app)
	p.s.must("a receiver begins", func() bool { return p.Sent(up) })
	p.s.w.net.cutPG[nodeOf(up).idx][p.n.idx] = true
}

// Sent says whether its receiver is connected to that server.
func (p *simServer) Sent(up facts.Server) bool {
	return p.pg().recv != nil && p.pg().recv.up == nodeOf(up).life.pg
}

// Park implements facts.Server.
func (p *simServer) Park() { p.up, p.l.up = upstreamFile{}, upstreamFile{} }

// ClearConninfo implements facts.Server: the startup process acts on it when it looks.
func (p *simServer) ClearConninfo() {
	pg := p.pg()
	p.Park()
	var look func()
	look = func() {
		switch {
		case pg.dead || pg.recv == nil:
		case pg.rereads():
			pg.recv.close()
		default:
			p.l.after(byPostgres, time.Millisecond, look)
		}
	}
	look()
}

// EndReceiver implements facts.Server.
func (p *simServer) EndReceiver() {
	p.s.must("there is a receiver", func() bool { return p.pg().recv != nil })
	j := &job{l: p.l}
	p.l.endReceiver(p.pg(), j)
	p.s.must("the receiver ends", func() bool { return j.ended })
}

// PauseReplay implements facts.Server.
func (p *simServer) PauseReplay() { p.pg().paused = true }

// ResumeReplay implements facts.Server.
func (p *simServer) ResumeReplay() {
	p.pg().paused = false
	p.pg().replay()
}

// BlockReplay implements facts.Server.
func (p *simServer) BlockReplay(up facts.Server) {
	p.pg().reader = true
	u := nodeOf(up).life.pg
	r := u.write(u.timeline(), 0)
	p.s.must("it is flushed", func() bool { return u.d.end().LSN >= r.end })
}

// ImpatientReplay implements facts.Server: nothing looks at it.
func (p *simServer) ImpatientReplay() {}

// EndReader implements facts.Server.
func (p *simServer) EndReader() { p.pg().unblock() }

// List implements facts.Server.
func (p *simServer) List(names ...string) {
	p.list = names
	p.pg().tell(p.settings())
}

// HoldCheckpointer implements facts.Server.
func (p *simServer) HoldCheckpointer() { p.pg().busy = true }

// FreeCheckpointer implements facts.Server.
func (p *simServer) FreeCheckpointer() { p.pg().busy = false }

// Checkpoint implements facts.Server.
func (p *simServer) Checkpoint() { p.pg().checkpoint() }

// Plug implements facts.Server.
func (p *simServer) Plug(t cluster.Timeline) { p.n.vol.pg.plugged = t }

// Unplug implements facts.Server.
func (p *simServer) Unplug() { p.n.vol.pg.plugged = 0 }

// Promote implements facts.Server.
func (p *simServer) Promote() { p.pg().promoteUnasked() }

// Rewind implements facts.Server: pg_rewind itself, without what the product looks at before.
func (p *simServer) Rewind(from facts.Server) bool {
	d, source := p.n.vol.pg, nodeOf(from).vol.pg
	if p.l.pg != nil {
		p.s.t.Fatal("it runs")
	}
	if d.nothingToRewind(source) {
		return false
	}
	d.becomes(source)
	return true
}

// Switch implements facts.Server.
func (p *simServer) Switch() {
	r := p.pg().switchWAL()
	p.s.must("it is flushed", func() bool { return p.Position().LSN >= r.end })
}

// Recovering implements facts.Server.
func (p *simServer) Recovering() bool { return !p.pg().rw }

// Position implements facts.Server.
func (p *simServer) Position() cluster.Position { return p.n.vol.pg.end() }

// Replayed implements facts.Server.
func (p *simServer) Replayed() cluster.LSN { return p.pg().d.posAt(p.pg().replayed).LSN }

// Received implements facts.Server.
func (p *simServer) Received() cluster.Position {
	r := p.pg().recv
	if r == nil {
		return cluster.Position{}
	}
	return cluster.Position{Timeline: p.n.vol.pg.viewTL, LSN: r.shown}
}

// Switched implements facts.Server.
func (p *simServer) Switched() cluster.Position {
	h := p.n.vol.pg.history()
	if len(h) == 0 {
		p.s.t.Fatal("its timeline is the first")
	}
	return cluster.Position{Timeline: h[len(h)-1].Timeline, LSN: h[len(h)-1].Switch}
}

// Sender implements facts.Server.
func (p *simServer) Sender(app string) string {
	for _, s := range p.pg().senders {
		if s.app == app {
			return fmt.Sprintf("%p", s)
		}
	}
	return ""
}

// simTx is a client's transaction.
type simTx struct {
	id            uint64
	acked, failed bool
}

func (x *simTx) Acked() bool  { return x.acked }
func (x *simTx) Failed() bool { return x.failed }

func (p *simServer) begin(x *simTx, then func()) {
	done := func(acked bool) {
		if acked && then != nil {
			then()
			return
		}
		x.acked, x.failed = acked, !acked
	}
	if p.l.pg == nil || !p.l.pg.commit(x.id, done) {
		x.failed = true
	}
}

func (p *simServer) tx() *simTx {
	p.s.ids++
	return &simTx{id: p.s.ids}
}

// Commit implements facts.Server.
func (p *simServer) Commit() facts.Tx {
	x := p.tx()
	p.begin(x, nil)
	return x
}

// Work implements facts.Server.
func (p *simServer) Work() facts.Tx {
	x := p.tx()
	until := p.s.w.now + 2*time.Second
	var next func()
	next = func() {
		if p.s.w.now >= until {
			x.acked = true
			return
		}
		p.l.after(byPostgres, time.Millisecond, func() { p.begin(x, next) })
	}
	p.begin(x, next)
	return x
}

// Has implements facts.Server: a session sees what is replayed and does not wait.
func (p *simServer) Has(x facts.Tx) bool {
	id := x.(*simTx).id
	for _, c := range p.pg().waiting {
		if c.id == id {
			return false
		}
	}
	for _, r := range p.pg().d.recs[:p.pg().replayed] {
		if r.id == id {
			return true
		}
	}
	return false
}
