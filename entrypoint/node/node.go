// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/api"
	"github.com/pgquorum/pgquorum/certs"
	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/entrypoint/watchdog"
	"github.com/pgquorum/pgquorum/pgctl"
	"github.com/pgquorum/pgquorum/pgctl/proc"
	"github.com/pgquorum/pgquorum/raft"
	"github.com/pgquorum/pgquorum/raft/transport"
)

// Options are everything that a node needs to know of its surroundings. All settings are checked before.
type Options struct {
	Name        cluster.NodeName
	Peers       []transport.Peer // every listed node, this one included
	Secret      []byte
	Incarnation cluster.Incarnation
	Boot        cluster.Boot
	Boots       []cluster.Boot // the volume's since the last one that it knew to be registered, Boot the last of them
	Registered  func() error   // makes the volume's list begin with Boot
	KernelBoot  string         // boot id of the host's kernel
	PID1        bool           // PID 1 of a PID namespace of its own
	Version     string

	Formed      cluster.Formed
	Witness     bool
	Priority    int
	StopTimeout time.Duration
	StopGuard   time.Duration
	StopSmart   bool
	Rejoin      cluster.Rejoin
	RejoinKeep  int

	FormingLimit time.Duration // how long to wait for all peers when the cluster is formed; 0: for ever

	Heartbeat time.Duration
	Election  time.Duration

	StateDir, DataDir, RunDir, BinDir string
	ServerArgs, Env                   []string
	PGPort, RaftPort, APIPort         int
	Listen                            string // host part
	ReplUser, ReplPassword            string // password: empty: derived
	ReplTLS                           bool
	ReplFrom                          []string
	Superuser                         string
	EnsureInit, Entrypoint            string

	Children *proc.Children
	Stop     <-chan struct{} // a value for each request to stop
	Reload   <-chan struct{} // a value for each request to read the settings of Postgres again
	Log      *slog.Logger
}

// node is one run of a member.
type node struct {
	opt   Options
	log   *slog.Logger
	store *store
	pg    postgres
	tr    atomic.Pointer[transport.Transport]
	links *links
	raft  *raft.Node
	fsm   *fsm
	loop  *agent.Loop
	shell *shell
	dog   atomic.Pointer[watchdog.Client]
	fatal chan error
	beat  *beat

	counters *api.Counters

	clusterID atomic.Pointer[string]
	forming   atomic.Pointer[string]
	state     atomic.Pointer[cluster.State]
	logged    atomic.Pointer[cluster.LoggedBoots] // nil: the state knows all of it
}

// Exit codes of a node.
const (
	exitOK      = 0
	exitFailure = 1
	exitTemp    = 75
)

// Now is CLOCK_BOOTTIME, the only clock of a node (PROTOCOL 4.5.a).
func Now() time.Duration {
	var ts unix.Timespec
	// Raw: it never blocks, and Go's scheduler need not wake its monitor thread for it.
	if _, _, e := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ts)), 0); e != 0 {
		panic(fmt.Sprintf("read CLOCK_BOOTTIME: %v", e)) // there since Linux 2.6.39
	}
	return time.Duration(ts.Nano())
}

// Run is one life of a member: it returns the exit code of PID 1.
func Run(ctx context.Context, opt Options) int {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n := &node{opt: opt, log: opt.Log, fatal: make(chan error, 8), counters: api.NewCounters()}
	code, err := n.run(ctx)
	if err != nil {
		n.log.Error("node ends", "err", err)
		if code == exitOK {
			code = exitFailure
		}
	}
	return code
}

func (n *node) run(ctx context.Context) (int, error) {
	dogCtx, stopDog := context.WithCancel(ctx)
	defer stopDog()
	n.links = newLinks(n)
	if err := n.startWatchdog(dogCtx); err != nil {
		return exitFailure, err
	}
	if err := n.prepare(ctx); err != nil {
		return exitFailure, err
	}
	apiDone, err := n.serveAPI(ctx)
	if err != nil {
		_ = n.tr.Load().Close(true)
		return exitFailure, err
	}
	defer apiDone()
	stopped, err := n.form(ctx)
	if err != nil || stopped {
		_ = n.tr.Load().Close(true)
		if errors.Is(err, errNotFormed) {
			return exitTemp, err
		}
		return exitOK, err
	}
	if err := n.startRaft(); err != nil {
		_ = n.tr.Load().Close(true)
		return exitFailure, err
	}
	code, err := n.live(ctx)
	_ = n.tr.Load().Close(err == nil) // a goodbye only when Postgres has ended on purpose (PROTOCOL 6.1)
	_ = n.raft.Close()
	return code, err
}

