// SPDX-License-Identifier: Apache-2.0

//go:build contract

package pgtest_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/pgctl/pgtest"
)

// These tests are about Postgres and not about our code, and about what the simulated Postgres has no notion of. What both
// worlds can say is in package facts.

// held is how long a commit that must wait is watched.
const held = 500 * time.Millisecond

func waits(t *testing.T, done <-chan error, what string) {
	t.Helper()
	select {
	case err := <-done:
		t.Fatalf("%s did not wait: %v", what, err)
	case <-time.After(held):
	}
}

func returns(t *testing.T, done <-chan error, what string) {
	t.Helper()
	select {
	case err := <-done:
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("%s waits", what)
	}
}

// TestContractCancelledWait is E6: a commit that waits and is cancelled is reported done, and is visible (15.a).
func TestContractCancelledWait(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		p := l.Init("p", "synchronous_standby_names='ANY 1 (nobody)'\n")
		p.Start()
		p.One("set synchronous_commit=local; create table t(i int); select 1")
		c, done := p.Conn(), make(chan error, 1)
		go func() {
			_, err := pgtest.TryQuery(c, "insert into t values (1)")
			done <- err
		}()
		waits(t, done, "a commit without its standby")
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := c.CancelRequest(ctx); err != nil {
			t.Fatal(err)
		}
		returns(t, done, "a cancelled wait")
		if n := p.One("select count(*) from t"); n != "1" {
			t.Fatalf("%s rows after the cancel", n)
		}
	})
}

// TestContractAnyClientAcknowledges is E5: not only a standby but any replication client that bears a listed name
// acknowledges commits (3.1.b); a physical slot has one WAL sender, and says so (3.1.d).
func TestContractAnyClientAcknowledges(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		p := l.Init("p", "synchronous_standby_names='ANY 1 (member)'\n")
		p.Start()
		p.One("set synchronous_commit=local; create table t(i int); select pg_create_physical_replication_slot('s', true)")
		c, done := p.Conn(), make(chan error, 1)
		go func() {
			_, err := pgtest.TryQuery(c, "insert into t values (1)")
			done <- err
		}()
		waits(t, done, "a commit without its standby")
		receive := func(name string) *exec.Cmd {
			dir := filepath.Join(l.Dir, name)
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			return exec.Command(filepath.Join(l.Bin, "pg_receivewal"), "-D", dir, "--synchronous", "--no-loop", "-S", "s", "-d",
				fmt.Sprintf("host=%s port=%d user=%s application_name=member", l.Dir, p.Port, pgtest.User))
		}
		impostor := receive("impostor")
		if err := impostor.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = impostor.Process.Kill(); _ = impostor.Wait() })
		returns(t, done, "a commit acknowledged by an impostor")
		out, err := receive("second").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "is active for PID") {
			t.Fatalf("a second sender of one slot: %v\n%s", err, out)
		}
	})
}
