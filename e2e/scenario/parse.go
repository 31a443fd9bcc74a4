// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Load reads every scenario of a directory, by name.
func Load(dir string) ([]*Scenario, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil || len(files) == 0 {
		return nil, errors.Join(err, fmt.Errorf("load scenarios: there is no .txt file in %s", dir))
	}
	var all []*Scenario
	var bad []error
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		s, err := Parse(filepath.Base(f), string(text))
		all, bad = append(all, s), append(bad, err)
	}
	return all, errors.Join(bad...)
}

// parser reads one file. It goes on after a mistake, so that all are told at once.
type parser struct {
	s     *Scenario
	line  int
	names []string // what lets have named
	bad   []error
	once  map[string]bool // lines of the head that may stand once
	did   bool            // a step has done something
	base  bool            // a step has waited for redundancy
}

// Parse reads a scenario. Each error says file and line, what stands there, the rule, and the way out.
func Parse(file, text string) (*Scenario, error) {
	p := &parser{s: &Scenario{File: file, Nodes: 3}, once: map[string]bool{}}
	for l := range strings.Lines(text) {
		p.line++
		fields, err := split(l)
		switch {
		case err != nil:
			p.fail(strings.TrimSpace(l), "%s", err)
		case len(fields) == 0:
		case heads[fields[0]] != nil:
			p.head(strings.TrimSpace(l), fields)
		default:
			p.step(fields)
		}
	}
	p.whole()
	if len(p.bad) > 0 {
		return nil, errors.Join(p.bad...)
	}
	return p.s, nil
}

func (p *parser) fail(what, why string, args ...any) {
	p.bad = append(p.bad, fmt.Errorf("%s:%d: %s: %s", p.s.File, p.line, what, fmt.Sprintf(why, args...)))
}

// split cuts a line into words. Quotes hold words together; # begins a comment.
func split(line string) ([]string, error) {
	var out []string
	for {
		line = strings.TrimLeft(line, " \t\r\n")
		switch {
		case line == "" || line[0] == '#':
			return out, nil
		case line[0] == '"':
			in, rest, ok := strings.Cut(line[1:], `"`)
			if !ok {
				return nil, errors.New("a quote is not closed: write another one, or none")
			}
			out, line = append(out, in), rest
		default:
			n := strings.IndexAny(line, " \t\r\n")
			if n < 0 {
				n = len(line)
			}
			out, line = append(out, line[:n]), line[n:]
		}
	}
}

// join is the line again.
func join(fields []string) string {
	out := slices.Clone(fields)
	for i, f := range out {
		if f == "" || strings.ContainsAny(f, " \t#") {
			out[i] = `"` + f + `"`
		}
	}
	return strings.Join(out, " ")
}

// heads are the lines of the head.
var heads = map[string]func(*parser, string, []string) string{
	"about": func(p *parser, rest string, _ []string) string { p.s.About = rest; return need(rest) },
	"found": func(p *parser, rest string, _ []string) string {
		p.s.Found = append(p.s.Found, rest)
		return need(rest)
	},
	"nodes": func(p *parser, _ string, args []string) string { return number(&p.s.Nodes, args, 1, 9) },
	"witness": func(p *parser, _ string, args []string) string {
		return number(&p.s.Witness, args, 1, 1)
	},
	"noise": func(p *parser, rest string, _ []string) string { p.s.Noise = true; return none(rest) },
	"quick": func(p *parser, rest string, _ []string) string { p.s.Quick = true; return none(rest) },
	"set":   (*parser).setting,
	"only":  (*parser).onlyIn,
	"catches": func(p *parser, rest string, _ []string) string {
		p.s.Catches = append(p.s.Catches, rest)
		return need(rest)
	},
	"open":  func(p *parser, rest string, _ []string) string { p.s.Open = rest; return need(rest) },
	"fails": func(p *parser, rest string, _ []string) string { p.s.Fails = rest; return need(rest) },
}

// many may stand several times.
var many = []string{"found", "set", "catches"}

func need(rest string) string {
	if rest == "" {
		return "nothing follows: write it behind the word"
	}
	return ""
}

func none(rest string) string {
	if rest != "" {
		return fmt.Sprintf("%q follows, and nothing may: remove it", rest)
	}
	return ""
}

func number(to *int, args []string, low, high int) string {
	if len(args) == 1 {
		if n, err := strconv.Atoi(args[0]); err == nil && n >= low && n <= high {
			*to = n
			return ""
		}
	}
	return fmt.Sprintf("%q is not a number from %d to %d: write one", strings.Join(args, " "), low, high)
}

func (p *parser) head(line string, fields []string) {
	name := fields[0]
	rest, _, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, name)), " #")
	rest = strings.TrimSpace(rest)
	if len(p.s.Steps) > 0 {
		p.fail(line, "a line of the head, and line %d is a step: move it above", p.s.Steps[0].Line)
		return
	}
	if p.once[name] && !slices.Contains(many, name) {
		p.fail(line, "it stands above already: remove one")
		return
	}
	p.once[name] = true
	if why := heads[name](p, rest, fields[1:]); why != "" {
		p.fail(line, "%s", why)
	}
}

