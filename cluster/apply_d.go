// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"slices"
)

func (s *State) changeD(index uint64, c ChangeD) (string, error) {
	switch {
	case s.Phase != PhasePromoted || c.Epoch != s.Epoch().Epoch:
		return "", fmt.Errorf("not in epoch %d's settled phase", c.Epoch)
	case s.Pending != nil:
		return "", fmt.Errorf("another change is pending")
	case !s.VotersConfirmed():
		return "", fmt.Errorf("voters not confirmed")
	case !slices.Contains(c.D.Set, s.Primary()):
		return "", fmt.Errorf("the primary is not in the new set")
	case c.D.K < 0 || c.D.K >= len(c.D.Set):
		return "", fmt.Errorf("k %d of %d nodes", c.D.K, len(c.D.Set))
	case c.D.Mode != ModeQuorum && c.D.Mode != ModeAsync:
		return "", fmt.Errorf("unknown mode %q", c.D.Mode)
	case !ascending(c.D.Set): // a node named twice would be counted twice
		return "", fmt.Errorf("the set is not sorted or names a node twice")
	case len(s.D.Set)+len(c.D.Set)-2*Count(s.D.Set, c.D.Set) > 1:
		return "", fmt.Errorf("more than one member changes")
	}
	for _, inc := range c.D.Set {
		// One that is in the set already stays whatever became of it: a quarantined one must not hold up every change.
		if m := s.Member(inc); !slices.Contains(s.D.Set, inc) && (m == nil || m.Witness || m.Quarantined || !s.IsVoter(inc)) {
			return "", fmt.Errorf("%s is not a data voter", s.NameOf(inc))
		}
	}
	d := c.D
	d.Set = slices.Clone(d.Set)
	s.Pending, s.Reverting = &d, false
	return s.describeD(index, "change_d", c.Rule, d), nil
}

func (s *State) describeD(index uint64, what string, rule RuleID, d Durability) string {
	names := make([]NodeName, 0, len(d.Set))
	for _, inc := range d.Set {
		names = append(names, s.NameOf(inc))
	}
	text := fmt.Sprintf("%s: %d of %v beside the primary", d.Mode, d.K, names)
	s.remember(Decided{Index: index, Epoch: s.Epoch().Epoch, What: what, Rule: rule, Detail: text})
	return text
}

func (s *State) revertD(c RevertD) (string, error) {
	switch {
	case s.Phase != PhasePromoted || c.Epoch != s.Epoch().Epoch:
		return "", fmt.Errorf("not in epoch %d's settled phase", c.Epoch)
	case s.Pending == nil || s.Reverting:
		return "", fmt.Errorf("nothing to take back")
	case !slices.Contains(s.D.Set, s.Primary()):
		return "", fmt.Errorf("the primary is not in the old set")
	}
	s.Reverting = true
	return "", nil
}

func ascending(set []Incarnation) bool {
	for i := 1; i < len(set); i++ {
		if set[i-1] >= set[i] {
			return false
		}
	}
	return true
}

// inheritPending fixes the direction of a pending change for the primary that has just been elected (PROTOCOL
// 3.3.b): one outside the target takes the change back, one outside the old set cannot take it back. Otherwise the
// direction that was ordered stays.
func (s *State) inheritPending(primary Incarnation) {
	switch {
	case s.Pending == nil:
	case !slices.Contains(s.Pending.Set, primary):
		s.Reverting = true
	case !slices.Contains(s.D.Set, primary):
		s.Reverting = false
	}
}

func (s *State) settleD(index uint64, c SettleD) (string, error) {
	if s.Phase != PhasePromoted || c.Epoch != s.Epoch().Epoch || c.From != s.Primary() {
		return "", fmt.Errorf("not from the promoted primary")
	}
	if s.Pending == nil {
		return "", fmt.Errorf("nothing pending")
	}
	target := *s.Pending
	if s.Reverting {
		target = s.D
	}
	if !c.X.Equal(target) {
		return "", fmt.Errorf("not the pending target")
	}
	if !slices.Contains(target.Set, c.From) {
		return "", fmt.Errorf("the primary is not in the target")
	}
	s.D, s.Pending, s.Reverting = target, nil, false
	s.Fresh = s.Fresh && target.K == 0
	return s.describeD(index, "settle_d", "", target), nil
}

func (s *State) confirmVoters(c ConfirmVoters) error {
	if len(s.Configs) == 0 {
		return fmt.Errorf("no configuration")
	}
	switch last := s.Configs[len(s.Configs)-1]; {
	case s.Phase != PhasePromoted || c.Epoch != s.Epoch().Epoch || c.From != s.Primary():
		return fmt.Errorf("not from the promoted primary")
	case last.Index != c.Config:
		return fmt.Errorf("configuration %d is not the newest", c.Config)
	}
	s.Configs = s.Configs[len(s.Configs)-1:]
	return nil
}

