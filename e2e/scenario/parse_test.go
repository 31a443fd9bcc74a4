// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const scenarios = "../scenarios"

// good is a scenario with a bit of everything.
const good = `# a comment
about a bit of everything
found by reading
only sim: it has faults of a plan
nodes 5
witness 1
noise
set PGQUORUM_LEASE=3s
set pg2 PGQUORUM_PRIORITY=0
catches one
catches another one

wait redundant # another comment
let old = primary
fault "kill and restart at once" primary/pg2 seed 7
pass 1.5s
cut old raft from standby1
switchover
switchover to pg6
expect epoch +1 or more
`

func TestParse(t *testing.T) {
	s, err := Parse("good.txt", good)
	if err != nil {
		t.Fatal(err)
	}
	if s.Nodes != 5 || s.Witness != 1 || !s.Noise || s.Only != Sim || s.Why != "it has faults of a plan" || len(s.Catches) != 2 || s.Catches[1] != "another one" {
		t.Errorf("head: %+v", s)
	}
	if s.Settings[1] != (Setting{"pg2", "PGQUORUM_PRIORITY", "0"}) {
		t.Errorf("settings: %+v", s.Settings)
	}
	if s.NotIn(Sim) != "" || s.NotIn(Containers) != "only sim: it has faults of a plan" {
		t.Errorf("not in: %q, %q", s.NotIn(Sim), s.NotIn(Containers))
	}
	var got []Step
	for _, st := range s.Steps {
		st.word = nil
		got = append(got, st)
	}
	want := []Step{
		{Line: 13, Text: "wait redundant"},
		{Line: 14, Text: "let old = primary", Name: "old", Node: Ref{Name: "primary"}},
		{Line: 15, Text: `fault "kill and restart at once" primary/pg2 seed 7`, Name: "kill and restart at once", Node: Ref{Name: "primary", Else: "pg2"}, Number: 7},
		{Line: 16, Text: "pass 1.5s", Duration: 1500 * time.Millisecond},
		{Line: 17, Text: "cut old raft from standby1", Node: Ref{Name: "old"}, Word: "raft", Other: Ref{Name: "standby1"}, Optional: true},
		{Line: 18, Text: "switchover"},
		{Line: 19, Text: "switchover to pg6", Node: Ref{Name: "pg6"}, Optional: true},
		{Line: 20, Text: "expect epoch +1 or more", Number: 1, Optional: true},
	}
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Errorf("step %d: %+v, want %+v", i, got[i], want[i])
		}
	}
}

