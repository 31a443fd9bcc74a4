// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// args gives the arguments of an apply line by name.
type args struct {
	l *lang
	d *datadriven.TestData
}

func (a args) text(key, def string) string {
	if v, ok := a.d.Arg(key); ok {
		return one(v)
	}
	return def
}

func (a args) num(key string, def uint64) uint64 {
	if v, ok := a.d.Arg(key); ok {
		return uint64(a.l.num(v))
	}
	return def
}

// boots is the list of a volume that last knew boot number "knows" to be registered.
func (a args) boots(from Incarnation, b Boot) []Boot {
	known := Boot{Number: a.num("knows", 1), ID: 99}
	if known.Number == 1 {
		known = boot(from)
	}
	return []Boot{known, b}
}

func (a args) durability() Durability {
	d := Durability{Set: a.l.s.D.Set, K: int(int64(a.num("k", uint64(a.l.s.D.K)))), Mode: Mode(a.text("mode", string(a.l.s.D.Mode)))}
	if v, ok := a.d.Arg("set"); ok {
		d.Set = nil
		for _, n := range v.Vals { // in the order given: an unsorted set is a test too
			d.Set = append(d.Set, inc(n))
		}
	}
	return d
}

// apply without arguments carries out what was decided last.
func (l *lang) apply(d *datadriven.TestData) string {
	if len(d.CmdArgs) == 0 {
		if l.last.Conf != nil {
			return l.applied(ApplyConf(l.s, l.next(), *l.last.Conf))
		}
		return l.applyCommand(*l.last.Command)
	}
	a := args{l, d}
	e := l.s.Epoch()
	epoch := Epoch(a.num("epoch", uint64(e.Epoch)))
	from := inc(a.text("from", letters([]Incarnation{max(e.Primary, 1)})))
	var c Command
	switch what := d.CmdArgs[0].Key; what {
	case "initialized":
		c.Initialized = &Initialized{From: from, System: SystemID(a.num("system", 7)), Timeline: Timeline(a.num("timeline", 1))}
	case "register":
		c.Register = &Register{Inc: from, Boot: Boot{Number: a.num("boot", 2), ID: a.num("id", 99)}}
		c.Register.Boots = a.boots(from, c.Register.Boot)
	case "begin":
		c.BeginElection = &BeginElection{
			Epoch: Epoch(a.num("epoch", uint64(e.Epoch+1))), Cause: Cause(a.text("cause", string(CauseLeaseLapsed))),
			Rule: "F350", Target: inc(a.text("target", "")),
		}
	case "elect":
		el := &Elect{
			Epoch: Epoch(a.num("epoch", uint64(e.Epoch+1))), Election: a.num("election", l.s.Election.Index),
			Candidate: inc(a.text("candidate", "b")), Wait: Wait(a.text("wait", string(WaitLease))), Rule: "F250",
		}
		for _, r := range l.v.Reports {
			el.Reports = append(el.Reports, r.Report)
			if a.text("twice", "") == letters([]Incarnation{r.Inc}) {
				el.Reports = append(el.Reports, r.Report)
			}
		}
		c.Elect = el
	case "promoted":
		sw, _ := ParseLSN(a.text("switch", e.Elected.LSN.String()))
		c.Promoted = &Promoted{Epoch: epoch, From: from, Timeline: Timeline(a.num("timeline", uint64(e.Timeline))), Switch: sw, NextXID: 700}
	case "admitted":
		c.Admitted = &Admitted{Epoch: epoch, From: from, Timings: []NamedDuration{{"gate", 3}}}
	case "change":
		c.ChangeD = &ChangeD{Epoch: epoch, D: a.durability(), Rule: "M320"}
	case "revert":
		c.RevertD = &RevertD{Epoch: epoch, Rule: "M120"}
	case "settle":
		c.SettleD = &SettleD{Epoch: epoch, From: from, X: a.durability(), Barrier: 0x4000}
	case "confirm":
		c.ConfirmVoters = &ConfirmVoters{Epoch: epoch, From: from, Config: a.num("config", l.s.Configs[len(l.s.Configs)-1].Index)}
	case "lease":
		c.SetLease = &SetLease{LeaseMS: int64(a.num("ms", 2000)), Was: int64(a.num("was", 0)), Rule: RuleID(a.text("rule", ""))}
	case "pause":
		c.Pause = &Pause{Paused: a.text("on", "yes") == "yes"}
	case "nothing":
	default:
		l.t.Fatalf("%s: apply does not know %s", d.Pos, what)
	}
	return l.applyCommand(c)
}

func (l *lang) next() uint64 { l.index++; return l.index }

func (l *lang) applyCommand(c Command) string {
	s, ev := Apply(l.s, l.next(), c)
	return l.applied(s, ev, ev[0].Kind != "rejected")
}

func (l *lang) applied(s *State, ev []Event, ok bool) string {
	var b strings.Builder
	for _, e := range ev {
		b.WriteString(strings.TrimRight(e.Kind+": "+e.Detail, " :") + "\n")
	}
	if !ok {
		if s != l.s {
			l.t.Fatalf("a rejected entry changed the state")
		}
		return b.String()
	}
	before := l.show(nil)
	l.s = s
	if after := l.show(nil); after != before {
		b.WriteString(after)
	}
	return b.String()
}

// conf applies a membership change: conf add_learner d [name=..] [witness].
func (l *lang) conf(d *datadriven.TestData) string {
	a := args{l, d}
	i := inc(d.CmdArgs[1].Key)
	m := Member{Inc: i, Name: NodeName(a.text("name", d.CmdArgs[1].Key)), Witness: d.HasArg("witness"), Boot: boot(i), Voter: true}
	if i == inc("z") {
		m.Inc = 0
	}
	if have := l.s.Member(i); have != nil {
		m = *have
	}
	return l.applied(ApplyConf(l.s, l.next(), MemberChange{Kind: ChangeKind(d.CmdArgs[0].Key), Member: m, Epoch: Epoch(a.num("epoch", uint64(l.s.Epoch().Epoch))), Rule: "M230"}))
}

// TestTranscripts runs every transcript and demands that each rule of the three tables decided at least once: a rule
// that no scenario reaches is either shadowed by the ones above it or untested.
func TestTranscripts(t *testing.T) {
	hit := map[RuleID]bool{}
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if !strings.HasSuffix(path, ".txt") {
			return
		}
		l := newLang(t)
		l.hit = hit
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			l.t = t
			return l.run(d)
		})
	})
	if t.Failed() {
		return
	}
	for _, id := range ruleIDs() {
		if !hit[id] {
			t.Errorf("no transcript reaches rule %s", id)
		}
	}
}

func ruleIDs() []RuleID {
	var ids []RuleID
	for _, r := range FailoverTable() {
		ids = append(ids, r.ID)
	}
	for _, r := range MembershipTable() {
		ids = append(ids, r.ID)
	}
	for _, r := range NodeTable() {
		ids = append(ids, r.ID)
	}
	return ids
}

// TestRuleIDs: an id is never used twice, stands in its table's order and cites the protocol by section.
func TestRuleIDs(t *testing.T) {
	var last RuleID
	for _, id := range ruleIDs() {
		if last != "" && last[0] == id[0] && last >= id {
			t.Errorf("rule %s follows %s", id, last)
		}
		if n, err := strconv.Atoi(string(id[1:])); err != nil || n < 10 {
			t.Errorf("rule id %q is no letter and number", id)
		}
		last = id
	}
}