// prepare opens what is on disk and derives what comes from the secret.
func (n *node) prepare(ctx context.Context) error {
	o := n.opt
	var err error
	if n.store, err = openStore(o.StateDir, o.KernelBoot); err != nil {
		return err
	}
	id, err := certs.New(o.Secret, o.Name)
	if err != nil {
		return err
	}
	names := []string{"localhost", "127.0.0.1"}
	for _, p := range o.Peers {
		names = append(names, string(p.Name))
	}
	files, err := id.Postgres(names...)
	if err != nil {
		return err
	}
	password := o.ReplPassword
	if password == "" {
		p, err := certs.Password(o.Secret, "replication password")
		if err != nil {
			return err
		}
		password = string(p.Reveal())
	}
	local, err := certs.Password(o.Secret, "local password")
	if err != nil {
		return err
	}
	pg, err := pgctl.New(pgctl.Options{
		DataDir: o.DataDir, StateDir: o.StateDir, RunDir: o.RunDir, BinDir: o.BinDir,
		ServerArgs: o.ServerArgs, Env: o.Env, Children: o.Children, Node: o.Name, Incarnation: o.Incarnation,
		Members: len(o.Peers), ReplUser: o.ReplUser, ReplPassword: pgctl.Secret(password), ReplTLS: o.ReplTLS,
		ReplFrom: o.ReplFrom, LocalPassword: pgctl.Secret(local.Reveal()), Cert: files.Cert, Key: files.Key, Root: files.CA,
		Superuser: o.Superuser, EnsureInit: o.EnsureInit, Entrypoint: o.Entrypoint, KeepOld: o.RejoinKeep, Log: n.log,
	})
	if err != nil {
		return err
	}
	n.pg = pg
	n.shell = newShell(n)
	n.fsm = &fsm{node: n}
	empty := ""
	n.clusterID.Store(&empty)
	n.forming.Store(&empty)
	if g, err := n.store.genesis(); err == nil {
		n.clusterID.Store(&g.ClusterID)
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	tr, err := transport.New(transport.Options{
		Self: o.Name, Listen: net.JoinHostPort(o.Listen, strconv.Itoa(o.RaftPort)), Peers: func() []transport.Peer { return o.Peers },
		ServerTLS: id.ServerTLS(), ClientTLS: id.ClientTLS(""), Hello: n.hello, Accept: n.accept,
		Handler: n.links, Holder: n, Logger: n.log,
	})
	if err != nil {
		return fmt.Errorf("listen for peers: %w", err)
	}
	n.tr.Store(tr)
	tr.Rehold()
	return n.pg.Recover(ctx)
}

func (n *node) hello() transport.Hello {
	return transport.Hello{
		Name: n.opt.Name, Cluster: *n.clusterID.Load(), Node: n.opt.Incarnation, Boot: n.opt.Boot, Boots: n.opt.Boots,
		HostBootID: n.opt.KernelBoot, PID1: n.opt.PID1, Version: n.opt.Version,
	}
}

// accept refuses links of other clusters and of boots that are over (PROTOCOL 1.13).
func (n *node) accept(h transport.Hello) error {
	if ours := *n.clusterID.Load(); ours != "" && h.Cluster != "" && h.Cluster != ours {
		return fmt.Errorf("%s belongs to another cluster (%s, this one is %s): its volume is from elsewhere", h.Name, h.Cluster, ours)
	}
	if h.Node == n.opt.Incarnation {
		return fmt.Errorf("%s has this node's own incarnation: its volume is a copy of ours", h.Name)
	}
	s := n.state.Load()
	if s == nil {
		return nil
	}
	if s.WasRemoved(h.Node) {
		return fmt.Errorf("%s runs incarnation %s, which was removed from the cluster: its volume is of before; empty it", h.Name, h.Node)
	}
	if !s.MayLink(h.Node, h.Boots, n.logged.Load()) {
		return fmt.Errorf("%s runs boot %d, and its volume does not know a boot that was registered before: it was rolled back or copied; empty it", h.Name, h.Boot.Number)
	}
	return nil
}

// startWatchdog keeps one running; the agent is told when there is none.
func (n *node) startWatchdog(ctx context.Context) error {
	first := make(chan error, 1)
	told := false
	go watchdog.Keep(ctx, watchdog.Options{Children: n.opt.Children}, func(c *watchdog.Client, err error) {
		n.dog.Store(c)
		if !told {
			told = true
			first <- err
		}
		if tr := n.tr.Load(); tr != nil {
			if c != nil {
				tr.Rehold()
			} else {
				tr.Withdraw()
			}
		}
		if l := n.links.loop(); l != nil {
			go l.Post(agent.WatchdogChanged{Alive: c != nil})
		}
	})
	select {
	case err := <-first:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Hold gives the watchdog a copy of a link's socket (PROTOCOL 6.2.b).
func (n *node) Hold(c *net.TCPConn) (func(), error) {
	d := n.dog.Load()
	if d == nil {
		return nil, watchdog.ErrGone
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return d.Hold(ctx, c)
}

func (n *node) startRaft() error {
	o := n.opt
	w, err := raft.OpenWAL(raft.WALOptions{Dir: filepath.Join(o.StateDir, "raft"), ID: uint64(o.Incarnation), Logger: n.log})
	if err != nil {
		return err
	}
	if err := n.readLog(w); err != nil {
		return err
	}
	if n.beat, err = newBeat(); err != nil {
		return err
	}
	var ticks <-chan struct{}
	if o.Heartbeat == beatEvery {
		ticks = n.beat.listen()
	}
	n.loop = agent.NewLoop(agent.LoopOptions{Machine: n.machineOptions(), Shell: n.shell, Clock: Now, Beat: n.beat.listen(), Log: n.log})
	n.raft, err = raft.Start(raft.NodeOptions{
		Core: raft.Options{ID: uint64(o.Incarnation), Store: w, FSM: n.fsm, Logger: n.log, ElectionTicks: max(4, int(o.Election/o.Heartbeat)), HeartbeatTicks: 1},
		Tick: o.Heartbeat, Ticks: ticks, Sender: &raftSender{n},
		OnRole: func(r raft.RoleChanged) {
			n.fsm.post(agent.RaftChanged{Term: r.Term, Leader: cluster.Incarnation(r.Leader)})
		},
	})
	return err
}

// readLog takes note of what this node may have known before it ended.
func (n *node) readLog(s raft.LogStore) error {
	var boots cluster.LoggedBoots
	if err := raft.Logged(s, boots.Saw); err != nil {
		return err
	}
	n.logged.Store(&boots)
	return nil
}

func (n *node) machineOptions() agent.Options {
	o := n.opt
	return agent.Options{
		Self: o.Incarnation, Name: o.Name, Boot: o.Boot, Boots: o.Boots, Witness: o.Witness, Priority: o.Priority,
		Port: o.PGPort, Promise: n.store.promise, Floor: n.store.floor, LastServed: n.store.servedHere,
		Watchdog: n.dog.Load() != nil, LeaseMS: o.Formed.LeaseMS, StopTimeout: o.StopTimeout, StopGuard: o.StopGuard, StopSmart: o.StopSmart, Rejoin: o.Rejoin,
	}
}

// live runs the loop until the node stops on purpose or something fatal happens.
func (n *node) live(ctx context.Context) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n.links.attach(n.loop)
	n.tr.Load().RefreshHello()
	go n.observe(ctx, n.beat.listen())
	if !n.opt.Witness {
		go n.watchSpace(ctx)
	}
	go n.forward(ctx)
	go n.shell.pace.run(ctx)
	go func() {
		if err := n.beat.run(ctx, n.tr.Load().Flush); err != nil {
			n.shell.Fatal(err)
		}
	}()
	done := make(chan int, 1)
	go func() { done <- n.loop.Run(ctx) }()
	n.fsm.open(n.loop)
	select {
	case code := <-done:
		return code, nil
	case err := <-n.raft.Fatal():
		return exitFailure, fmt.Errorf("write raft's log: %w", err)
	case err := <-n.fatal:
		return exitFailure, err
	case <-ctx.Done():
		return exitFailure, ctx.Err()
	}
}

// forward brings signals and ends of Postgres to the loop.
func (n *node) forward(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.opt.Stop:
			n.loop.Post(agent.StopAsked{})
		case <-n.opt.Reload:
			n.reload()
		case x := <-n.pg.Exits():
			n.loop.Post(agent.Exited{Why: x.Error(), Permanent: x.ReplicasRefused()})
		}
	}
}

// reload makes the generated files again from the user's, and has Postgres read them (SIGHUP).
func (n *node) reload() {
	if err := n.pg.Reload(); err != nil {
		n.log.Warn("settings not read again", "err", err)
		return
	}
	n.log.Info("settings are read again", "running", n.pg.Running())
}
