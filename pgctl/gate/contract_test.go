// SPDX-License-Identifier: Apache-2.0

//go:build contract

package gate_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgquorum/pgquorum/pgctl/gate"
	"github.com/pgquorum/pgquorum/pgctl/pgtest"
	"github.com/pgquorum/pgquorum/pgctl/procfs"
)

const (
	ours   = "local all local_admin trust\nlocal replication local_admin trust\nhost replication repl 127.0.0.1/32 trust\n"
	open   = ours + gate.ProbeLine + "host all pwuser 127.0.0.1/32 password\nhost all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\nlocal all all trust\n"
	closed = ours + "local all,replication all reject\nhost all,replication all all reject\n"
	// A user's file without a line for unix sockets must not look closed.
	openTCP = ours + gate.ProbeLine + "host all all 127.0.0.1/32 trust\n"
)

// door is a hot standby behind a gate.
type door struct {
	t      *testing.T
	l      *pgtest.Lab
	p, s   *pgtest.Server
	g      *gate.Gate
	kept   *pgconn.PgConn
	file   string
	closed atomic.Bool
	turn   atomic.Int64 // changes at every closing and opening
	wrong  atomic.Int64 // queries answered in a closed gate
	fine   atomic.Int64
	end    atomic.Bool
	wg     sync.WaitGroup
}

func newDoor(t *testing.T, l *pgtest.Lab, conf string) *door {
	d := &door{t: t, l: l, file: filepath.Join(l.Dir, "hba", "pg_hba.conf")}
	d.p = l.Init("p", "max_connections=150\nmax_wal_size=2GB\ncluster_name='the: cluster'\n")
	d.p.Append("pg_hba.conf", "host replication all 127.0.0.1/32 trust\n")
	d.p.Start()
	d.p.One(`create role local_admin superuser login; create role app superuser login; create role repl replication login;
		create role pwuser login password 'x'; create role walreceiver superuser login; create role startup superuser login; select 1`)
	d.s = d.p.Backup("s", conf+fmt.Sprintf("hba_file='%s'\nprimary_conninfo='host=127.0.0.1 port=%d user=repl'\n", d.file, d.p.Port))
	writeFile(t, d.file, open)
	d.s.Start()
	d.g = gate.New(gate.Options{HBAFile: d.file, Socket: d.socket(), LocalRole: "local_admin", ReplicationRole: "repl", ClusterName: "the: cluster"})
	var err error
	if d.kept, err = d.s.Dial("local_admin"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.kept.Conn().Close() })
	return d
}

func (d *door) socket() string {
	return filepath.Join(d.l.Dir, fmt.Sprintf(".s.PGSQL.%d", d.s.Port))
}

func limit() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 10*time.Second)
}

func (d *door) close() *gate.Closing {
	d.t.Helper()
	ctx, cancel := limit()
	defer cancel()
	c, err := d.g.Close(ctx, d.s.PID, []byte(closed))
	if err != nil {
		d.t.Fatal(err)
	}
	d.turn.Add(1)
	d.closed.Store(true)
	return c
}

func (d *door) open() {
	d.t.Helper()
	d.closed.Store(false)
	d.turn.Add(1)
	ctx, cancel := limit()
	defer cancel()
	if err := d.g.Open(ctx, d.s.PID, []byte(open)); err != nil {
		d.t.Fatal(err)
	}
}

// client is one kind of user: fast and slow starters, slow passwords, sessions that stay, connections that never speak.
type client struct {
	user           string
	beforeStart    int // ms at most
	beforePassword int
	queries        int
	silent         bool
}

func (d *door) run(k client, seed uint64) {
	defer d.wg.Done()
	r := rand.New(rand.NewPCG(seed, seed))
	for !d.end.Load() {
		network, address := "tcp", fmt.Sprintf("127.0.0.1:%d", d.s.Port)
		if k.user != "pwuser" && r.IntN(2) == 0 {
			network, address = "unix", d.socket()
		}
		c, err := net.DialTimeout(network, address, time.Second)
		if err != nil {
			time.Sleep(time.Millisecond)
			continue
		}
		_ = c.SetDeadline(time.Now().Add(3 * time.Second))
		if k.silent {
			time.Sleep(time.Duration(r.IntN(400)) * time.Millisecond)
		} else if err := start(c, k, r); err == nil {
			d.query(c, k)
		} else {
			time.Sleep(2 * time.Millisecond)
		}
		c.Close()
	}
}

