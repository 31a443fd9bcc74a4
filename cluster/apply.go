// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"slices"
)

// Event is something that applying an entry did, for logs and for the node's machine.
type Event struct {
	Kind   string `json:"kind"` // the command's name; "rejected" when its guard failed
	Detail string `json:"detail,omitempty"`
	Rule   RuleID `json:"rule,omitempty"`
}

// Apply carries out one committed command. It is deterministic and total: a command whose guard fails changes
// nothing and yields an event of kind "rejected". s is not modified.
func Apply(s *State, index uint64, c Command) (*State, []Event) {
	n := s.Clone()
	kind, rule, detail, err := n.apply(index, c)
	if err != nil {
		return s, []Event{{Kind: "rejected", Detail: kind + ": " + err.Error(), Rule: rule}}
	}
	return n, []Event{{Kind: kind, Detail: detail, Rule: rule}}
}

func (s *State) apply(index uint64, c Command) (kind string, rule RuleID, detail string, err error) {
	switch {
	case c.Initialized != nil:
		detail, err = s.initialized(index, *c.Initialized)
		return "initialized", "", detail, err
	case c.Register != nil:
		detail, err = s.register(*c.Register)
		return "register", "", detail, err
	case c.BeginElection != nil:
		detail, err = s.beginElection(index, *c.BeginElection)
		return "begin_election", c.BeginElection.Rule, detail, err
	case c.Elect != nil:
		detail, err = s.elect(index, *c.Elect)
		return "elect", c.Elect.Rule, detail, err
	case c.Promoted != nil:
		detail, err = s.promoted(index, *c.Promoted)
		return "promoted", "", detail, err
	case c.Admitted != nil:
		detail, err = s.admitted(index, *c.Admitted)
		return "admitted", "", detail, err
	case c.ChangeD != nil:
		detail, err = s.changeD(index, *c.ChangeD)
		return "change_d", c.ChangeD.Rule, detail, err
	case c.RevertD != nil:
		detail, err = s.revertD(*c.RevertD)
		return "revert_d", c.RevertD.Rule, detail, err
	case c.SettleD != nil:
		detail, err = s.settleD(index, *c.SettleD)
		return "settle_d", "", detail, err
	case c.ConfirmVoters != nil:
		err = s.confirmVoters(*c.ConfirmVoters)
		return "confirm_voters", "", "", err
	case c.SetLease != nil:
		detail, err = s.setLease(index, *c.SetLease)
		return "set_lease", c.SetLease.Rule, detail, err
	case c.Pause != nil:
		s.Paused = c.Pause.Paused
		return "pause", "", fmt.Sprint(s.Paused), nil
	}
	return "unknown", "", "", fmt.Errorf("no command of this version")
}

func (s *State) initialized(index uint64, c Initialized) (string, error) {
	if s.Phase != PhaseBlank {
		return "", fmt.Errorf("phase is %s", s.Phase)
	}
	if c.From != s.Founder {
		return "", fmt.Errorf("%s is not the founder", s.NameOf(c.From))
	}
	if c.System == 0 || c.Timeline == 0 {
		return "", fmt.Errorf("no system identifier or timeline")
	}
	s.System, s.Base = c.System, slices.Clone(c.Base)
	s.Epochs = append(s.Epochs, EpochRecord{Epoch: 1, Primary: c.From, Timeline: c.Timeline, Index: index, Promoted: true})
	s.HighestTL = max(s.HighestTL, c.Timeline)
	s.Phase = PhasePromoted
	d := fmt.Sprintf("%s founds the cluster on timeline %d", s.NameOf(c.From), c.Timeline)
	s.remember(Decided{Index: index, Epoch: 1, What: "initialized", Detail: d})
	return d, nil
}

func (s *State) register(c Register) (string, error) {
	m := s.Member(c.Inc)
	if m == nil {
		return "", fmt.Errorf("%s is not a member", c.Inc)
	}
	switch {
	case c.Boot == m.Boot:
		return "known boot", nil
	case slices.Contains(m.Past, c.Boot): // forwarded late, when the node had started again and that was registered
		return "", fmt.Errorf("boot %d of %s is over, boot %d is registered", c.Boot.Number, m.Name, m.Boot.Number)
	case c.Boot.Number > m.Boot.Number && m.Follows(c.Boots):
		m.outlive(c)
		return fmt.Sprintf("%s boot %d", m.Name, c.Boot.Number), nil
	}
	// an older number, the same with another id, or a list without the registered boot: a rolled-back or doubled volume
	// (PROTOCOL 9.9)
	m.Quarantined = true
	return fmt.Sprintf("%s quarantined: boot %d does not follow the registered boot %d", m.Name, c.Boot.Number, m.Boot.Number), nil
}

