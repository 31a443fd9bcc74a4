// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"regexp"
	"slices"
	"time"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/raft"
)

// This file has the mutants that change what goes into the real code and what comes out of it. The others are lines in
// the simulated Postgres, disk and network.

// memory is what mutants remember in a life.
type memory struct {
	renews  map[cluster.Incarnation]cluster.Renew
	granted bool
}

func newMemory() memory {
	return memory{renews: map[cluster.Incarnation]cluster.Renew{}}
}

// silence is how long a link may be silent: under the evidence mutant its end counts, and comes early.
func (m Mutant) silence() time.Duration {
	if m == MutantEvidence {
		return linkSilence / 10
	}
	return linkSilence
}

// position changes what a node knows of its end of WAL.
func (m Mutant) position(l *life, r *agent.Result) {
	s := l.st
	if s == nil || !r.Known {
		return
	}
	cut := func() {
		if fit, fork := s.FitsState(r.Position, 0); fit == cluster.FitDiverged && fork != 0 {
			r.Position = cluster.Position{Timeline: s.TimelineAt(fork, r.Position.Timeline), LSN: fork}
		}
	}
	switch {
	case m == MutantAttach && s.Phase != cluster.PhaseElecting, m == MutantRewind && l.vol.pg.trusted,
		m == MutantVoid && s.Phase == cluster.PhaseElecting:
		cut()
	case m == MutantView:
		r.Position.Timeline = max(r.Position.Timeline, l.vol.pg.viewTL)
	}
}

// seen is the state as a machine is shown it.
func (m Mutant) seen(s *cluster.State, self cluster.Incarnation) *cluster.State {
	if s.Phase == cluster.PhaseElecting {
		return m.electing(s)
	}
	if m == MutantAsync && s.Primary() != self && s.Primary() != 0 {
		n := s.Clone()
		n.D.Mode = cluster.ModeQuorum
		return n
	}
	return s
}

// electing is the state by which an election is judged.
func (m Mutant) electing(s *cluster.State) *cluster.State {
	n := s.Clone()
	switch m {
	case MutantCoverage:
		n.D.K = min(n.D.K+1, len(n.D.Set))
	case MutantAsync:
		n.D.Mode = cluster.ModeQuorum
	case MutantOutside:
		if n.Pending == nil {
			d := cluster.Durability{Mode: n.D.Mode}
			for _, mb := range n.Members {
				if !mb.Witness {
					d.Set = append(d.Set, mb.Inc)
				}
			}
			d.K = len(d.Set)
			n.Pending = &d
		}
	default:
		return s
	}
	return n
}

// apply is cluster.Apply of the mutant's build.
func (m Mutant) apply(s *cluster.State, index uint64, c cluster.Command) (*cluster.State, []cluster.Event) {
	old := s
	switch {
	case c.Elect != nil:
		s, c = m.elect(s, c)
	case m == MutantTwo && c.BeginElection != nil && s.Phase == cluster.PhaseElecting:
		s = s.Clone()
		s.Phase = cluster.PhasePromoted
	case m == MutantOldBoot && c.Register != nil && s.Member(c.Register.Inc) != nil:
		s = s.Clone()
		s.Member(c.Register.Inc).Boot = cluster.Boot{}
	}
	n, events := cluster.Apply(s, index, c)
	if n == s {
		return old, events
	}
	return m.applied(old, n, c), events
}

func (m Mutant) elect(s *cluster.State, c cluster.Command) (*cluster.State, cluster.Command) {
	s = m.electing(s)
	e := *c.Elect
	switch m {
	case MutantLSN:
		e.Reports = slices.Clone(e.Reports)
		best := slices.MaxFunc(e.Reports, func(a, b cluster.Report) int {
			rank := func(r cluster.Report) int {
				if !r.Known || !r.Eligible || !s.InSets(r.Inc) {
					return 0
				}
				return int(r.Position.LSN)
			}
			return rank(a) - rank(b)
		})
		for i := range e.Reports {
			if r := &e.Reports[i]; r.Known && r.Position.Compare(best.Position) > 0 {
				r.Position = best.Position
			}
		}
		e.Candidate = best.Inc
	case MutantGuards:
		if s.Phase == cluster.PhasePromoting && e.Epoch == s.Epoch().Epoch {
			s = s.Clone()
			s.Phase = cluster.PhaseElecting
			s.Election = cluster.Election{Epoch: e.Epoch, Index: e.Election}
		}
	default:
	}
	c.Elect = &e
	return s, c
}

// applied changes the state that a command has made.
func (m Mutant) applied(old, s *cluster.State, c cluster.Command) *cluster.State {
	n := s.Clone()
	switch {
	case m == MutantReplaces && c.ChangeD != nil && s.Pending != nil:
		n.D = *n.Pending
	case m == MutantTimeline && c.Elect != nil:
		e := &n.Epochs[len(n.Epochs)-1]
		e.Timeline = e.Elected.Timeline + 1
		n.HighestTL = max(old.HighestTL, e.Timeline)
	case c.Elect != nil && (m == MutantCoverage || m == MutantOutside || m == MutantAsync):
		n.D, n.Pending, n.Reverting = old.D, old.Pending, old.Reverting
	default:
		return s
	}
	return n
}

