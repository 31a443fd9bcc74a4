// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgquorum/pgquorum/e2e/docker"
)

const (
	password  = "correct horse"
	readyLine = "database system is ready to accept connections"
	// ownLabel marks everything that a test made, so that a crashed run can be cleaned up after.
	ownLabel = "io.pgquorum.e2e"
)

// deadline is a context for one step of a test: what takes longer is a failure, not a wait.
func deadline(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// unique is a name that no other test has.
func unique(t *testing.T) string {
	t.Helper()
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-", " ", "-").Replace(t.Name()))
	return "e2e-" + name + "-" + strings.ToLower(rand.Text()[:6])
}

// start runs a container, removes it after the test, and shows its log when the test failed.
func start(t *testing.T, o docker.Options) docker.Container {
	t.Helper()
	if o.Image == "" {
		o.Image = image()
	}
	if o.Name == "" {
		o.Name = unique(t)
	}
	o.Label = ownLabel
	c, err := docker.Start(deadline(t, time.Minute), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The test's own context is over by now.
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if t.Failed() {
			log, err := c.Logs(ctx)
			t.Logf("log of %s (%v):\n%s", o.Name, err, log)
		}
		if err := c.Remove(ctx); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return c
}

// startServer runs a single server with a password and a published port, and waits until it serves.
func startServer(t *testing.T, o docker.Options) docker.Container {
	t.Helper()
	o.Env = append([]string{"POSTGRES_PASSWORD=" + password}, o.Env...)
	o.Flags = append([]string{"-p", "127.0.0.1::5432"}, o.Flags...)
	c := start(t, o)
	waitServing(t, c)
	return c
}

// waitServing waits until a client from outside is let in. It gives up at once when the container has ended.
func waitServing(t *testing.T, c docker.Container) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(deadline(t, time.Minute))
	defer cancel(nil)
	err := docker.Wait(ctx, "the server to serve", func(ctx context.Context) error {
		s, err := c.State(ctx)
		if err == nil && !s.Running {
			err = fmt.Errorf("the container ended with code %d", s.ExitCode)
			cancel(err)
			return err
		}
		conn, err := connect(ctx, c)
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func connect(ctx context.Context, c docker.Container) (*pgx.Conn, error) {
	addr, err := c.Addr(ctx, "5432")
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("parse the address: %w", err)
	}
	return pgx.Connect(ctx, fmt.Sprintf("host=%s port=%s user=postgres password='%s' dbname=postgres connect_timeout=2", host, port, password))
}

// query asks a container's server from outside, over the published port, for one text.
func query(t *testing.T, c docker.Container, sql string, args ...any) string {
	t.Helper()
	ctx := deadline(t, 10*time.Second)
	conn, err := connect(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	var answer string
	if err := conn.QueryRow(ctx, sql, args...).Scan(&answer); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		t.Fatalf("%s: %v", sql, err)
	}
	return answer
}

func logs(t *testing.T, c docker.Container) string {
	t.Helper()
	text, err := c.Logs(deadline(t, 10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// waitLog waits until the log holds want n times.
func waitLog(t *testing.T, c docker.Container, want string, n int) {
	t.Helper()
	err := docker.Wait(deadline(t, 30*time.Second), fmt.Sprintf("the log to say %q %d times", want, n), func(ctx context.Context) error {
		text, err := c.Logs(ctx)
		if err != nil {
			return err
		}
		if got := strings.Count(text, want); got != n {
			return fmt.Errorf("it says so %d times", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// volume makes a named volume that goes with the test.
func volume(t *testing.T) string {
	t.Helper()
	name := unique(t)
	if _, err := docker.Command(deadline(t, 10*time.Second), "volume", "create", "--label", ownLabel, name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := docker.Command(ctx, "volume", "rm", "-f", name); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return name
}
