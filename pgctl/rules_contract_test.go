// SPDX-License-Identifier: Apache-2.0

//go:build contract

package pgctl

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// user opens a session of a user's.
func (w *world) user(n *node) *pgconn.PgConn {
	w.t.Helper()
	c, err := pgconn.Connect(w.ctx, fmt.Sprintf("host=%s port=%d user=u dbname=postgres", filepath.Join(w.dir, n.name, "sock"), n.port))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func (w *world) exec(c *pgconn.PgConn, sql string) {
	w.t.Helper()
	if _, err := c.Exec(w.ctx, sql).ReadAll(); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

// alterSystem is not for a transaction, which several statements at once are.
func (w *world) alterSystem(n *node, setting string) {
	w.t.Helper()
	if _, err := n.run(w.ctx, "test", "ALTER SYSTEM SET "+setting); err != nil {
		w.t.Fatal(err)
	}
}

// TestContractSettleFromAsync: a statement that runs since before the reload keeps its synchronous_commit, so the change from
// async waits for it, and for no other (PROTOCOL 3.3.f).
func TestContractSettleFromAsync(t *testing.T) {
	w := newWorld(t)
	n := w.founder("n", 0x11)
	w.sql(n, "CREATE ROLE u LOGIN SUPERUSER")
	w.must(n.Apply(w.ctx, Settings{SyncCommit: "local"}))
	w.must(n.AwaitSettings(w.ctx))
	holder := w.user(n)
	w.exec(holder, "SELECT pg_advisory_lock(7)")
	waiting := func(key string, others int) {
		t.Helper()
		c := w.user(n)
		go func() { _, _ = c.Exec(w.ctx, "SELECT pg_advisory_lock("+key+")").ReadAll() }()
		w.until("a statement runs", func() bool {
			return w.sql(n, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'")[0][0] == fmt.Sprint(others+1)
		})
	}
	waiting("7", 0)
	w.must(n.Apply(w.ctx, Settings{}))
	ctx, cancel := context.WithTimeout(w.ctx, 2*time.Second)
	defer cancel()
	if _, err := n.Settle(ctx, SettleSpec{FromAsync: true, NoBarrier: true}); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "running statements") {
		t.Fatalf("settled beside a statement of before: %v", err)
	}
	if _, err := n.Settle(w.ctx, SettleSpec{NoBarrier: true}); err != nil {
		t.Fatal(err)
	}
	w.exec(holder, "SELECT pg_advisory_lock(8)")
	waiting("8", 1) // it began after the reload
	w.exec(holder, "SELECT pg_advisory_unlock(7)")
	if _, err := n.Settle(w.ctx, SettleSpec{FromAsync: true, NoBarrier: true}); err != nil {
		t.Fatal(err)
	}
}

// TestContractSettleFromZero: what makes commits wait is set by the checkpointer before it begins a second checkpoint, so the
// change from k = 0 has two made (PROTOCOL 3.3.e, E4).
func TestContractSettleFromZero(t *testing.T) {
	w := newWorld(t)
	n := w.founder("n", 0x12)
	logged := func(word string) int {
		text, err := os.ReadFile(filepath.Join(w.dir, "n", "log"))
		w.must(err)
		return strings.Count(string(text), "checkpoint "+word+": ")
	}
	for zero, want := range map[bool]int{true: 2, false: 0} {
		w.until("the log is whole", func() bool { return logged("starting") == logged("complete") })
		before := logged("starting")
		if _, err := n.Settle(w.ctx, SettleSpec{FromZero: zero, NoBarrier: true}); err != nil {
			t.Fatal(err)
		}
		w.sql(n, "CHECKPOINT")
		w.until("checkpoints are logged", func() bool { return logged("starting") > before+want && logged("starting") == logged("complete") })
		if got := logged("starting") - before - 1; got != want {
			t.Errorf("from zero %v: %d checkpoints", zero, got)
		}
	}
}

// TestContractReaderIsEnded: behind a reader, or a pause, no WAL receiver starts again. ResumeReplay makes way, and the
// standby streams (PROTOCOL 5.5.g).
func TestContractReaderIsEnded(t *testing.T) {
	w := newWorld(t)
	a, b := w.founder("a", 0xa), w.node("b", 0xb)
	w.sql(a, "CREATE ROLE u LOGIN SUPERUSER; CREATE TABLE t (x int)")
	w.alterSystem(a, "max_standby_streaming_delay = -1") // the copy has it too
	w.must(a.EnsureSlots(w.ctx, []string{SlotName(b.inc)}, nil))
	w.must(b.Clone(w.ctx, a.source(), 0, nil))
	w.must(b.Start(w.ctx, StartSpec{Recovery: true, Settings: Nobody()}))
	w.follow(b, a, "b.e1")
	for i, block := range []func(){
		func() {
			w.exec(w.user(b), "BEGIN; SELECT count(*) FROM t")
			w.sql(a, "DROP TABLE t")
			w.until("replay waits for the reader", func() bool {
				rows, err := b.run(w.ctx, "test", "SELECT wait_event_type FROM pg_stat_activity WHERE backend_type = 'startup'")
				return err == nil && rows[0][0] == "Lock"
			})
		},
		func() {
			_, err := b.run(w.ctx, "test", "SELECT pg_wal_replay_pause()")
			w.must(err)
			w.until("replay is paused", func() bool {
				w.sql(a, "CREATE TABLE IF NOT EXISTS more (x int); INSERT INTO more VALUES (1)")
				rows, err := b.run(w.ctx, "test", "SELECT pg_get_wal_replay_pause_state(), pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()")
				return err == nil && rows[0][0] == "paused" && rows[0][1] == "t"
			})
		},
	} {
		block()
		if f, err := b.Fence(w.ctx); err != nil || !f.Known {
			t.Fatal(f, err)
		}
		w.must(b.Order(w.ctx, Order{Host: "127.0.0.1", Addr: "127.0.0.1", Port: a.port, AppName: fmt.Sprintf("b.e%d", i+2)}))
		if r, err := b.Received(w.ctx); err != nil || r.State == "streaming" {
			t.Fatalf("it streams although replay is blocked: %+v %v", r, err)
		}
		if ended, err := b.ResumeReplay(w.ctx); err != nil || ended != 1-i {
			t.Fatalf("case %d: %d sessions ended: %v", i, ended, err)
		}
		w.until("it streams", func() bool {
			r, err := b.Received(w.ctx)
			return err == nil && r.State == "streaming"
		})
	}
}

// TestContractCertificateWithoutDigest: with an Ed25519 certificate on the primary nobody can replicate, for libpq finds no
// digest for the channel binding (E55, PROTOCOL 12.2.c).
func TestContractCertificateWithoutDigest(t *testing.T) {
	w := newWorld(t)
	public, private, err := ed25519.GenerateKey(rand.Reader)
	w.must(err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, public, private)
	w.must(err)
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	w.must(err)
	w.cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	w.key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
	a, b := w.founder("a", 0xa), w.node("b", 0xb)
	err = b.Clone(w.ctx, a.source(), 0, nil)
	if err == nil || !strings.Contains(err.Error(), "digest") {
		t.Fatalf("cloned over TLS by Ed25519: %v", err)
	}
	t.Log(err)
}

// TestContractSourceSettings: what was set on the source by ALTER SYSTEM comes with a clone. Of upstream and quorum the copy
// shows what it was told here (PROTOCOL 8.2).
func TestContractSourceSettings(t *testing.T) {
	w := newWorld(t)
	a, b := w.founder("a", 0xa), w.node("b", 0xb)
	for _, s := range []string{"primary_conninfo = 'host=evil'", "primary_slot_name = 'other'", "synchronous_standby_names = ''", "work_mem = '5MB'"} {
		w.alterSystem(a, s)
	}
	w.must(a.EnsureSlots(w.ctx, []string{SlotName(b.inc)}, nil))
	w.must(b.Clone(w.ctx, a.source(), 0, nil))
	w.must(b.Start(w.ctx, StartSpec{Recovery: true, Settings: Nobody()}))
	rows, err := b.run(w.ctx, "test", `SELECT current_setting('primary_conninfo'), current_setting('primary_slot_name'),
		current_setting('synchronous_standby_names') <> '', current_setting('work_mem'), current_setting('config_file')`)
	w.must(err)
	if r := rows[0]; r[0] != "service=pgquorum dbname=postgres" || r[1] != SlotName(b.inc) || r[2] != "t" || r[3] != "5MB" || r[4] != b.confFile("postgresql.conf") {
		t.Errorf("%q", r)
	}
	w.follow(b, a, "b.e1")
}

// TestContractStartOverAGap: a standby holds WAL of an assigned timeline, which is not the number after its own, and was
// killed before its control file says so. Recovery counts timelines up from there: without a stub for the number between it ends at the
// old one (PROTOCOL 5.5.f, 5.6.b).
func TestContractStartOverAGap(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.founder("a", 0xa), w.node("b", 0xb), w.node("c", 0xc)
	w.sql(a, "CREATE TABLE t (x int)")
	for _, n := range []*node{b, c} {
		w.must(a.EnsureSlots(w.ctx, []string{SlotName(b.inc), SlotName(c.inc)}, nil))
		w.must(n.Clone(w.ctx, a.source(), 0, nil))
		w.must(n.Start(w.ctx, StartSpec{Recovery: true, Settings: Nobody()}))
		w.follow(n, a, n.name+".e1")
	}
	w.must(errors.Join(a.Kill(), a.Gone(w.ctx)))
	f, err := b.Fence(w.ctx)
	w.must(err)
	w.must(b.EnsureSlots(w.ctx, []string{SlotName(c.inc)}, nil))
	_, err = b.Promote(w.ctx, 3, f.Position)
	w.must(err)
	_, err = c.Fence(w.ctx)
	w.must(err)
	w.follow(c, b, "c.e2")
	w.sql(b, "INSERT INTO t VALUES (1)")
	end := lsn(w.sql(b, "SELECT pg_current_wal_flush_lsn()")[0][0])
	w.until("c has it", func() bool {
		r, err := c.Received(w.ctx)
		return err == nil && r.Timeline == 3 && r.Flushed >= end
	})
	w.must(errors.Join(b.Kill(), c.Kill(), b.Gone(w.ctx), c.Gone(w.ctx)))
	down := c.Position(w.ctx)
	d, err := c.Disk(w.ctx)
	if err != nil || !down.Known || down.Position.Timeline != 3 || d.Control.Timeline() != 1 {
		t.Fatalf("down at %+v, control file on timeline %d, %v", down, d.Control.Timeline(), err)
	}

	w.must(c.Start(w.ctx, StartSpec{Recovery: true, Settings: Nobody()}))
	if n := w.sql(c, "SELECT count(*) FROM t")[0][0]; n != "1" {
		t.Errorf("recovery did not come to timeline 3: %s rows", n)
	}
	up, err := c.Fence(w.ctx)
	if err != nil || up.Position != down.Position {
		t.Fatalf("up at %+v, was down at %+v: %v", up, down, err)
	}
	if p, err := c.Promote(w.ctx, 5, up.Position); err != nil || p.Switch != up.Position.LSN {
		t.Fatalf("promoted: %+v, %v", p, err)
	}
	if n := w.sql(c, "SELECT count(*) FROM t")[0][0]; n != "1" {
		t.Errorf("%s rows after the promotion", n)
	}
}
