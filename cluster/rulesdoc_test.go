// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// table is a rule table as the documents show it.
type table struct {
	maker, title string
	rules        []row
	groups       map[string]string // by the hundreds of the rules' numbers
}

type row struct {
	id         RuleID
	cites, doc string
}

func rows[V, O any](rules []Rule[V, O]) []row {
	out := make([]row, 0, len(rules))
	for _, r := range rules {
		out = append(out, row{r.ID, r.Cites, r.Doc})
	}
	return out
}

func tables() []table {
	return []table{
		{
			"FailoverTable", "The leader: failover (`failover.go`)", rows(FailoverTable()),
			map[string]string{"F1": "formation", "F2": "an election is open", "F3": "why to open one"},
		},
		{
			"MembershipTable", "The leader: members, durability, placement (`membership.go`)\n\nAsked only when the failover table has nothing to do (F399).",
			rows(MembershipTable()), map[string]string{"M1": "what goes first", "M2": "replacing and adding", "M3": "growing", "M9": "otherwise"},
		},
		{
			"NodeTable", "Each node: its own Postgres (`reconcile.go`)", rows(NodeTable()),
			map[string]string{
				"R0": "whether it takes part", "R1": "the first epoch", "R2": "an election is open", "R3": "the primary, before it serves",
				"R4": "the primary serves", "R5": "everybody else: data", "R6": "everybody else: following",
			},
		},
	}
}

// TestEveryTableIsShown: a table that is added is in the documents and, by ruleIDs, in the transcripts.
func TestEveryTableIsShown(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, f := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), f, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv != nil || !strings.HasSuffix(fn.Name.Name, "Table") || !fn.Name.IsExported() {
				continue
			}
			found++
			if !slices.ContainsFunc(tables(), func(x table) bool { return x.maker == fn.Name.Name }) {
				t.Errorf("%s: %s is in no document", f, fn.Name.Name)
			}
		}
	}
	var all []RuleID
	for _, x := range tables() {
		for _, r := range x.rules {
			all = append(all, r.id)
		}
	}
	if found != len(tables()) || !slices.Equal(all, ruleIDs()) {
		t.Errorf("%d tables in the code, %d in the documents; rules %v and %v", found, len(tables()), all, ruleIDs())
	}
}

// transcriptActs runs all transcripts for what each rule was seen to do.
func transcriptActs(t *testing.T) map[RuleID][]string {
	acts := map[RuleID][]string{}
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if !strings.HasSuffix(path, ".txt") {
			return
		}
		l := newLang(t)
		l.did = func(id RuleID, act string) {
			if !slices.Contains(acts[id], act) {
				acts[id] = append(acts[id], act)
				slices.Sort(acts[id])
			}
		}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { l.t = t; return l.run(d) })
	})
	return acts
}

// TestRulesDoc keeps docs/rules.md equal to the tables and to what the transcripts show them to do.
func TestRulesDoc(t *testing.T) {
	acts := transcriptActs(t)
	var b strings.Builder
	b.WriteString("# The rules\n\nGenerated from the tables in `cluster/` and their transcripts by `go test ./cluster -rewrite`; do not edit.\n" +
		"In each table the first row whose condition holds decides. The numbers under *protocol* are sections of `protocol.md`.\n" +
		"Every log line, event, metric and history record names the rule that caused it.\n")
	for _, x := range tables() {
		b.WriteString("\n## " + x.title + "\n\n| rule | protocol | why | does |\n|---|---|---|---|\n" + strings.Join(ruleRows(t, x.rules, acts), "") + "\n" + diagram(t, x, acts))
	}
	golden(t, filepath.Join("..", "docs", "rules.md"), []byte(b.String()))
}

func does(acts map[RuleID][]string, id RuleID) string {
	return strings.ReplaceAll(strings.Join(acts[id], ", or "), "_", " ")
}

// diagram draws a table as what it is: a way down, left at the first condition that holds.
func diagram(t *testing.T, x table, acts map[RuleID][]string) string {
	var b strings.Builder
	b.WriteString("```mermaid\nflowchart TD\n")
	group := ""
	for i, r := range x.rules {
		if g := string(r.id[:2]); g != group {
			if group != "" {
				b.WriteString("  end\n")
			}
			if x.groups[g] == "" {
				t.Errorf("rules %sxx of %s have no heading", g, x.maker)
			}
			fmt.Fprintf(&b, "  subgraph %s [\"%s\"]\n", g, x.groups[g])
			group = g
		}
		fmt.Fprintf(&b, "    %s{{\"%s: %s\"}} -- holds --> %sa[\"%s\"]\n", r.id, r.id, strings.ReplaceAll(r.doc, `"`, "'"), r.id, does(acts, r.id))
		if i+1 == len(x.rules) {
			b.WriteString("  end\n")
		}
	}
	for i := 1; i < len(x.rules); i++ {
		fmt.Fprintf(&b, "  %s -- not --> %s\n", x.rules[i-1].id, x.rules[i].id)
	}
	b.WriteString("```\n")
	return b.String()
}

func ruleRows(t *testing.T, table []row, acts map[RuleID][]string) []string {
	protocol, err := os.ReadFile(filepath.Join("..", "docs", "protocol.md"))
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, r := range table {
		rows = append(rows, "| "+string(r.id)+" | "+r.cites+" | "+r.doc+" | "+does(acts, r.id)+" |\n")
		if r.doc == "" {
			t.Errorf("rule %s does not say why it exists", r.id)
		}
		for _, c := range strings.Split(r.cites, ", ") {
			if c != "" && !cited(protocol, c) {
				t.Errorf("rule %s cites %s, which docs/protocol.md does not have", r.id, c)
			}
		}
	}
	return rows
}

// cited: the protocol has a section, a rule or a lettered point of that number.
func cited(protocol []byte, c string) bool {
	parent, letter := c, ""
	if i := strings.LastIndexByte(c, '.'); i > 0 && c[i+1] >= 'a' {
		parent, letter = c[:i], c[i+1:]
	}
	if bytes.Contains(protocol, []byte("**"+c)) || bytes.Contains(protocol, []byte("## "+c)) {
		return true
	}
	at := slices.Max([]int{bytes.Index(protocol, []byte("**"+parent)), bytes.Index(protocol, []byte("## "+parent))})
	return at >= 0 && letter != "" && bytes.Contains(protocol[at:], []byte("**"+letter+"**"))
}
