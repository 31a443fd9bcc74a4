// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/e2e/docker"
)

const (
	aSecret       = "0123456789abcdef0123"
	anotherSecret = "3210fedcba9876543210"
)

// member is what a well configured container of a cluster is started with; a later -e of the same name wins.
func member(host, peers string, flags ...string) []string {
	return append([]string{"-h", host, "-e", "POSTGRES_PASSWORD=x", "-e", "PGQUORUM_PEERS=" + peers, "-e", "PGQUORUM_SECRET=" + aSecret}, flags...)
}

const secretText = `  make one with
    openssl rand -hex 32
  or
    head -c 32 /dev/urandom | base64
  and give the same to every node (PGQUORUM_SECRET, or PGQUORUM_SECRET_FILE with the name of a file)
`

// What is wrong with the settings is said at once and completely, with exit code 78; docs/bad-input.md lists it.
func TestBadSettings(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		flags []string
		args  []string
		want  string // all of stderr
	}{
		{"missing secret", member("pg1", "pg1,pg2,pg3", "-e", "PGQUORUM_SECRET="), nil,
			"error: PGQUORUM_SECRET: is missing; the nodes need it to know each other\n" + secretText},
		{"short secret", member("pg1", "pg1,pg2,pg3", "-e", "PGQUORUM_SECRET=short"), nil,
			"error: PGQUORUM_SECRET=\"***\": is too short: 5 characters, at least 16 are needed\n" + secretText},
		{"own name not in peers", member("pg9", "pg1,pg2,pg3"), nil,
			"error: PGQUORUM_NODE: is not set, and the hostname pg9 is not in PGQUORUM_PEERS (pg1, pg2, pg3)\n" +
				"  set hostname: (docker run --hostname) or PGQUORUM_NODE to this node's name in the list, or add it\n"},
		{"duplicate peers", member("pg1", "pg1,pg2,pg1"), nil,
			"error: PGQUORUM_PEERS=\"pg1,pg2,pg1\": lists pg1 twice (pg1 and pg1)\n  name each node once\n"},
		{"unknown variable", member("pg1", "pg1,pg2,pg3", "-e", "PGQUORUM_LEESE=3s"), nil,
			"error: PGQUORUM_LEESE: there is no such variable\n  did you mean PGQUORUM_LEASE?\n"},
		{"managed setting", member("pg1", "pg1,pg2,pg3"), []string{"-c", "synchronous_standby_names=pg2"},
			"error: argument -c synchronous_standby_names=pg2: synchronous_standby_names is managed by pgquorum: " +
				"which standbys must confirm a commit is decided by the cluster\n" +
				"  remove it; PGQUORUM_DURABILITY says how durable commits are\n"},
		{"several at once", member("pg1", "pg1,pg2,pg1", "-e", "PGQUORUM_SECRET=short", "-e", "PGQUORUM_LEESE=3s"), []string{"-c", "fsync=off"},
			"error: PGQUORUM_LEESE: there is no such variable\n  did you mean PGQUORUM_LEASE?\n" +
				"error: PGQUORUM_SECRET=\"***\": is too short: 5 characters, at least 16 are needed\n" + secretText +
				"error: PGQUORUM_PEERS=\"pg1,pg2,pg1\": lists pg1 twice (pg1 and pg1)\n  name each node once\n" +
				"error: argument -c fsync=off: fsync is managed by pgquorum: replication and failover do not work with this value\n" +
				"  remove it (also -F)\n"},
		{"state on no volume", member("pg1", "pg1,pg2,pg3", "--tmpfs", "/var/lib/postgresql"), nil,
			"error: the container cannot be a cluster member: state directory /var/lib/postgresql/pgquorum: is on a tmpfs (mounted at " +
				"/var/lib/postgresql), which is lost with the container: this node would forget its votes and its data\n" +
				"  mount one volume at /var/lib/postgresql and use a data directory below it, such as PGDATA=/var/lib/postgresql/18/docker; " +
				"or set PGQUORUM_STATE_DIR to a directory beside the data directory on its volume\n" +
				"  or, for a test only, set PGQUORUM_ALLOW_EPHEMERAL=1\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			res := run(t, tt.flags, tt.args...)
			if res.Code != 78 || res.Stderr != tt.want || res.Stdout != "" {
				t.Fatalf("code %d, stdout %q, stderr\n%s\nwant code 78 and\n%s", res.Code, res.Stdout, res.Stderr, tt.want)
			}
		})
	}
}

