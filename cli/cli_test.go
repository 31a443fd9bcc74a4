// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/pgquorum/pgquorum/api/status"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files")

// call makes a Call whose two outputs are one.
func call(env map[string]string, args ...string) (Call, *bytes.Buffer) {
	var out bytes.Buffer
	return Call{Args: args, Getenv: func(k string) string { return env[k] }, Stdout: &out, Stderr: &out}, &out
}

// node is a socket with a handler behind it; it returns the environment that leads there.
func node(t *testing.T, h http.HandlerFunc) map[string]string {
	t.Helper()
	if _, err := os.Stat(runtimeDir); err == nil {
		t.Fatalf("%s exists on this machine: the test would ask a real node", runtimeDir)
	}
	dir, err := os.MkdirTemp("", "pgq") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", filepath.Join(dir, "run", status.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go s.Serve(ln)
	t.Cleanup(func() { s.Close() })
	return map[string]string{"PGQUORUM_STATE_DIR": dir}
}

func answer(code int, doc any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(doc)
	}
}

func bytesBehind(n uint64) *uint64 { return &n }

func members(ms ...status.Member) []status.Member { return ms }

// docs are the situations of the golden tables.
func docs() map[string]status.Doc {
	u := status.Durability{Mode: "quorum", Set: []string{"pg1", "pg2", "pg3"}, K: 1}
	primary := status.Member{Name: "pg1", Role: status.RolePrimary, State: status.StateServing, Timeline: 3, LSN: "0/5000148", LeaseMS: 1840, Epoch: 3, Linked: true}
	standby := func(name string) status.Member {
		return status.Member{
			Name: name, Role: status.RoleStandby, State: status.StateStreaming, Timeline: 3, LSN: "0/5000148",
			LagBytes: bytesBehind(0), Streaming: true, Sync: true, Epoch: 3, Linked: true,
		}
	}
	healthy := status.Doc{
		Cluster: "7c1f9a2b4d5e6f70", Node: "pg2", Primary: "pg1", Epoch: 3, Phase: "promoted", Timeline: 3, Leader: "pg2",
		Redundant: true, Durability: u, Members: members(primary, standby("pg2"), standby("pg3")), Decision: "following", Rule: "R699",
	}

	degraded := healthy
	pending := status.Durability{Mode: "quorum", Set: []string{"pg1", "pg2"}, K: 1}
	degraded.Redundant, degraded.Paused, degraded.Durability.Pending = false, true, &pending
	behind := standby("pg2")
	behind.State, behind.Streaming, behind.Sync, behind.LagBytes = status.StateCatchingUp, false, false, bytesBehind(123456789)
	behind.WhyNot = "following the primary"
	degraded.Members = members(primary, behind, status.Member{
		Name: "pg3", Role: status.RoleStandby, State: status.StateDown, Epoch: 2, Linked: true,
		WhyNot:  "no data",
		Trouble: "PGDATA belongs to another Postgres cluster (system identifier differs); it is left as it is: give this node an empty volume, or take this one to its own cluster",
	})

	electing := healthy
	electing.Primary, electing.Phase, electing.Redundant = "", "electing", false
	fenced := standby("pg2")
	fenced.State, fenced.Streaming, fenced.Sync, fenced.LagBytes = status.StateFenced, false, false, nil
	gone := status.Member{Name: "pg1", Role: status.RoleStandby, State: status.StateUnreachable, WhyNot: "no link for 1.2s"}
	lost := gone
	lost.Name = "pg3"
	electing.Members = members(gone, fenced, lost)
	electing.Decision, electing.Rule = "waiting for reports from a majority of voters", "F210"

	forming := status.Doc{Node: "pg1", Phase: "forming", Forming: "waiting for pg2, pg3", Members: members(
		status.Member{Name: "pg1", Role: status.RoleUnknown, State: status.StateWaiting, Linked: true},
		status.Member{Name: "pg2", Role: status.RoleUnknown, State: status.StateUnreachable, WhyNot: "never heard of"})}

	widest := healthy
	long := strings.Repeat("database-", 7)
	p := primary
	p.Name, p.State, p.LSN, p.Timeline, p.Epoch, p.LeaseMS = long+"1", status.StateAdmitting, "FFFFFFFF/FFFFFFFF", 4294967295, 123456, 99999
	q := standby(long + "2")
	q.LSN, q.Timeline, q.LagBytes, q.State = "FFFFFFFF/FFFFFFFF", 4294967295, bytesBehind(1<<64-1), status.StateUnreachable
	q.WhyNot = strings.Repeat("x", 200)
	widest.Primary, widest.Members, widest.Durability.Set = p.Name, members(p, q), []string{p.Name, q.Name}
	return map[string]status.Doc{"healthy": healthy, "degraded": degraded, "electing": electing, "forming": forming, "widest": widest}
}