var assignment = regexp.MustCompile(`^(PGQUORUM_[A-Z_]+)=(\S+)$`)

// simKnows are the settings that the simulation has.
var simKnows = []string{"PGQUORUM_DURABILITY", "PGQUORUM_LEASE", "PGQUORUM_MAX_LAG", "PGQUORUM_PRIORITY"}

func (p *parser) setting(rest string, args []string) string {
	var s Setting
	if len(args) == 2 {
		s.Node = args[0]
		args = args[1:]
	}
	if len(args) != 1 || assignment.FindStringSubmatch(args[0]) == nil {
		return fmt.Sprintf("%q is not a setting: write [NODE] PGQUORUM_NAME=value (docs/configuration.md)", rest)
	}
	m := assignment.FindStringSubmatch(args[0])
	s.Name, s.Value = m[1], m[2]
	p.s.Settings = append(p.s.Settings, s)
	return ""
}

func (p *parser) onlyIn(rest string, _ []string) string {
	world, why, ok := strings.Cut(rest, ":")
	p.s.Only, p.s.Why = strings.TrimSpace(world), strings.TrimSpace(why)
	if !ok || p.s.Why == "" || p.s.Only != Sim && p.s.Only != Containers {
		return fmt.Sprintf("%q does not say where and why: write only sim: REASON, or only containers: REASON", rest)
	}
	return ""
}

// whole is what the file as a whole has to be.
func (p *parser) whole() {
	s := p.s
	p.line = max(p.line, 1)
	if s.About == "" {
		p.fail("the file", "it does not say what it is about: begin with about TEXT")
	}
	if !slices.ContainsFunc(s.Steps, func(s Step) bool { return strings.HasPrefix(s.Text, "expect ") }) {
		p.fail("the file", "it expects nothing, so it could not fail: add a step that begins with expect")
	}
	names := p.nodes()
	for _, set := range s.Settings {
		if set.Node != "" && !slices.Contains(names, set.Node) {
			p.fail("set "+set.Node, "there is no such node: the nodes are %s", strings.Join(names, ", "))
		}
		if s.Only != Containers && !slices.Contains(simKnows, set.Name) {
			p.fail("set "+set.Name, "the simulation does not have it: add only containers: REASON, or use one of %s", strings.Join(simKnows, ", "))
		}
	}
	if s.Only != Sim && (s.Nodes != 3 || s.Witness != 0 || s.Noise) {
		p.fail("the file", "%s and no noise: add only sim: REASON", threeOnly)
	}
	if s.Quick && s.Only == Sim {
		p.fail("quick", "it says that make test plays it on containers, and only sim forbids that: remove one")
	}
	if len(s.Catches) > 0 && s.Only == Containers {
		p.fail("catches", "the broken builds are the simulation's, and only containers forbids that: remove one")
	}
}

func (p *parser) nodes() []string {
	var names []string
	for i := range p.s.Nodes + p.s.Witness {
		names = append(names, fmt.Sprintf("pg%d", i+1))
	}
	return names
}

// step finds the pattern that fits a line. If none does, those that fit longest tell what is wrong.
func (p *parser) step(fields []string) {
	text := join(fields)
	var why string
	var forms []string
	most := 0
	for i := range words {
		w := &words[i]
		m := matcher{p: p, in: fields, s: Step{Line: p.line, Text: text, word: w}}
		wrong := m.match(w.pattern)
		switch {
		case wrong == "":
			p.add(m.s)
			return
		case m.at > most:
			why, forms, most = wrong, []string{w.pattern}, m.at
		case m.at == most:
			forms = append(forms, w.pattern)
		}
	}
	switch {
	case most == 0:
		var all []string
		for _, w := range words {
			first, _, _ := strings.Cut(w.pattern, " ")
			all = append(all, first)
		}
		why = fmt.Sprintf("%q is no step: begin with one of %s", fields[0], strings.Join(slices.Compact(all), ", "))
	case len(forms) == 1:
		why += "; the form is: " + forms[0]
	case most == len(fields):
		why = "it ends too early; the forms are: " + strings.Join(forms, "; ")
	default:
		why = fmt.Sprintf("%q fits nothing; the forms are: %s", fields[most], strings.Join(forms, "; "))
	}
	p.fail(text, "%s", why)
}

func (p *parser) add(s Step) {
	w := s.word
	switch {
	case w.only != "" && p.s.Only != w.only:
		p.fail(s.Text, "only %s has it (%s): add only %s: REASON to the head, or say it otherwise", w.only, w.why, w.only)
	case strings.HasPrefix(w.pattern, "expect epoch") && !p.base:
		p.fail(s.Text, "nothing to count from: put wait redundant somewhere above")
	case strings.HasPrefix(w.pattern, "outage") && !p.did:
		p.fail(s.Text, "nothing has been done that it could count from: put it below a fault")
	}
	if s.word.pattern == "let NAME = NODE" {
		p.names = append(p.names, s.Name)
	}
	p.did = p.did || w.acts
	p.base = p.base || w.pattern == "wait redundant"
	p.s.Steps = append(p.s.Steps, s)
}