// network makes a network that goes with the test.
func network(t *testing.T) string {
	t.Helper()
	name := unique(t)
	if _, err := docker.Command(deadline(t, 20*time.Second), "network", "create", "--label", ownLabel, name); err != nil {
		t.Fatal(err)
	}
	// Made before the containers, so removed after them.
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := docker.Command(ctx, "network", "rm", name); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return name
}

// waiting is a container that shall not form a cluster, and what it shall say of that.
type waiting struct {
	host, alias string   // alias: its name on the network; the host's when empty
	flags       []string // beyond those of a good member
	status      []string // in what `pgquorum status` prints, its line breaks taken out
	log         []string
}

// A node that cannot form a cluster stays up and says for whom or what it waits: at the log and at the status.
func TestFormationWaits(t *testing.T) {
	t.Parallel()
	const unformed = "none, the cluster is not formed yet: form a cluster: "
	const sameSecret = " than this node: give every node the same"
	const differ = "PGQUORUM_PEERS is pg1,pg2,pg3 on pg1 and pg1,pg2,pg3,pg4 on pg2: make it the same on every node"
	tests := []struct {
		name  string
		nodes []waiting
	}{
		{"a peer that never comes", []waiting{
			{host: "pg1", status: []string{unformed + "waiting for pg3 (the network does not know the name pg3: is its container started?)"},
				log: []string{`reason="form a cluster: waiting for pg3 (the network does not know the name pg3: is its container started?)"`}},
			{host: "pg2", status: []string{unformed + "waiting for pg3 ("}},
		}},
		{"two nodes with one name", []waiting{
			{host: "pg1", status: []string{unformed + "waiting for pg2 (the container reached as pg2 is called pg1, as this one is: " +
				"give each container its own hostname (or PGQUORUM_NODE), the one that PGQUORUM_PEERS has for it), pg3 ("},
				log: []string{"the container reached as pg2 is called pg1, as this one is: give each container its own hostname"}},
			{host: "pg1", alias: "pg2", status: []string{unformed + "waiting for pg2 (the name pg2 leads back to this container, which is called pg1: " +
				"give each container its own hostname"}, log: []string{"peer=pg2", "the name pg2 leads back to this container"}},
		}},
		{"different peers", []waiting{
			{host: "pg1", status: []string{unformed + differ}, log: []string{"form a cluster: " + differ}},
			{host: "pg2", flags: []string{"-e", "PGQUORUM_PEERS=pg1,pg2,pg3,pg4"}, status: []string{unformed + differ}},
		}},
		{"peers that do not list it", []waiting{
			{host: "pg1", status: []string{unformed + "PGQUORUM_PEERS is pg1,pg2,pg3 on pg1 and pg2,pg4 on pg2"}},
			{host: "pg2", flags: []string{"-e", "PGQUORUM_PEERS=pg2,pg4"}, status: []string{unformed + "PGQUORUM_PEERS is pg1,pg2,pg3 on pg1 and pg2,pg4 on pg2"}},
		}},
		{"different secrets", []waiting{
			{host: "pg1", status: []string{unformed + "waiting for pg2 (pg2 has another PGQUORUM_SECRET" + sameSecret},
				log: []string{"peer=pg2", "pg2 has another PGQUORUM_SECRET" + sameSecret}},
			{host: "pg2", flags: []string{"-e", "PGQUORUM_SECRET=" + anotherSecret},
				status: []string{unformed + "waiting for pg1 (pg1 has another PGQUORUM_SECRET" + sameSecret},
				log:    []string{"peer=pg1", "pg1 has another PGQUORUM_SECRET" + sameSecret}},
		}},
		{"no network", []waiting{
			{host: "pg1", flags: []string{"--network", "none"}, status: []string{unformed + "waiting for pg2 (the name pg2 cannot be looked up: "},
				log: []string{"peer is not reachable", "peer=pg2", "peer=pg3"}},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			net := network(t)
			var cs []docker.Container
			for _, n := range tt.nodes {
				alias := n.alias
				if alias == "" {
					alias = n.host
				}
				flags := member(n.host, "pg1,pg2,pg3", n.flags...)
				if !slices.Contains(n.flags, "--network") {
					flags = append(flags, "--network", net, "--network-alias", alias)
				}
				cs = append(cs, start(t, docker.Options{Name: unique(t), Flags: flags}))
			}
			for i, n := range tt.nodes {
				waitSaid(t, cs[i], n)
			}
		})
	}
}

