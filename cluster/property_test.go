// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// entryOf is one entry of the log: a command or a membership change.
type entryOf struct {
	index uint64
	c     Command
	conf  *MemberChange
}

func (e entryOf) apply(s *State) (*State, []Event) {
	if e.conf != nil {
		n, ev, ok := ApplyConf(s, e.index, *e.conf)
		if ok == (ev[0].Kind == "rejected") {
			panic("ok and event differ")
		}
		return n, ev
	}
	return Apply(s, e.index, e.c)
}

func drawEntry(t *rapid.T, s *State, index uint64) entryOf {
	switch rapid.IntRange(0, 7).Draw(t, "entry") {
	case 0, 1:
		m := drawConf(t, s)
		return entryOf{index: index, conf: &m}
	case 2:
		m := draw[MemberChange](t)
		return entryOf{index: index, conf: &m}
	case 3, 4:
		return entryOf{index: index, c: drawWild(t, s)}
	case 5:
		if s.Phase == PhaseElecting {
			return entryOf{index: index, c: drawRashElect(t, s)}
		}
	}
	return entryOf{index: index, c: drawCommand(t, s)}
}

// drawRashElect is an election by a leader that counts nothing: any reports, any of the best of them, any reason not to
// wait. The guards must refuse what the failover table would not propose.
func drawRashElect(t *rapid.T, s *State) Command {
	c := &Elect{Epoch: s.Election.Epoch, Election: s.Election.Index, Wait: rapid.SampledFrom([]Wait{WaitLease, WaitLease, WaitOwnFence, WaitEvidence, WaitNone}).Draw(t, "wait")}
	var best Position
	for _, m := range s.Members {
		if rapid.IntRange(0, 2).Draw(t, "reports") == 0 {
			continue
		}
		r := drawReport(t, s, m.Inc)
		r.Known = rapid.IntRange(0, 5).Draw(t, "known") > 0
		r.Killed = rapid.IntRange(0, 3).Draw(t, "killed") == 0
		if p := s.Member(s.Primary()); p != nil && rapid.Bool().Draw(t, "evidence") {
			r.Evidence = &Evidence{Inc: p.Inc, Boot: p.Boot}
		}
		c.Reports = append(c.Reports, r)
		if r.Known && r.Position.Compare(best) >= 0 && (r.Position != best || rapid.Bool().Draw(t, "tie")) {
			c.Candidate, best = r.Inc, r.Position
		}
	}
	return Command{Elect: c}
}

// genesis is a drawn cluster of one to five nodes, before or after its first epoch.
func genesis(t *rapid.T) *State {
	f := Formed{Cluster: "t", LeaseMS: 2000, Mode: rapid.SampledFrom([]Mode{ModeQuorum, ModeQuorum, ModeAsync}).Draw(t, "mode")}
	n := rapid.IntRange(1, 5).Draw(t, "nodes")
	for i := range n {
		f.Peers = append(f.Peers, NodeName('a'+byte(i)))
	}
	var offers []Offer
	for i, name := range f.Peers {
		offers = append(offers, Offer{Name: name, Inc: Incarnation(i + 1), Witness: i == 2 && rapid.Bool().Draw(t, "witness"), Settings: f})
	}
	s, err := Genesis(offers)
	if err != nil {
		t.Fatal(err)
	}
	if rapid.IntRange(0, 9).Draw(t, "blank") > 0 {
		s, _ = Apply(s, 2, Command{Initialized: &Initialized{From: s.Founder, System: 7, Timeline: 1}})
	}
	if rapid.Bool().Draw(t, "grown") { // most of the way to a full set, so that short walks get far
		for i, m := range s.Members {
			if m.Witness || s.D.Set[0] == m.Inc || s.Phase == PhaseBlank {
				continue
			}
			d := s.D.With(m.Inc)
			s, _ = Apply(s, uint64(3+2*i), Command{ChangeD: &ChangeD{Epoch: 1, D: d}})
			s, _ = Apply(s, uint64(4+2*i), Command{SettleD: &SettleD{Epoch: 1, From: s.Primary(), X: d}})
		}
	}
	return s
}