// LeaseMinMS and LeaseMaxMS bound L.
const (
	LeaseMinMS = 1000
	LeaseMaxMS = 60000
)

func (s *State) setLease(index uint64, c SetLease) (string, error) {
	if c.LeaseMS < LeaseMinMS || c.LeaseMS > LeaseMaxMS {
		return "", fmt.Errorf("lease of %d ms is outside %d..%d", c.LeaseMS, LeaseMinMS, LeaseMaxMS)
	}
	if c.Was != 0 && c.Was != s.LeaseMS {
		return "", fmt.Errorf("the lease is %d ms by now, not %d", s.LeaseMS, c.Was)
	}
	d := fmt.Sprintf("the lease of %d ms becomes %d ms", s.LeaseMS, c.LeaseMS)
	s.LongestMS = max(s.LongestMS, s.LeaseMS, c.LeaseMS)
	s.LeaseMS = c.LeaseMS
	s.remember(Decided{Index: index, Epoch: s.Epoch().Epoch, What: "set_lease", Rule: c.Rule, Detail: d})
	return d, nil
}

// ApplyConf carries out a raft configuration change under the same guards as commands. When ok is false the
// change must be applied to raft as an empty one (PROTOCOL 2.4).
func ApplyConf(s *State, index uint64, c MemberChange) (n *State, events []Event, ok bool) {
	n = s.Clone()
	if err := n.applyConf(index, c); err != nil {
		return s, []Event{{Kind: "rejected", Detail: string(c.Kind) + ": " + err.Error(), Rule: c.Rule}}, false
	}
	return n, []Event{{Kind: string(c.Kind), Detail: string(c.Member.Name) + " " + c.Member.Inc.String(), Rule: c.Rule}}, true
}

func (s *State) applyConf(index uint64, c MemberChange) error {
	switch {
	case s.Phase != PhasePromoted || c.Epoch != s.Epoch().Epoch:
		return fmt.Errorf("not in epoch %d's settled phase", c.Epoch)
	case !s.VotersConfirmed():
		return fmt.Errorf("voters not confirmed")
	case s.Pending != nil:
		return fmt.Errorf("a change of durability is pending")
	}
	have := s.Member(c.Member.Inc)
	switch c.Kind {
	case AddLearner:
		return s.addLearner(c, have)
	case AddVoter:
		if have == nil || have.Voter || have.Quarantined {
			return fmt.Errorf("%s is not a learner in good standing", c.Member.Inc)
		}
		have.Voter = true
		voters := append(slices.Clone(s.Voters()), have.Inc)
		slices.Sort(voters)
		s.Configs = append(slices.Clone(s.Configs), VoterConfig{Index: index, Voters: voters})
	case Remove:
		return s.removeMember(index, have)
	default:
		return fmt.Errorf("unknown change %q", c.Kind)
	}
	return nil
}

func (s *State) addLearner(c MemberChange, have *Member) error {
	if c.Member.Inc == 0 || c.Member.Name == "" { // raft has no node 0
		return fmt.Errorf("a member needs an incarnation and a name")
	}
	if s.WasRemoved(c.Member.Inc) {
		return fmt.Errorf("%s was removed: its volume is of before", c.Member.Inc)
	}
	if have != nil {
		return fmt.Errorf("%s is a member already", c.Member.Inc)
	}
	if o := s.MemberNamed(c.Member.Name); o != nil {
		return fmt.Errorf("%s is still a member as %s", c.Member.Name, o.Inc)
	}
	m := c.Member
	m.Voter, m.Quarantined = false, false
	s.Members = append(s.Members, m)
	slices.SortFunc(s.Members, func(a, b Member) int {
		if a.Inc < b.Inc {
			return -1
		}
		return 1
	})
	return nil
}

func (s *State) removeMember(index uint64, have *Member) error {
	switch {
	case have == nil:
		return fmt.Errorf("not a member")
	case have.Inc == s.Primary():
		return fmt.Errorf("%s is the primary", have.Name)
	case s.InSets(have.Inc):
		return fmt.Errorf("%s is in the durability set", have.Name)
	}
	inc, voter := have.Inc, have.Voter
	s.Members = slices.DeleteFunc(s.Members, func(m Member) bool { return m.Inc == inc })
	s.Removed = append(s.Removed, inc)
	if n := len(s.Removed) - removedMax; n > 0 {
		s.Removed = slices.Delete(s.Removed, 0, n)
	}
	if voter {
		voters := slices.DeleteFunc(slices.Clone(s.Voters()), func(i Incarnation) bool { return i == inc })
		s.Configs = append(slices.Clone(s.Configs), VoterConfig{Index: index, Voters: voters})
	}
	return nil
}
