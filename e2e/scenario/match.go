// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// matcher holds a line against a pattern.
type matcher struct {
	p  *parser
	in []string
	at int
	s  Step
}

func (m *matcher) match(pattern string) string {
	head, tail, _ := strings.Cut(pattern, "[")
	if why := m.all(head); why != "" {
		return why
	}
	if tail != "" && m.at < len(m.in) {
		m.s.Optional = true
		if why := m.all(strings.TrimSuffix(tail, "]")); why != "" {
			return why
		}
	}
	if m.at < len(m.in) {
		return fmt.Sprintf("%q is too much", m.in[m.at])
	}
	return ""
}

func (m *matcher) all(pattern string) string {
	for t := range strings.FieldsSeq(pattern) {
		if m.at == len(m.in) {
			return "it ends before " + t
		}
		if why := m.token(t, m.in[m.at]); why != "" {
			return why
		}
		m.at++
	}
	return ""
}

var (
	ruleForm = regexp.MustCompile(`^[A-Z][0-9]{3}$`)
	nameForm = regexp.MustCompile(`^[a-z][a-z0-9]*$`)
)

func (m *matcher) token(t, in string) (why string) {
	switch t {
	case "NODE", "NODES":
		m.s.Node, why = m.p.ref(in, t == "NODES", strings.HasPrefix(m.s.word.pattern, "fault"))
	case "OTHER":
		m.s.Other, why = m.p.ref(in, false, false)
	case "NUMBER", "+NUMBER":
		digits, plus := strings.CutPrefix(in, "+")
		n, err := strconv.ParseUint(digits, 10, 63)
		if err != nil || plus != (t == "+NUMBER") {
			return fmt.Sprintf("%q is not a %s", in, strings.ToLower(t))
		}
		m.s.Number = n
	case "DURATION":
		d, err := time.ParseDuration(in)
		if err != nil || d <= 0 {
			return fmt.Sprintf("%q is not a time: write 300ms, 5s", in)
		}
		m.s.Duration = d
	case "RULE":
		if m.s.Name = in; !ruleForm.MatchString(in) {
			return fmt.Sprintf("%q is not the number of a rule: docs/rules.md has them", in)
		}
	case "NAME":
		if m.s.Name = in; !nameForm.MatchString(in) || m.p.known(in) {
			return fmt.Sprintf("%q cannot be a new name: write one of small letters and digits that is not taken", in)
		}
	case "KIND":
		m.s.Name = in
	default:
		return m.literal(t, in)
	}
	return why
}

func (m *matcher) literal(t, in string) string {
	choice := strings.Split(t, "|")
	if !slices.Contains(choice, in) {
		return fmt.Sprintf("%q is not %s", in, strings.Join(choice, " or "))
	}
	if len(choice) > 1 {
		m.s.Word = in
	}
	return ""
}

var roles = []string{"primary", "elected", "leader"}

// known: it names a node, or it is a word that could.
func (p *parser) known(name string) bool {
	_, isStandby := standby(name)
	return isStandby || name == "all" || slices.Contains(roles, name) || slices.Contains(p.names, name) || slices.Contains(p.nodes(), name)
}

func (p *parser) ref(in string, all, or bool) (Ref, string) {
	first, second, two := strings.Cut(in, "/")
	r := Ref{Name: first, Else: second}
	if p.known(first) && (first != "all" || all) && (!two || or && first == "primary" && slices.Contains(p.nodes(), second)) {
		return r, ""
	}
	names := slices.Concat(p.nodes(), roles, []string{"standby1"}, p.names)
	if all {
		names = append(names, "all")
	}
	return r, fmt.Sprintf("%q is no node: name one of %s, or name one with let", in, strings.Join(names, ", "))
}