// applyRandom is the property behind FuzzApply: random commands, sensible and wild, are carried out by replicas that
// must agree byte for byte: one that applies, one that applies the same entry again, and one that restarts from a
// snapshot before each entry. No entry changes a state that was handed out, and each leaves the state lawful.
func applyRandom(t *rapid.T) {
	s := genesis(t)
	for i := range rapid.IntRange(1, 30).Draw(t, "steps") {
		frozen := s.Encode()
		e := drawEntry(t, s, uint64(100+i))
		n, ev := e.apply(s)
		if len(ev) != 1 || (ev[0].Kind == "rejected") != (n == s) {
			t.Fatalf("events %v", ev)
		}
		if !bytes.Equal(frozen, s.Encode()) {
			t.Fatalf("%v changed its argument:\n%s\n%s", ev, frozen, s.Encode())
		}
		again, ev2 := e.apply(s)
		restored, err := DecodeState(frozen)
		if err != nil {
			t.Fatal(err)
		}
		fresh, ev3 := e.apply(restored)
		if d := cmp.Diff(ev, ev2) + cmp.Diff(ev, ev3); d != "" || !bytes.Equal(n.Encode(), again.Encode()) || !bytes.Equal(n.Encode(), fresh.Encode()) {
			t.Fatalf("replicas differ: %s\n%s\n%s\n%s", d, n.Encode(), again.Encode(), fresh.Encode())
		}
		if n.Phase != PhaseBlank {
			if why := broken(s, n); s.Phase != PhaseBlank && why != "" {
				t.Fatalf("%v: %s\n%s", ev, why, n.Encode())
			}
		}
		if why := unlawful(s, n, e, ev[0]); why != "" {
			t.Fatalf("%v: %s\n%s\n%s", ev, why, frozen, n.Encode())
		}
		s = n
	}
}

// phases are the steps that PROTOCOL 2.3 has.
var phases = map[Phase][]Phase{
	PhaseBlank:     {PhaseBlank, PhasePromoted},
	PhasePromoted:  {PhasePromoted, PhaseElecting},
	PhaseElecting:  {PhaseElecting, PhasePromoting},
	PhasePromoting: {PhasePromoting, PhasePromoted, PhaseElecting},
}

// unlawful says which promise of the replicated state the entry broke.
func unlawful(before, s *State, e entryOf, ev Event) string {
	switch {
	case !slices.Contains(phases[before.Phase], s.Phase):
		return fmt.Sprintf("phase %s after %s (2.3)", s.Phase, before.Phase)
	case s.LeaseMS < LeaseMinMS || s.LeaseMS > LeaseMaxMS:
		return "a lease out of bounds"
	case len(s.History) > historyMax || len(s.Epochs) > epochsMax:
		return "unbounded"
	case ev.Kind != "settle_d" && !before.D.Equal(s.D):
		return "durability changed without its barrier (3.3)"
	case ev.Kind != "settle_d" && before.Pending != nil && (s.Pending == nil || !before.Pending.Equal(*s.Pending)):
		return "a pending change was dropped (3.3.b)"
	case ev.Kind != "elect" && s.Primary() != before.Primary() && before.Phase != PhaseBlank:
		return "a new primary without an election"
	case s.System != before.System && before.Phase != PhaseBlank, s.ClusterID != before.ClusterID:
		return "another identity"
	}
	if d := 2*Count(s.Voters(), before.Voters()) - len(s.Voters()) - len(before.Voters()); d < -1 {
		return "two voters at once (4.6.b)"
	}
	if before.Phase != PhasePromoted && (e.conf != nil || ev.Kind == "change_d" || ev.Kind == "revert_d") && ev.Kind != "rejected" {
		return "members or durability changed in phase " + string(before.Phase) + " (3.3.c)"
	}
	for i, m := range s.Members {
		if slices.ContainsFunc(s.Members[:i], func(o Member) bool { return o.Name == m.Name || o.Inc >= m.Inc }) {
			return fmt.Sprintf("two members called %s, or out of order", m.Name)
		}
	}
	if why := timelinesDiffer(s); why != "" {
		return why
	}
	for _, m := range before.Members {
		n := s.Member(m.Inc)
		if n != nil && (m.Quarantined && !n.Quarantined || n.Boot.Number < m.Boot.Number || n.Witness != m.Witness || n.Name != m.Name) {
			return fmt.Sprintf("member %s got back what it lost (I6, 1.13)", m.Name)
		}
		if n == nil && (ev.Kind != string(Remove) || m.Inc == before.Primary() || before.InSets(m.Inc)) {
			return fmt.Sprintf("member %s vanished (9.8)", m.Name)
		}
	}
	switch ev.Kind {
	case "elect":
		return wronglyElected(before, s, e.c.Elect)
	case "register":
		was, is := before.Member(e.c.Register.Inc), s.Member(e.c.Register.Inc)
		if !is.Quarantined && is.Boot.Number == was.Boot.Number && is.Boot != was.Boot {
			return "one boot number, two boots (1.13)"
		}
	case "promoted":
		if r := s.Epoch(); e.c.Promoted.From != r.Primary || e.c.Promoted.Timeline != r.Timeline || r.Switch != r.Elected.LSN {
			return "promoted elsewhere than elected (5.6.c)"
		}
	case "settle_d":
		target := before.Pending
		if before.Reverting {
			target = &before.D
		}
		if target == nil || !s.D.Equal(*target) || s.Pending != nil || e.c.SettleD.From != s.Primary() {
			return "settled what was not pending (3.3.a)"
		}
	case "change_d":
		if n := Count(s.Pending.Set, before.D.Set); len(s.Pending.Set)+len(before.D.Set)-2*n > 1 || !slices.Contains(s.Pending.Set, s.Primary()) {
			return "more than one member, or the primary, changes (3.3.b, 3.3.c)"
		}
	}
	return ""
}

