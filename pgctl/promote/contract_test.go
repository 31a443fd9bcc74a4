// SPDX-License-Identifier: Apache-2.0

//go:build contract

package promote_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/pgctl/pgtest"
	"github.com/pgquorum/pgquorum/pgctl/promote"
	"github.com/pgquorum/pgquorum/pgctl/upstream"
	"github.com/pgquorum/pgquorum/pgctl/wal"
)

// node is a server with its upstream file.
type node struct {
	*pgtest.Server
	file *upstream.File
	conn *pgconn.PgConn
	pos  cluster.Position
}

// trio is a primary and two standbys, of which any one may become the next primary.
type trio struct {
	t      *testing.T
	l      *pgtest.Lab
	nodes  []*node // the primary first
	epoch  int
	tli    cluster.Timeline
	serial int

	mu    sync.Mutex
	acked []int64
	next  int64
}

func newTrio(t *testing.T, l *pgtest.Lab) *trio {
	a := &trio{t: t, l: l, epoch: 1, tli: 1}
	p := &node{Server: l.Init("n0", "max_wal_size=2GB\nwal_keep_size=512MB\nwal_init_zero=off\nsynchronous_standby_names='nobody'\nlog_line_prefix='%m [%p] '\n")}
	a.upstreamFile(p)
	p.Start()
	p.One("set synchronous_commit=local; create table t(id bigint primary key); select 1")
	a.nodes = []*node{p}
	p.conn = p.Conn()
	a.join()
	a.join()
	return a
}

func (a *trio) upstreamFile(n *node) {
	a.t.Helper()
	dir := filepath.Join(a.l.Dir, n.Name+".park")
	parking, err := upstream.NewParking(dir, 5432)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { parking.Close() })
	path := filepath.Join(a.l.Dir, n.Name+".service")
	if n.file, err = upstream.NewFile(upstream.FileOptions{Path: path, ParkingDir: dir, ParkingPort: 5432, Parking: parking, User: pgtest.User}); err != nil {
		a.t.Fatal(err)
	}
	n.Env = upstream.Env([]string{"PATH=/usr/bin:/bin", "LC_ALL=C"}, path, a.l.Dir)
}

// join clones a standby from the primary and attaches it.
func (a *trio) join() {
	a.t.Helper()
	a.serial++
	p := a.nodes[0]
	n := &node{Server: p.Backup(fmt.Sprintf("n%d", a.serial), "primary_conninfo='"+upstream.ConnInfo+"'\n")}
	a.upstreamFile(n)
	a.follow(n, p)
	n.Start()
	n.conn = n.Conn()
	a.nodes = append(a.nodes, n)
	pgtest.Wait(a.t, n.Name+" streams", 20*time.Second, func() bool {
		f, err := upstream.ReadFlushed(context.Background(), pgtest.Ask(n.conn))
		return err == nil && f.Status == "streaming"
	})
}

func (a *trio) name(n *node) string { return fmt.Sprintf("%s.e%d", n.Name, a.epoch) }

func (a *trio) follow(n, up *node) {
	a.t.Helper()
	err := upstream.Give(upstream.OrderParams{
		File: n.file, PostmasterPID: n.PID,
		Order: upstream.Order{Host: up.Name, HostAddr: "127.0.0.1", Port: up.Port, User: pgtest.User, AppName: a.name(n), Insecure: true},
	})
	if err != nil {
		a.t.Fatal(err)
	}
}

// arm writes the epoch's names into the settings of the one that is or becomes primary.
func (a *trio) arm(p *node) {
	a.t.Helper()
	var names []string
	for _, n := range a.nodes {
		if n != p {
			names = append(names, `"`+a.name(n)+`"`)
		}
	}
	p.Append("postgresql.auto.conf", fmt.Sprintf("synchronous_standby_names='ANY 1 (%s)'\n", strings.Join(names, ",")))
	p.Signal(syscall.SIGHUP)
}

// load writes by quorum until the server dies.
func (a *trio) load(p *node, n int) *sync.WaitGroup {
	var wg sync.WaitGroup
	for range n {
		c := p.Conn()
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				a.mu.Lock()
				a.next++
				id := a.next
				a.mu.Unlock()
				if _, err := pgtest.TryQuery(c, fmt.Sprintf("insert into t values (%d)", id)); err != nil {
					return
				}
				a.mu.Lock()
				a.acked = append(a.acked, id)
				a.mu.Unlock()
			}
		}()
	}
	return &wg
}

// missing counts acknowledged commits that a node does not have: I1.
func (a *trio) missing(n *node) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var b strings.Builder
	for i, id := range a.acked {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprint(&b, id)
	}
	return pgtest.Query(a.t, n.conn, "select count(*) from unnest('{"+b.String()+"}'::bigint[]) x where not exists (select from t where t.id = x)")[0]
}

// fenceBoth fences both standbys at once and reads their positions.
func (a *trio) fenceBoth() {
	var wg sync.WaitGroup
	for _, n := range a.nodes[1:] {
		wg.Go(func() {
			if _, err := upstream.Fence(context.Background(), upstream.FenceParams{File: n.file, PostmasterPID: n.PID}); err != nil {
				a.t.Error(err)
				return
			}
			res, _, err := upstream.Position(context.Background(), upstream.PositionParams{PGDATA: n.Data, PostmasterPID: n.PID, Ask: pgtest.Ask(n.conn), Newest: a.tli})
			if err != nil {
				a.t.Error(err)
			}
			n.pos = res.Position
		})
	}
	wg.Wait()
	if a.t.Failed() {
		a.t.FailNow()
	}
}

