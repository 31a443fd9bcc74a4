// SPDX-License-Identifier: Apache-2.0

package pgctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/durable"
	"github.com/pgquorum/pgquorum/pgctl/conf"
	"github.com/pgquorum/pgquorum/pgctl/gate"
	"github.com/pgquorum/pgquorum/pgctl/promote"
	"github.com/pgquorum/pgquorum/pgctl/upstream"
	"github.com/pgquorum/pgquorum/pgctl/wal"
)

// Order names an upstream (PROTOCOL 1.8). The caller has checked both histories (5.5.c) and made its promise
// durable.
type Order struct {
	Host    string // for messages; never looked up
	Addr    string // IP address
	Port    int
	AppName string // the sync name (3.1.b), or one in no list
}

// Fenced is what a fence found.
type Fenced struct {
	Position cluster.Position // valid when Known
	Known    bool             // false: a receiver is still there, or the log could not be read (PROTOCOL 5.2.f)
	Claim    bool             // Position is where the log ends, but the data are not consistent: see wal.ErrInconsistent
	Why      string           // when not Known
	Highest  cluster.Timeline // highest timeline seen, 0 when it could not be read
	Backlog  uint64           // bytes held and not replayed
	Took     time.Duration    // until the last receiver was gone
}

// parkingPort is part of the name of the parking socket; nothing listens on a port of that number.
const parkingPort = 5432

func (p *Postgres) openUpstream() error {
	dir := filepath.Join(p.opt.RunDir, "parked")
	var err error
	if p.parking, err = upstream.NewParking(dir, parkingPort); err != nil {
		return err
	}
	_, home := passwdEntry(os.Geteuid())
	user := filepath.Join(home, ".pg_service.conf")
	if f := variable(p.opt.Env, "PGSERVICEFILE"); f != "" {
		user = f
	}
	p.file, err = upstream.NewFile(upstream.FileOptions{
		Path: p.serviceFile(), UserFile: user, ParkingDir: dir,
		ParkingPort: parkingPort, Parking: p.parking, User: p.opt.ReplUser,
	})
	if err != nil {
		return errors.Join(err, p.parking.Close())
	}
	return nil
}

// Close ends what New opened. Postgres must be down.
func (p *Postgres) Close() error { return p.parking.Close() }

// Park makes the upstream file name the parking socket. It is not a fence: see Fence.
func (p *Postgres) Park() error { return p.file.Park() }

// Parked says whether the upstream file is parked.
func (p *Postgres) Parked() bool { return p.file.Parked() }

// Order points a parked node at its upstream.
func (p *Postgres) Order(_ context.Context, o Order) error {
	return upstream.Give(upstream.OrderParams{File: p.file, PostmasterPID: p.Pid(), Order: upstream.Order{
		Host: o.Host, HostAddr: o.Addr, Port: o.Port, User: p.opt.ReplUser, Password: string(p.opt.ReplPassword),
		AppName: o.AppName, Insecure: !p.opt.ReplTLS,
	}})
}

// Fence parks a standby, ends every WAL receiver of before, and reads the position (PROTOCOL 5.2.b). An error
// means that it is not fenced: acknowledgements may still leave. The promise is durable before.
func (p *Postgres) Fence(ctx context.Context) (Fenced, error) {
	f, err := upstream.Fence(ctx, upstream.FenceParams{File: p.file, PostmasterPID: p.Pid()})
	out := Fenced{Why: "a wal receiver has not ended"}
	if f != nil {
		out.Took = f.Took
	}
	if err != nil {
		return out, err
	}
	took := out.Took
	out = p.Position(ctx)
	out.Took = took
	return out, nil
}

