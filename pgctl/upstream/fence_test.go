// SPDX-License-Identifier: Apache-2.0

package upstream

import (
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
