// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// The notation of the transcripts in testdata. Nodes are single letters; their incarnation is the letter's number
// (a = 1), their boot is 1.<letter's number>. Every command starts from defaults and names only what differs:
//
//	state    three data nodes a, b, c, all voters and in the Set with k = 1; epoch 2, primary a, elected at
//	         1:0/1000, timeline 2, promoted. The view is forgotten.
//	leader   what the leader knows of itself
//	peer     one node as the leader sees it; linked and with a fresh status unless said otherwise
//	report   one report for the open election; known, eligible, granted 500 ms ago
//	node     what a node knows of itself; see nodeFlags
//	failover, membership, reconcile   decide by that table
//	apply    the command that was decided last, or the one named
type lang struct {
	t     testing.TB
	s     *State
	v     LeaderView
	n     NodeView
	index uint64
	last  LeaderOutcome
	hit   map[RuleID]bool
	did   func(RuleID, string) // told what each decision does
}

func newLang(t testing.TB) *lang {
	l := &lang{t: t, hit: map[RuleID]bool{}, did: func(RuleID, string) {}}
	l.s = baseState()
	l.reset()
	return l
}

func (l *lang) reset() {
	l.index = 100
	l.v = LeaderView{State: l.s, Self: inc("b"), ElectAge: time.Minute, PhaseAge: time.Minute, LeaderAge: time.Minute}
	l.n = NodeView{State: l.s, Self: inc("b"), Registered: true, Disk: DiskPresent, DiskSystem: 7, SameKernel: true}
	l.last = LeaderOutcome{}
}

func inc(name string) Incarnation {
	if name == "" || name == "nobody" {
		return 0
	}
	return Incarnation(name[0]-'a') + 1
}

func incs(names []string) []Incarnation {
	var is []Incarnation
	for _, n := range names {
		if n != "" {
			is = append(is, inc(n))
		}
	}
	slices.Sort(is)
	return is
}

func letters(is []Incarnation) string {
	var b strings.Builder
	for _, i := range is {
		b.WriteByte('a' + byte(i) - 1)
	}
	return b.String()
}

func boot(i Incarnation) Boot { return Boot{Number: 1, ID: uint64(i)} }

func baseState() *State {
	s := &State{
		Format: FormatVersion, ClusterID: "test", System: 7, Founder: 1, Phase: PhasePromoted, LeaseMS: 2000, HighestTL: 2,
		D:       Durability{Set: incs([]string{"a", "b", "c"}), K: 1, Mode: ModeQuorum},
		Configs: []VoterConfig{{Index: 1, Voters: incs([]string{"a", "b", "c"})}},
		Epochs: []EpochRecord{
			{Epoch: 1, Primary: 1, Timeline: 1, Index: 5, Promoted: true},
			{Epoch: 2, Primary: 1, Timeline: 2, Elected: Position{1, 0x1000}, Switch: 0x1000, Index: 9, Promoted: true},
		},
	}
	for _, n := range []string{"a", "b", "c"} {
		s.Members = append(s.Members, Member{Inc: inc(n), Name: NodeName(n), Voter: true, Boot: boot(inc(n))})
	}
	return s
}

func (l *lang) run(d *datadriven.TestData) string {
	cmd := map[string]func(*datadriven.TestData) string{
		"state": l.state, "leader": l.leader, "peer": l.peer, "report": l.report, "node": l.node, "apply": l.apply, "show": l.show,
		"failover":   func(*datadriven.TestData) string { return l.decide(FailoverTable()) },
		"membership": func(*datadriven.TestData) string { return l.decide(MembershipTable()) },
		"reconcile":  l.reconcile, "conf": l.conf,
	}[d.Cmd]
	if cmd == nil {
		l.t.Fatalf("%s: unknown command %s", d.Pos, d.Cmd)
	}
	return cmd(d)
}

func (l *lang) bad(d *datadriven.TestData, a datadriven.CmdArg) {
	l.t.Fatalf("%s: %s does not know %s", d.Pos, d.Cmd, a.Key)
}

func one(a datadriven.CmdArg) string {
	if len(a.Vals) == 0 {
		return ""
	}
	return a.Vals[0]
}

func (l *lang) num(a datadriven.CmdArg) int64 {
	n, err := strconv.ParseInt(one(a), 0, 64)
	if err != nil {
		l.t.Fatalf("%s: %v", a.Key, err)
	}
	return n
}

func (l *lang) dur(a datadriven.CmdArg) time.Duration {
	d, err := time.ParseDuration(one(a))
	if err != nil {
		l.t.Fatalf("%s: %v", a.Key, err)
	}
	return d
}

