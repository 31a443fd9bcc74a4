// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/cluster"
)

// scenarioWorld is the simulation as a scenario sees it: scenario.World. Faults are those of the nemesis, but each lasts
// until another step ends it, and time goes by only in steps that wait.
type scenarioWorld struct {
	*World
	m      *nemesis
	last   time.Duration // the newest acknowledgement seen
	gap    time.Duration // the longest time between two since the mark
	rules  map[string]int
	answer string // what the last refused order was told
	saved  map[string]*volume
}

const (
	waitLimit = healIn
	slice     = time.Millisecond
)

func newScenarioWorld(w *World, noise bool) *scenarioWorld {
	s := &scenarioWorld{World: w, m: &nemesis{w: w}, rules: map[string]int{}, saved: map[string]*volume{}}
	w.faults = noise
	w.watch = func(n cluster.NodeName, a agent.Action) {
		switch a := a.(type) {
		case agent.Log:
			if a.Rule != "" {
				s.rules[string(n)+" "+string(a.Rule)]++
			}
		case agent.Answer:
			if !a.Response.OK {
				s.answer = a.Response.Msg
			}
		default:
		}
	}
	return s
}

// run lets time go by and watches the gaps between acknowledgements.
func (s *scenarioWorld) run(d time.Duration) error {
	for end := s.now + d; s.now < end; {
		if err := s.Run(min(slice, end-s.now)); err != nil {
			return err
		}
		if a := s.check.lastAck; a > s.last {
			s.gap, s.last = max(s.gap, a-s.last), a
		}
	}
	return nil
}

// until waits until nothing is missing.
func (s *scenarioWorld) until(missing func() string) error { return s.within(waitLimit, missing) }

func (s *scenarioWorld) within(limit time.Duration, missing func() string) error {
	for end := s.now + limit; ; {
		why := missing()
		if why == "" {
			return nil
		}
		if s.now >= end {
			s.describe()
			return fmt.Errorf("after %s: %s", limit, why)
		}
		if err := s.run(slice); err != nil {
			return err
		}
	}
}

func (s *scenarioWorld) up(name string) (*life, error) {
	if l := s.nodeNamed(name).life; l != nil {
		return l, nil
	}
	return nil, fmt.Errorf("%s is down", name)
}

// these are the lives of some nodes; without names of all that are up.
func (s *scenarioWorld) these(names []string) ([]*life, error) {
	var ls []*life
	for _, name := range names {
		l, err := s.up(name)
		if err != nil {
			return nil, err
		}
		ls = append(ls, l)
	}
	for _, n := range s.nodes {
		if len(names) == 0 && n.life != nil {
			ls = append(ls, n.life)
		}
	}
	return ls, nil
}

// Mark implements scenario.World.
func (s *scenarioWorld) Mark(context.Context) error {
	s.gap, s.last, s.answer = 0, s.check.lastAck, ""
	clear(s.rules)
	return nil
}

// Data implements scenario.Asks.
func (s *scenarioWorld) Data() []string { return s.names()[:s.opt.Data] }

func (s *scenarioWorld) names() []string {
	var names []string
	for _, n := range s.nodes {
		names = append(names, string(n.name))
	}
	return names
}

// newestServing is who serves in the newest epoch; nil: nobody.
func (s *scenarioWorld) newestServing() *node {
	st := s.check.newest
	for _, n := range s.nodes {
		if l := n.life; st != nil && l != nil && !l.frozen && l.pg != nil && l.pg.gate && l.pg.epoch == st.Epoch().Epoch {
			return n
		}
	}
	return nil
}

// Primary implements scenario.Asks.
func (s *scenarioWorld) Primary(context.Context) (string, error) {
	if n := s.newestServing(); n != nil {
		return string(n.name), nil
	}
	return "", errors.New("nobody serves as primary")
}

