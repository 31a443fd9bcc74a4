// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSecretIsMadeOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "secret")
	for _, value := range []string{"first", "second"} {
		if err := ensureSecret(path, value); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != "first\n" {
		t.Fatalf("secret is %q, want the first one", b)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Fatalf("mode of the secret is %v", info.Mode())
	}
}

func TestDSN(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "postgres_password"), []byte("p@ss\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &Stack{opt: Options{Secrets: dir, Ports: []int{1, 2, 3}}, nodes: []string{"pg1", "pg2", "pg3"}}
	dsn, err := s.DSN()
	if err != nil {
		t.Fatal(err)
	}
	if want := "postgresql://postgres:p%40ss@127.0.0.1:1,127.0.0.1:2,127.0.0.1:3/postgres?target_session_attrs=read-write"; !strings.HasPrefix(dsn, want) {
		t.Fatalf("dsn is %s, want %s", dsn, want)
	}
	if _, err := s.NodeDSN("pg9"); err == nil {
		t.Fatal("a node that is not there has a dsn")
	}
}

func TestRedundant(t *testing.T) {
	two := []Member{{Name: "pg1", Role: "primary"}, {Name: "pg2", Streaming: true}, {Name: "pg3", Streaming: true}}
	tests := []struct {
		name string
		st   Status
		ok   bool
	}{
		{"all stream", Status{Primary: "pg1", Redundant: true, Members: two}, true},
		{"no primary", Status{Redundant: true, Members: two}, false},
		{"cluster says no", Status{Primary: "pg1", Members: two}, false},
		{"one does not stream", Status{Primary: "pg1", Redundant: true, Members: two[:2]}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := redundant(tt.st, 3); (err == nil) != tt.ok {
				t.Fatalf("got %v, want ok %t", err, tt.ok)
			}
		})
	}
}

// A node that is cut off names the primary of an epoch that is over.
func TestBetter(t *testing.T) {
	cut, now, none := Status{Primary: "pg1", Epoch: 3}, Status{Primary: "pg2", Epoch: 4}, Status{Epoch: 5}
	for _, pair := range [][2]Status{{now, cut}, {now, none}, {cut, none}} {
		if !pair[0].better(pair[1]) || pair[1].better(pair[0]) {
			t.Fatalf("%+v shall be better than %+v", pair[0], pair[1])
		}
	}
}
