// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

var rewrite = flag.Bool("rewrite", false, "write generated files again")

const goodSecret = "0123456789abcdef"

var base = []string{
	"PGQUORUM_PEERS=pg1,pg2,pg3", "PGQUORUM_SECRET=" + goodSecret, "POSTGRES_PASSWORD=pw", "PGDATA=/var/lib/postgresql/18/docker",
}

func noFiles(string) ([]byte, error) { return nil, fs.ErrNotExist }

// with returns the good environment with some variables replaced.
func with(more ...string) []string { return append(slices.Clone(base), more...) }

func mustParse(t *testing.T, environ []string, args ...string) (Config, []Warning) {
	t.Helper()
	cfg, warnings, err := Parse(environ, args, "pg2", noFiles)
	if err != nil {
		t.Fatal(err)
	}
	return cfg, warnings
}

func TestDefaults(t *testing.T) {
	cfg, warnings := mustParse(t, base, "postgres", "-c", "work_mem=4MB")
	if len(warnings) > 0 {
		t.Errorf("warnings %q", warnings)
	}
	if cfg.Node != "pg2" || cfg.Self != (Peer{"pg2", "pg2", 7432}) || len(cfg.Members) != 3 {
		t.Errorf("self %+v of %+v", cfg.Self, cfg.Members)
	}
	if cfg.Lease != 2*time.Second || cfg.MaxLag != 16<<20 || !cfg.FastFailover || !cfg.ReplicationTLS || cfg.AllowEphemeral {
		t.Errorf("defaults %+v", cfg)
	}
	if cfg.StateDir != "/var/lib/postgresql/pgquorum" || cfg.Advertise != "pg2" || !slices.Equal(cfg.HBAReplication, List{"samenet"}) {
		t.Errorf("derived %+v", cfg)
	}
	if !slices.Equal(cfg.Args, []string{"-c", "work_mem=4MB"}) {
		t.Errorf("args %q", cfg.Args)
	}
}

func TestPeerForms(t *testing.T) {
	for _, c := range []struct {
		env  []string
		host string
		want Peer
	}{
		{with("PGQUORUM_PEERS=pg1:7001; pg2:7002\n pg3,"), "pg2", Peer{"pg2", "pg2", 7002}},
		{with("PGQUORUM_PEERS=pg1.example.com,pg2.example.com,pg3"), "pg2.internal", Peer{"pg2", "pg2.example.com", 7432}},
		{with("PGQUORUM_NODE=PG3"), "whatever", Peer{"pg3", "pg3", 7432}},
		{with("PGQUORUM_PEERS=10.0.0.1,10.0.0.2,10.0.0.3", "PGQUORUM_NODE=10.0.0.3"), "x", Peer{"10-0-0-3", "10.0.0.3", 7432}},
		{with("PGQUORUM_PEERS=10.0.0.1,[fd00::2]:7001,10.0.0.3", "PGQUORUM_ADVERTISE=10.0.0.1"), "x", Peer{"10-0-0-1", "10.0.0.1", 7432}},
		{with("PGQUORUM_PEERS=only"), "only", Peer{"only", "only", 7432}},
		{with("PGQUORUM_PEERS=0123456789ab,b,c"), "0123456789ab", Peer{"0123456789ab", "0123456789ab", 7432}},
	} {
		cfg, _, err := Parse(c.env, nil, c.host, noFiles)
		if err != nil || cfg.Self != c.want {
			t.Errorf("%q: got %+v, %v", c.env[len(base):], cfg.Self, err)
		}
	}
}