func (s *State) beginElection(index uint64, c BeginElection) (string, error) {
	switch {
	case s.Phase != PhasePromoting && s.Phase != PhasePromoted:
		return "", fmt.Errorf("phase is %s", s.Phase)
	case c.Epoch != s.Epoch().Epoch+1:
		return "", fmt.Errorf("epoch %d after %d", c.Epoch, s.Epoch().Epoch)
	case s.Paused && !c.Cause.ByOperator():
		return "", fmt.Errorf("paused")
	case c.Target != 0 && (s.Member(c.Target) == nil || !s.InSets(c.Target)):
		return "", fmt.Errorf("target %s cannot win", c.Target)
	}
	s.Phase = PhaseElecting
	s.Election = Election{Epoch: c.Epoch, Index: index, Cause: c.Cause, Target: c.Target}
	s.remember(Decided{Index: index, Epoch: c.Epoch, What: "begin_election", Rule: c.Rule, Detail: string(c.Cause) + ": " + c.Detail})
	return fmt.Sprintf("epoch %d: %s", c.Epoch, c.Cause), nil
}

func (s *State) elect(index uint64, c Elect) (string, error) {
	if s.Phase != PhaseElecting || s.Election.Index != c.Election || s.Election.Epoch != c.Epoch {
		return "", fmt.Errorf("no such election open")
	}
	best, err := s.checkReports(c)
	if err != nil {
		return "", err
	}
	m := s.Member(c.Candidate)
	if m == nil || m.Witness || m.Quarantined || !s.IsVoter(c.Candidate) || !s.InSets(c.Candidate) {
		return "", fmt.Errorf("candidate %s may not win", s.NameOf(c.Candidate))
	}
	i := slices.IndexFunc(c.Reports, func(r Report) bool { return r.Inc == c.Candidate })
	if i < 0 || !c.Reports[i].Eligible || !c.Reports[i].Known || c.Reports[i].Position.Compare(best) != 0 {
		return "", fmt.Errorf("candidate %s does not hold the best position %s", m.Name, best)
	}
	if err := s.checkWait(c); err != nil {
		return "", err
	}
	loss, err := s.checkLoss(c, best)
	if err != nil {
		return "", err
	}
	high := s.HighestTL
	for _, r := range c.Reports {
		high = max(high, r.HighestTL, r.Position.Timeline)
	}
	next := s.nextTimeline(high)
	if next <= high { // I3: they only grow
		return "", fmt.Errorf("timeline numbers are used up")
	}
	s.HighestTL = next
	s.Epochs = append(s.Epochs, EpochRecord{Epoch: c.Epoch, Primary: c.Candidate, Timeline: next, Elected: best, Index: index})
	s.foldEpochs()
	s.Configs = s.Configs[len(s.Configs)-1:] // 4.6.b: Elect confirms the current one
	s.inheritPending(c.Candidate)
	s.Phase = PhasePromoting
	s.Election = Election{}
	d := fmt.Sprintf("%s leads epoch %d from %s on timeline %d (%s)%s", m.Name, c.Epoch, best, next, c.Wait, loss)
	s.remember(Decided{Index: index, Epoch: c.Epoch, What: "elect", Rule: c.Rule, Detail: d})
	return d, nil
}

// checkLoss is PROTOCOL 3.5.b: async mode loses no more than MaxLag of what is known, and history says what it is.
func (s *State) checkLoss(c Elect, best Position) (string, error) {
	if !s.Async() {
		return "", nil
	}
	lost := Lost(c.Reports, best)
	if lost > s.MaxLag {
		return "", fmt.Errorf("%s is %d bytes behind the last known end of %s, %d are allowed", best, lost, s.NameOf(s.Primary()), s.MaxLag)
	}
	var known []Incarnation
	for _, r := range c.Reports {
		if r.Known {
			known = append(known, r.Inc)
		}
	}
	coverage := "transactions that asked for safety are safe"
	if !s.CoveredInFull(known) {
		coverage = "without coverage: transactions that asked for safety may be lost too"
	}
	return fmt.Sprintf("; %d bytes behind the last known end of %s, %s", lost, s.NameOf(s.Primary()), coverage), nil
}

