// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/cluster"
)

// Kill implements scenario.Faults.
func (s *scenarioWorld) Kill(_ context.Context, part string, nodes ...string) error {
	ls, err := s.these(nodes)
	for _, l := range ls {
		switch {
		case part == "container":
			l.n.kill()
		case l.pg == nil:
			return fmt.Errorf("%s runs no postgres", l.n.name)
		default:
			s.own().killPostgres(l.n)
		}
	}
	return err
}

// Bounce implements scenario.Faults.
func (s *scenarioWorld) Bounce(_ context.Context, nodes ...string) error {
	ls, err := s.these(nodes)
	if err != nil {
		return err
	}
	for _, l := range ls {
		s.own().bounce(l.n)
	}
	return s.until(func() string {
		for _, l := range ls {
			if l.n.life == nil {
				return string(l.n.name) + " is down"
			}
		}
		return ""
	})
}

// Stop implements scenario.Faults.
func (s *scenarioWorld) Stop(_ context.Context, nodes ...string) error {
	ls, err := s.these(nodes)
	if err != nil {
		return err
	}
	for _, l := range ls {
		l.post2(agent.StopAsked{})
	}
	return s.within(10*time.Second, func() string { // Docker kills after that
		for _, l := range ls {
			if !l.dead {
				return string(l.n.name) + " has not ended"
			}
		}
		return ""
	})
}

// Start implements scenario.Faults.
func (s *scenarioWorld) Start(_ context.Context, nodes ...string) error {
	if len(nodes) == 0 {
		nodes = slices.DeleteFunc(s.names(), func(n string) bool { return s.nodeNamed(n).life != nil })
	}
	for _, name := range nodes {
		if _, err := s.up(name); err == nil {
			return fmt.Errorf("%s is up", name)
		}
		s.nodeNamed(name).start()
		if _, err := s.up(name); err != nil {
			return err
		}
	}
	return nil
}

// Reboot implements scenario.Faults.
func (s *scenarioWorld) Reboot(_ context.Context, name string) error {
	l, err := s.up(name)
	if err == nil {
		l.n.kill()
		l.vol.served = false
	}
	return err
}

// Freeze implements scenario.Faults.
func (s *scenarioWorld) Freeze(_ context.Context, part, name string) error {
	l, err := s.up(name)
	switch {
	case err != nil:
		return err
	case part == "container":
		l.n.freeze()
	case part == "init":
		l.n.hold(byAgent, "PID 1")
	case l.pg == nil:
		return fmt.Errorf("%s runs no postgres", name)
	default:
		l.n.hold(byPostgres, "postgres")
	}
	return nil
}

// Thaw implements scenario.Faults.
func (s *scenarioWorld) Thaw(_ context.Context, name string) error {
	l, err := s.up(name)
	if err == nil {
		l.n.thaw()
	}
	return err
}

// Cut implements scenario.Faults.
func (s *scenarioWorld) Cut(_ context.Context, what, name string, from ...string) error {
	if len(from) == 0 {
		from = s.names()
	}
	for _, o := range from {
		i, j := s.nodeNamed(name).idx, s.nodeNamed(o).idx
		for _, e := range [][2]int{{i, j}, {j, i}} {
			if i != j && what != "replication" {
				s.net.cut[e[0]][e[1]] = true
			}
			if i != j && what != "raft" {
				s.net.cutPG[e[0]][e[1]] = true
			}
		}
	}
	return nil
}

// Heal implements scenario.Faults. What the faults of a plan would undo later it undoes now.
func (s *scenarioWorld) Heal(context.Context) error {
	s.m.stop = true
	s.m = &nemesis{w: s.World}
	s.faults = false
	s.net.heal()
	for _, n := range s.nodes {
		n.vol.disk.heal()
		n.thaw()
	}
	return nil
}

// Wipe implements scenario.Faults.
func (s *scenarioWorld) Wipe(_ context.Context, name string) error {
	s.nodeNamed(name).wipe()
	return nil
}

// Save implements scenario.Faults.
func (s *scenarioWorld) Save(_ context.Context, name string) error {
	n := s.nodeNamed(name)
	if n.life != nil {
		return fmt.Errorf("%s is up: stop or kill it first", name)
	}
	if s.saved[name] = n.vol.copyOf(); s.saved[name] == nil {
		return errors.New("it cannot be copied")
	}
	return nil
}

// Restore implements scenario.Faults.
func (s *scenarioWorld) Restore(_ context.Context, name string) error {
	n := s.nodeNamed(name)
	switch {
	case n.life != nil:
		return fmt.Errorf("%s is up: stop or kill it first", name)
	case s.saved[name] == nil:
		return fmt.Errorf("nothing of %s was saved", name)
	}
	n.vol = s.saved[name].copyOf()
	return nil
}

// DropWAL implements scenario.Faults.
func (s *scenarioWorld) DropWAL(_ context.Context, name string) error {
	d := s.nodeNamed(name).vol.pg
	if d.flushed == 0 {
		return fmt.Errorf("%s has no wal", name)
	}
	d.removed = d.flushed
	return nil
}

// GrowWAL implements scenario.Faults.
func (s *scenarioWorld) GrowWAL(_ context.Context, name string) error {
	l, err := s.up(name)
	if err != nil {
		return err
	}
	if l.pg == nil || !l.pg.gate {
		return fmt.Errorf("%s is no primary", name)
	}
	for range 20 {
		l.pg.write(l.pg.timeline(), 0)
	}
	p := l.pg
	return s.until(func() string {
		if p.dead || p.d.flushed < len(p.d.recs) {
			return "it is not flushed"
		}
		return ""
	})
}

// recovering is a node's Postgres, which must be a standby.
func (s *scenarioWorld) recovering(name string) (*postgres, error) {
	l, err := s.up(name)
	if err != nil {
		return nil, err
	}
	if l.pg == nil || l.pg.rw {
		return nil, fmt.Errorf("%s is no standby", name)
	}
	return l.pg, nil
}

// BlockReplay implements scenario.Faults.
func (s *scenarioWorld) BlockReplay(_ context.Context, name string) error {
	p, err := s.recovering(name)
	if err == nil {
		p.paused = true
	}
	return err
}

// Promote implements scenario.Faults.
func (s *scenarioWorld) Promote(_ context.Context, name string) error {
	p, err := s.recovering(name)
	if err != nil {
		return err
	}
	p.promoteUnasked()
	if !p.rw {
		return fmt.Errorf("%s was not promoted", name)
	}
	return nil
}

// Switchover implements scenario.Faults.
func (s *scenarioWorld) Switchover(ctx context.Context, to string) error {
	p := s.newestServing()
	if p == nil {
		return errors.New("nobody serves")
	}
	was, err := s.Epoch(ctx)
	if err != nil {
		return err
	}
	r := cluster.Request{ID: s.nextUID(), Op: "switchover", Target: cluster.NodeName(to)}
	p.life.post2(agent.Requested{Request: r})
	return s.until(func() string {
		now, err := s.Epoch(ctx)
		switch {
		case err != nil:
			return err.Error()
		case s.answer != "":
			return "refused: " + s.answer
		case now == was:
			return "still the same epoch"
		}
		return ""
	})
}
