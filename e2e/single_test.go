// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/e2e/docker"
)

// run runs a container in the foreground and returns what it printed.
func run(t *testing.T, flags []string, args ...string) docker.Result {
	t.Helper()
	line := slices.Concat([]string{"run", "--rm", "--label", ownLabel}, flags, []string{image()}, args)
	res, _ := docker.Command(deadline(t, 30*time.Second), line...)
	return res
}

// Commands of others belong to the image's entrypoint: nothing of ours may be on their stdout.
func TestForeignCommands(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		args   []string
		stdout string
		code   int
	}{
		{"echo", []string{"echo", "hello", "world"}, "hello world\n", 0},
		{"shell with a code", []string{"sh", "-c", "exit 7"}, "", 7},
		{"who runs it", []string{"id", "-u"}, "0\n", 0},
		{"unknown", []string{"no-such-command"}, "", 127},
		{"version", []string{"--version"}, "postgres (PostgreSQL) ", 0},
		{"postgres version", []string{"postgres", "-V"}, "postgres (PostgreSQL) ", 0},
		{"help", []string{"postgres", "--help"}, "postgres is the PostgreSQL server.", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res := run(t, nil, tt.args...)
			exact := strings.HasSuffix(tt.stdout, "\n") || tt.stdout == ""
			if res.Code != tt.code || (exact && res.Stdout != tt.stdout) || !strings.HasPrefix(res.Stdout, tt.stdout) {
				t.Fatalf("code %d, stdout %q, stderr %q; want code %d, stdout %q", res.Code, res.Stdout, res.Stderr, tt.code, tt.stdout)
			}
		})
	}
}

func TestMissingPassword(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"postgres"}, {"-c", "work_mem=7MB"}} {
		res := run(t, nil, args...)
		want := "Error: Database is uninitialized and superuser password is not specified."
		if res.Code != 1 || !strings.Contains(res.Stderr, want) {
			t.Fatalf("arguments %q: code %d, stderr %q; want 1 and %q", args, res.Code, res.Stderr, want)
		}
	}
}

func TestPasswordTwice(t *testing.T) {
	t.Parallel()
	res := run(t, []string{"-e", "POSTGRES_PASSWORD=x", "-e", "POSTGRES_PASSWORD_FILE=/etc/hostname"})
	want := "error: both POSTGRES_PASSWORD and POSTGRES_PASSWORD_FILE are set (but are exclusive)"
	if res.Code != 1 || !strings.Contains(res.Stderr, want) {
		t.Fatalf("code %d, stderr %q; want 1 and %q", res.Code, res.Stderr, want)
	}
}

// One life of a database: first start with init files, use, a fast stop, a second start that repeats nothing.
func TestLife(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := map[string]struct {
		text string
		mode os.FileMode
	}{
		"10-table.sql": {"create table seen (what text); insert into seen values ('sql');\n", 0o644},
		"20-run.sh":    {"#!/bin/sh\npsql -U postgres -c \"insert into seen values ('run')\"\n", 0o755},
		"30-source.sh": {"docker_process_sql -c \"insert into seen values ('sourced')\"\n", 0o644},
		"40-no.txt":    {"never read\n", 0o644},
	}
	for name, f := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(f.text), f.mode); err != nil {
			t.Fatal(err)
		}
		// The umask may have taken what the server's user needs.
		if err := os.Chmod(filepath.Join(dir, name), f.mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c := startServer(t, docker.Options{
		Flags: []string{"-v", dir + ":/docker-entrypoint-initdb.d:ro"}, Args: []string{"-c", "work_mem=7MB"},
	})
	if got := query(t, c, "select string_agg(what, ' ') from seen"); got != "sql run sourced" {
		t.Fatalf("init files left %q", got)
	}
	if got := query(t, c, "show work_mem"); got != "7MB" {
		t.Fatalf("work_mem is %s", got)
	}
	waitLog(t, c, readyLine, 2)
	log := logs(t, c)
	for _, want := range []string{"PostgreSQL init process complete; ready for start up.", "ignoring /docker-entrypoint-initdb.d/40-no.txt"} {
		if strings.Count(log, want) != 1 {
			t.Fatalf("the log says %q %d times", want, strings.Count(log, want))
		}
	}
	if strings.Contains(log, "pgquorum") {
		t.Fatal("single mode prints something of its own")
	}

	began := time.Now()
	code, err := c.Stop(deadline(t, 30*time.Second), 20*time.Second)
	if err != nil || code != 0 || time.Since(began) > 5*time.Second {
		t.Fatalf("stop: code %d after %s, %v; want 0 within 5 s", code, time.Since(began), err)
	}
	if err := c.Restart(deadline(t, 30*time.Second)); err != nil {
		t.Fatal(err)
	}
	waitServing(t, c)
	waitLog(t, c, readyLine, 3)
	waitLog(t, c, "Skipping initialization", 1)
	if got := query(t, c, "select count(*)::text from seen"); got != "3" {
		t.Fatalf("after the second start there are %s rows", got)
	}
}