// checkReports is the guard of Elect on the reports: each is of this election, from a registered boot and a
// current incarnation, promised; a majority, covering. It returns the best position.
func (s *State) checkReports(c Elect) (Position, error) {
	var voters, known []Incarnation
	var best Position
	for _, r := range c.Reports {
		m := s.Member(r.Inc)
		switch {
		case m == nil || m.Quarantined:
			return best, fmt.Errorf("report of %s, not a member in good standing", r.Inc)
		case r.Election != c.Election || r.Promise < c.Epoch || r.Boot != m.Boot:
			return best, fmt.Errorf("report of %s is of another election or boot, or without promise", m.Name)
		case slices.Contains(voters, r.Inc):
			return best, fmt.Errorf("two reports of %s", m.Name)
		}
		voters = append(voters, r.Inc)
		if r.Known && (r.Position.Timeline == 0 || r.Position.LSN == 0) {
			return best, fmt.Errorf("report of %s knows its position and names none", m.Name)
		}
		if r.Known && !m.Witness {
			known = append(known, r.Inc)
			if r.Position.Compare(best) > 0 {
				best = r.Position
			}
		}
	}
	if !s.HasMajority(voters) {
		return best, fmt.Errorf("no majority of voters reported")
	}
	if !s.Decisive(known) {
		return best, fmt.Errorf("reports do not cover the durability set")
	}
	return best, nil
}

// checkWait is the part of PROTOCOL 5.3.c that can be checked again at apply.
func (s *State) checkWait(c Elect) error {
	old := s.Epoch()
	switch c.Wait {
	case WaitLease:
		return nil // a wait on the leader's clock
	case WaitNone:
		if len(s.Voters()) == 1 {
			return nil
		}
		return fmt.Errorf("more than one voter, but no lease wait")
	case WaitOwnFence:
		for _, r := range c.Reports {
			if r.Inc == old.Primary && r.Killed {
				return nil
			}
		}
		return fmt.Errorf("no report of the old primary's own fence")
	case WaitEvidence:
		p := s.Member(old.Primary)
		if p == nil || s.Async() || s.FastOff {
			return fmt.Errorf("evidence does not count here")
		}
		for _, r := range c.Reports {
			if s.votesSomewhere(r.Inc) && !r.Evidence.About(old.Primary, p.Boot) {
				return fmt.Errorf("voter %s reports without evidence", s.NameOf(r.Inc))
			}
		}
		return nil
	}
	return fmt.Errorf("unknown wait %q", c.Wait)
}

func (s *State) votesSomewhere(inc Incarnation) bool {
	return slices.ContainsFunc(s.Configs, func(c VoterConfig) bool { return slices.Contains(c.Voters, inc) })
}

func (s *State) promoted(index uint64, c Promoted) (string, error) {
	e := s.Epoch()
	switch {
	case s.Phase != PhasePromoting || c.Epoch != e.Epoch || c.From != e.Primary:
		return "", fmt.Errorf("not the promoting primary")
	case c.Timeline != e.Timeline:
		return "", fmt.Errorf("timeline %d, assigned %d", c.Timeline, e.Timeline)
	case c.Switch != e.Elected.LSN:
		return "", fmt.Errorf("left the parent at %s, elected at %s", c.Switch, e.Elected.LSN)
	}
	r := &s.Epochs[len(s.Epochs)-1]
	r.Promoted, r.Switch, r.NextXID = true, c.Switch, c.NextXID
	s.Phase = PhasePromoted
	d := fmt.Sprintf("%s on timeline %d", s.NameOf(c.From), c.Timeline)
	s.remember(Decided{Index: index, Epoch: c.Epoch, What: "promoted", Detail: d})
	return d, nil
}

func (s *State) admitted(index uint64, c Admitted) (string, error) {
	if e := s.Epoch(); c.Epoch != e.Epoch || c.From != e.Primary {
		return "", fmt.Errorf("not the primary of epoch %d", e.Epoch)
	}
	s.remember(Decided{Index: index, Epoch: c.Epoch, What: "admitted", Timings: slices.Clone(c.Timings)})
	return string(s.NameOf(c.From)), nil
}