func (l *lang) pos(text string) Position {
	tl, lsn, ok := strings.Cut(text, ":")
	n, err := strconv.Atoi(tl)
	at, err2 := ParseLSN(lsn)
	if !ok || err != nil || err2 != nil {
		l.t.Fatalf("position %q is not timeline:lsn", text)
	}
	return Position{Timeline(n), at}
}

func yes(a datadriven.CmdArg) bool { return one(a) != "no" }

// addMembers makes sure that the named nodes exist.
func (l *lang) addMembers(names []string, f func(*Member)) {
	for _, n := range names {
		if l.s.Member(inc(n)) == nil {
			l.s.Members = append(l.s.Members, Member{Inc: inc(n), Name: NodeName(n), Boot: boot(inc(n))})
			slices.SortFunc(l.s.Members, func(a, b Member) int { return int(a.Inc) - int(b.Inc) })
		}
		f(l.s.Member(inc(n)))
	}
}

func (l *lang) state(d *datadriven.TestData) string {
	l.s = baseState()
	l.reset()
	for _, a := range d.CmdArgs {
		l.stateArg(d, a)
	}
	e := l.s.Epoch()
	if l.s.Phase == PhaseElecting {
		l.s.Election = Election{Epoch: e.Epoch + 1, Index: 50, Cause: cmp.Or(l.s.Election.Cause, CauseLeaseLapsed), Target: l.s.Election.Target}
	}
	l.index = 100
	return l.show(d)
}

func (l *lang) stateArg(d *datadriven.TestData, a datadriven.CmdArg) {
	s := l.s
	e := &s.Epochs[len(s.Epochs)-1]
	switch a.Key {
	case "phase":
		if s.Phase = Phase(one(a)); s.Phase == PhaseBlank {
			s.Epochs, s.HighestTL, s.System = nil, 0, 0
			s.D = Durability{Set: incs([]string{"a"}), Mode: ModeQuorum}
		} else if s.Phase == PhasePromoting {
			e.Promoted, e.Switch = false, 0
		}
	case "cause":
		s.Election.Cause = Cause(one(a))
	case "primary":
		e.Primary = inc(one(a))
	case "voters":
		s.Configs[0].Voters = incs(a.Vals)
		for i := range s.Members {
			s.Members[i].Voter = false
		}
		l.addMembers(a.Vals, func(m *Member) { m.Voter = true })
	case "next": // a later configuration that is not confirmed
		s.Configs = append(s.Configs, VoterConfig{Index: 20, Voters: incs(a.Vals)})
	case "witness":
		l.addMembers(a.Vals, func(m *Member) { m.Witness = true })
	case "learners":
		l.addMembers(a.Vals, func(m *Member) { m.Voter = false })
	case "quarantined":
		l.addMembers(a.Vals, func(m *Member) { m.Quarantined = true })
	case "removed":
		s.Removed = incs(a.Vals)
	case "set":
		s.D.Set = incs(a.Vals)
	case "k":
		s.D.K = int(l.num(a))
	case "mode":
		s.D.Mode = Mode(one(a))
	case "pending": // a set, then k
		p := Durability{Set: incs(a.Vals[:len(a.Vals)-1]), Mode: s.D.Mode}
		p.K, _ = strconv.Atoi(a.Vals[len(a.Vals)-1])
		s.Pending = &p
	case "reverting":
		s.Reverting = true
	case "target":
		s.Election.Target = inc(one(a))
	case "paused":
		s.Paused = true
	case "lease":
		s.LeaseMS = l.num(a)
	case "fresh":
		s.Fresh = true
	case "max_lag":
		s.MaxLag = uint64(l.num(a))
	case "fast_off":
		s.FastOff = true
	default:
		l.bad(d, a)
	}
}