func (d *door) query(c net.Conn, k client) {
	in := bufio.NewReader(c)
	for i := 0; i < k.queries && !d.end.Load(); i++ {
		turn, shut := d.turn.Load(), d.closed.Load()
		if _, err := c.Write(message('Q', "select 1\x00")); err != nil {
			return
		}
		answered := false
		for {
			kind, _, err := read(in)
			if err != nil || kind == 'E' {
				return
			}
			answered = answered || kind == 'D'
			if kind == 'Z' {
				break
			}
		}
		d.fine.Add(1)
		if answered && shut && d.closed.Load() && turn == d.turn.Load() {
			d.wrong.Add(1)
		}
		if k.queries > 100 {
			time.Sleep(time.Millisecond)
			_ = c.SetDeadline(time.Now().Add(3 * time.Second))
		}
	}
}

func start(c net.Conn, k client, r *rand.Rand) error {
	if k.beforeStart > 0 {
		time.Sleep(time.Duration(r.IntN(k.beforeStart*1000)) * time.Microsecond)
	}
	if _, err := c.Write(message(0, "\x00\x03\x00\x00user\x00"+k.user+"\x00database\x00postgres\x00\x00")); err != nil {
		return err
	}
	in := bufio.NewReader(c)
	for {
		kind, body, err := read(in)
		switch {
		case err != nil:
			return err
		case kind == 'E':
			return io.EOF
		case kind == 'Z':
			return nil
		case kind == 'R' && binary.BigEndian.Uint32(body) == 3:
			if k.beforePassword > 0 {
				time.Sleep(time.Duration(r.IntN(k.beforePassword*1000)) * time.Microsecond)
			}
			if _, err := c.Write(message('p', "x\x00")); err != nil {
				return err
			}
		}
	}
}

func message(kind byte, body string) []byte {
	var b []byte
	if kind != 0 {
		b = append(b, kind)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)+4))
	return append(b, body...)
}

func read(r io.Reader) (byte, []byte, error) {
	var h [5]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(h[1:])-4)
	_, err := io.ReadFull(r, b)
	return h[0], b, err
}

// TestContractGate is E54's stress with the product's own code: no query is answered in a closed gate.
func TestContractGate(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		d := newDoor(t, l, "")
		kinds := []client{
			{user: "app", queries: 2},
			{user: "app", beforeStart: 60, queries: 40},
			{user: "pwuser", beforePassword: 60, queries: 40},
			{user: "walreceiver", queries: 1 << 30},
			{user: "startup", queries: 1 << 30},
			{silent: true},
		}
		for _, k := range kinds {
			for range 3 {
				d.wg.Add(1)
				go d.run(k, l.Rand.Uint64())
			}
		}
		defer func() { d.end.Store(true); d.wg.Wait() }()
		rounds := pgtest.Rounds(60)
		var proven, doomed, gone, opened pgtest.Stats
		sessions, untitled := 0, 0
		for range rounds {
			time.Sleep(time.Duration(15+l.Rand.IntN(15)) * time.Millisecond)
			c := d.close()
			ctx, cancel := limit()
			if err := c.WaitGone(ctx); err != nil {
				t.Fatal(err)
			}
			cancel()
			proven.Add(c.Proven)
			doomed.Add(c.Doomed)
			gone.Add(c.Gone)
			sessions += c.Sessions
			untitled += c.Untitled
			time.Sleep(time.Duration(25+l.Rand.IntN(25)) * time.Millisecond)
			begin := time.Now()
			d.open()
			opened.Add(time.Since(begin))
			if _, err := pgtest.TryQuery(d.kept, "select 1"); err != nil {
				t.Fatalf("our own session was ended: %v", err)
			}
		}
		t.Logf("%d closings, %d sessions ended, %d of them untitled, %d queries answered, %d in a closed gate", rounds, sessions, untitled, d.fine.Load(), d.wrong.Load())
		t.Logf("proven %s; doomed %s; gone %s; open %s", proven, doomed, gone, opened)
		if d.wrong.Load() != 0 || d.fine.Load() == 0 || untitled == 0 {
			t.Error("queries were answered in a closed gate, or the test did not bite")
		}
		if receivers := countKind(d, procfs.KindReceiver); receivers != 1 {
			t.Errorf("%d receivers after the closings", receivers)
		}
	})
}

