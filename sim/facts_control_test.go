// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"strings"
	"testing"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/pgctl/pgtest/facts"
)

// lie is what a wrong Postgres does.
type lie string

// controls: for each fact a Postgres of which it is not true.
var controls = []struct {
	fact string
	lie  lie
}{
	{"diverged receiver counts", "refuses who has diverged"},
	{"conninfo does not end a receiver", "a reload ends the receiver"},
	{"timelines collide", "numbers of its own"},
	{"stubs plug timelines", "stubs are ignored"},
	{"recovery ends at a gap", "gaps are passed over"},
	{"rewind needs the checkpoint", "always rewinds"},
	{"rewind needs the checkpoint", "never rewinds"},
	{"list armed late", "armed at once"},
	{"list armed before", "a promotion disarms"},
	{"waiting commit is invisible", "shows what waits"},
	{"waiting commit is invisible", "a crash forgets what waits"},
	{"stop makes it visible", "a stop forgets what waits"},
	{"wait ends with the standby", "no receiver comes back"},
	{"wait ends with the list", "the list never changes"},
	{"listed name counts", "names are checked"},
	{"slot admits one", "slots of their own"},
	{"received timeline jumps", "shows what is on disk"},
	{"restarted receiver shows too little", "shows what is on disk"},
	{"sessions outlive the postmaster", "sessions end with it"},
	{"reader blocks promotion", "readers are ended"},
	{"ended receiver keeps what it acknowledged", "a receiver forgets"},
	{"attach before the promotion", "a promotion ends WAL senders"},
	{"no receiver behind a backlog", "replay goes on"},
	{"no receiver behind a pause", "a pause is ignored"},
	{"switch record ends a segment", "a switch record is short"},
	{"promotion takes all WAL", "takes what is replayed"},
	{"crash keeps what was acknowledged", "a crash forgets what waits"},
	{"clean stop leaves nothing behind", "waits for no standby"},
}

// TestFactsControl: a statement that holds of every Postgres says nothing.
func TestFactsControl(t *testing.T) {
	told := map[string]bool{}
	for _, c := range controls {
		told[c.fact] = true
		t.Run(strings.ReplaceAll(c.fact+", "+string(c.lie), " ", "_"), func(t *testing.T) {
			for seed := uint64(1); seed <= 3; seed++ {
				w := factsWorld(t, seed)
				w.lie = c.lie
				if err := factNamed(t, c.fact).Try(w); err == nil {
					t.Errorf("seed %d: holds", seed)
				} else if seed == 1 {
					t.Log(err)
				}
			}
		})
	}
	for _, f := range facts.All() {
		if !told[f.Name] {
			t.Errorf("%q cannot fail", f.Name)
		}
	}
}

func factNamed(t *testing.T, name string) facts.Fact {
	t.Helper()
	for _, f := range facts.All() {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("there is no fact %q", name)
	return facts.Fact{}
}

// liar does one thing otherwise.
type liar struct{ *simServer }

func (p liar) is(l lie) bool { return p.s.lie == l }

// Backup implements facts.Server.
func (p liar) Backup(name, slot string, list ...string) facts.Server {
	if p.is("slots of their own") {
		slot = name
	}
	return p.simServer.Backup(name, slot, list...)
}

// Order implements facts.Server.
func (p liar) Order(up facts.Server, app string) {
	switch {
	case p.is("refuses who has diverged") && app == "diverged", p.is("no receiver comes back") && p.Parked():
		return
	case p.is("names are checked"):
		app = "no " + app
		if up.Sender("no other") == "" {
			app = "other"
		}
	}
	p.simServer.Order(up, app)
}

// Parked says whether it ran with an upstream and has none now.
func (p liar) Parked() bool { return p.l.pg != nil && p.l.up.host == "" }

// ClearConninfo implements facts.Server.
func (p liar) ClearConninfo() {
	p.simServer.ClearConninfo()
	if p.is("a reload ends the receiver") {
		p.EndReceiver()
	}
}

// Promote implements facts.Server.
func (p liar) Promote() {
	d := p.n.vol.pg
	switch p.s.lie {
	case "numbers of its own":
		d.plugged = cluster.Timeline(p.n.idx + 2)
	case "readers are ended":
		p.pg().unblock()
	case "a promotion ends WAL senders":
		for _, s := range append([]*stream(nil), p.pg().senders...) {
			s.close()
		}
	case "takes what is replayed":
		d.recs = d.recs[:p.pg().replayed]
		d.flushed = len(d.recs)
	}
	p.simServer.Promote()
	if p.is("a promotion disarms") {
		p.pg().armed = false
	}
}

// Plug implements facts.Server.
func (p liar) Plug(t cluster.Timeline) {
	if !p.is("stubs are ignored") {
		p.simServer.Plug(t)
	}
}

// Unplug implements facts.Server.
func (p liar) Unplug() {
	if !p.is("gaps are passed over") {
		p.simServer.Unplug()
	}
}

// Rewind implements facts.Server.
func (p liar) Rewind(from facts.Server) bool {
	switch p.s.lie {
	case "always rewinds":
		p.n.vol.pg.becomes(nodeOf(from).vol.pg)
		return true
	case "never rewinds":
		return false
	}
	return p.simServer.Rewind(from)
}

// List implements facts.Server.
func (p liar) List(names ...string) {
	if p.is("the list never changes") {
		return
	}
	p.simServer.List(names...)
	if p.is("armed at once") {
		p.pg().armed = true
	}
}

// Has implements facts.Server.
func (p liar) Has(x facts.Tx) bool {
	if p.is("shows what waits") {
		return idsOf(p.n.vol.pg)[x.(*simTx).id]
	}
	return p.simServer.Has(x)
}

// forget removes what waits from the files.
func (p liar) forget() {
	if w := p.pg().waiting; len(w) > 0 {
		d := p.n.vol.pg
		d.recs = d.recs[:w[0].n-1]
		d.flushed = len(d.recs)
	}
}

// Kill implements facts.Server.
func (p liar) Kill() {
	if p.is("a crash forgets what waits") {
		p.forget()
	}
	p.simServer.Kill()
}

// Stop implements facts.Server.
func (p liar) Stop() {
	switch p.s.lie {
	case "a stop forgets what waits":
		p.forget()
	case "waits for no standby":
		p.pg().lastRecord()
		p.simServer.Kill()
		return
	}
	p.simServer.Stop()
}

// KillPostmaster implements facts.Server.
func (p liar) KillPostmaster() {
	if p.is("sessions end with it") {
		p.simServer.Kill()
		return
	}
	p.simServer.KillPostmaster()
}

// PauseReplay implements facts.Server.
func (p liar) PauseReplay() {
	if !p.is("a pause is ignored") {
		p.simServer.PauseReplay()
	}
}

// EndReceiver implements facts.Server.
func (p liar) EndReceiver() {
	p.simServer.EndReceiver()
	d := p.n.vol.pg
	switch p.s.lie {
	case "replay goes on":
		p.pg().unblock()
	case "a receiver forgets":
		d.recs = d.recs[:len(d.recs)-1]
		d.flushed = len(d.recs)
	}
}

// Received implements facts.Server.
func (p liar) Received() cluster.Position {
	if p.is("shows what is on disk") {
		return p.Position()
	}
	return p.simServer.Received()
}

// Switch implements facts.Server.
func (p liar) Switch() {
	if p.is("a switch record is short") {
		r := p.pg().write(p.pg().timeline(), 0)
		p.s.must("it is flushed", func() bool { return p.Position().LSN >= r.end })
		return
	}
	p.simServer.Switch()
}
