// SPDX-License-Identifier: Apache-2.0

//go:build contract

package pgctl

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/durable"
)

const mb = 1 << 20

// smallDisk makes the nodes of a world live on a file system of a few hundred MB: the container's /dev/shm.
func smallDisk(t *testing.T) *world {
	const shm = "/dev/shm"
	var vol syscall.Statfs_t
	if err := syscall.Statfs(shm, &vol); err != nil || vol.Type != 0x01021994 || vol.Blocks*uint64(vol.Bsize) > 1024*mb || vol.Bavail*uint64(vol.Bsize) < 230*mb {
		t.Fatalf("%s is no empty tmpfs of 250 MB to 1 GB (%v): run the container with --shm-size 256m", shm, err)
	}
	w := newWorld(t)
	dir, err := os.MkdirTemp(shm, "pgq")
	w.must(err)
	w.dir = dir
	t.Cleanup(func() {
		w.must(w.children.KillAll())
		w.must(w.children.Gone(context.Background()))
		_ = os.RemoveAll(dir)
	})
	return w
}

func (w *world) space(n *node) cluster.Space {
	w.t.Helper()
	s, err := n.Space()
	w.must(err)
	if !s.Known || s.Segment != 16*mb {
		w.t.Fatalf("%+v", s)
	}
	return s
}

// crowded is a standby that is fenced on a disk with a ballast and 4 MB beside it.
func crowded(w *world) (*node, cluster.Position) {
	if s, err := w.node("none", 0xb).Space(); err != nil || s.Known {
		w.t.Fatalf("without a data directory: %+v, %v", s, err)
	}
	n := w.founder("a", 0xa)
	_, err := n.Stop(w.ctx, StopSpec{Mode: Fast, Timeout: 10 * time.Second})
	w.must(err)
	w.checkApart(n)
	w.must(n.Start(w.ctx, StartSpec{Recovery: true, Settings: Nobody(), GateClosed: true}))
	f, err := n.Fence(w.ctx)
	w.must(err)
	if !f.Known {
		w.t.Fatalf("%+v", f)
	}
	before := w.space(n)
	w.must(n.MakeBallast(w.ctx))
	made := w.space(n)
	if before.Ballast != 0 || made.Ballast != cluster.BallastSize || before.Free-made.Free < cluster.BallastSize-mb { // Postgres may let go of some pages meanwhile
		w.t.Fatalf("the ballast takes nothing: %+v, then %+v", before, made)
	}
	w.must(durable.Reserve(w.ctx, filepath.Join(w.dir, "filler"), int64(made.Free-4*mb)))
	if s := w.space(n); !s.Tight() || !s.MayPromote() || !s.LetGo() {
		w.t.Fatalf("%+v", s)
	}
	return n, f.Position
}

// checkApart: the device that counts is that of pg_wal, wherever it is.
func (w *world) checkApart(n *node) {
	here := w.space(n)
	elsewhere := w.t.TempDir()
	w.must(os.Rename(n.dataFile("pg_wal"), n.dataFile("was")))
	w.must(os.Symlink(elsewhere, n.dataFile("pg_wal")))
	if s := w.space(n); here.Apart || !s.Apart || s.Size == here.Size {
		w.t.Errorf("pg_wal beside the state directory: %+v; elsewhere: %+v", here, s)
	}
	w.must(os.Remove(n.dataFile("pg_wal")))
	w.must(os.Rename(n.dataFile("was"), n.dataFile("pg_wal")))
}

// TestContractPromotionOnAFullDisk: without room for a segment a promotion ends Postgres (E15); a ballast that is let go
// before it makes the room (PROTOCOL 5.6.a).
func TestContractPromotionOnAFullDisk(t *testing.T) {
	t.Run("ballast kept", func(t *testing.T) {
		w := smallDisk(t)
		n, at := crowded(w)
		_, err := n.Promote(w.ctx, 2, at)
		if err == nil {
			t.Fatal("promoted without room: the ballast is not needed any more")
		}
		w.until("postgres has ended", func() bool { return !n.Running() })
		log, _ := os.ReadFile(filepath.Join(w.dir, "a", "log"))
		if !strings.Contains(string(log), "No space left on device") {
			t.Errorf("it failed for another reason: %v", err)
		}
	})
	t.Run("ballast let go", func(t *testing.T) {
		w := smallDisk(t)
		n, at := crowded(w)
		start := time.Now()
		w.must(n.DropBallast())
		t.Logf("let go in %v", time.Since(start))
		if s := w.space(n); s.Ballast != 0 || s.Free < cluster.BallastSize {
			t.Errorf("%+v", s)
		}
		_, err := n.Promote(w.ctx, 2, at)
		w.must(err)
		w.must(n.Apply(w.ctx, Settings{}))
		w.until("the quorum is off", func() bool { return n.CheckSettings(w.ctx) == nil })
		w.sql(n, "CREATE TABLE won AS SELECT g FROM generate_series(1, 10000) g")
		w.must(n.Checkpoint(w.ctx))
	})
}