// event changes what a machine is told.
func (m Mutant) event(l *life, e agent.Event) agent.Event {
	switch x := e.(type) {
	case agent.Received:
		m.received(l, &x)
		return x
	case agent.Applied:
		m.stateApplied(l, x.State)
	case agent.StopAsked:
		if m == MutantGoodbye {
			l.end(true)
		}
	}
	return e
}

func (m Mutant) stateApplied(l *life, s *cluster.State) {
	switch m {
	case MutantStale:
		if s.Phase != cluster.PhaseElecting || l.core.Status().Role != raft.Leader {
			return
		}
		for _, n := range l.w.nodes {
			if r := n.last; r != nil && n.life != nil && n.life != l && s.Member(r.Inc) != nil {
				c := *r
				c.Boot, c.Election, c.Promise = s.Member(r.Inc).Boot, s.Election.Index, s.Election.Epoch
				l.post(agent.Received{From: r.Inc, Boot: n.life.boot, Env: cluster.Envelope{Report: &c}})
			}
		}
	default:
	}
}

func (m Mutant) received(l *life, x *agent.Received) {
	env := &x.Env
	switch {
	case env.Renew != nil:
		l.memory.renews[x.From] = *env.Renew
		if m == MutantNoWait {
			r := *env.Renew
			r.LeaseMS = 0
			env.Renew = &r
		}
	case env.Grant != nil && m == MutantReceipt:
		g := *env.Grant
		g.T0 = int64(l.local())
		env.Grant = &g
	case env.Grant != nil && m == MutantLeader && l.st != nil && x.From == cluster.Incarnation(l.core.Status().Leader):
		m.allGrant(l, *env.Grant, x.From)
	case env.Report != nil:
		r := *env.Report
		if m == MutantUnknown && !r.Known && r.Eligible {
			r.Known, r.Position = true, cluster.Position{Timeline: 1, LSN: 1}
		}
		env.Report = &r
	case env.Status != nil && m == MutantRewind:
		s := *env.Status
		s.Checkpoint = s.Checkpoint || s.Role == cluster.RoleServing || s.Role == cluster.RolePromoting
		env.Status = &s
	}
}

func (m Mutant) allGrant(l *life, g cluster.Grant, but cluster.Incarnation) {
	for _, n := range l.w.nodes {
		if n.life != nil && n.life != l && n.vol.inc != but {
			l.post(agent.Received{From: n.vol.inc, Boot: n.life.boot, Env: cluster.Envelope{Grant: &g}})
		}
	}
}

var epochOfName = regexp.MustCompile(`\.e[0-9]+$`)

// action changes what a machine wants done.
func (m Mutant) action(l *life, a agent.Action) agent.Action {
	switch x := a.(type) {
	case agent.Send:
		m.send(l, &x)
		return x
	case agent.Propose:
		if c := x.Command; m == MutantGuards && c.Elect != nil { // said again by somebody who has not seen that it was heard
			l.after(byAgent, 20*time.Millisecond, func() {
				_ = l.core.Propose(c.Encode())
				l.pumpSoon()
			})
		}
	case agent.Run:
		if m == MutantName {
			x.Task.App = epochOfName.ReplaceAllString(x.Task.App, "")
			x.Task.Settings.Names = slices.Clone(x.Task.Settings.Names)
			for i, n := range x.Task.Settings.Names {
				x.Task.Settings.Names[i] = epochOfName.ReplaceAllString(n, "")
			}
			return x
		}
	}
	return a
}

func (m Mutant) send(l *life, x *agent.Send) {
	env := &x.Env
	switch {
	case env.Renew != nil && m == MutantAlone:
		m.allGrant(l, cluster.Grant(*env.Renew), 0)
	case env.Renew != nil && m == MutantLeader && l.core.Status().Role == raft.Leader:
		m.allGrant(l, cluster.Grant(*env.Renew), 0)
	case env.Grant != nil:
		l.memory.granted = true
		if m == MutantNoWait {
			g := cluster.Grant(l.memory.renews[x.To])
			env.Grant = &g
		}
	case env.Refuse != nil && m == MutantGrants:
		g := cluster.Grant(l.memory.renews[x.To])
		env.Refuse, env.Grant = nil, &g
	case env.Status != nil && m == MutantForgets && !l.memory.granted:
		s := *env.Status
		s.GrantAgeMS = -1
		env.Status = &s
	case env.Report != nil:
		r := *env.Report
		if l.n.last = env.Report; m == MutantForgets && !l.memory.granted {
			r.GrantLeaseMS = 0
		}
		if m == MutantShorter {
			r.GrantLeaseMS = l.st.LeaseMS
		}
		env.Report = &r
	}
}
