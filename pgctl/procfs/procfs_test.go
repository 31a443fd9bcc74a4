// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestClassify(t *testing.T) {
	for title, want := range map[string]Kind{
		"postgres":                            KindUntitled,
		"/usr/lib/postgresql/18/bin/postgres": KindUntitled,
		"":                                    KindUntitled,
		"postgres: walreceiver":               KindReceiver,
		"postgres: main: walreceiver streaming 0/3000148":                  KindReceiver,
		"postgres: a: b: walreceiver restarting at 0/03000148":             KindReceiver,
		"postgres: walreceiver idle":                                       KindReceiver,
		"postgres: walreceiver idle [local] idle":                          KindClient,
		"postgres: walreceiver streaming 127.0.0.1(5000) SELECT":           KindClient,
		"postgres: walreceiver db ::1(40000) idle":                         KindClient,
		"postgres: x: walreceiver [local] idle":                            KindClient,
		"postgres: startup recovering 000000010000000000000003":            KindAuxiliary,
		"postgres: c: startup recovering 000000010000000000000003 waiting": KindAuxiliary,
		"postgres: startup recovering [local] idle":                        KindClient,
		"postgres: startup":                                                KindAuxiliary,
		"postgres: checkpointer":                                           KindAuxiliary,
		"postgres: checkpointer performing end-of-recovery checkpoint":     KindAuxiliary,
		"postgres: checkpointer performing 10.0.0.9(1) idle":               KindClient,
		"postgres: archiver last was 000000010000000000000003":             KindAuxiliary,
		"postgres: io worker 0":                                            KindAuxiliary,
		"postgres: autovacuum worker postgres":                             KindAuxiliary,
		"postgres: slotsync worker":                                        KindSlotSync,
		"postgres: parallel worker for PID 77":                             KindParallel,
		"postgres: walsender pgquorum 10.0.0.2(5555) streaming 0/1":        KindSender,
		"postgres: main: walsender pgquorum [local] idle":                  KindSender,
		"postgres: app db 10.0.0.3(40000) idle in transaction":             KindClient,
		"postgres: pg_cron launcher":                                       KindWorker,
		"postgres: logical replication apply worker for subscription 17":   KindWorker,
	} {
		if got := Classify(title); got != want {
			t.Errorf("Classify(%q) = %d, want %d", title, got, want)
		}
	}
}

func TestOurs(t *testing.T) {
	for _, c := range []struct {
		title, cluster string
		want           bool
	}{
		{"postgres: pgquorum_local postgres [local] idle", "", true},
		{"postgres: main: pgquorum_local postgres [local] idle", "main", true},
		{"postgres: pgquorum_local x postgres [local] idle", "", false},
		{"postgres: main: pgquorum_local postgres [local] idle", "", false},
		{"postgres: pgquorum_local postgres 127.0.0.1(5) idle", "", false},
		{"postgres: app pgquorum_local [local] idle", "", false},
	} {
		if got := SessionOf(c.title, "pgquorum_local", c.cluster); got != c.want {
			t.Errorf("SessionOf(%q) = %v", c.title, got)
		}
	}
	if !SenderOf("postgres: walsender pgquorum 10.0.0.2(5555) streaming 0/1", "pgquorum", "") ||
		!SenderOf("postgres: walsender pgquorum postgres 10.0.0.2(5555) idle", "pgquorum", "") ||
		SenderOf("postgres: walsender other 10.0.0.2(5555) streaming 0/1", "pgquorum", "") ||
		SenderOf("postgres: pgquorum walsender [local] idle", "pgquorum", "") {
		t.Error("SenderOf")
	}
	if s, ok := RecoveringSegment("postgres: m: startup recovering 0000000200000000000000AA waiting"); !ok || s != "0000000200000000000000AA" {
		t.Error(s, ok)
	}
}

func TestChildren(t *testing.T) {
	before, err := Now()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := NewReader()
	deadline := time.Now().Add(5 * time.Second)
	var child Process
	for child.Title != "sleep" {
		if time.Now().After(deadline) {
			t.Fatal("child not found")
		}
		list, err := r.Children(nil, os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range list {
			if p.PID == cmd.Process.Pid {
				child = p
			}
		}
	}
	after, _ := Now()
	if child.Start < before || child.Start > after {
		t.Errorf("start %d not in %d..%d", child.Start, before, after)
	}
	snap, err := r.Snapshot(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	if list, err := snap.Children(nil); err != nil || !slices.ContainsFunc(list, func(p Process) bool { return p.PID == child.PID && p.Title == "sleep" }) {
		t.Error(list, err)
	}
	other := child
	other.Start--
	if err := r.Signal(other, unix.SIGKILL); err != nil || !r.Same(child) {
		t.Error("a process of another start time was signalled", err)
	}
	if err := r.Signal(child, unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil || r.Same(child) {
		t.Error("child lives")
	}
	if err := snap.Signal([]Process{child, other}, unix.SIGTERM); err != nil {
		t.Error("signalling who is gone:", err)
	}
}

func BenchmarkChildren(b *testing.B) {
	r := NewReader()
	var list []Process
	for b.Loop() {
		list, _ = r.Children(list[:0], os.Getpid())
	}
}