// waitSaid waits until a node says at both places what it shall, and is still up and healthy.
func waitSaid(t *testing.T, c docker.Container, n waiting) {
	t.Helper()
	err := docker.Wait(deadline(t, 30*time.Second), n.host+" to say what it waits for", func(ctx context.Context) error {
		res, err := c.Exec(ctx, "pgquorum", "status")
		if err != nil {
			return err
		}
		if err := holds(strings.Join(strings.Fields(res.Stdout), " "), n.status); err != nil {
			return fmt.Errorf("status, exit code %d: %w (%s)", res.Code, err, res.Stderr)
		}
		if res.Code != 2 {
			return fmt.Errorf("status ends with code %d, not with 2", res.Code)
		}
		text, err := c.Logs(ctx)
		if err != nil {
			return err
		}
		if err := holds(text, n.log); err != nil {
			return fmt.Errorf("log: %w", err)
		}
		if res, err := c.Exec(ctx, "pgquorum", "health"); err != nil || res.Code != 0 || !strings.HasPrefix(res.Stdout, "form a cluster: ") {
			return fmt.Errorf("a node that waits is not healthy, or does not say for what: exit code %d, %s, %w", res.Code, res.Stdout+res.Stderr, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{readyLine, "not held twice"} {
		if strings.Contains(logs(t, c), bad) {
			t.Fatalf("the log has %q all the same", bad)
		}
	}
}

func holds(text string, want []string) error {
	for _, w := range want {
		if !strings.Contains(text, w) {
			return fmt.Errorf("%q is not in %q", w, text)
		}
	}
	return nil
}

// Data of somebody else is left as it is: the node stays up, so that it can be asked why, and Postgres stays down.
func TestForeignData(t *testing.T) {
	t.Parallel()
	v := volume(t)
	c := start(t, docker.Options{Name: unique(t), Flags: member("pg1", "pg1", "-v", v+":/var/lib/postgresql")})
	ctx := deadline(t, 2*time.Minute)
	if err := docker.Wait(ctx, "a cluster of one", func(ctx context.Context) error {
		if res, err := c.Exec(ctx, "pgquorum", "status"); err != nil || res.Code != 0 {
			return fmt.Errorf("status ends with code %d: %s, %w", res.Code, res.Stdout+res.Stderr, err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Stop(ctx, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	res := run(t, []string{"-u", "postgres", "-v", v + ":/var/lib/postgresql", "--entrypoint", "bash"}, "-c",
		`mv $PGDATA $PGDATA.kept && initdb -D $PGDATA >/dev/null 2>&1 && pg_controldata | grep "system identifier"`)
	if res.Code != 0 {
		t.Fatalf("exchange the data: %+v", res)
	}
	if err := c.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	const want = "PGDATA belongs to another Postgres cluster (system identifier differs); it is left as it is: " +
		"give this node an empty volume, or take this one to its own cluster"
	waitLog(t, c, `reason="`+want+`"`, 1)
	if err := docker.Wait(ctx, "the status to say it", func(ctx context.Context) error {
		res, err := c.Exec(ctx, "pgquorum", "status")
		if err == nil && res.Code != 2 {
			err = fmt.Errorf("status ends with code %d, not with 2", res.Code)
		}
		if err != nil {
			return err
		}
		return holds(strings.Join(strings.Fields(res.Stdout), " "), []string{"pg1: TROUBLE: " + want, "pg1 none down"})
	}); err != nil {
		t.Fatal(err)
	}
	after, err := c.Exec(ctx, "bash", "-c", `pg_controldata | grep "system identifier"; pgrep -x postgres`)
	if err != nil || after.Stdout != res.Stdout {
		t.Fatalf("the foreign data was touched, or Postgres runs on it: %q before, %q after, %v", res.Stdout, after.Stdout, err)
	}
}
