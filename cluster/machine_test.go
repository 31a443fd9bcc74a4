// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// walk applies random commands, mostly sensible ones, from a genesis of n nodes, and calls check after each.
func walk(t *rapid.T, check func(before, after *State, c string)) *State {
	f := Formed{Cluster: "t", LeaseMS: 2000, Mode: ModeQuorum}
	n := rapid.IntRange(1, 4).Draw(t, "nodes")
	var offers []Offer
	for i := range n {
		f.Peers = append(f.Peers, NodeName('a'+byte(i)))
	}
	for i, name := range f.Peers {
		offers = append(offers, Offer{Name: name, Inc: Incarnation(i + 1), Witness: i == 2 && n == 3 && rapid.Bool().Draw(t, "witness"), Settings: f})
	}
	s, err := Genesis(offers)
	if err != nil {
		t.Fatal(err)
	}
	s, _ = Apply(s, 1, Command{Initialized: &Initialized{From: s.Founder, System: 7, Timeline: 1}})
	for i := range rapid.IntRange(1, 40).Draw(t, "steps") {
		before, index := s, uint64(i+10)
		frozen := before.Encode()
		var ev []Event
		if rapid.IntRange(0, 3).Draw(t, "kind") == 0 {
			s, ev, _ = ApplyConf(s, index, drawConf(t, s))
		} else {
			s, ev = Apply(s, index, drawCommand(t, s))
		}
		if !bytes.Equal(frozen, before.Encode()) {
			t.Fatalf("%v changed its argument:\n%s\n%s", ev, frozen, before.Encode())
		}
		check(before, s, ev[0].Kind+" "+ev[0].Detail)
	}
	return s
}

func drawInc(t *rapid.T) Incarnation { return Incarnation(rapid.IntRange(1, 6).Draw(t, "who")) }

func drawConf(t *rapid.T, s *State) MemberChange {
	i := drawInc(t)
	m := Member{Inc: i, Name: NodeName('a' + byte(i) - 1)}
	return MemberChange{Kind: rapid.SampledFrom([]ChangeKind{AddLearner, AddVoter, Remove}).Draw(t, "change"), Member: m, Epoch: s.Epoch().Epoch}
}

func drawReport(t *rapid.T, s *State, i Incarnation) Report {
	m := s.Member(i)
	if m == nil {
		m = &Member{}
	}
	return Report{
		Inc: i, Boot: m.Boot, Election: s.Election.Index, Promise: s.Election.Epoch, Known: !m.Witness && rapid.IntRange(0, 5).Draw(t, "known") > 0,
		Position:  Position{Timeline(rapid.IntRange(1, int(max(s.HighestTL, 1))).Draw(t, "tl")), LSN(rapid.IntRange(1, 4).Draw(t, "lsn")) << 12},
		HighestTL: Timeline(rapid.IntRange(0, 9).Draw(t, "highest")), Eligible: rapid.IntRange(0, 5).Draw(t, "eligible") > 0,
		Killed: i == s.Primary() && rapid.Bool().Draw(t, "killed"),
	}
}

func drawCommand(t *rapid.T, s *State) Command {
	e := s.Epoch()
	switch rapid.IntRange(0, 8).Draw(t, "command") {
	case 0, 1:
		if s.Phase != PhaseElecting {
			return Command{BeginElection: &BeginElection{Epoch: e.Epoch + 1, Cause: CauseOperator}}
		}
		return drawElect(t, s)
	case 2, 3:
		if s.Phase == PhasePromoting {
			return Command{Promoted: &Promoted{Epoch: e.Epoch, From: e.Primary, Timeline: e.Timeline, Switch: e.Elected.LSN}}
		}
		return Command{ConfirmVoters: &ConfirmVoters{Epoch: e.Epoch, From: e.Primary, Config: s.Configs[len(s.Configs)-1].Index}}
	case 4:
		return Command{ChangeD: &ChangeD{Epoch: e.Epoch, D: s.D.With(drawInc(t))}}
	case 5:
		return Command{ChangeD: &ChangeD{Epoch: e.Epoch, D: s.D.Without(drawInc(t))}}
	case 6:
		return Command{RevertD: &RevertD{Epoch: e.Epoch}}
	case 7:
		d, _ := s.ListedD()
		return Command{SettleD: &SettleD{Epoch: e.Epoch, From: e.Primary, X: d}}
	}
	r := Register{Inc: drawInc(t), Boot: Boot{Number: uint64(rapid.IntRange(1, 3).Draw(t, "boot")), ID: 1}}
	if m := s.Member(r.Inc); m != nil && rapid.Bool().Draw(t, "follows") {
		r.Boots = []Boot{m.Boot, r.Boot}
	}
	return Command{Register: &r}
}