// timelinesDiffer: I3 over all epochs that are remembered.
func timelinesDiffer(s *State) string {
	for i := 1; i < len(s.Epochs); i++ {
		a, b := s.Epochs[i-1], s.Epochs[i]
		if b.Epoch != a.Epoch+1 || b.Timeline <= a.Timeline || b.Elected.Timeline >= b.Timeline {
			return fmt.Sprintf("epoch %d on timeline %d, then %d on %d from %s (I3)", a.Epoch, a.Timeline, b.Epoch, b.Timeline, b.Elected)
		}
	}
	if n := len(s.Epochs); n > 0 && s.HighestTL < s.Epochs[n-1].Timeline {
		return "the highest timeline is not the highest (I3)"
	}
	return ""
}

// wronglyElected is I4 and 5.4, by enumeration: it shares nothing with the guard but the types.
func wronglyElected(before, s *State, c *Elect) string {
	var voters, data uint
	best := Position{}
	var winner *Report
	for i, r := range c.Reports {
		m := before.Member(r.Inc)
		if m == nil || m.Quarantined || r.Boot != m.Boot || r.Election != before.Election.Index || r.Promise < s.Epoch().Epoch || voters&(1<<r.Inc) != 0 {
			return fmt.Sprintf("report %d does not count (5.2.g)", i)
		}
		voters |= 1 << r.Inc
		if r.Known && !m.Witness {
			data |= 1 << r.Inc
			if r.Position.Timeline > best.Timeline || r.Position.Timeline == best.Timeline && r.Position.LSN > best.LSN {
				best = r.Position
			}
		}
		if r.Inc == c.Candidate {
			winner = &c.Reports[i]
		}
	}
	for _, k := range before.Configs {
		if 2*bits.OnesCount(voters&mask(k.Voters)) <= len(k.Voters) {
			return "no majority (5.3.a)"
		}
	}
	old := data&(1<<before.Primary()) != 0 // it holds all of them
	if !old && before.D.Mode != ModeAsync && !meetsAll(before.D, data) || !old && before.Pending != nil && before.Pending.Mode != ModeAsync && !meetsAll(*before.Pending, data) {
		return "an acknowledged commit may be on none of the reporters (3.2.a)"
	}
	if winner == nil || !winner.Known || !winner.Eligible || winner.Position != best || best.Timeline == 0 {
		return "not the best position won (5.4.a)"
	}
	if m := before.Member(c.Candidate); m.Witness || !slices.Contains(before.Voters(), m.Inc) || !before.InSets(m.Inc) {
		return "who won may not (2.4)"
	}
	if why := leaseMayRun(before, c); why != "" {
		return why
	}
	if s.Epoch().Elected != best || len(s.Configs) != 1 {
		return "the epoch does not begin where it was elected (5.5.a, 4.6.b)"
	}
	return ""
}

// leaseMayRun: what the command says ended the old lease did not (5.3.c).
func leaseMayRun(before *State, c *Elect) string {
	async := before.D.Mode == ModeAsync || before.Pending != nil && before.Pending.Mode == ModeAsync
	own, all := false, true
	for _, r := range c.Reports {
		own = own || r.Inc == before.Primary() && r.Killed
		if before.IsVoter(r.Inc) { // of the newest; an older configuration's voters only make it stricter
			all = all && r.Evidence != nil && r.Evidence.Inc == before.Primary() && r.Evidence.Boot == before.Member(before.Primary()).Boot
		}
	}
	switch {
	case c.Wait == WaitOwnFence && !own:
		return "nobody said that the old primary is fenced"
	case c.Wait == WaitEvidence && (!all || async || before.FastOff):
		return "evidence of some, or where it does not count (6.5)"
	case c.Wait == WaitNone && len(before.Voters()) > 1:
		return "no wait among several voters"
	}
	return ""
}

