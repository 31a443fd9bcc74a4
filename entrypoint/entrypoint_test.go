// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/config"
)

// asProgram makes this test binary behave as the program.
const asProgram = "ENTRYPOINT_TEST_PROGRAM=1"

func TestMain(m *testing.M) {
	if slices.Contains(os.Environ(), asProgram) {
		os.Exit(run(context.Background(), os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// TestSignalsFirst: process 1 takes its signals before any library is made ready. Before, Go's runtime ends it with code 2.
func TestSignalsFirst(t *testing.T) {
	cmd := exec.Command(os.Args[0], "version")
	cmd.Env = append(os.Environ(), asProgram, "GODEBUG=inittrace=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	before, after, found := strings.Cut(string(out), "init github.com/pgquorum/pgquorum/entrypoint/early ")
	if !found || !strings.Contains(after, "init github.com/") {
		t.Fatalf("no trace of the initialisation:\n%s", out)
	}
	for line := range strings.Lines(before) {
		for _, slow := range []string{"github.com/prometheus/", "google.golang.org/protobuf/reflect/", "go.etcd.io/", "github.com/pgquorum/"} {
			if strings.HasPrefix(line, "init "+slow) {
				t.Errorf("before the signals: %s", line)
			}
		}
	}
}

func TestDispatch(t *testing.T) {
	const peers = "PGQUORUM_PEERS=a,b,c"
	for _, c := range []struct {
		args, env string
		want      kind
	}{
		{"", "", kindSingle},
		{"", peers, kindCluster},
		{"", "PGQUORUM_PEERS=", kindSingle},
		{"", "PGQUORUM_PEERS_FILE=/x", kindCluster},
		{"postgres", peers, kindCluster},
		{"-c work_mem=7MB", "", kindSingle},
		{"-C port", "", kindSingle},
		{"bash", peers, kindForeign},
		{"psql --version", peers, kindForeign},
		{"/usr/lib/postgresql/17/bin/postgres", peers, kindForeign},
		{"--version", peers, kindForeign},
		{"postgres -c a=b --version", peers, kindForeign},
		{"postgres -?", "", kindForeign},
		{"postgres --describe-config", "", kindForeign},
		{"postgres --single", "", kindSingle},
	} {
		got, args := dispatch(strings.Fields(c.args), []string{c.env})
		if got != c.want {
			t.Errorf("%q %q: got %d", c.args, c.env, got)
		}
		if len(args) == 0 {
			t.Errorf("%q: no arguments left", c.args)
		}
	}
}

func TestCommands(t *testing.T) {
	for _, c := range []struct {
		args     string
		code     int
		out, err string
	}{
		{"version", 0, "pgquorum ", ""},
		{"--version", 0, "pgquorum ", ""},
		{"help", 0, "usage: pgquorum COMMAND", ""},
		{"", exitUsage, "", "usage: pgquorum COMMAND"},
		{"frobnicate", exitUsage, "", `unknown command "frobnicate"`},
		{"docs configuration", 0, "# Configuration", ""},
		{"docs", exitUsage, "", "usage"},
	} {
		var out, err bytes.Buffer
		code := run(context.Background(), strings.Fields(c.args), nil, strings.NewReader(""), &out, &err)
		if code != c.code || !strings.Contains(out.String(), c.out) || !strings.Contains(err.String(), c.err) {
			t.Errorf("%q: %d %q %q", c.args, code, out.String(), err.String())
		}
	}
}

func TestUsers(t *testing.T) {
	u, ok := parsePasswd("root:x:0:0::/root:/bin/sh\npostgres:x:999:998::/var/lib/postgresql:/bin/bash\n# x\n",
		func(name string, _ int) bool { return name == "postgres" })
	if !ok || u.UID != 999 || u.GID != 998 || u.Home != "/var/lib/postgresql" {
		t.Errorf("got %+v", u)
	}
	got := parseGroups("ssl-cert:x:101:x,postgres\npostgres:x:998:postgres\nother:x:5:postgresql\n", "postgres", 998)
	if !slices.Equal(got, []int{998, 101}) {
		t.Errorf("got %v", got)
	}
}

const mountinfo = `22 1 0:20 / / rw - overlay overlay rw
23 22 0:21 / /dev/shm rw - tmpfs shm rw
24 22 8:1 /v1/_data /var/lib/postgresql rw,relatime - ext4 /dev/sda1 rw
25 22 8:1 /v2/_data /my\040data rw - ext4 /dev/sda1 rw
26 22 0:9 / /scratch rw - tmpfs tmpfs rw
`

func TestStateDir(t *testing.T) {
	mounts := parseMounts(mountinfo)
	for _, c := range []struct {
		state, data, want, err string
		ephemeral              bool
	}{
		{"/var/lib/postgresql/pgquorum", "/var/lib/postgresql/18/docker", "/var/lib/postgresql/pgquorum", "", false},
		{"", "/my data/pg", "/my data/pgquorum", "", false},
		{"", "/my data", "", "PGQUORUM_STATE_DIR is not set", false},
		{"/state", "/my data/pg", "", "is on another volume", false},
		{"", "/nowhere/pg", "", "lost with the container", false},
		{"", "/nowhere/pg", "/nowhere/pgquorum", "", true},
		{"", "/scratch/pg", "", "is on a tmpfs", false},
		{"/my data/pg/state", "/my data/pg", "", "inside the data directory", true},
	} {
		cfg := config.Config{StateDir: c.state, AllowEphemeral: c.ephemeral}
		got, warning, err := chooseStateDir(cfg, c.data, mounts)
		if got != c.want || (err == nil) != (c.err == "") || (err != nil && !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%q %q: got %q, %v", c.state, c.data, got, err)
		}
		if (warning != "") != (c.ephemeral && err == nil) {
			t.Errorf("%q %q: warning %q", c.state, c.data, warning)
		}
	}
}

func TestIdentity(t *testing.T) {
	dir := t.TempDir()
	first, err := takeIdentity(dir)
	if err != nil || !first.fresh || first.boot.Number != 1 || first.incarnation == 0 || first.boot.ID == 0 || first.kernel == "" {
		t.Fatalf("got %+v, %v", first, err)
	}
	second, err := takeIdentity(dir)
	if err != nil || second.fresh || second.boot.Number != 2 || second.incarnation != first.incarnation || second.boot.ID == first.boot.ID {
		t.Fatalf("got %+v, %v", second, err)
	}
	third, err := takeIdentity(dir)
	if want := []cluster.Boot{first.boot, second.boot, third.boot}; err != nil || !slices.Equal(third.boots, want) {
		t.Fatalf("boots %v, want %v, %v", third.boots, want, err)
	}
	if err := third.registered(); err != nil {
		t.Fatal(err)
	}
	fourth, err := takeIdentity(dir)
	if want := []cluster.Boot{third.boot, fourth.boot}; err != nil || !slices.Equal(fourth.boots, want) || fourth.boot.Number != 4 {
		t.Fatalf("boots after boot 3 was registered: %v, want %v, %v", fourth.boots, want, err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	good, err := os.ReadFile(filepath.Join(dir, identityFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "{}", `{"incarnation":"12"}`, `{"incarnation":"0000000000000000"}`, "\x00\x00\x00"} {
		write(identityFile, bad)
		if got, err := takeIdentity(dir); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%q: got %+v, %v", bad, got, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, identityFile)); err != nil {
		t.Fatal(err)
	}
	if got, err := takeIdentity(dir); err == nil || !strings.Contains(err.Error(), "is missing, but boot is there") {
		t.Errorf("votes without an identity were taken over: %+v, %v", got, err)
	}
	write(identityFile, string(good))
	for _, bad := range []string{"", "\n", "4\n", "4.00000000000000ff\n4.00000000000000fe\n", "1.0000000000000000\n", "1.ff\n"} {
		write(bootFile, bad)
		if got, err := takeIdentity(dir); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("a damaged list of boots was taken: %q: %+v, %v", bad, got, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, bootFile)); err != nil {
		t.Fatal(err)
	}
	if got, err := takeIdentity(dir); err != nil || got.boot.Number != 1 {
		t.Errorf("a first start that was cut off is not resumed: %+v, %v", got, err)
	}
}

func TestConfigurationErrorsEndIn78(t *testing.T) {
	var out, stderr bytes.Buffer
	code := run(context.Background(), []string{"run", "-c", "synchronous_standby_names=x"},
		[]string{"PGQUORUM_PEERS=a,b", "PGDATA=/nowhere/pg"}, strings.NewReader(""), &out, &stderr)
	for _, want := range []string{"PGQUORUM_SECRET: is missing", "openssl rand -hex 32", "is not in PGQUORUM_PEERS", "synchronous_standby_names is managed"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("no %q in\n%s", want, stderr.String())
		}
	}
	if code != exitConfig || out.Len() > 0 {
		t.Errorf("code %d, output %q", code, out.String())
	}
}

func TestVolumeLock(t *testing.T) {
	dir := t.TempDir()
	var first, second volumeLock
	if err := first.add(context.Background(), dir, 0, func() { t.Error("waits") }); err != nil {
		t.Fatal(err)
	}
	waited := false
	if err := second.add(context.Background(), dir, 0, func() { waited = true }); !errors.Is(err, errLocked) || !waited {
		t.Errorf("got %v, waited %v", err, waited)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if err := second.add(ctx, dir, lockWait, cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := second.add(context.Background(), dir, lockWait, first.Close); err != nil {
		t.Error(err)
	}
	second.Close()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left something in the directory: %v %v", entries, err)
	}
}

func itoa(n int) string { return strconv.Itoa(n) }

// eventually polls a condition; the bound only matters when the test fails.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never happened: %s", what)
}