// drawElect lets the failover table decide over random reports; what it proposes must pass the guard.
func drawElect(t *rapid.T, s *State) Command {
	v := LeaderView{State: s, Self: 1, EnoughAt: time.Second}
	for _, m := range s.Members {
		v.Peers = append(v.Peers, PeerView{Inc: m.Inc, Linked: true})
		if rapid.IntRange(0, 4).Draw(t, "reports") > 0 {
			r := drawReport(t, s, m.Inc)
			if rapid.IntRange(0, 9).Draw(t, "stale") == 0 {
				r.Boot.Number++
			}
			v.Reports = append(v.Reports, TimedReport{Report: r, Age: time.Minute})
		}
	}
	d := Decide(FailoverTable(), &v)
	if v.Enough() && slices.Contains([]RuleID{"F210", "F220", "F230"}, d.Rule) {
		t.Fatalf("enough, but rule %s", d.Rule)
	}
	if d.Outcome.Command == nil {
		return Command{Admitted: &Admitted{Epoch: s.Epoch().Epoch, From: s.Primary()}}
	}
	if _, ev := Apply(s, 1000, *d.Outcome.Command); ev[0].Kind == "rejected" {
		t.Fatalf("the leader proposes what is refused: %s\n%s\n%s", ev[0].Detail, d.Outcome.Command.Encode(), s.Encode())
	}
	return *d.Outcome.Command
}

// TestInvariantsOfState: what must hold of every state that commands can reach.
func TestInvariantsOfState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		walk(t, func(before, s *State, what string) {
			if why := broken(before, s); why != "" {
				t.Fatalf("%s: %s\n%s", what, why, s.Encode())
			}
		})
	})
}

func broken(before, s *State) string {
	a, b := before.Epoch(), s.Epoch()
	if b.Epoch < a.Epoch || b.Epoch > a.Epoch+1 || s.HighestTL < before.HighestTL || b.Epoch > a.Epoch && b.Timeline <= before.HighestTL {
		return "epochs and timelines only grow (I3)"
	}
	if b.Epoch == a.Epoch && b.Primary != a.Primary {
		return "one epoch, two primaries"
	}
	for _, d := range []*Durability{&s.D, s.Pending} {
		if d == nil {
			continue
		}
		for _, i := range d.Set {
			if m := s.Member(i); m == nil || m.Witness || !s.IsVoter(i) {
				return fmt.Sprintf("%s is in a set and no data voter (9.8)", i)
			}
		}
		if d.K < 0 || d.K >= len(d.Set) || !ascending(d.Set) {
			return "a set nobody can meet"
		}
	}
	if m := s.Member(s.Primary()); m == nil || !m.Voter || !s.InSets(m.Inc) {
		return "the primary is no voter in a set"
	}
	for _, i := range before.Removed {
		if s.Member(i) != nil || !s.WasRemoved(i) {
			return fmt.Sprintf("%s was removed and is back (1.3)", i)
		}
	}
	if len(s.Configs) > 2 || len(s.Configs) == 2 && s.Pending != nil {
		return "two steps at once (9.8)"
	}
	if d, _ := s.ListedD(); !slices.Contains(d.Set, s.Primary()) {
		return "the primary lists a set without itself (3.3.b)"
	}
	for _, m := range s.Members {
		if m.Voter != s.IsVoter(m.Inc) {
			return "member and configuration differ"
		}
	}
	if x, err := DecodeState(s.Encode()); err != nil || !bytes.Equal(x.Encode(), s.Encode()) {
		return fmt.Sprintf("does not survive its encoding: %v", err)
	}
	return ""
}

// TestNothingStaysOpen: from every reachable state the primary alone can finish what is under way: promote, confirm,
// settle (3.3.b: every step may be interrupted for ever, but none is lost).
func TestNothingStaysOpen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := walk(t, func(_, _ *State, _ string) {})
		e := s.Epoch()
		if s.Phase == PhaseElecting {
			return
		}
		apply := func(c Command) {
			n, ev := Apply(s, 5000, c)
			if ev[0].Kind == "rejected" {
				t.Fatalf("%s\n%s", ev[0].Detail, s.Encode())
			}
			s = n
		}
		if s.Phase == PhasePromoting {
			apply(Command{Promoted: &Promoted{Epoch: e.Epoch, From: e.Primary, Timeline: e.Timeline, Switch: e.Elected.LSN}})
		}
		apply(Command{ConfirmVoters: &ConfirmVoters{Epoch: e.Epoch, From: e.Primary, Config: s.Configs[len(s.Configs)-1].Index}})
		if d, pending := s.ListedD(); pending {
			apply(Command{SettleD: &SettleD{Epoch: e.Epoch, From: e.Primary, X: d}})
		}
		if s.Pending != nil || s.Reverting || !s.VotersConfirmed() {
			t.Fatalf("still open: %s", s.Encode())
		}
	})
}

