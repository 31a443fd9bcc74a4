// SPDX-License-Identifier: Apache-2.0

package pgquorum_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	testRef   = regexp.MustCompile("`([a-z0-9/]+)\\.((?:Test|Fuzz)\\w+)`")
	factRef   = regexp.MustCompile(`\bfact: ([^;|,()\x60]+)`)
	mutantRef = regexp.MustCompile(`\b(code|model|sim): ([^;|\x60]+)`)
	factEntry = regexp.MustCompile(`(?m)^\t\t\{"([^"]+)", "[^"]+", \w+\},$`)
	invariant = regexp.MustCompile(`(?m)^\| (I\d+) \|`)
)

// findings is how many the safety research begins with.
const findings = 13

// TestContracts: what docs/contracts.md names is in the tree, and nothing that protocol.md lists is missing from it.
func TestContracts(t *testing.T) {
	doc, err := os.ReadFile("docs/contracts.md")
	if err != nil {
		t.Fatal(err)
	}
	protocol, err := os.ReadFile("docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	c := &contracts{t: t, dirs: map[string][]byte{}, mutants: map[string]bool{}}
	for _, m := range readMutants(t) {
		c.mutants[m.name] = true
	}
	table := tableRows(doc)
	for _, row := range table {
		c.check(row)
	}
	for _, m := range invariant.FindAllSubmatch(protocol, -1) {
		row := rowOf(table, string(m[1]))
		switch {
		case row == nil:
			t.Errorf("%s of protocol.md has no row", m[1])
		case !testRef.MatchString(row[1]):
			t.Errorf("%s: no test proves it", m[1])
		case !mutantRef.MatchString(row[2]) && !testRef.MatchString(row[2]) && !strings.Contains(row[2], "open"):
			t.Errorf("%s: nothing shows that it can fail, and it is not said to be open", m[1])
		}
	}
	for n := 1; n <= findings; n++ {
		if !slices.ContainsFunc(table, func(row []string) bool { return strings.HasPrefix(row[0]+",", fmt.Sprintf("S0.%d,", n)) }) {
			t.Errorf("finding S0.%d has no row", n)
		}
	}
	c.facts(table)
	open := 0
	listed := protocolMutants(protocol)
	for _, name := range listed {
		row := rowOf(table, name)
		if row == nil {
			t.Errorf("the mutant %q of protocol.md has no row", name)
		} else if row[1] == "open" {
			open++
		}
	}
	if len(listed) < 80 {
		t.Errorf("only %d mutants found in protocol.md", len(listed))
	}
	t.Logf("%d of the %d mutants of protocol.md are open here", open, len(listed))
}

// tableRows are the cells of every table row but headings.
func tableRows(doc []byte) [][]string {
	var rows [][]string
	for line := range strings.Lines(string(doc)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "|---") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	return rows
}

func rowOf(table [][]string, first string) []string {
	i := slices.IndexFunc(table, func(row []string) bool { return row[0] == first })
	if i < 0 {
		return nil
	}
	return table[i]
}

// protocolMutants are the phrases of the list in section 13.
func protocolMutants(protocol []byte) []string {
	_, part, _ := bytes.Cut(protocol, []byte("Mutants that the checkers must catch"))
	part, _, _ = bytes.Cut(part, []byte("## 14."))
	text := strings.ReplaceAll(string(part), "\n  ", " ")
	var out []string
	for line := range strings.Lines(text) {
		if _, list, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && strings.HasPrefix(line, "- ") {
			out = append(out, strings.Split(strings.TrimSuffix(list, "."), "; ")...)
		}
	}
	return out
}

// contracts knows what the tree holds.
type contracts struct {
	t       *testing.T
	dirs    map[string][]byte // the Go files of a directory, tests among them
	mutants map[string]bool   // of testdata/mutants
}

const factsDir = "pgctl/pgtest/facts"

// facts: every one of them has a row, and both worlds play them.
func (c *contracts) facts(table [][]string) {
	c.t.Helper()
	all := factEntry.FindAllSubmatch(c.source(factsDir), -1)
	if len(all) < 20 {
		c.t.Errorf("only %d facts found", len(all))
	}
	for _, m := range all {
		if !slices.ContainsFunc(table, func(row []string) bool { return strings.Contains(strings.Join(row[1:], " "), "fact: "+string(m[1])) }) {
			c.t.Errorf("the fact %q has no row", m[1])
		}
	}
	for dir, test := range map[string]string{"sim": "TestFacts", factsDir: "TestContractFacts"} {
		if !bytes.Contains(c.source(dir), []byte("\nfunc "+test+"(")) {
			c.t.Errorf("%s does not play the facts", dir)
		}
	}
}

func (c *contracts) check(row []string) {
	c.t.Helper()
	text := strings.Join(row, " | ")
	found := 0
	for _, m := range testRef.FindAllStringSubmatch(text, -1) {
		found++
		if !strings.Contains(string(c.source(m[1])), "\nfunc "+m[2]+"(") {
			c.t.Errorf("%s: there is no %s in %s", row[0], m[2], m[1])
		}
	}
	for _, m := range factRef.FindAllStringSubmatch(text, -1) {
		found++
		if name := strings.TrimSpace(m[1]); !bytes.Contains(c.source(factsDir), fmt.Appendf(nil, "{%q, ", name)) {
			c.t.Errorf("%s: there is no fact %q", row[0], name)
		}
	}
	for _, m := range mutantRef.FindAllStringSubmatch(text, -1) {
		found++
		name := strings.TrimSpace(m[2])
		if m[1] == "code" && c.mutants[name] || m[1] != "code" && bytes.Contains(c.source(m[1]), fmt.Appendf(nil, "%q", name)) {
			continue
		}
		c.t.Errorf("%s: there is no mutant %q of the %s", row[0], name, m[1])
	}
	if heading := strings.Contains(text, "proved by") || strings.Contains(text, "shown by") || strings.Contains(text, "statement |"); found == 0 && !heading &&
		!strings.Contains(text, "open") && !strings.Contains(text, "no rule rests on it") {
		c.t.Errorf("%s names nothing, and is not said to be open", row[0])
	}
}

// source is all Go files of a directory. The package main of entrypoint is called by its directory.
func (c *contracts) source(dir string) []byte {
	if b, ok := c.dirs[dir]; ok {
		return b
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		c.t.Errorf("there is no package %s", dir)
	}
	var all []byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			c.t.Fatal(err)
		}
		all = append(all, b...)
	}
	c.dirs[dir] = all
	return all
}
