// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// book numbers the replicated states that occur and remembers what the product's functions said about them. Every
// state in it came out of cluster.Genesis, cluster.Apply or cluster.ApplyConf (or of a mutant's wrapper around them).
type book struct {
	pages   []page
	numbers map[string]uint16
	applied map[applyKey]uint16
	elected map[electKey][]outcome
	granted map[[2]uint64]bool
	fits    map[[2]uint64]cluster.Fit
	table   []cluster.Rule[cluster.LeaderView, cluster.LeaderOutcome]
	calls   int // of Apply and Decide that were not answered from memory
}

// page is a replicated state and what the actions look at often.
type page struct {
	state    *cluster.State
	phase    cluster.Phase
	epoch    uint8
	timeline cluster.Timeline
	elected  cluster.Position
	primary  id
	election uint8 // the open one's epoch
	members  set
	voters   set
	bar      set // quarantined
	config   uint64
	confirm  bool // voters are confirmed
	set      set
	k        uint8
	list     set // of ListedD, without the primary
	listK    uint8
	target   cluster.Durability
	pending  bool
	back     bool
	boots    [maxNodes * maxGens]uint8
	names    []uint64 // hashes of the state under other names
}

type applyKey struct {
	from uint16
	kind uint8
	a, b uint8
}

func newBook() *book {
	return &book{
		numbers: map[string]uint16{}, applied: map[applyKey]uint16{}, elected: map[electKey][]outcome{},
		granted: map[[2]uint64]bool{}, fits: map[[2]uint64]cluster.Fit{}, table: cluster.FailoverTable(),
	}
}

// number finds or makes the page of a state. History is for people and is dropped.
func (b *book) number(s *cluster.State) uint16 {
	s.History = nil
	key := string(s.Encode())
	if n, ok := b.numbers[key]; ok {
		return n
	}
	n := uint16(len(b.pages))
	if int(n) != len(b.pages) {
		panic("model: more than 65536 replicated states: lower the bounds")
	}
	e := s.Epoch()
	p := page{
		state: s, phase: s.Phase, epoch: uint8(e.Epoch), timeline: e.Timeline, elected: e.Elected, primary: idOf(e.Primary),
		voters: setOf(s.Voters()), config: s.Configs[len(s.Configs)-1].Index, confirm: s.VotersConfirmed(),
		set: setOf(s.D.Set), k: uint8(s.D.K), back: s.Reverting,
	}
	if s.Phase == cluster.PhaseElecting {
		p.election = uint8(s.Election.Epoch)
	}
	for _, m := range s.Members {
		p.members |= idOf(m.Inc).set()
		p.boots[idOf(m.Inc)] = uint8(m.Boot.ID)
		if m.Quarantined {
			p.bar |= idOf(m.Inc).set()
		}
	}
	p.target, p.pending = s.ListedD()
	p.list, p.listK = setOf(p.target.Set)&^p.primary.set(), uint8(p.target.K)
	b.pages = append(b.pages, p)
	b.numbers[key] = n
	return n
}

const refused = ^uint16(0)

// apply carries a command out; refused: its guard did not hold.
func (b *book) apply(from uint16, k applyKey, c cluster.Command, index uint64) uint16 {
	k.from = from
	if n, ok := b.applied[k]; ok {
		return n
	}
	n := b.applyNow(b.pages[from].state, c, index)
	b.applied[k] = n
	return n
}

func (b *book) applyNow(s *cluster.State, c cluster.Command, index uint64) uint16 {
	b.calls++
	t, events := cluster.Apply(s, index, c)
	if events[0].Kind == "rejected" {
		return refused
	}
	return b.number(t.Clone())
}

func (b *book) applyConf(from uint16, k applyKey, c cluster.MemberChange, index uint64) uint16 {
	k.from = from
	if n, ok := b.applied[k]; ok {
		return n
	}
	b.calls++
	n := refused
	if t, _, ok := cluster.ApplyConf(b.pages[from].state, index, c); ok {
		n = b.number(t.Clone())
	}
	b.applied[k] = n
	return n
}

// lease asks the product's lease whether these grants are a majority of those voters. Every grant that is held is of
// now; that one ends is an action of its own.
func (b *book) lease(voters, grants set) bool {
	key := [2]uint64{uint64(voters), uint64(grants)}
	v, ok := b.granted[key]
	if !ok {
		var l cluster.Lease
		var of []cluster.Incarnation
		l.Reset(1, 1)
		grants.each(func(i id) { l.Granted(i.inc(), cluster.Grant{Epoch: 1, Config: 1, T0: 1, LeaseMS: leaseMS}) })
		voters.each(func(i id) { of = append(of, i.inc()) })
		v = l.Valid(of, 2)
		b.granted[key] = v
	}
	return v
}

const leaseMS = 2000

// attach is the attach check of 5.5.c; end is the upstream's end of WAL if it runs read-write, else zero.
func (b *book) attach(n uint16, claim cluster.Position, end uint8) cluster.Fit {
	key := [2]uint64{uint64(n)<<8 | uint64(end), uint64(claim.Timeline)<<32 | uint64(claim.LSN)}
	f, ok := b.fits[key]
	if !ok {
		p := &b.pages[n]
		e := cluster.LSN(end)
		if end == 0 {
			e = p.elected.LSN
		}
		f, _ = cluster.CheckAttach(p.state.Lineage(), p.timeline, e, claim)
		b.fits[key] = f
	}
	return f
}

// copied marks the boots of a volume that was set back: the same numbers again, with other random ids.
const copied = 0x80

// bootOf is a boot as the product has it.
func bootOf(n uint8) cluster.Boot { return cluster.Boot{Number: uint64(n &^ copied), ID: uint64(n)} }

func nodeName(i id) cluster.NodeName { return cluster.NodeName(string(rune('A' + i.slot()))) }

func (i id) String() string {
	if g := int(i) / maxNodes; g > 0 {
		return fmt.Sprintf("%s%d", nodeName(i), g+1)
	}
	return string(nodeName(i))
}

// patience is longer than every wait of the failover table for something better.
const patience = time.Minute