func TestWarnings(t *testing.T) {
	for _, c := range []struct{ set, want string }{
		{"PGQUORUM_PEERS=pg1,pg2", "2 nodes"},
		{"PGQUORUM_PEERS=pg1,pg2,pg3,pg4", "4 nodes"},
		{"PGQUORUM_PEERS=pg2,10.0.0.1,pg3", "10.0.0.1 is an address"},
		{"PGQUORUM_DURABILITY=async", "may lose"},
		{"POSTGRES_PASSWORD=", "POSTGRES_PASSWORD is not set"},
		{"REPMGR_PARTNER_NODES=a", "PGQUORUM_PEERS"},
		{"PATRONI_SCOPE=a", "Patroni"},
		{"POSTGRESQL_PASSWORD=a", "POSTGRES_PASSWORD"},
	} {
		_, warnings := mustParse(t, with(c.set))
		if len(warnings) != 1 || !strings.Contains(string(warnings[0]), c.want) {
			t.Errorf("%s: got %q", c.set, warnings)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct{ set, want string }{
		{"PGQUORUM_SECRET=", "openssl rand -hex 32"},
		{"PGQUORUM_SECRET=short-one", "PGQUORUM_SECRET=\"***\": is too short: 9 characters, at least 16"},
		{"PGQUORUM_PEERS=pg1,pg2,pg1", "lists pg1 twice"},
		{"PGQUORUM_PEERS=pg2.a,pg2.b", "lists pg2 twice (pg2.a and pg2.b)"},
		{"PGQUORUM_PEERS=pg1,pg3", "hostname pg2 is not in PGQUORUM_PEERS (pg1, pg3)"},
		{"PGQUORUM_PEERS=localhost,pg2", "means another machine on every node"},
		{"PGQUORUM_PEERS=127.0.0.1,pg2", "means another machine on every node"},
		{"PGQUORUM_PEERS=pg2,p!g", "is not host or host:port"},
		{"PGQUORUM_PEERS=pg2:x", "no port between 1 and 65535"},
		{"PGQUORUM_PEERS=pg2,a,b,c,d,e,f,g,h,i", "lists 10 nodes"},
		{"PGQUORUM_PEERS= , ", "lists nobody"},
		{"PGQUORUM_NODE=pg9", "is not in PGQUORUM_PEERS (pg1, pg2, pg3)"},
		{"PGQUORUM_PEER=pg1", "PGQUORUM_PEER: there is no such variable\n  did you mean PGQUORUM_PEERS?"},
		{"PGQUORUM_LEASE=soon", "PGQUORUM_LEASE=\"soon\": must be a duration"},
		{"PGQUORUM_LEASE=100ms", "must be between 1s and 1m0s"},
		{"PGQUORUM_ELECTION_TIMEOUT=200ms", "at least ten times"},
		{"PGQUORUM_HEARTBEAT=100ms", "at least ten times PGQUORUM_HEARTBEAT (100ms)"},
		{"PGQUORUM_MAX_LAG=16mb", "must be a size"},
		{"PGQUORUM_PRIORITY=101", "between 0 and 100"},
		{"PGQUORUM_PRIORITY=x", "must be a whole number"},
		{"PGQUORUM_FAST_FAILOVER=maybe", "must be one of 1 0 true"},
		{"PGQUORUM_ROLE=witness", "witnesses and learners: not available yet"},
		{"PGQUORUM_ROLE=chief", "not available yet"},
		{"PGQUORUM_DEGRADE=30s", "degrading durability: not available yet"},
		{"PGQUORUM_GATEWAY_PORT=5000", "the gateway: not available yet"},
		{"PGQUORUM_REJOIN=clone,clone", "must be rewind, clone or both"},
		{"PGQUORUM_STATE_DIR=/var/lib/postgresql/18/docker/x", "must not be inside /var/lib/postgresql/18/docker"},
		{"PGQUORUM_STATE_DIR=x", "must be an absolute path"},
		{"PGQUORUM_API_PORT=7432", "PGQUORUM_RAFT_PORT's number too"},
		{"PGQUORUM_RAFT_PORT=5432", "is Postgres' port"},
		{"PGQUORUM_REPLICATION_USER=postgres", "must not be the superuser"},
		{"PGQUORUM_REPLICATION_USER=Bob", "must be a lower-case name"},
		{"PGDATA=", "PGDATA: is not set"},
	} {
		cfg, _, err := Parse(with(c.set), nil, "pg2", noFiles)
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) || len(e.Problems) != 1 || e.ExitCode() != 78 {
			t.Errorf("%s: got %v", c.set, err)
		}
		if strings.Contains(fmt.Sprintf("%v %+v", err, cfg), goodSecret) {
			t.Errorf("%s: prints the secret", c.set)
		}
	}
}

func TestRandomHostname(t *testing.T) {
	_, _, err := Parse(base, nil, "3f9a2c1b5d60", noFiles)
	if err == nil || !strings.Contains(err.Error(), "set hostname:") || !strings.Contains(err.Error(), "random one that Docker made") {
		t.Errorf("got %v", err)
	}
}

func TestAllErrorsAtOnce(t *testing.T) {
	_, _, err := Parse(with("PGQUORUM_SECRET=x", "PGQUORUM_LEASE=x", "PGQUORUM_LAESE=2s", "PGQUORUM_PEERS=pg1"),
		[]string{"-c", "synchronous_standby_names=*"}, "pg2", noFiles)
	var e *Error
	if !errors.As(err, &e) || len(e.Problems) != 5 {
		t.Fatalf("got %v", err)
	}
	t.Log("\n" + err.Error())
}

func TestFiles(t *testing.T) {
	files := func(name string) ([]byte, error) {
		return map[string][]byte{"/s": []byte(goodSecret + "\n\n"), "/peers": []byte("pg1\npg2\n"), "/lease": []byte("3")}[name], nil
	}
	cfg, _, err := Parse([]string{
		"PGQUORUM_PEERS_FILE=/peers", "PGQUORUM_SECRET_FILE=/s", "POSTGRES_PASSWORD_FILE=/s", "PGQUORUM_LEASE_FILE=/lease", "PGDATA=/d",
	}, nil, "pg1", files)
	if err != nil || cfg.Secret.Reveal() != goodSecret || cfg.Lease != 3*time.Second || len(cfg.Members) != 2 {
		t.Errorf("got %+v, %v", cfg, err)
	}
	env := cfg.InitEnv([]string{"POSTGRES_PASSWORD_FILE=/s", "PGQUORUM_SECRET=x", "PATH=/bin", "HOME=/root"}, "/h")
	if want := []string{"PATH=/bin", "POSTGRES_PASSWORD=" + goodSecret, "HOME=/h"}; !slices.Equal(env, want) {
		t.Errorf("got %q", env)
	}
	_, _, err = Parse(with("POSTGRES_PASSWORD_FILE=/s"), nil, "pg2", files)
	var e *Error
	if !errors.As(err, &e) || e.ExitCode() != 1 ||
		err.Error() != "error: both POSTGRES_PASSWORD and POSTGRES_PASSWORD_FILE are set (but are exclusive)" {
		t.Errorf("got %v", err)
	}
	_, _, err = Parse([]string{"PGQUORUM_PEERS=a", "PGQUORUM_SECRET_FILE=/none", "PGDATA=/d"}, nil, "a", noFiles)
	if !errors.As(err, &e) || len(e.Problems) != 1 || !strings.Contains(err.Error(), `PGQUORUM_SECRET_FILE="/none": cannot be read`) {
		t.Errorf("got %v", err)
	}
}

func TestServiceLinksAreNotOurs(t *testing.T) {
	mustParse(t, with("PGQUORUM_SERVICE_HOST=10.0.0.1", "PGQUORUM_PORT=tcp://10.0.0.1:7432", "PGQUORUM_PORT_7432_TCP_ADDR=10.0.0.1",
		"PGQUORUM_SERVICE_PORT_RAFT=7432"))
}

func TestArguments(t *testing.T) {
	for _, c := range []struct {
		args string
		bad  int
	}{
		{"-c|work_mem=1MB|-cport=5433|--shared-buffers=1GB|-p|5433", 0},
		{"-c|synchronous_standby_names=x", 1},
		{"-csynchronous_standby_names=x", 1},
		{"--synchronous-standby-names=x", 1},
		{"--Synchronous_Standby_Names=x", 1},
		{"-c|synchronous-standby-names", 1},
		{"-jc|restore_command=x", 1},
		{"-F", 1},
		{"-jF", 1},
		{"-c|fsync=off|-c|full_page_writes=0|-c|hot_standby=off", 3},
		{"-c|fsync=on|-c|wal_level=logical|-c|max_wal_senders=40|-c|recovery_min_apply_delay=0ms", 0},
		{"-c|wal_level=minimal|-c|max_wal_senders=0|-c|recovery_min_apply_delay=5s", 3},
		{"-c|recovery_target_time=now|-c|recovery_target=immediate", 2},
		{"-D|-c|-c|work_mem=1MB", 0}, // the value of -D is "-c"
		{"--single|x", 1},
		{"-C|port", 1},
	} {
		_, _, err := Parse(base, append([]string{"postgres"}, strings.Split(c.args, "|")...), "pg2", noFiles)
		var e *Error
		got := 0
		if errors.As(err, &e) {
			got = len(e.Problems)
		}
		if got != c.bad {
			t.Errorf("%s: %d problems, want %d: %v", c.args, got, c.bad, err)
		}
	}
	if !Managed("Primary_Conninfo") || !Managed("recovery_target_xid") || Managed("work_mem") || Managed("wal_level") {
		t.Error("Managed is wrong")
	}
}

func TestSecretPrintsNowhere(t *testing.T) {
	s := struct{ S Secret }{goodSecret}
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "s", s.S, "t", s)
	all := fmt.Sprintf("%v %+v %#v %s %q %x %d %s %s", s, s, s, s.S, s.S, s.S, s.S, raw, log.String())
	if strings.Contains(all, goodSecret) || strings.Contains(all, "3031") {
		t.Error(all)
	}
}

func TestDocs(t *testing.T) {
	const path = "../docs/configuration.md"
	if *rewrite {
		if err := os.WriteFile(path, []byte(Docs()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != Docs() {
		t.Errorf("%s is out of date (%v): go test ./config -run TestDocs -rewrite", path, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("pg1,pg2", "2s", "16MB", "-c x=y")
	f.Fuzz(func(_ *testing.T, peers, lease, size, args string) {
		_, _, _ = Parse(with("PGQUORUM_PEERS="+peers, "PGQUORUM_LEASE="+lease, "PGQUORUM_MAX_LAG="+size), strings.Fields(args), "pg1", noFiles)
	})
}
