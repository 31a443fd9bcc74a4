// SPDX-License-Identifier: Apache-2.0

package procfs_test

import (
	"os"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/pgctl/pgtest/proctest"
	"github.com/pgquorum/pgquorum/pgctl/procfs"
)

func TestMain(m *testing.M) {
	proctest.Main()
	os.Exit(m.Run())
}

func child(t *testing.T, r *procfs.Reader, f *proctest.Fake) procfs.Process {
	t.Helper()
	list, err := r.Children(nil, os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		if p.PID == f.PID {
			return p
		}
	}
	t.Fatal("child not found")
	return procfs.Process{}
}

// until looks at a child until what it is is certain.
func until(t *testing.T, r *procfs.Reader, p *procfs.Process) procfs.Kind {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !r.Certain(p); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%q never became certain", p.Title)
		}
	}
	return procfs.Classify(p.Title)
}

// Part of a title is never taken for the whole, however often it is looked at: its process has not run since.
func TestCertainPart(t *testing.T) {
	r := procfs.NewReader()
	for _, c := range []struct {
		part, whole string
		kind        procfs.Kind
	}{
		{"postgres: ", "postgres: app db [local] idle", procfs.KindClient},
		{"postgres: walreceiver", "postgres: walreceiver db 10.0.0.1(5000) idle", procfs.KindClient},
		{"postgres: main: startup db 10.0.0.1(50", "postgres: main: startup db 10.0.0.1(5000) SELECT", procfs.KindClient},
		{"postgres: walre", "postgres: walreceiver", procfs.KindReceiver},
		{"postgres", "postgres: checkpointer", procfs.KindAuxiliary},
	} {
		f := proctest.Child(t, c.part)
		f.Hold()
		p := child(t, r, f)
		for range 200 {
			if r.Certain(&p) {
				t.Fatalf("%q is certain", p.Title)
			}
		}
		f.ContinueAs(c.whole)
		if kind := until(t, r, &p); kind != c.kind || p.Title != c.whole {
			t.Errorf("%q is of kind %d, %q", c.whole, kind, p.Title)
		}
	}
}

// A process that never sleeps is certain once it has run for a while under one title.
func TestCertainBusy(t *testing.T) {
	r := procfs.NewReader()
	f := proctest.Child(t, "postgres: startup recovering 000000010000000000000003")
	f.Burn()
	p := child(t, r, f)
	if kind := until(t, r, &p); kind != procfs.KindAuxiliary {
		t.Errorf("kind %d", kind)
	}
}

// A process without a title of its own may become anything.
func TestCertainUntitled(t *testing.T) {
	r := procfs.NewReader()
	f := proctest.Child(t, "/usr/lib/postgresql/bin/postgres")
	p := child(t, r, f)
	for range 200 {
		if r.Certain(&p) {
			t.Fatal("a process without a title is certain")
		}
	}
}