// Position is the end of the last complete record on disk (PROTOCOL 1.5, 5.2.d). Of a running standby it may be
// asked only after its fence; of a server that is down only when it is Gone.
func (p *Postgres) Position(ctx context.Context) Fenced {
	out := Fenced{}
	out.Highest, _ = p.HighestTimeline()
	var end wal.EndResult
	var err error
	if pid := p.Pid(); pid != 0 {
		end, out.Backlog, err = p.runningPosition(ctx, pid)
	} else if err = p.syncWAL(); err == nil {
		end, _, err = wal.EndOfDirectory(p.opt.DataDir, 0)
	}
	if err != nil {
		out.Why = err.Error()
		if errors.Is(err, wal.ErrInconsistent) {
			out.Position, out.Claim = end.Position, true
		}
		return out
	}
	out.Position, out.Known = end.Position, true
	return out
}

func (p *Postgres) runningPosition(ctx context.Context, pid int) (end wal.EndResult, backlog uint64, err error) {
	end, replay, err := upstream.Position(ctx, upstream.PositionParams{PGDATA: p.opt.DataDir, PostmasterPID: pid, Ask: p.asker(forActing)})
	if err == nil && replay != 0 && end.LSN > replay {
		backlog = uint64(end.LSN - replay)
	}
	return end, backlog, err
}

// HighestTimeline is the highest timeline that the control file or a file in pg_wal names.
func (p *Postgres) HighestTimeline() (cluster.Timeline, error) {
	c, err := wal.ReadControl(p.opt.DataDir)
	if err != nil {
		return 0, err
	}
	t, err := wal.HighestTimelineSeen(p.dataFile("pg_wal"))
	return max(t, c.Timeline()), err
}