func (l *lang) show(*datadriven.TestData) string {
	s, e := l.s, l.s.Epoch()
	var b strings.Builder
	fmt.Fprintf(&b, "epoch %d %s: primary %s timeline %d", e.Epoch, s.Phase, s.NameOf(e.Primary), e.Timeline)
	if s.Phase == PhaseElecting {
		fmt.Fprintf(&b, ", electing %d", s.Election.Epoch)
	}
	for _, c := range s.Configs {
		fmt.Fprintf(&b, "; voters %s", letters(c.Voters))
	}
	fmt.Fprintf(&b, "; D %s/%d", letters(s.D.Set), s.D.K)
	if s.D.Mode != ModeQuorum {
		fmt.Fprintf(&b, " %s", s.D.Mode)
	}
	if s.Pending != nil {
		fmt.Fprintf(&b, ", pending %s/%d", letters(s.Pending.Set), s.Pending.K)
	}
	if s.Reverting {
		b.WriteString(" taken back")
	}
	for _, m := range s.Members {
		if !m.Voter || m.Witness || m.Quarantined {
			fmt.Fprintf(&b, "; %s voter=%t witness=%t quarantined=%t", m.Name, m.Voter, m.Witness, m.Quarantined)
		}
	}
	if s.LeaseMS != 2000 || s.LongestMS != 0 {
		fmt.Fprintf(&b, "; lease %s, longest %s", s.Lease(), s.Longest())
	}
	if s.Fresh {
		b.WriteString("; fresh")
	}
	if s.Paused {
		b.WriteString("; paused")
	}
	return b.String() + "\n"
}

func (l *lang) leader(d *datadriven.TestData) string {
	for _, a := range d.CmdArgs {
		switch a.Key {
		case "self":
			l.v.Self = inc(one(a))
		case "age":
			l.v.LeaderAge = l.dur(a)
		case "transferred": // so long ago
			l.v.TransferAge = l.dur(a)
		case "phase_age":
			l.v.PhaseAge = l.dur(a)
		case "epoch_age":
			l.v.ElectAge = l.dur(a)
		case "enough":
			l.v.EnoughAt = l.dur(a)
		case "cut":
			l.v.CutFor = l.dur(a)
		case "backoff":
			l.v.Backoff = l.dur(a)
		case "caught_up":
			l.v.CaughtUp = inc(one(a))
		case "vain":
			l.v.Vain = append(l.v.Vain, inc(one(a)))
		case "down": // cause, then target
			l.v.Down = &PgDown{Epoch: l.s.Epoch().Epoch, Killed: true, Why: "its word", Cause: Cause(one(a))}
			if len(a.Vals) > 1 {
				l.v.Down.Target = inc(a.Vals[1])
			}
		case "down_epoch":
			l.v.Down.Epoch = Epoch(l.num(a))
		default:
			l.bad(d, a)
		}
	}
	return ""
}

func (l *lang) decide(table []Rule[LeaderView, LeaderOutcome]) string {
	l.v.State = l.s
	dec := Decide(table, &l.v)
	l.hit[dec.Rule] = true
	l.last = dec.Outcome
	o := dec.Outcome
	l.did(dec.Rule, leaderAct(o))
	text := string(dec.Rule) + " " + o.Why + "\n"
	switch {
	case o.Command != nil:
		text += l.commandText(*o.Command)
	case o.Conf != nil:
		text += fmt.Sprintf("-> %s %s\n", o.Conf.Kind, o.Conf.Member.Name)
	case o.CatchUp != nil:
		text += fmt.Sprintf("-> %s streams from %s to %s\n", l.s.NameOf(o.To), l.s.NameOf(o.CatchUp.Donor), o.CatchUp.End)
	case o.Transfer != 0:
		text += fmt.Sprintf("-> transfer to %s\n", l.s.NameOf(o.Transfer))
	}
	return text
}

// leaderAct names what a leader's outcome is, in the words of the protocol.
func leaderAct(o LeaderOutcome) string {
	switch c := o.Command; {
	case c != nil:
		var kinds map[string]json.RawMessage
		if err := json.Unmarshal(c.Encode(), &kinds); err == nil {
			for kind := range kinds {
				return kind
			}
		}
	case o.Conf != nil:
		return string(o.Conf.Kind)
	case o.CatchUp != nil:
		return "order a catch-up"
	case o.Transfer != 0:
		return "transfer leadership"
	case o.Why != "":
		return "wait"
	}
	return "nothing"
}

func (l *lang) commandText(c Command) string {
	switch {
	case c.Elect != nil:
		var who []Incarnation
		for _, r := range c.Elect.Reports {
			who = append(who, r.Inc)
		}
		return fmt.Sprintf("-> elect %s, reports %s, wait %s\n", l.s.NameOf(c.Elect.Candidate), letters(who), c.Elect.Wait)
	case c.BeginElection != nil:
		return fmt.Sprintf("-> begin election of epoch %d, cause %s, target %s\n", c.BeginElection.Epoch, c.BeginElection.Cause, l.s.NameOf(c.BeginElection.Target))
	case c.ChangeD != nil:
		return fmt.Sprintf("-> change D to %s/%d\n", letters(c.ChangeD.D.Set), c.ChangeD.D.K)
	case c.RevertD != nil:
		return "-> take the change back\n"
	}
	return string(c.Encode()) + "\n"
}