// The image's signal is a fast stop; a client that is connected does not hold it up.
func TestStopWithClient(t *testing.T) {
	t.Parallel()
	c := startServer(t, docker.Options{})
	ctx := deadline(t, 30*time.Second)
	conn, err := connect(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	began := time.Now()
	code, err := c.Stop(ctx, 20*time.Second)
	if err != nil || code != 0 || time.Since(began) > 5*time.Second {
		t.Fatalf("stop: code %d after %s, %v; want 0 within 5 s", code, time.Since(began), err)
	}
}

// With Postgres as process 1 an orphan's exit code looks like a crashed backend, and the whole database restarts.
func TestOrphanDoesNotRestartPostgres(t *testing.T) {
	t.Parallel()
	c := startServer(t, docker.Options{})
	ctx := deadline(t, 30*time.Second)
	before := query(t, c, "select pg_postmaster_start_time()::text")
	res, err := c.Exec(ctx, "sh", "-c", "(setsid sh -c 'sleep 0.5; echo gone >/tmp/orphan; exit 3' &)")
	if err != nil || res.Code != 0 {
		t.Fatalf("make an orphan: %+v, %v", res, err)
	}
	err = docker.Wait(ctx, "the orphan to end and be reaped", func(ctx context.Context) error {
		if res, err := c.Exec(ctx, "cat", "/tmp/orphan"); err != nil || res.Code != 0 {
			return errors.Join(err, errors.New("it still sleeps"))
		}
		res, err := c.Exec(ctx, "sh", "-c", "grep -l '^State:.Z' /proc/[0-9]*/status")
		if err != nil || res.Stdout != "" {
			return errors.Join(err, fmt.Errorf("zombies: %q", res.Stdout))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if after := query(t, c, "select pg_postmaster_start_time()::text"); after != before {
		t.Fatalf("Postgres restarted: %s, then %s", before, after)
	}
	if strings.Contains(logs(t, c), "terminating any other active server processes") {
		t.Fatal("Postgres took the orphan for a crashed backend")
	}
}

// Postgres cannot see a server in another container; two on one volume would destroy the data.
func TestSecondContainerOnVolumeWaits(t *testing.T) {
	t.Parallel()
	v := volume(t)
	first := startServer(t, docker.Options{Name: unique(t), Flags: []string{"-v", v + ":/var/lib/postgresql"}})
	query(t, first, "select set_config('a.b', 'c', false)")
	second := start(t, docker.Options{
		Name: unique(t), Env: []string{"POSTGRES_PASSWORD=" + password},
		Flags: []string{"-v", v + ":/var/lib/postgresql", "-p", "127.0.0.1::5432"},
	})
	waitLog(t, second, "is in use by another container; waiting", 1)
	if strings.Contains(logs(t, second), readyLine) {
		t.Fatal("the second container started beside the first")
	}
	if _, err := first.Stop(deadline(t, 30*time.Second), 20*time.Second); err != nil {
		t.Fatal(err)
	}
	waitServing(t, second)
}

// Whoever holds the volume, a member of a cluster or a single server: the second container, of either kind, gives up
// after a minute, and says whom to look for.
func TestSecondContainerOnVolumeGivesUp(t *testing.T) {
	t.Parallel()
	const data, lock = "/var/lib/postgresql/18/docker", "/var/lib/postgresql/pgquorum/lock"
	single := []string{"-e", "POSTGRES_PASSWORD=" + password}
	tests := []struct {
		name          string
		first, second []string
		busy, error   string // lines of the log; error: the beginning of the last message
	}{
		{"single after single", single, single, "warning: " + data + " is in use by another container; waiting up to 1m0s for it to stop",
			"error: " + data},
		{"member after member", member("pg1", "pg1"), member("pg1", "pg1"),
			"volume is in use by another container, waiting for it to stop path=" + lock + " wait=1m0s",
			"error: the volume is in use by another container: " + lock},
		{"single after member", member("pg1", "pg1"), single, "warning: " + lock + " is in use by another container; waiting up to 1m0s for it to stop",
			"error: " + data},
		{"member after single", single, member("pg1", "pg1"),
			"volume is in use by another container, waiting for it to stop path=" + data + " wait=1m0s",
			"error: the volume is in use by another container: " + data},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := []string{"-v", volume(t) + ":/var/lib/postgresql"}
			first := start(t, docker.Options{Name: unique(t), Flags: append(v, tt.first...)})
			waitUp(t, first)
			began := time.Now()
			second := start(t, docker.Options{Name: unique(t), Flags: append(v, tt.second...)})
			code, err := second.Wait(deadline(t, 90*time.Second))
			if err != nil || code != 75 || time.Since(began) < 55*time.Second {
				t.Fatalf("code %d after %s, %v; want 75 after a minute", code, time.Since(began), err)
			}
			log := logs(t, second)
			want := tt.error + " is in use by another container (or by another process of this machine), which did not let go within 1m0s.\n" +
				"Two servers on one data directory destroy it, so this one does not start. Find the other with\n" +
				"  docker ps --filter volume=VOLUME\nand stop it, or give this container a volume of its own.\n"
			if err := holds(log, []string{tt.busy + "\n", want}); err != nil || strings.Contains(log, readyLine) {
				t.Fatalf("it ended without the reason, or had started a server: %v", err)
			}
			waitUp(t, first)
		})
	}
}

// A member that is stopped before it has begun has stopped: nothing is left undone, and nobody has to be told of a failure.
func TestMemberStoppedBeforeItBegan(t *testing.T) {
	t.Parallel()
	v := []string{"-v", volume(t) + ":/var/lib/postgresql"}
	first := start(t, docker.Options{Name: unique(t), Env: []string{"POSTGRES_PASSWORD=" + password}, Flags: v})
	waitUp(t, first)
	second := start(t, docker.Options{Name: unique(t), Flags: append(v, member("pg1", "pg1")...)})
	waitLog(t, second, "volume is in use by another container", 1)
	if code, err := second.Stop(deadline(t, 30*time.Second), 20*time.Second); err != nil || code != 0 {
		t.Fatalf("stop: code %d, %v; want 0", code, err)
	}
	waitUp(t, first)
}

// waitUp waits until a client inside the container is let in.
func waitUp(t *testing.T, c docker.Container) {
	t.Helper()
	if err := docker.Wait(deadline(t, time.Minute), "the server to serve", func(ctx context.Context) error {
		res, err := c.Exec(ctx, "psql", "-XAtqU", "postgres", "-c", "create table if not exists up ()")
		if err == nil && res.Code != 0 {
			err = errors.New(res.Stderr)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// The official image cannot be stopped while it initialises: bash as process 1 ignores the signal.
func TestStopDuringInit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "slow.sh"), []byte("echo init is slow\nsleep 60\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c := start(t, docker.Options{
		Env: []string{"POSTGRES_PASSWORD=" + password}, Flags: []string{"-v", dir + ":/docker-entrypoint-initdb.d:ro"},
	})
	waitLog(t, c, "init is slow", 1)
	began := time.Now()
	code, err := c.Stop(deadline(t, 40*time.Second), 30*time.Second)
	if err != nil || code != 130 || time.Since(began) > 10*time.Second {
		t.Fatalf("stop: code %d after %s, %v; want 130 within 10 s", code, time.Since(began), err)
	}
}

// A killed container is a crash of its server: the next start recovers what was acknowledged.
func TestKillAndRestart(t *testing.T) {
	t.Parallel()
	c := startServer(t, docker.Options{})
	query(t, c, "create table kept as select 42 as n")
	if err := c.Kill(deadline(t, 30*time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := c.Restart(deadline(t, 30*time.Second)); err != nil {
		t.Fatal(err)
	}
	waitServing(t, c)
	if got := query(t, c, "select n::text from kept"); got != "42" {
		t.Fatalf("after the crash the table holds %q", got)
	}
}