// syncWAL makes durable what a killed server left in the page cache: a position claims only bytes that are held.
func (p *Postgres) syncWAL() error {
	entries, err := os.ReadDir(p.walDir())
	if err != nil {
		return fmt.Errorf("sync wal: %w", err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		if err := durable.SyncDir(filepath.Join(p.walDir(), e.Name())); err != nil {
			return err
		}
	}
	return durable.SyncDir(p.walDir())
}

// MoveForeign moves WAL and histories of other timelines than those given aside, and says how many files it moved
// (PROTOCOL 5.5.f). A running server may have adopted one: it has to be restarted then.
func (p *Postgres) MoveForeign(t cluster.Timeline, h cluster.History) (int, error) {
	c, err := wal.ReadControl(p.opt.DataDir)
	if err != nil {
		return 0, err
	}
	moved, err := wal.MoveForeignAside(p.dataFile("pg_wal"), p.stateFile("foreign"), t, h, c.WALSegmentSize)
	if len(moved) > 0 {
		p.opt.Log.Warn("foreign wal moved aside", "count", len(moved), "path", p.stateFile("foreign"), "timeline", uint32(t))
	}
	return len(moved), err
}

// OldestWAL is where the WAL begins that this node still has.
func (p *Postgres) OldestWAL() (cluster.LSN, error) {
	c, err := wal.ReadControl(p.opt.DataDir)
	if err != nil {
		return 0, err
	}
	return wal.Oldest(p.dataFile("pg_wal"), c.WALSegmentSize)
}

// Plug writes stub history files for the timeline numbers between own and next, so that this Postgres can leave recovery
// only onto next (PROTOCOL 5.6.b).
func (p *Postgres) Plug(own, next cluster.Timeline) error {
	p.plugging.Lock()
	defer p.plugging.Unlock()
	if err := wal.WriteStubs(p.dataFile("pg_wal"), own, next); err != nil {
		return fmt.Errorf("plug the timelines between %d and %d: %w", own, next, err)
	}
	return nil
}

// setStubs makes recovery follow the timeline that the position was read on.
func (p *Postgres) setStubs() error {
	c, err := wal.ReadControl(p.opt.DataDir)
	if err != nil {
		return err
	}
	dir := p.dataFile("pg_wal")
	newest, err := c.NewestTimeline(dir)
	if err != nil {
		return err
	}
	return wal.SetStubs(dir, c.Timeline(), newest)
}

// gateOf is the gate in front of the running server.
func (p *Postgres) gateOf() (*gate.Gate, int, error) {
	p.mu.Lock()
	s := p.server
	p.mu.Unlock()
	if s == nil {
		return nil, 0, ErrNotRunning
	}
	dir, port, err := s.address()
	if err != nil {
		return nil, 0, err
	}
	return gate.New(gate.Options{
		HBAFile: p.confFile("pg_hba.conf"), Socket: upstream.SocketPath(dir, port),
		LocalRole: conf.LocalRole, ReplicationRole: p.opt.ReplUser, ClusterName: p.userSettings()["cluster_name"],
	}), s.child.Pid(), nil
}

// CloseGate keeps every role but ours out and dooms the sessions that are there: none begins another statement
// (PROTOCOL 1.10). They may still be on their way out: GateGone waits for that.
func (p *Postgres) CloseGate(ctx context.Context) error {
	p.gate.Lock()
	defer p.gate.Unlock()
	return p.closeGate(ctx)
}

// CloseGateFor closes the gate, unless it is closed already, and has Postgres read these settings with the same
// reload. They are not made durable: every start writes them again.
func (p *Postgres) CloseGateFor(ctx context.Context, s Settings) error {
	p.gate.Lock()
	defer p.gate.Unlock()
	changed, err := p.writeManaged(s, false)
	if err != nil {
		return fmt.Errorf("close gate: %w", err)
	}
	p.mu.Lock()
	closed := p.closed && p.closing != nil
	p.mu.Unlock()
	switch {
	case !closed:
		return p.closeGate(ctx)
	case changed:
		return p.reload()
	}
	return nil
}

func (p *Postgres) closeGate(ctx context.Context) error {
	g, pid, err := p.gateOf()
	if err != nil {
		return fmt.Errorf("close gate: %w", err)
	}
	p.mu.Lock()
	p.closed, p.closing = true, nil
	p.mu.Unlock()
	c, err := g.Close(ctx, pid, p.HBAText(true))
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.closing = c
	p.mu.Unlock()
	return nil
}

// GateGone waits until no session of before the gate was closed is left.
func (p *Postgres) GateGone(ctx context.Context) error {
	p.mu.Lock()
	c := p.closing
	p.mu.Unlock()
	if c == nil { // it was closed from the start of the server
		return nil
	}
	return c.WaitGone(ctx)
}

// OpenGate lets users in, and returns when one would be asked who it is.
func (p *Postgres) OpenGate(ctx context.Context) error {
	p.gate.Lock()
	defer p.gate.Unlock()
	return p.openGate(ctx)
}

// OpenGateFor opens the gate and has Postgres read these settings with the same reload.
func (p *Postgres) OpenGateFor(ctx context.Context, s Settings) error {
	p.gate.Lock()
	defer p.gate.Unlock()
	if _, err := p.writeManaged(s, false); err != nil {
		return fmt.Errorf("open gate: %w", err)
	}
	return p.openGate(ctx)
}

func (p *Postgres) openGate(ctx context.Context) error {
	g, pid, err := p.gateOf()
	if err != nil {
		return fmt.Errorf("open gate: %w", err)
	}
	p.mu.Lock()
	p.closed, p.closing = false, nil
	p.mu.Unlock()
	return g.Open(ctx, pid, p.HBAText(false))
}

// Promote plugs the timelines up to T, promotes, and returns when Postgres writes on T; the switch LSN must be
// the position that was elected (PROTOCOL 5.6.b and c). After an error the caller kills.
func (p *Postgres) Promote(ctx context.Context, t cluster.Timeline, elected cluster.Position) (promote.Result, error) {
	pid := p.Pid()
	if pid == 0 {
		return promote.Result{}, fmt.Errorf("promote: %w", ErrNotRunning)
	}
	p.plugging.Lock()
	defer p.plugging.Unlock()
	return promote.Promote(ctx, promote.Params{PGDATA: p.opt.DataDir, PostmasterPID: pid, Timeline: t, Elected: elected, Ask: p.asker(forActing)})
}

// variable is the value of a name in an environment.
func variable(env []string, name string) string {
	for _, kv := range env {
		if len(kv) > len(name) && kv[:len(name)] == name && kv[len(name)] == '=' {
			return kv[len(name)+1:]
		}
	}
	return ""
}
