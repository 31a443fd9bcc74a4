// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const space = " \t\n\v\f\r" // what isspace() of libpq's C locale takes

// libpq reads a service file as parseServiceFile of libpq does: the first group of that name, up to the next group. An
// error is one that would end the connection attempt.
func libpq(text, service string) (options []string, found bool, err string) {
	for line := range strings.Lines(text) {
		if nul := strings.IndexByte(line, 0); nul >= 0 {
			line = line[:nul]
		}
		if len(line) >= 1023 {
			return nil, found, "line too long"
		}
		line = strings.TrimLeft(strings.TrimRight(line, space), space)
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			if found {
				return options, true, ""
			}
			found = strings.HasPrefix(line[1:], service+"]")
		case found:
			key, _, ok := strings.Cut(line, "=")
			if !ok || key == "service" || slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, key+"=") }) {
				return options, true, "syntax error: " + line
			}
			options = append(options, line)
		}
	}
	return options, found, ""
}

// FuzzUpstreamFile: whatever stands in the user's own service file, libpq finds exactly our group, and the user's other
// groups as they were; and no value that an order carries can say more than its own option.
func FuzzUpstreamFile(f *testing.F) {
	f.Add("junk=before\n[other]\nhost=a\n\n[pgquorum]\nhost=evil\n[third]\nport=1\n", "pg1", "secret", "pg1.00.e1")
	f.Add("  [other]\r\n# x\nhost=b", "pg1", "a b=c", "x")
	f.Add("\u00a0[other]\nhost=a\n", "pg1", "p", "a")
	f.Add("[a]\n[a]\nhost=\x00\n", "pg\n1", "p\r", " x")
	f.Add(strings.Repeat("x", 2000)+"\n[other]\nhost=a\n", strings.Repeat("n", 1200), "", "a")
	f.Add("["+strings.Repeat("x", 1100)+"]\nhost=a\n[other]\nhost=b\n", "h", "p", "a")
	f.Fuzz(func(t *testing.T, user, host, password, app string) {
		dir := t.TempDir()
		o := FileOptions{Path: filepath.Join(dir, "f"), UserFile: filepath.Join(dir, "user"), ParkingDir: "/parked", ParkingPort: 5432, User: "repl"}
		if err := os.WriteFile(o.UserFile, []byte(user), 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := NewFile(o)
		if err != nil {
			t.Fatal(err)
		}
		parked, ours := check(t, o.Path, user, map[string]string{"host": "/parked", "hostaddr": "", "password": ""}), 0
		order := Order{Host: host, HostAddr: "10.0.0.1", Port: 5433, User: "repl", Password: password, AppName: app}
		if err := file.order(order); err != nil {
			if after := check(t, o.Path, user, nil); !slices.Equal(after, parked) || !file.Parked() {
				t.Fatalf("a refused order (%v) left %q", err, after)
			}
			return
		}
		for _, opt := range check(t, o.Path, user, map[string]string{"host": host, "hostaddr": "10.0.0.1", "password": password, "application_name": app}) {
			if key, _, _ := strings.Cut(opt, "="); slices.ContainsFunc(parked, func(p string) bool { return strings.HasPrefix(p, key+"=") }) {
				ours++
			}
		}
		if ours != len(parked) {
			t.Fatalf("an order sets %d of the %d options that a parked file sets (1.8)", ours, len(parked))
		}
	})
}

func check(t *testing.T, path, user string, want map[string]string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	options, found, bad := libpq(string(b), Service)
	if !found || bad != "" {
		t.Fatalf("libpq finds the group: %t, error %q, in\n%q", found, bad, b)
	}
	for key, value := range want {
		if !slices.Contains(options, key+"="+value) {
			t.Fatalf("no %s=%q in %q", key, value, options)
		}
	}
	for _, service := range []string{"other", "third", "a"} {
		before, found, _ := libpq(user, service)
		after, _, _ := libpq(string(b), service)
		if _, _, bad := libpq(user, service); found && bad == "" && !slices.Equal(before, after) {
			t.Fatalf("the user's group %s was %q, is %q", service, before, after)
		}
	}
	return options
}