func TestApply(t *testing.T)  { often(t, applyRandom) }
func TestDecide(t *testing.T) { often(t, decideRandom) }

// often is more than the hundred tries of one check.
func often(t *testing.T, property func(*rapid.T)) {
	for range 5 {
		rapid.Check(t, property)
	}
}

// TestDecideElects: random views reach elections and catch-ups often enough for the guard check in decideRandom to
// mean something.
func TestDecideElects(t *testing.T) {
	seen := map[RuleID]int{}
	rapid.Check(t, func(t *rapid.T) {
		s := genesis(t)
		for i := range 6 {
			s, _ = drawEntry(t, s, uint64(100+i)).apply(s)
		}
		seen[Decide(FailoverTable(), lead(t, s)).Rule]++
	})
	if len(seen) < 5 {
		t.Errorf("random views decide by %v only", seen)
	}
}

// FuzzApply and FuzzDecide let the fuzzer steer the same properties.
func FuzzApply(f *testing.F)  { addSeeds(f); f.Fuzz(rapid.MakeFuzz(applyRandom)) }
func FuzzDecide(f *testing.F) { addSeeds(f); f.Fuzz(rapid.MakeFuzz(decideRandom)) }

// addSeeds adds inputs that are long enough for a whole run.
func addSeeds(f *testing.F) {
	for seed := range uint64(8) {
		var b []byte
		for i := range uint64(1 << 10) {
			h := sha256.Sum256(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, seed), i))
			b = append(b, h[:]...)
		}
		f.Add(b)
	}
}

// decideRandom: on any reachable state and any view of it every table decides, twice the same, without changing what
// it looks at, and what the leader proposes is not refused.
func decideRandom(t *rapid.T) {
	s := genesis(t)
	for i := range rapid.IntRange(0, 12).Draw(t, "steps") {
		s, _ = drawEntry(t, s, uint64(100+i)).apply(s)
	}
	v := lead(t, s)
	n := draw[NodeView](t)
	n.State = s
	frozen := fmt.Sprintf("%+v %+v %s", v.Peers, v.Reports, s.Encode())
	for _, table := range [][]Rule[LeaderView, LeaderOutcome]{FailoverTable(), MembershipTable()} {
		d := Decide(table, v)
		if again := Decide(table, v); cmp.Diff(d, again) != "" {
			t.Fatalf("decided twice: %+v, %+v", d, again)
		}
		proposable(t, s, d)
	}
	d := Decide(NodeTable(), &n)
	if again := Decide(NodeTable(), &n); d != again || d.Outcome.Act == "" || d.Outcome.Why == "" {
		t.Fatalf("%+v, then %+v", d, again)
	}
	if now := fmt.Sprintf("%+v %+v %s", v.Peers, v.Reports, s.Encode()); now != frozen {
		t.Fatalf("deciding changed the view:\n%s\n%s", frozen, now)
	}
}

func proposable(t *rapid.T, s *State, d Decision[LeaderOutcome]) {
	o := d.Outcome
	set := 0
	for _, is := range []bool{o.Command != nil, o.Conf != nil, o.CatchUp != nil, o.Transfer != 0} {
		if is {
			set++
		}
	}
	if set > 1 || (o.CatchUp != nil) != (o.To != 0) {
		t.Fatalf("%s wants several things: %+v", d.Rule, o)
	}
	var ev []Event
	switch {
	case o.Command != nil:
		back, err := DecodeCommand(o.Command.Encode())
		if err != nil {
			t.Fatal(err)
		}
		_, ev = Apply(s, 5000, back)
	case o.Conf != nil:
		_, ev, _ = ApplyConf(s, 5000, *o.Conf)
	default:
		return
	}
	if ev[0].Kind == "rejected" {
		t.Fatalf("%s proposes what is refused: %s\n%s", d.Rule, ev[0].Detail, s.Encode())
	}
	if ev[0].Rule != d.Rule {
		t.Fatalf("%s proposes, the event says %q (I10)", d.Rule, ev[0].Rule)
	}
}