func TestStatusTable(t *testing.T) {
	for name, d := range docs() {
		t.Run(name, func(t *testing.T) {
			got := Render(d)
			for _, line := range strings.Split(got, "\n") {
				if n := utf8.RuneCountInString(line); n > widthMax {
					t.Errorf("%d columns: %s", n, line)
				}
			}
			path := filepath.Join("testdata", "status", name+".txt")
			if *rewrite {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil || got != string(want) {
				t.Fatalf("%s is stale (%v); run with -rewrite. Got:\n%s", path, err, got)
			}
		})
	}
}

func TestStatusExitCodes(t *testing.T) {
	for name, want := range map[string]int{"healthy": exitOK, "degraded": exitOK, "electing": exitNoPrimary, "forming": exitNoPrimary} {
		env := node(t, answer(http.StatusOK, docs()[name]))
		c, out := call(env)
		if code := Status(t.Context(), c); code != want || out.String() != Render(docs()[name]) {
			t.Errorf("%s: code %d, want %d:\n%s", name, code, want, out)
		}
		c, out = call(env, "--json")
		var d status.Doc
		if code := Status(t.Context(), c); code != want || json.Unmarshal(out.Bytes(), &d) != nil || Render(d) != Render(docs()[name]) {
			t.Errorf("%s --json: code %d, want %d:\n%s", name, code, want, out)
		}
	}
	c, out := call(map[string]string{"PGQUORUM_STATE_DIR": t.TempDir()})
	if Status(t.Context(), c) != exitFailure || !strings.Contains(out.String(), "there is no socket") {
		t.Errorf("no socket: %s", out)
	}
	c, out = call(nil, "--nonsense")
	if Status(t.Context(), c) != exitUsage || !strings.Contains(out.String(), "usage: pgquorum status") {
		t.Errorf("unknown flag: %s", out)
	}
}

func TestStatusWatch(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	env := node(t, func(w http.ResponseWriter, r *http.Request) {
		if n++; n == 3 {
			cancel()
		}
		answer(http.StatusOK, docs()["healthy"])(w, r)
	})
	c, out := call(env, "--watch", "--every", "100ms")
	Status(ctx, c)
	if strings.Count(out.String(), "primary   pg1") < 2 {
		t.Fatalf("printed once only:\n%s", out)
	}
}

func TestSwitchover(t *testing.T) {
	var asked status.Order
	reply := status.Outcome{OK: true, Message: "pg2 is the primary", DurationMS: 123}
	code := http.StatusOK
	env := node(t, func(w http.ResponseWriter, r *http.Request) {
		asked = status.Order{}
		_ = json.NewDecoder(r.Body).Decode(&asked)
		answer(code, reply)(w, r)
	})
	c, out := call(env, "pg2")
	if Switchover(t.Context(), c) != exitOK || out.String() != "pg2 is the primary (0.12 s)\n" || asked != (status.Order{Op: "switchover", Target: "pg2"}) {
		t.Fatalf("%+v: %s", asked, out)
	}
	c, out = call(env, "--timeout", "9s")
	if Switchover(t.Context(), c) != exitOK || asked.Target != "" {
		t.Fatalf("%+v: %s", asked, out)
	}
	c, out = call(env, "pg2", "pg3")
	if Switchover(t.Context(), c) != exitUsage {
		t.Fatalf("two targets: %s", out)
	}
	reply, code = status.Outcome{Message: "pause is not available yet"}, http.StatusConflict
	c, out = call(env)
	if Pause(t.Context(), c) != exitFailure || out.String() != "pgquorum: pause: pause is not available yet\n" || asked.Op != "pause" {
		t.Fatalf("%+v: %s", asked, out)
	}
}

func TestHealthAsksNode(t *testing.T) {
	env := node(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("ready") != "" {
			answer(http.StatusServiceUnavailable, status.Outcome{Message: "neither serves nor streams: cloning"})(w, r)
			return
		}
		answer(http.StatusOK, status.Outcome{OK: true, Message: "cloning from the primary"})(w, r)
	})
	c, out := call(env)
	if Health(t.Context(), c) != exitOK || out.String() != "cloning from the primary\n" {
		t.Fatalf("got %s", out)
	}
	c, out = call(env, "--ready")
	if Health(t.Context(), c) != exitFailure || out.String() != "pgquorum: neither serves nor streams: cloning\n" {
		t.Fatalf("got %s", out)
	}
}

func TestSocketPath(t *testing.T) {
	getenv := func(string) string { return "" }
	dir := t.TempDir()
	for runtime, want := range map[string]string{
		dir:                          filepath.Join(dir, "api.sock"),
		filepath.Join(dir, "absent"): "/var/lib/postgresql/pgquorum/run/api.sock",
	} {
		if got := socketPath(runtime, getenv); got != want {
			t.Errorf("socketPath(%s) = %s, want %s", runtime, got, want)
		}
	}
	if got := socketPath("/nowhere", func(string) string { return "/s" }); got != "/s/run/api.sock" {
		t.Errorf("got %s", got)
	}
}