// TestContractFailover is E50 with the product's own code, in one cluster that goes on through all rounds: the
// primary is killed under load, both standbys are fenced, one attaches to the other under its next name before that
// one is promoted, and the first write is acknowledged by it.
func TestContractFailover(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		a := newTrio(t, l)
		a.arm(a.nodes[0])
		rounds := pgtest.Rounds(8)
		var fenced, attached, promoted, flushed, total pgtest.Stats
		for i := range rounds {
			writers := a.load(a.nodes[0], 8)
			time.Sleep(time.Duration(200+l.Rand.IntN(300)) * time.Millisecond)
			times := a.failover(i)
			writers.Wait()
			for j, s := range []*pgtest.Stats{&fenced, &attached, &promoted, &flushed, &total} {
				s.Add(times[j])
			}
			if m := a.missing(a.nodes[0]); m != "0" {
				t.Fatalf("round %d: %s acknowledged commits are missing", i, m)
			}
			a.join()
			a.arm(a.nodes[0])
		}
		t.Logf("%d failovers to timeline %d, %d commits acknowledged, none lost", rounds, a.tli, len(a.acked))
		t.Logf("ms after the kill: fenced and read %s; ordered %s; promoted %s; flushed on T %s; first write acknowledged %s", fenced, attached, promoted, flushed, total)
	})
}

func (a *trio) failover(round int) []time.Duration {
	t := a.t
	t.Helper()
	a.nodes[0].Kill()
	begin := time.Now()
	var at []time.Duration
	a.fenceBoth()
	at = append(at, time.Since(begin))
	a.nodes = a.nodes[1:]
	if a.nodes[0].pos.Compare(a.nodes[1].pos) < 0 {
		a.nodes[0], a.nodes[1] = a.nodes[1], a.nodes[0]
	}
	c, b := a.nodes[0], a.nodes[1]
	old := a.tli
	a.epoch++
	a.tli += cluster.Timeline(1 + a.l.Rand.IntN(3)) // gaps need stubs
	a.arm(c)
	a.follow(b, c)
	at = append(at, time.Since(begin))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	res, err := promote.Promote(ctx, promote.Params{PGDATA: c.Data, PostmasterPID: c.PID, Timeline: a.tli, Elected: c.pos, Ask: pgtest.Ask(c.conn)})
	if err != nil {
		t.Fatalf("round %d, from timeline %d: %v\n%s", round, old, err, c.LogTail())
	}
	at = append(at, time.Since(begin))
	if os.Getenv("PGQ_CONTRACT_LOG") != "" {
		t.Logf("killed %s, %s\n%+v\n%s", begin.Format(time.StampMilli), a.nodes[0].Name, res, c.LogTail())
	}
	if res.Switch != c.pos.LSN || res.Flushed <= res.Switch {
		t.Fatalf("%+v", res)
	}
	if _, err := upstream.PollFlushed(ctx, pgtest.Ask(b.conn), a.tli, res.Flushed); err != nil {
		t.Fatalf("round %d: %v\n%s", round, err, b.LogTail())
	}
	at = append(at, time.Since(begin))
	xid := pgtest.Query(t, c.conn, fmt.Sprintf("insert into t values (%d) returning pg_current_xact_id()", -a.epoch))[0]
	at = append(at, time.Since(begin))
	if xid != fmt.Sprint(res.NextXID) {
		t.Errorf("round %d: first transaction is %s, want %d", round, xid, res.NextXID)
	}
	return at
}

// Anything but the assigned timeline and the elected position is an error that names both.
func TestContractVerify(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		a := newTrio(t, l)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		a.nodes[0].Kill()
		a.fenceBoth()
		n, m := a.nodes[1], a.nodes[2]
		wrong := n.pos
		wrong.LSN += 8
		var badSwitch *promote.WrongSwitchError
		_, err := promote.Promote(ctx, promote.Params{PGDATA: n.Data, PostmasterPID: n.PID, Timeline: 3, Elected: wrong, Ask: pgtest.Ask(n.conn)})
		if !errors.As(err, &badSwitch) || badSwitch.Got != n.pos {
			t.Errorf("a wrong elected position: %v, node at %s", err, n.pos)
		}
		// The stub stays where standbys can fetch it; a start strips it only above the control file's timeline.
		b, err := os.ReadFile(filepath.Join(n.Data, "pg_wal", wal.HistoryName(2)))
		if err != nil || !strings.HasPrefix(string(b), "1\t0/1\t") {
			t.Errorf("stub %q, %v", b, err)
		}
		foreign := filepath.Join(m.Data, "pg_wal", wal.HistoryName(5))
		if err := os.WriteFile(foreign, []byte("1\t0/1\tforeign\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err = promote.Promote(ctx, promote.Params{PGDATA: m.Data, PostmasterPID: m.PID, Timeline: 5, Elected: m.pos, Ask: pgtest.Ask(m.conn)}); !errors.Is(err, promote.ErrTimelineTaken) {
			t.Errorf("a taken timeline: %v", err)
		}
		// With a wrong idea of the node's own timeline the stubs miss, and Postgres takes another number.
		var badTimeline *promote.WrongTimelineError
		other := cluster.Position{Timeline: 3, LSN: m.pos.LSN}
		if _, err = promote.Promote(ctx, promote.Params{PGDATA: m.Data, PostmasterPID: m.PID, Timeline: 4, Elected: other, Ask: pgtest.Ask(m.conn)}); !errors.As(err, &badTimeline) || badTimeline.Got != 2 {
			t.Errorf("another parent timeline: %v", err)
		}
	})
}
