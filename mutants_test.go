// SPDX-License-Identifier: Apache-2.0

package pgquorum_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pgquorum/pgquorum/e2e/seed"
)

var mutantsFlag = flag.String("mutants", "sample", "which broken builds to try: all, sample, or a pattern of their names")

// sampled is how many broken builds an ordinary run tries; `make mutants` tries all.
const sampled = 4

// sourceMutant is a broken build: some lines of one file replaced, and the tests that must find it.
type sourceMutant struct {
	name, rule, file string
	pkg              string
	tests            []string
	scenario         string      // of e2e/scenarios: on containers it must fail
	edits            [][2]string // old, new
}

// readMutants reads testdata/mutants: for each a heading, its rule of the protocol, its file, "test PACKAGE NAME...",
// for some "container SCENARIO", and its edits, lines with - replaced by lines with +. A first or last line may be a
// part of a line of the file.
func readMutants(t *testing.T) []sourceMutant {
	t.Helper()
	files, err := filepath.Glob("testdata/mutants/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no mutants: %v", err)
	}
	var out []sourceMutant
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range strings.Split("\n"+string(text), "\n## ")[1:] {
			m, err := parseMutant(part)
			if err != nil {
				t.Fatalf("%s: %s: %v", f, m.name, err)
			}
			out = append(out, m)
		}
	}
	return out
}

func parseMutant(part string) (m sourceMutant, err error) {
	head := true
	var last byte
	for s := bufio.NewScanner(strings.NewReader(part)); s.Scan(); {
		line := s.Text()
		switch key, rest, _ := strings.Cut(line, " "); {
		case head:
			m.name, head = line, false
		case line == "":
		case line[0] == '-' || line[0] == '+':
			m.edit(line[0], last, line[1:])
			last = line[0]
		case key == "rule":
			m.rule = rest
		case key == "file":
			m.file = rest
		case key == "container":
			m.scenario = rest
		case key == "test":
			words := strings.Fields(rest)
			m.pkg, m.tests = words[0], words[1:]
		default:
			return m, fmt.Errorf("line %q", line)
		}
	}
	if m.rule == "" || m.file == "" || len(m.tests) == 0 || len(m.edits) == 0 {
		return m, fmt.Errorf("a mutant needs rule, file, test and an edit")
	}
	return m, nil
}

func (m *sourceMutant) edit(kind, last byte, text string) {
	side := 0
	if kind == '+' {
		side = 1
	}
	if kind == '-' && last != '-' {
		m.edits = append(m.edits, [2]string{text})
		return
	}
	e := &m.edits[len(m.edits)-1]
	if e[side] != "" || kind == last {
		e[side] += "\n"
	}
	e[side] += text
}

// source is the file as the mutant has it.
func (m *sourceMutant) source() ([]byte, error) {
	b, err := os.ReadFile(m.file)
	if err != nil {
		return nil, err
	}
	for _, e := range m.edits {
		if n := bytes.Count(b, []byte(e[0])); n != 1 {
			return nil, fmt.Errorf("%s has %d places like\n%s", m.file, n, e[0])
		}
		b = bytes.Replace(b, []byte(e[0]), []byte(e[1]), 1)
	}
	return b, nil
}

// overlay tells go to build with the broken file, which it writes to dir.
func (m *sourceMutant) overlay(t *testing.T, dir string) string {
	t.Helper()
	b, err := m.source()
	if err != nil {
		t.Fatal(err)
	}
	broken, overlay := filepath.Join(dir, "broken.go"), filepath.Join(dir, "overlay.json")
	real, err := filepath.Abs(m.file)
	if err != nil {
		t.Fatal(err)
	}
	list, err := json.Marshal(map[string]map[string]string{"Replace": {real: broken}})
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string][]byte{broken: b, overlay: list} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return overlay
}

var failedTest = regexp.MustCompile(`(?m)^ *--- FAIL: (\S+)`)

// run builds the broken code beside the real one and returns the tests that fail.
func (m *sourceMutant) run(t *testing.T) []string {
	t.Helper()
	overlay := m.overlay(t, t.TempDir())
	pattern := "^(" + strings.Join(m.tests, "|") + ")$"
	if test, sub, ok := strings.Cut(m.tests[0], "/"); ok { // of the scenarios one is enough
		pattern = "^" + test + "$/^" + sub + "$"
	}
	if m.tests[0] == "?" {
		pattern = "."
	}
	args := []string{"test", "-overlay", overlay, "-tags", "grpcnotrace", "-count=1", "-vet=off", "-run", pattern, "./" + m.pkg}
	if m.pkg == "cluster" { // what is found need not be small, nor kept
		args = append(args, "-rapid.nofailfile", "-rapid.shrinktime=0s", "-rapid.seed=1", "-rapid.checks=3000")
	}
	cmd := exec.Command("go", args...)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	var names []string
	for _, f := range failedTest.FindAllStringSubmatch(string(out), -1) {
		names = append(names, f[1])
	}
	if len(names) == 0 {
		t.Fatalf("%v:\n%s", err, out)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// TestMutants: a guard whose loss no test finds is not tested. Each mutant must be found by every test that its entry
// names.
func TestMutants(t *testing.T) {
	all := readMutants(t)
	for i := range all { // all of them, always: they are to follow the code
		if _, err := all[i].source(); err != nil {
			t.Errorf("%s: %v", all[i].name, err)
		}
		if j := slices.IndexFunc(all, func(m sourceMutant) bool { return m.name == all[i].name }); j != i {
			t.Errorf("two mutants are called %s", all[i].name)
		}
	}
	pick := all
	if *mutantsFlag == "sample" {
		first := seed.First()
		t.Logf("%d of %d broken builds, seed %d; -mutants all tries all", min(sampled, len(all)), len(all), first)
		rng := rand.New(rand.NewPCG(first, 0))
		rng.Shuffle(len(pick), func(i, j int) { pick[i], pick[j] = pick[j], pick[i] })
		pick = pick[:min(sampled, len(pick))]
	}
	for _, m := range pick {
		if p := *mutantsFlag; p != "sample" && p != "all" && !strings.Contains(m.name, p) {
			continue
		}
		t.Run(strings.ReplaceAll(m.name, " ", "_"), func(t *testing.T) {
			found := m.run(t)
			for _, want := range m.tests {
				if !slices.Contains(found, want) {
					t.Errorf("%s (%s) is not found by %s; found by %v", m.name, m.rule, want, found)
				}
			}
		})
	}
}
