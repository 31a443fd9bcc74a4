// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"slices"
	"time"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/raft"
)

// forming is a life of a volume without raft state: it forms a cluster with every listed peer, or finds one that
// exists (PROTOCOL 9.2, 9.5). Events that come before there is a machine are kept, or are the former's.
type forming struct {
	f      *agent.Former
	up     []agent.LinkUp
	saving bool
}

const formEvery = 50 * time.Millisecond

// form begins the life of a volume without raft state.
func (l *life) form() {
	v := l.vol
	l.forming = &forming{}
	if v.genesis != nil { // cut off between the two writes
		l.found()
		return
	}
	o := cluster.Offer{Name: l.n.name, Inc: v.inc, Witness: l.n.witness, Priority: l.n.priority(), Settings: l.w.formed}
	if v.pg.kind == cluster.DiskPresent {
		o.HasData, o.System = true, v.pg.system
	}
	l.write("offer", func() {
		l.forming.f = agent.NewFormer(o, l.local(), 0)
		l.offer()
	})
}

// write is a file made durable.
func (l *life) write(what string, then func()) {
	l.fsync(byAgent, 200, 3000, func() {
		if l.vol.broken() {
			l.diskFailed(what)
			return
		}
		then()
	})
}

// offer is the loop of a node that forms a cluster.
func (l *life) offer() {
	f := l.forming
	if f == nil || f.saving {
		return
	}
	if env, to, due := f.f.Offer(l.local()); due {
		for _, name := range to {
			if o := l.w.nodeNamed(string(name)); o != nil {
				l.w.net.sendNode(l, o, frame{env: &env})
			}
		}
	}
	l.formed()
	l.after(byAgent, formEvery, l.offer)
}

// formed asks whether there is a cluster by now.
func (l *life) formed() {
	f := l.forming
	r := f.f.Result()
	if r == nil || f.saving {
		return
	}
	f.saving = true
	g := r.Genesis()
	l.write("genesis", func() {
		l.vol.genesis = &g
		l.note("belongs to cluster %.8s from now on, as a founding member: %v", g.ClusterID, len(g.State) > 0)
		l.w.check.founded(l, g.ClusterID)
		l.found()
	})
}

// found makes the raft state that goes with the genesis.
func (l *life) found() {
	l.write("raft state", func() {
		if err := l.vol.found(); err != nil {
			l.w.check.fail("raft", "%s: %v", l.n.name, err)
			return
		}
		f := l.forming
		l.forming = nil
		l.serve()
		for _, up := range f.up {
			l.post(up)
		}
	})
}

func (v *volume) found() error {
	var voters []uint64
	if g := v.genesis; len(g.State) > 0 {
		s, err := cluster.DecodeState(g.State)
		if err != nil {
			return err
		}
		for _, i := range s.Voters() {
			voters = append(voters, uint64(i))
		}
	}
	m, err := raft.NewMemStore(voters, v.genesis.State)
	if err != nil {
		return err
	}
	v.store = newStore(m, &v.disk)
	return nil
}

// early takes an event of the time before there is a machine.
func (l *life) early(e agent.Event) {
	f := l.forming
	switch e := e.(type) {
	case agent.LinkUp:
		f.up = append(f.up, e)
	case agent.LinkDown:
		f.up = slices.DeleteFunc(f.up, func(up agent.LinkUp) bool { return up.Inc == e.Inc && up.Out == e.Out })
		if f.f != nil {
			f.f.Gone(e.Inc)
		}
	case agent.Received:
		if f.f != nil {
			f.f.Received(e.Env)
		}
	case agent.StopAsked:
		l.end(true)
	}
}

// answerOffer tells a node that would form a cluster that there is one already.
func (l *life) answerOffer(o cluster.Offer) {
	g := l.vol.genesis
	env := cluster.Envelope{ClusterID: g.ClusterID, From: l.vol.inc, Boot: l.boot, Genesis: g.For(o.Inc)}
	if n := l.w.nodeNamed(string(o.Name)); n != nil {
		l.w.net.sendNode(l, n, frame{env: &env})
	}
}
