// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/pgctl/pgtest/proctest"
)

func TestMain(m *testing.M) {
	proctest.Main()
	os.Exit(m.Run())
}

// strike runs one strike at the children of this process.
func strike(t *testing.T, limit time.Duration) (*Closing, error) {
	t.Helper()
	g := New(Options{LocalRole: "pgquorum_local", ReplicationRole: "pgquorum", ClusterName: "main"})
	seen, err := g.reader.Snapshot(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer seen.Close()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	c := &Closing{gate: g, begin: time.Now()}
	return c, c.strike(ctx, os.Getpid(), seen)
}

func TestStrike(t *testing.T) {
	session := proctest.Child(t, "postgres: main: app db [local] idle")
	untitled := proctest.Child(t, "postgres")
	ours := proctest.Child(t, "postgres: main: pgquorum_local postgres [local] idle")
	worker := proctest.Child(t, "postgres: main: pg_cron launcher")
	startup := proctest.Child(t, "postgres: main: startup recovering 000000010000000000000003")
	startup.Burn()
	c, err := strike(t, 20*time.Second)
	if err != nil || c.Sessions != 2 || c.Untitled != 1 {
		t.Fatalf("%d sessions, %d untitled: %v", c.Sessions, c.Untitled, err)
	}
	for _, f := range []*proctest.Fake{session, untitled} {
		if s := f.Gone(); s != syscall.SIGTERM {
			t.Errorf("ended by %v", s)
		}
	}
	ours.Rename("postgres: main: pgquorum_local postgres [local] SELECT")
	worker.Rename("postgres: main: pg_cron launcher")
	if startup.Ended() {
		t.Error("the startup process was ended")
	}
}

// A session that shows only a part of its title must not be taken for a worker, however long its process waits.
func TestStrikePart(t *testing.T) {
	f := proctest.Child(t, "postgres: main: walreceiver")
	f.Hold()
	if _, err := strike(t, 50*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the gate is closed beside a process that may be a session: %v", err)
	}
	f.ContinueAs("postgres: main: walreceiver db 10.0.0.1(5000) idle")
	if _, err := strike(t, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	if s := f.Gone(); s != syscall.SIGTERM {
		t.Errorf("the session was ended by %v", s)
	}
}
