// SPDX-License-Identifier: Apache-2.0

package conf

import (
	"fmt"
	"strings"
)

// Setting is one `name = value` line of a configuration file.
type Setting struct {
	Name  string // lower case
	Value string // unescaped
	Line  int
}

// Quote renders a value as a string of a Postgres configuration file. A raw newline ends a value there, so it
// is written as an escape.
func Quote(v string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for i := 0; i < len(v); i++ {
		switch c := v[i]; c {
		case '\'':
			b.WriteString("''")
		case '\\':
			b.WriteString(`\\`)
		case '\n':
			b.WriteString(`\n`)
		case '\r':
			b.WriteString(`\r`)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('\'')
	return b.String()
}

// Line renders one setting.
func Line(name, value string) string { return name + " = " + Quote(value) + "\n" }

// Parse reads the settings of a configuration file in their order, directives such as include among them.
// Lines that it cannot read are left out and described in bad: Postgres itself will complain about them.
func Parse(text string) (settings []Setting, bad []string) {
	for i, line := range strings.Split(text, "\n") {
		s, ok, err := parseLine(line)
		if err != nil {
			bad = append(bad, fmt.Sprintf("line %d: %v", i+1, err))
			continue
		}
		if ok {
			s.Line = i + 1
			settings = append(settings, s)
		}
	}
	return settings, bad
}

func parseLine(line string) (s Setting, ok bool, err error) {
	rest := strings.TrimLeft(line, " \t\r\f\v")
	if rest == "" || rest[0] == '#' {
		return s, false, nil
	}
	n := 0
	for n < len(rest) && (isLetter(rest[n]) || n > 0 && (isDigit(rest[n]) || rest[n] == '.')) {
		n++
	}
	if n == 0 {
		return s, false, fmt.Errorf("no name in %q", line)
	}
	s.Name = strings.ToLower(rest[:n])
	rest = strings.TrimLeft(rest[n:], " \t\r\f\v")
	if strings.HasPrefix(rest, "=") {
		rest = strings.TrimLeft(rest[1:], " \t\r\f\v")
	}
	s.Value, rest, err = parseValue(rest)
	if err != nil {
		return s, false, fmt.Errorf("read %s: %w", s.Name, err)
	}
	rest = strings.TrimLeft(rest, " \t\r\f\v")
	if rest != "" && rest[0] != '#' {
		return s, false, fmt.Errorf("read %s: text after the value: %q", s.Name, rest)
	}
	return s, true, nil
}

func parseValue(in string) (value, rest string, err error) {
	if in == "" || in[0] == '#' {
		return "", in, fmt.Errorf("no value")
	}
	if in[0] == '\'' {
		return parseQuoted(in)
	}
	n := 0
	for n < len(in) && (isLetter(in[n]) || isDigit(in[n]) || strings.IndexByte("+-._:/", in[n]) >= 0) {
		n++
	}
	if n == 0 {
		return "", in, fmt.Errorf("bad value %q", in)
	}
	return in[:n], in[n:], nil
}

func parseQuoted(in string) (value, rest string, err error) {
	var b strings.Builder
	for i := 1; i < len(in); i++ {
		switch c := in[i]; {
		case c == '\'' && i+1 < len(in) && in[i+1] == '\'':
			b.WriteByte('\'')
			i++
		case c == '\'':
			return b.String(), in[i+1:], nil
		case c == '\\' && i+1 < len(in):
			i++
			i += unescape(&b, in[i:]) - 1
		default:
			b.WriteByte(c)
		}
	}
	return "", in, fmt.Errorf("string without end")
}

// unescape writes what follows a backslash and returns how many bytes it used.
func unescape(b *strings.Builder, in string) int {
	if c := strings.IndexByte("bfnrt", in[0]); c >= 0 {
		b.WriteByte("\b\f\n\r\t"[c])
		return 1
	}
	n, v := 0, 0
	for n < 3 && n < len(in) && in[n] >= '0' && in[n] <= '7' {
		v = v*8 + int(in[n]-'0')
		n++
	}
	if n > 0 {
		b.WriteByte(byte(v))
		return n
	}
	b.WriteByte(in[0])
	return 1
}

func isLetter(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// StripManaged removes every managed entry from the text of postgresql.auto.conf, which is read after our own
// file and would win over it (PROTOCOL 12.1). It returns the text unchanged when there is none.
func StripManaged(text string) (out string, removed []Setting) {
	lines := strings.SplitAfter(text, "\n")
	var b strings.Builder
	for i, line := range lines {
		s, ok, err := parseLine(strings.TrimSuffix(line, "\n"))
		if ok && err == nil && IsManaged(s.Name) {
			s.Line = i + 1
			removed = append(removed, s)
			continue
		}
		b.WriteString(line)
	}
	if len(removed) == 0 {
		return text, nil
	}
	return b.String(), removed
}