// Elected implements scenario.Asks.
func (s *scenarioWorld) Elected(context.Context) (string, error) {
	for _, n := range s.nodes {
		if st := s.check.newest; st != nil && st.Primary() == n.vol.inc {
			return string(n.name), nil
		}
	}
	return "", errors.New("nobody has been elected, or its volume is gone")
}

// Leader implements scenario.Asks.
func (s *scenarioWorld) Leader(context.Context) (string, error) {
	var best *node
	for _, n := range s.nodes {
		if l := n.life; l != nil && !l.silent() && l.core.Status().Leader == uint64(n.vol.inc) &&
			(best == nil || l.core.Status().Term > best.life.core.Status().Term) {
			best = n
		}
	}
	if best == nil {
		return "", errors.New("nobody leads")
	}
	return string(best.name), nil
}

// Epoch implements scenario.Asks.
func (s *scenarioWorld) Epoch(context.Context) (uint64, error) {
	if s.check.newest == nil {
		return 0, errors.New("there is no state yet")
	}
	return uint64(s.check.newest.Epoch().Epoch), nil
}

// Outage implements scenario.Asks.
func (s *scenarioWorld) Outage(context.Context) (time.Duration, bool, error) {
	return max(s.gap, s.now-s.last), true, nil
}

// known is how long a cluster has to be well until its leader has heard of it.
const known = 300 * time.Millisecond

// Redundant implements scenario.Waits.
func (s *scenarioWorld) Redundant(context.Context) error {
	since := s.now
	return s.until(func() string {
		why := s.Healthy()
		switch {
		case why != "":
			since = s.now
		case s.now < since+known:
			return "not heard of yet"
		}
		return why
	})
}

// Serves implements scenario.Waits.
func (s *scenarioWorld) Serves(_ context.Context, suits func(string) error) error {
	id := s.uid
	return s.until(func() string {
		p := s.newestServing()
		if p == nil {
			return "nobody serves"
		}
		if err := suits(string(p.name)); err != nil {
			return err.Error()
		}
		if s.ackedSince(id) == 0 {
			return "no write is acknowledged"
		}
		return ""
	})
}

// ackedSince counts the acknowledged transactions that began later.
func (s *scenarioWorld) ackedSince(id uint64) int {
	n := 0
	for i := len(s.check.acks) - 1; i >= 0 && i > len(s.check.acks)-2000; i-- {
		if s.check.acks[i] > id {
			n++
		}
	}
	return n
}

// Acked implements scenario.Waits.
func (s *scenarioWorld) Acked(_ context.Context, n int) error {
	id := s.uid
	return s.until(func() string {
		if got := s.ackedSince(id); got < n {
			return fmt.Sprintf("%d writes are acknowledged", got)
		}
		return ""
	})
}

// Ahead implements scenario.Waits.
func (s *scenarioWorld) Ahead(_ context.Context, node string, bytes uint64) error {
	me := s.nodeNamed(node)
	return s.until(func() string {
		d := me.vol.pg
		var shared cluster.LSN
		for _, o := range s.nodes[:s.opt.Data] {
			if o != me {
				shared = max(shared, d.shared(o.vol.pg))
			}
		}
		if more := uint64(d.end().LSN - shared); d.end().LSN <= shared || more < bytes {
			return fmt.Sprintf("%s has %d bytes that nobody else has", node, more)
		}
		return ""
	})
}

// shared is the end of what two directories have in common.
func (d *pgDisk) shared(o *pgDisk) cluster.LSN {
	for i := min(d.flushed, len(o.recs)); i > 0; i-- {
		if d.recs[i-1].uid == o.recs[i-1].uid {
			return d.recs[i-1].end
		}
	}
	return 0
}

// Followed implements scenario.Waits.
func (s *scenarioWorld) Followed(ctx context.Context, rule, node string) error {
	return s.until(func() string {
		if n, _ := s.Rule(ctx, rule, node); n == 0 {
			return "the rules followed were " + strings.Join(slices.Sorted(maps.Keys(s.rules)), ", ")
		}
		return ""
	})
}