// TestMembershipProposalsPass: what the membership table proposes passes the guards.
func TestMembershipProposalsPass(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := walk(t, func(_, _ *State, _ string) {})
		v := LeaderView{State: s, Self: drawInc(t), LeaderAge: time.Minute}
		primary := &Status{Epoch: s.Epoch().Epoch, Serving: true, Streaming: true, Position: Position{1, 0x1000}}
		for i := Incarnation(1); i <= 6; i++ {
			st := &Status{Epoch: s.Epoch().Epoch, Streaming: true}
			if i == s.Primary() {
				st = primary
			}
			name := NodeName('a' + byte(rapid.IntRange(0, 5).Draw(t, "name")))
			p := PeerView{Inc: i, Linked: rapid.Bool().Draw(t, "linked"), LinkAge: time.Minute, Status: st}
			if m := s.Member(i); m == nil {
				p.Join = &Member{Inc: i, Name: name}
			} else {
				primary.Senders = append(primary.Senders, Sender{App: SyncName(m.Name, i, s.Epoch().Epoch), State: "streaming", Flush: 0x1000})
			}
			v.Peers = append(v.Peers, p)
		}
		o := Decide(MembershipTable(), &v)
		var ev []Event
		if c := o.Outcome.Command; c != nil {
			_, ev = Apply(s, 5000, *c)
		} else if c := o.Outcome.Conf; c != nil {
			_, ev, _ = ApplyConf(s, 5000, *c)
		}
		if len(ev) > 0 && ev[0].Kind == "rejected" {
			t.Fatalf("%s proposes what is refused: %s\n%s", o.Rule, ev[0].Detail, s.Encode())
		}
	})
}

// TestNodeTableKeepsTheLaw: over every combination of facts, acts that need a lease have one, and only the primary
// of a settled election acts as one.
func TestNodeTableKeepsTheLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := baseState()
		s.Phase = rapid.SampledFrom([]Phase{PhaseElecting, PhasePromoting, PhasePromoted}).Draw(t, "phase")
		s.Election = Election{Epoch: 3, Index: 50}
		v := NodeView{
			State: s, Self: drawInc(t), Disk: rapid.SampledFrom([]DiskKind{DiskPresent, DiskEmpty, DiskInterrupted}).Draw(t, "disk"),
			DiskTL: Timeline(rapid.IntRange(1, 3).Draw(t, "disk_tl")), Promise: Epoch(rapid.IntRange(1, 3).Draw(t, "promise")),
			Position: Position{2, 0x1000}, DiskSystem: 7,
		}
		for _, f := range nodeFlags(&v) {
			*f = rapid.Bool().Draw(t, "flag")
		}
		d := Decide(NodeTable(), &v)
		switch act := d.Outcome.Act; act {
		case ActPromote, ActStartPrimary, ActAdmit:
			if !v.primary() || !v.LeaseValid && !v.Serving || v.Promise > 2 || v.GaveUp || v.electing() {
				t.Fatalf("%s by %s: %+v", act, d.Rule, v)
			}
		case ActOrder, ActClone, ActRewind:
			if v.primary() || v.electing() || act == ActOrder && (v.Promise > 2 || !v.AttachOK) {
				t.Fatalf("%s by %s: %+v", act, d.Rule, v)
			}
		case ActStartRecovery:
			if v.Disk != DiskPresent {
				t.Fatalf("%s by %s on %s", act, d.Rule, v.Disk)
			}
		case ActNone, ActStop, ActInit, ActPrepare, ActFence, ActPosition, ActOrderCatchUp, ActSettle, ActGiveUp, ActAsk:
		}
		if act := d.Outcome.Act; act == ActStartPrimary && (v.DiskTL != 2 || v.Disk != DiskPresent) {
			t.Fatalf("read-write start of a control file on timeline %d, data %s", v.DiskTL, v.Disk)
		}
	})
}

func TestCloneIsDeep(t *testing.T) {
	s := baseState()
	s.Pending = &Durability{Set: incs([]string{"a"}), K: 0}
	c := s.Clone()
	if diff := cmp.Diff(s, c); diff != "" {
		t.Fatal(diff)
	}
	c.Pending.K, c.Members[0].Voter, c.Epochs[0].Primary = 3, false, 9
	if s.Pending.K != 0 || !s.Members[0].Voter || s.Epochs[0].Primary != 1 {
		t.Fatal("the clone shares memory")
	}
}