// TestMistakes: every mistake is told with file and line, what stands there, the rule, and the way out.
func TestMistakes(t *testing.T) {
	const head, tail = "about x\n", "wait redundant\nexpect no loss\n"
	for _, tt := range []struct{ name, text, want string }{
		{"no node", head + "kill pg9 container\n" + tail,
			`x.txt:2: kill pg9 container: "pg9" is no node: name one of pg1, pg2, pg3, primary, elected, leader, standby1, all, or name one with let; the form is: kill NODES container|postgres`},
		{"another choice", head + "kill primary docker\n" + tail,
			`x.txt:2: kill primary docker: "docker" is not container or postgres; the form is: kill NODES container|postgres`},
		{"no such step", head + "shoot primary\n" + tail,
			`x.txt:2: shoot primary: "shoot" is no step: begin with one of let, write, kill, bounce, stop, start, reboot, freeze, thaw, cut, heal, wipe, save, restore, drop, grow, block, promote, switchover, fault, pass, wait, expect, outage`},
		{"fits none", head + "wait patiently\n" + tail,
			`x.txt:2: wait patiently: "patiently" fits nothing; the forms are: wait redundant; wait primary [is|not NODE]; wait ahead NODE [by NUMBER]; wait rule RULE [on NODE]; wait rewinding NODE; wait refused NODE`},
		{"too early", head + tail + "expect\n",
			`x.txt:4: expect: it ends too early; the forms are: expect primary is|not NODE; expect epoch +NUMBER [or more]; expect no loss; expect no second primary; expect no write for DURATION; expect rule RULE [on NODE]; expect no rule RULE [on NODE]`},
		{"too much", head + "heal everything\n" + tail, `x.txt:2: heal everything: "everything" is too much; the form is: heal`},
		{"number", head + "write many\n" + tail, `x.txt:2: write many: "many" is not a number; the form is: write NUMBER`},
		{"sign", head + tail + "expect epoch 1\n", `x.txt:4: expect epoch 1: "1" is not a +number; the form is: expect epoch +NUMBER [or more]`},
		{"time", head + tail + "expect no write for long\n", `x.txt:4: expect no write for long: "long" is not a time: write 300ms, 5s; the form is: expect no write for DURATION`},
		{"rule", head + tail + "expect rule failover\n", `x.txt:4: expect rule failover: "failover" is not the number of a rule: docs/rules.md has them; the form is: expect rule RULE [on NODE]`},
		{"name taken", head + "let primary = pg1\n" + tail, `x.txt:2: let primary = pg1: "primary" cannot be a new name: write one of small letters and digits that is not taken; the form is: let NAME = NODE`},
		{"other world", head + "pass 5s\n" + tail,
			`x.txt:2: pass 5s: only sim has it (a container's clock is real: wait for a condition): add only sim: REASON to the head, or say it otherwise`},
		{"nothing to count from", head + "expect epoch +1\n" + tail, `x.txt:2: expect epoch +1: nothing to count from: put wait redundant somewhere above`},
		{"nothing done", head + "outage below 1s\n" + tail, `x.txt:2: outage below 1s: nothing has been done that it could count from: put it below a fault`},
		{"no title", tail, `x.txt:2: the file: it does not say what it is about: begin with about TEXT`},
		{"cannot fail", head + "wait redundant\n", `x.txt:2: the file: it expects nothing, so it could not fail: add a step that begins with expect`},
		{"head below", head + tail + "nodes 5\n", `x.txt:4: nodes 5: a line of the head, and line 2 is a step: move it above`},
		{"twice", head + head + tail, `x.txt:2: about x: it stands above already: remove one`},
		{"no reason", head + "only sim\n" + tail, `x.txt:2: only sim: "sim" does not say where and why: write only sim: REASON, or only containers: REASON`},
		{"many nodes", head + "nodes 5\n" + tail, `x.txt:4: the file: the shipped stack has three nodes with data and no noise: add only sim: REASON`},
		{"nodes", head + "nodes none\n" + tail, `x.txt:2: nodes none: "none" is not a number from 1 to 9: write one`},
		{"setting", head + "set LEASE=3\n" + tail, `x.txt:2: set LEASE=3: "LEASE=3" is not a setting: write [NODE] PGQUORUM_NAME=value (docs/configuration.md)`},
		{"setting of one world", head + "set PGQUORUM_STOP_MODE=smart\n" + tail,
			`x.txt:4: set PGQUORUM_STOP_MODE: the simulation does not have it: add only containers: REASON, or use one of PGQUORUM_DURABILITY, PGQUORUM_LEASE, PGQUORUM_MAX_LAG, PGQUORUM_PRIORITY`},
		{"setting of nobody", head + "set pg4 PGQUORUM_PRIORITY=0\n" + tail, `x.txt:4: set pg4: there is no such node: the nodes are pg1, pg2, pg3`},
		{"quick", head + "only sim: x\nquick\n" + tail, `x.txt:5: quick: it says that make test plays it on containers, and only sim forbids that: remove one`},
		{"quote", head + "fault \"kill pg1\n" + tail, `x.txt:2: fault "kill pg1: a quote is not closed: write another one, or none`},
		{"two mistakes", head + "heal x\nheal y\n" + tail, "x.txt:2: heal x: \"x\" is too much; the form is: heal\nx.txt:3: heal y: \"y\" is too much; the form is: heal"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("x.txt", tt.text)
			if err == nil || err.Error() != tt.want {
				t.Errorf("it says\n%v\nwant\n%s", err, tt.want)
			}
		})
	}
}

// TestFiles: what is in the tree can be read; of the controls each says how it fails.
func TestFiles(t *testing.T) {
	list, err := Load(scenarios)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if s.Fails != "" {
			t.Errorf("%s: fails is for the controls", s.File)
		}
	}
	controls, err := Load(filepath.Join(scenarios, "controls"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range controls {
		if s.Fails == "" {
			t.Errorf("%s: it does not say how it fails", s.File)
		}
	}
	if _, err := Load(t.TempDir()); err == nil {
		t.Error("an empty directory is no mistake")
	}
}

// TestDocs: docs/testing.md has the form and the meaning of every step, and the name of every scenario.
func TestDocs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/testing.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range words {
		where := ""
		if w.only != "" {
			where = " (only " + w.only + ": " + w.why + ")"
		}
		row := "| `" + strings.ReplaceAll(w.pattern, "|", `\|`) + "` | " + w.means + where + " |\n"
		if !strings.Contains(string(doc), row) {
			t.Errorf("docs/testing.md lacks the row\n%s", row)
		}
	}
	list, err := Load(scenarios)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if name := strings.TrimSuffix(s.File, ".txt"); !strings.Contains(string(doc), "`"+name+"`") {
			t.Errorf("docs/testing.md does not name `%s`", name)
		}
	}
}

// FuzzParse: whatever a file holds, it is a scenario or a mistake with its line; a scenario's steps are read again from
// their text.
func FuzzParse(f *testing.F) {
	f.Add(good)
	list, err := filepath.Glob(filepath.Join(scenarios, "*.txt"))
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range list {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse("x.txt", text)
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(line, "x.txt:") && !strings.ContainsAny(text, "\r\v\f\u0085\u2028\u2029") {
					t.Fatalf("a mistake without its line: %q", line)
				}
			}
			return
		}
		if s.About == "" || len(s.Steps) == 0 || s.Nodes < 1 || s.Nodes > 9 {
			t.Fatalf("%+v", s)
		}
		for _, st := range s.Steps {
			again, err := split(st.Text)
			if st.word == nil || st.Line < 1 || st.Line > strings.Count(text, "\n")+1 || err != nil || join(again) != st.Text {
				t.Fatalf("%+v, %v", st, err)
			}
		}
	})
}
