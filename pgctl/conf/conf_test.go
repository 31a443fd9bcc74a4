// SPDX-License-Identifier: Apache-2.0

package conf

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	text := "# c\nport = 5433\nShared_Buffers=128MB # x\nlog_line_prefix '%m \\'x\\' ''y'' \\101\\n'\n" +
		"a.b = on\nbroken = 'x\nwork_mem\nx = 1 2\n\ninclude 'f.conf'\n"
	got, bad := Parse(text)
	want := []Setting{
		{"port", "5433", 2},
		{"shared_buffers", "128MB", 3},
		{"log_line_prefix", "%m 'x' 'y' A\n", 4},
		{"a.b", "on", 5},
		{"include", "f.conf", 10},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if len(bad) != 3 {
		t.Errorf("bad lines: %v", bad)
	}
}

func FuzzQuote(f *testing.F) {
	f.Add("it's \\ a\nline\r")
	f.Add("")
	f.Fuzz(func(t *testing.T, v string) {
		if strings.ContainsRune(v, 0) {
			return
		}
		got, bad := Parse(Line("x", v))
		if len(bad) != 0 || len(got) != 1 || got[0].Value != v {
			t.Errorf("%q came back as %v %v", v, got, bad)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("a = 'b\\")
	f.Add("synchronous_commit = off\nx=1")
	f.Fuzz(func(t *testing.T, text string) {
		Parse(text)
		out, removed := StripManaged(text)
		if len(removed) == 0 && out != text {
			t.Errorf("changed without removing")
		}
		if again, more := StripManaged(out); len(more) != 0 || again != out {
			t.Errorf("strip is not idempotent: %v", more)
		}
	})
}

func TestStripManaged(t *testing.T) {
	in := "# Do not edit\nwork_mem = '1MB'\nSYNCHRONOUS_COMMIT = 'off'\nprimary_conninfo = 'host=x'\n"
	out, removed := StripManaged(in)
	if out != "# Do not edit\nwork_mem = '1MB'\n" || len(removed) != 2 || removed[1].Value != "host=x" {
		t.Errorf("got %q, %v", out, removed)
	}
}

func TestSyncNames(t *testing.T) {
	for _, c := range []struct {
		names []string
		k     int
		want  string
	}{
		{nil, 0, ""},
		{[]string{"pg1.3f.e1", `q"x`}, 1, `ANY 1 ("pg1.3f.e1", "q""x")`},
		{[]string{"a"}, 0, "error"},
		{nil, 1, "error"},
		{[]string{"a"}, 2, "error"},
		{[]string{""}, 1, "error"},
	} {
		got, err := SyncNames(c.names, c.k)
		if err != nil {
			got = "error"
		}
		if got != c.want {
			t.Errorf("%v %d: got %s, want %s", c.names, c.k, got, c.want)
		}
	}
}

func TestParseArgs(t *testing.T) {
	a, err := ParseArgs([]string{
		"-D", "/etc/postgresql", "-c", "work_mem=7MB", "-p5433", "-e", "--jit=off",
		"--config-file=/x/c.conf", "-c", "hba_file=/x/h.conf", "-k", "/run/x",
	})
	if err != nil {
		t.Fatal(err)
	}
	if a.DataDir != "/etc/postgresql" || a.ConfigFile != "/x/c.conf" || a.HBAFile != "/x/h.conf" {
		t.Errorf("got %+v", a)
	}
	if got := strings.Join(a.Keep, " "); got != "-c work_mem=7MB -p5433 -e --jit=off -k /run/x" {
		t.Errorf("kept %s", got)
	}
	if got := fmt.Sprint(a.Settings); got != "[{work_mem 7MB 0} {port 5433 0} {jit off 0} {unix_socket_directories /run/x 0}]" {
		t.Errorf("settings %s", got)
	}
	for _, bad := range [][]string{
		{"-c", "synchronous_standby_names=x"},
		{"--fsync=off"},
		{"-F"},
		{"-c"},
		{"x"},
		{"-c", "Restart-After-Crash=on"},
		{"-c", "wal_level=minimal"},
	} {
		if _, err := ParseArgs(bad); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}

type mapSource map[string]string

func (m mapSource) ReadFile(p string) ([]byte, error) {
	if s, ok := m[p]; ok {
		return []byte(s), nil
	}
	return nil, os.ErrNotExist
}

func (m mapSource) List(dir string) (out []string, err error) {
	for p := range m {
		if filepath.Dir(p) == dir {
			out = append(out, filepath.Base(p))
		}
	}
	return out, nil
}

func TestLoad(t *testing.T) {
	src := mapSource{
		"/p/postgresql.conf": "port=1\ninclude 'a.conf'\ninclude_dir = 'conf.d'\ninclude_if_exists 'none'\n",
		"/p/a.conf":          "port=2\nssl=on\n",
		"/p/conf.d/1.conf":   "jit=off",
		"/p/conf.d/2.conf":   "jit=on",
		"/p/conf.d/x.txt":    "jit=broken",
		"/p/loop.conf":       "include 'loop.conf'",
	}
	got, err := Load(src, "/p/postgresql.conf")
	if err != nil || fmt.Sprint(got) != "map[jit:on port:2 ssl:on]" {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := Load(src, "/p/loop.conf"); err == nil {
		t.Error("a loop was followed")
	}
}

func TestRenderGolden(t *testing.T) {
	off := false
	managed, err := Managed(ManagedParams{
		Version: 15, SyncNames: []string{NobodyName}, SyncK: 1, SyncCommit: "on",
		Recovery: true, WALInitZero: &off, SlotName: "pgq_1", Members: 5,
		User: map[string]string{"wal_level": "minimal", "max_wal_senders": "40"},
	})
	if err != nil {
		t.Fatal(err)
	}
	main := Main(MainParams{
		UserFile: "/d/it's.conf", ManagedFile: "/s/managed.conf", Cert: "/s/c", Key: "/s/k",
		MaxSlotWALKeep: 1024, CommandLine: []Setting{{Name: "port", Value: "1"}},
	})
	hba := HBAParams{ReplUser: "pgquorum", ReplTLS: true, User: "host all all @list all md5 # @x\ninclude more\n", UserFile: "/d/pg_hba.conf"}
	open := HBA(hba)
	hba.Closed, hba.ReplTLS, hba.LocalPassword = true, false, true
	got := "--- main\n" + main + "--- managed\n" + managed + "--- hba open\n" + open + "--- hba closed\n" + HBA(hba) +
		"--- ident\n" + Ident("postgres", "m a b\n", "/d/pg_ident.conf")
	golden := filepath.Join("testdata", "render.golden")
	if os.Getenv("REWRITE") != "" {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("rendered files differ from %s (REWRITE=1 writes it):\n%s", golden, got)
	}
}

func TestTLSLeftToUser(t *testing.T) {
	p := MainParams{ManagedFile: "/m", Cert: "/c", Key: "/k", User: map[string]string{"ssl": "off"}}
	if s := Main(p); strings.Contains(s, "ssl") {
		t.Error("ssl was set over the user's")
	}
	p.User = map[string]string{"ssl_cert_file": "x"}
	if s := Main(p); !strings.Contains(s, "ssl = 'on'") || strings.Contains(s, "'/c'") {
		t.Error("the user's certificate was not used")
	}
}
