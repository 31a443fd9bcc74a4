// SPDX-License-Identifier: Apache-2.0

//go:build contract

package conf_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/pgctl/conf"
	"github.com/pgquorum/pgquorum/pgctl/pgtest"
)

// pieces of lines: what a configuration file is made of, and what it is not.
var (
	names  = []string{"x.a", "X.B", "x.c1", "x.é", " x.d", "\tx.e", "x._f", "1x.g", "x-h", "x.", "work_mem"}
	equals = []string{" = ", "=", " ", "\t", " == ", "", "= ", "\v=\f"}
	values = []string{
		"1", "-1", "+1", "0x1F", "1.5", "1e3", "16MB", "on", "off", "a-b_c.d:e/f", "''", "'x'", "'it''s'", `'a\'b'`, `'\101\n\t\\'`, `'\8'`, "'#no'",
		`'\é'`, "'x", "x'", `"x"`, "a b", "a,b", "'a' 'b'", "1 2", "é", ".5", "5.", "-", "/x", "@x", "1kB#c", `'\`, "*", "'a'b", "1_0", "a=b", "'\x01'",
	}
	ends = []string{"", " ", " # comment", "#c", "\r", " x", ";", "\t\f"}
)

// lines is how many are tried at once, each in a file of its own: Postgres leaves a file at its first error.
const lines = 60

// TestContractParse: our parser of settings files and Postgres' own read the same of any line, or Postgres refuses it: no
// entry that Postgres takes is missing from ours, or a managed one could pass unseen (PROTOCOL 12.1).
func TestContractParse(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		p := l.Init("p", "")
		for i := range lines {
			p.Append(fmt.Sprintf("odd%d.conf", i), "")
			p.Append("postgresql.conf", fmt.Sprintf("include 'odd%d.conf'\n", i))
		}
		p.Start()
		c := p.Conn()
		read, alone := 0, 0
		for round := 0; round < pgtest.Rounds(6) || read < lines && round < 60; round++ {
			ours := map[string]string{}
			text := make([]string, lines)
			for i := range text {
				pick := func(of []string) string { return of[l.Rand.IntN(len(of))] }
				text[i] = pick(names) + pick(equals) + pick(values) + pick(ends) + "\n"
				path := fmt.Sprintf("%s/odd%d.conf", p.Data, i)
				if err := os.WriteFile(path, []byte(text[i]), 0o600); err != nil {
					t.Fatal(err)
				}
				settings, _ := conf.Parse(text[i])
				for _, s := range settings {
					ours[fmt.Sprintf("%d|%s", i, s.Name)] = fmt.Sprintf("%x", s.Value)
				}
			}
			rows := pgtest.Query(t, c, "select substring(sourcefile from 'odd([0-9]+)'), lower(name), encode(convert_to(setting, 'UTF8'), 'hex') "+
				"from pg_file_settings where sourcefile ~ '/odd' and name is not null")
			for _, row := range rows {
				i := strings.LastIndexByte(row, '|')
				key, value := row[:i], row[i+1:]
				read++
				if got, ok := ours[key]; !ok || got != value {
					n := 0
					_, _ = fmt.Sscan(strings.ReplaceAll(key, "|", " "), &n)
					t.Errorf("line %q: Postgres reads %s as %s, we read %q (%t)", text[n], key, value, got, ok)
				}
			}
			alone += len(ours) - len(rows)
		}
		t.Logf("%d settings read alike, %d that only we read", read, alone)
		if read < lines {
			t.Error("Postgres read too little to show anything")
		}
	})
}

// TestContractQuote: what we write into a settings file comes back from Postgres as it was.
func TestContractQuote(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		p := l.Init("p", "include 'ours.conf'\n")
		p.Append("ours.conf", "")
		p.Start()
		for i, v := range []string{"", "it's", `a\b`, "line\nbreak", "#", " x ", `"q"`, "é\t\r", strings.Repeat("y", 900)} {
			if err := os.WriteFile(filepath.Join(p.Data, "ours.conf"), []byte(conf.Line("x.v", v)+conf.Line("x.n", fmt.Sprint(i))), 0o600); err != nil {
				t.Fatal(err)
			}
			p.Signal(syscall.SIGHUP)
			pgtest.Wait(t, "the reload", 10*time.Second, func() bool { return p.One("select current_setting('x.n', true)") == fmt.Sprint(i) })
			if got := p.One("select encode(convert_to(current_setting('x.v'), 'UTF8'), 'hex')"); got != fmt.Sprintf("%x", v) {
				t.Errorf("%q came back as %s", v, got)
			}
		}
	})
}