// Rewinding implements scenario.Waits.
func (s *scenarioWorld) Rewinding(_ context.Context, node string) error {
	n := s.nodeNamed(node)
	return s.until(func() string {
		if !n.vol.pg.working {
			return node + " is not being rewound"
		}
		return ""
	})
}

// Refused implements scenario.Waits. It has to stay so for a second: before it is heard of, every boot is not registered.
func (s *scenarioWorld) Refused(_ context.Context, node string) error {
	n := s.nodeNamed(node)
	since := s.now
	return s.until(func() string {
		mb := s.check.newest.Member(n.vol.inc)
		if mb == nil || n.life == nil || !mb.Quarantined && mb.Follows(n.life.boots) {
			since = s.now
			return node + " is let in, or down"
		}
		if s.now < since+time.Second {
			return "not for long yet"
		}
		return ""
	})
}

// Rule implements scenario.Checks.
func (s *scenarioWorld) Rule(_ context.Context, rule, node string) (int, error) {
	n := 0
	for k, c := range s.rules {
		if who, r, _ := strings.Cut(k, " "); r == rule && (node == "" || node == who) {
			n += c
		}
	}
	return n, nil
}

// NoLoss implements scenario.Checks.
func (s *scenarioWorld) NoLoss(ctx context.Context) error {
	acks := slices.Clone(s.check.acks)
	names := s.Data()
	if s.Healthy() != "" {
		p, err := s.Primary(ctx)
		if err != nil {
			return err
		}
		names = []string{p}
	}
	for _, name := range names {
		if err := s.within(10*time.Second, func() string { return s.lacks(name, acks) }); err != nil {
			return err
		}
	}
	return nil
}

func (s *scenarioWorld) lacks(name string, acks []uint64) string {
	count := map[uint64]int{}
	for _, r := range s.nodeNamed(name).vol.pg.recs {
		count[r.id]++
	}
	for _, id := range acks {
		if count[id] != 1 {
			return fmt.Sprintf("%s has the acknowledged write %d %d times", name, id, count[id])
		}
	}
	return ""
}

// OnePrimary implements scenario.Checks.
func (s *scenarioWorld) OnePrimary(ctx context.Context) error {
	p, err := s.Primary(ctx)
	if err != nil {
		return err
	}
	for _, n := range s.nodes {
		if l := n.life; string(n.name) != p && l != nil && !l.frozen && l.pg != nil && l.pg.gate {
			return fmt.Errorf("%s is primary, and %s admits clients", p, n.name)
		}
	}
	return nil
}

// NoWrite implements scenario.Checks.
func (s *scenarioWorld) NoWrite(_ context.Context, d time.Duration) error {
	was := len(s.check.acks)
	if err := s.run(d); err != nil {
		return err
	}
	if got := len(s.check.acks) - was; got > 0 {
		return fmt.Errorf("%d writes were acknowledged", got)
	}
	return nil
}

// Pass implements scenario.Faults.
func (s *scenarioWorld) Pass(_ context.Context, d time.Duration) error { return s.run(d) }

// Strike implements scenario.Faults.
func (s *scenarioWorld) Strike(_ context.Context, kind, node string, primary bool, seed uint64) error {
	if !slices.ContainsFunc(kindsOfFaults(), func(k kindOfFault) bool { return k.name == kind }) {
		return errors.New("there is no such kind of fault: sim/faults.go lists them")
	}
	s.m.strike(Fault{Kind: kind, Node: s.nodeNamed(node).idx, Primary: primary, Seed: seed})
	return nil
}

// own gives the nemesis a source of its own for a step.
func (s *scenarioWorld) own() *nemesis {
	s.m.rng = rand.New(rand.NewPCG(s.rng.Uint64(), 1))
	return s.m
}