func countKind(d *door, k procfs.Kind) int {
	n := 0
	for _, p := range d.s.Children() {
		if procfs.Classify(p.Title) == k {
			n++
		}
	}
	return n
}

// A gate that ends titled sessions only lets slow starters through: the checker must see that.
func TestContractGateControl(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		d := newDoor(t, l, "")
		for range 8 {
			d.wg.Add(1)
			go d.run(client{user: "pwuser", beforePassword: 60, queries: 40}, l.Rand.Uint64())
			d.wg.Add(1)
			go d.run(client{user: "app", beforeStart: 60, queries: 40}, l.Rand.Uint64())
		}
		defer func() { d.end.Store(true); d.wg.Wait() }()
		for i := 0; i < 200 && d.wrong.Load() == 0; i++ {
			time.Sleep(15 * time.Millisecond)
			// The mutant: signals before the reload is proven, and only to children with a title.
			for _, p := range d.s.Children() {
				if procfs.Classify(p.Title) == procfs.KindClient && !procfs.SessionOf(p.Title, "local_admin", "the: cluster") {
					_ = procfs.NewReader().Signal(p, syscall.SIGTERM)
				}
			}
			if err := d.g.Swap(d.s.PID, []byte(closed)); err != nil {
				t.Fatal(err)
			}
			d.turn.Add(1)
			d.closed.Store(true)
			time.Sleep(30 * time.Millisecond)
			d.open()
		}
		if d.wrong.Load() == 0 {
			t.Error("a gate that ignores untitled children was never caught")
		}
		t.Logf("the mutant let %d queries through", d.wrong.Load())
	})
}

// A server without a free slot refuses the probe before it looks at pg_hba.conf; the gate must close all the same.
func TestContractGateFull(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		d := newDoor(t, l, "superuser_reserved_connections=3\n")
		var held []*pgconn.PgConn
		for {
			c, err := d.s.Dial("app")
			if err != nil {
				break
			}
			held = append(held, c)
		}
		c := d.close()
		ctx, cancel := limit()
		defer cancel()
		if err := c.WaitGone(ctx); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d sessions held every slot: proven %s, doomed %s, gone %s", len(held), c.Proven, c.Doomed, c.Gone)
		for _, h := range held {
			h.Conn().Close()
		}
		if err := d.g.Open(ctx, d.s.PID, []byte(openTCP)); err != nil {
			t.Error(err)
		}
		d.close()
	})
}

// Times with quiet sessions, as in E54.
func TestContractGateTimes(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		d := newDoor(t, l, "")
		for _, n := range []int{0, 10, 100} {
			var proven, doomed, gone, opened pgtest.Stats
			for range max(3, pgtest.Rounds(10)/5) {
				for range n {
					d.s.ConnAs("app")
				}
				c := d.close()
				ctx, cancel := limit()
				if err := c.WaitGone(ctx); err != nil {
					t.Fatal(err)
				}
				cancel()
				if c.Sessions < n || c.Sessions > n+2 { // the probe's own backend may still be there
					t.Errorf("%d sessions ended, want %d", c.Sessions, n)
				}
				proven.Add(c.Proven)
				doomed.Add(c.Doomed)
				gone.Add(c.Gone)
				begin := time.Now()
				d.open()
				opened.Add(time.Since(begin))
			}
			t.Logf("%d idle sessions: proven %s; doomed %s; gone %s; open %s", n, proven, doomed, gone, opened)
		}
	})
}
