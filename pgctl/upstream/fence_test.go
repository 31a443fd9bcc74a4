// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/pgctl/pgtest/proctest"
)

func TestMain(m *testing.M) {
	proctest.Main()
	os.Exit(m.Run())
}

// fence fences the children of this process.
func fence(t *testing.T, limit time.Duration) (*Fencing, error) {
	t.Helper()
	f, _ := testFile(t)
	return Fence(t.Context(), FenceParams{File: f, PostmasterPID: os.Getpid(), Limit: limit})
}

func TestFenceEnds(t *testing.T) {
	receiver := proctest.Child(t, "postgres: walreceiver streaming 0/3000148")
	session := proctest.Child(t, "postgres: app db [local] idle")
	startup := proctest.Child(t, "postgres: startup recovering 000000010000000000000003")
	startup.Burn()
	f, err := fence(t, 20*time.Second)
	if err != nil || len(f.Ended) != 1 || f.Ended[0] != receiver.PID {
		t.Fatal(f.Ended, err)
	}
	if s := receiver.Gone(); s != syscall.SIGTERM {
		t.Errorf("the receiver was ended by %v", s)
	}
	session.Rename("postgres: app db [local] SELECT")
	if startup.Ended() {
		t.Error("the startup process was ended")
	}
}

// A receiver that shows only a part of its title is one that may acknowledge.
func TestFencePart(t *testing.T) {
	for _, part := range []string{"postgres: main", "postgres: main: walre"} {
		r := proctest.Child(t, part)
		r.Hold()
		f, err := fence(t, 50*time.Millisecond)
		if !errors.Is(err, ErrNotGone) {
			t.Fatalf("fenced beside a process with the title %q: %v", part, err)
		}
		r.ContinueAs("postgres: main: walreceiver")
		if err := f.Wait(t.Context()); err != nil || len(f.Ended) != 1 {
			t.Fatal(f.Ended, err)
		}
		if s := r.Gone(); s != syscall.SIGTERM {
			t.Errorf("the receiver was ended by %v", s)
		}
	}
}

// A child that has no title may be a receiver that is just being born.
func TestFenceUntitled(t *testing.T) {
	young := proctest.Child(t, "postgres")
	f, err := fence(t, 20*time.Second)
	if err != nil || f.Untitled != 1 {
		t.Fatal(f.Untitled, err)
	}
	if s := young.Gone(); s != syscall.SIGTERM {
		t.Errorf("ended by %v", s)
	}
}

// A receiver that ends before the file is parked is replaced by one that reads the old order. So a fence that cannot park
// ends nobody.
func TestFenceParksFirst(t *testing.T) {
	receiver := proctest.Child(t, "postgres: walreceiver streaming 0/3000148")
	f, o := testFile(t)
	if err := f.order(Order{Host: "pg1", HostAddr: "10.0.0.1", Port: 5432, User: "repl", AppName: "pg2.00.e1"}); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Dir(o.Path)); err != nil {
		t.Fatal(err)
	}
	if fence, err := Fence(t.Context(), FenceParams{File: f, PostmasterPID: os.Getpid()}); err == nil || len(fence.Ended) != 0 {
		t.Fatalf("fenced without parking: %v", fence.Ended)
	}
	receiver.Rename("postgres: walreceiver streaming 0/3000200")
}

// The slot sync worker of 17 and 18 uses the file too, and would stay with the old upstream (E55): a fence ends it, and so
// does an order.
func TestSlotSyncEnds(t *testing.T) {
	f, _ := testFile(t)
	worker := proctest.Child(t, "postgres: main: slotsync worker ")
	if _, err := Fence(t.Context(), FenceParams{File: f, PostmasterPID: os.Getpid(), Limit: 20 * time.Second}); err != nil {
		t.Fatal(err)
	}
	if s := worker.Gone(); s != syscall.SIGTERM {
		t.Errorf("after the fence: ended by %v", s)
	}
	again := proctest.Child(t, "postgres: main: slotsync worker ")
	signal.Ignore(syscall.SIGHUP) // the order wakes its postmaster, which this process plays
	defer signal.Reset(syscall.SIGHUP)
	if err := Give(OrderParams{File: f, PostmasterPID: os.Getpid(), Order: Order{Host: "pg1", HostAddr: "10.0.0.1", Port: 5432, User: "repl", AppName: "pg2.00.e2"}}); err != nil {
		t.Fatal(err)
	}
	if s := again.Gone(); s != syscall.SIGTERM {
		t.Errorf("after the order: ended by %v", s)
	}
}
