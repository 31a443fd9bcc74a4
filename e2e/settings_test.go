// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/e2e/docker"
)

// one starts a cluster of one node and waits until it serves.
func one(t *testing.T, flags ...string) docker.Container {
	t.Helper()
	flags = append([]string{"-p", "127.0.0.1::5432", "-e", "POSTGRES_PASSWORD=" + password}, flags...)
	c := start(t, docker.Options{Name: unique(t), Flags: member("pg1", "pg1", append(flags, "-v", volume(t)+":/var/lib/postgresql")...)})
	waitServing(t, c)
	return c
}

// SIGHUP to the container has Postgres read its files again, pg_hba.conf too, of which it reads a copy.
func TestReload(t *testing.T) {
	t.Parallel()
	c := one(t)
	ctx := deadline(t, time.Minute)
	change := func(line, file string) {
		t.Helper()
		res, err := c.Exec(ctx, "bash", "-c", `echo "`+line+`" >>$PGDATA/`+file)
		if err != nil || res.Code != 0 {
			t.Fatalf("change %s: %+v, %v", file, res, err)
		}
	}
	becomes := func(sql, want string) {
		t.Helper()
		if err := docker.Wait(ctx, sql+" to be "+want, func(context.Context) error {
			if got := query(t, c, sql); got != want {
				return fmt.Errorf("it is %s", got)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	change("work_mem = '7MB'", "postgresql.conf")
	if got := query(t, c, "SHOW work_mem"); got == "7MB" {
		t.Fatal("it was read before the signal")
	}
	if _, err := docker.Command(ctx, "kill", "-s", "HUP", c.ID); err != nil {
		t.Fatal(err)
	}
	becomes("SHOW work_mem", "7MB")
	change("host all nobody 192.0.2.1/32 reject", "pg_hba.conf") // this one is read within a second, and reloads all
	becomes("SELECT count(*)::text FROM pg_hba_file_rules WHERE 'nobody' = ANY (user_name)", "1")
	waitLog(t, c, "settings are read again", 1)
}

// With PGQUORUM_STOP_MODE=smart nobody is let in any more and a session ends when it wants to; a second signal ends it.
func TestSmartStop(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"the session ends", "a second signal"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			c := one(t, "-e", "PGQUORUM_STOP_MODE=smart", "-e", "PGQUORUM_STOP_TIMEOUT=1m")
			ctx := deadline(t, 90*time.Second)
			session, err := connect(ctx, c)
			if err != nil {
				t.Fatal(err)
			}
			defer session.Close(ctx)
			if _, err := docker.Command(ctx, "kill", "-s", "TERM", c.ID); err != nil {
				t.Fatal(err)
			}
			if err := docker.Wait(ctx, "newcomers to be refused", func(ctx context.Context) error {
				other, err := connect(ctx, c)
				switch {
				case err == nil:
					_ = other.Close(ctx)
					return fmt.Errorf("one was let in")
				case !strings.Contains(err.Error(), "57P03"):
					return err
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if _, err := session.Exec(ctx, "CREATE TABLE still_here ()"); err != nil {
				t.Fatalf("the session was ended, or cannot write: %v", err)
			}
			began := time.Now()
			if how == "the session ends" {
				err = session.Close(ctx)
			} else {
				_, err = docker.Command(ctx, "kill", "-s", "TERM", c.ID)
			}
			if err != nil {
				t.Fatal(err)
			}
			if code, err := docker.Command(ctx, "wait", c.ID); err != nil || strings.TrimSpace(code.Stdout) != "0" {
				t.Fatalf("it ended with code %s, %v", code.Stdout, err)
			}
			if d := time.Since(began); d > 20*time.Second {
				t.Errorf("it took %s", d)
			}
			if !strings.Contains(logs(t, c), "received smart shutdown request") {
				t.Error("Postgres was not stopped in the smart way")
			}
		})
	}
}

// A node that waits longer for its peers than it may ends, and says for whom it waited.
func TestFormationGivesUp(t *testing.T) {
	t.Parallel()
	res := run(t, member("pg1", "pg1,pg2", "-e", "PGQUORUM_BOOTSTRAP_TIMEOUT=3s"))
	const want = "the cluster was not formed in time (PGQUORUM_BOOTSTRAP_TIMEOUT) after 3s: form a cluster: waiting for pg2 ("
	if res.Code != 75 || !strings.Contains(res.Stderr, want) {
		t.Fatalf("code %d, stderr\n%s\nwant code 75 and %q", res.Code, res.Stderr, want)
	}
}

// Three containers that are restarted at once with PGQUORUM_STOP_GUARD stop one after the other.
func TestStopGuard(t *testing.T) {
	t.Parallel()
	network := network(t)
	var cs []docker.Container
	for _, host := range []string{"pg1", "pg2", "pg3"} {
		cs = append(cs, start(t, docker.Options{Name: unique(t), Flags: member(host, "pg1,pg2,pg3", "-e", "PGQUORUM_STOP_GUARD=90s",
			"--network", network, "--network-alias", host, "-v", volume(t)+":/var/lib/postgresql")}))
	}
	ctx := deadline(t, 4*time.Minute)
	redundant := func() {
		t.Helper()
		if err := docker.Wait(ctx, "three nodes that replicate", func(ctx context.Context) error {
			res, err := cs[0].Exec(ctx, "pgquorum", "status", "--json")
			if err != nil {
				return err
			}
			var s struct{ Redundant bool }
			if err := json.Unmarshal([]byte(res.Stdout), &s); err != nil || !s.Redundant {
				return fmt.Errorf("not yet: %w, %s", err, res.Stderr)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	redundant()
	type life struct{ down, up time.Time }
	lives := make(chan life, len(cs))
	for _, c := range cs {
		go func() { // not through `docker restart`, which takes containers one after the other
			_, err := docker.Command(ctx, "restart", "-t", "120", c.ID)
			res, err2 := docker.Command(ctx, "inspect", "-f", "{{.State.FinishedAt}} {{.State.StartedAt}}", c.ID)
			var l life
			if f := strings.Fields(res.Stdout); len(f) == 2 && err == nil && err2 == nil {
				l.down, _ = time.Parse(time.RFC3339Nano, f[0])
				l.up, _ = time.Parse(time.RFC3339Nano, f[1])
			}
			lives <- l
		}()
	}
	var all []life
	for range cs {
		l := <-lives
		if l.down.IsZero() || !l.up.After(l.down) {
			t.Fatalf("a container was not restarted: %+v", l)
		}
		for _, o := range all {
			if l.down.Before(o.up) && o.down.Before(l.up) {
				t.Errorf("two were down at once: %v to %v, and %v to %v", o.down, o.up, l.down, l.up)
			}
		}
		all = append(all, l)
	}
	redundant()
	said := 0
	for _, c := range cs {
		text := logs(t, c)
		said += strings.Count(text, "planned stop waits")
		if strings.Contains(text, "planned stop waits no longer") {
			t.Error("a guard ran out")
		}
	}
	if said == 0 {
		t.Error("nobody waited: the test has shown nothing")
	}
}
