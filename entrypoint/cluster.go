// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"syscall"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/config"
	"github.com/pgquorum/pgquorum/entrypoint/early"
	"github.com/pgquorum/pgquorum/entrypoint/node"
	"github.com/pgquorum/pgquorum/pgctl/proc"
	"github.com/pgquorum/pgquorum/raft/transport"
)

// runClusterMode is one life of a cluster member. What only root may do comes first and is little: read the settings
// and secrets, make the directories, take the volume's lock. Everything else runs as the image's postgres user.
func runClusterMode(ctx context.Context, args []string, in invocation) int {
	signals, uncatch := early.Signals()
	defer uncatch()
	hostname, err := os.Hostname()
	if err != nil {
		fmt.Fprintf(in.stderr, "error: read the hostname: %v\n", err)
		return exitFailure
	}
	cfg, warnings, err := config.Parse(in.env, args, hostname, os.ReadFile)
	if err != nil {
		fmt.Fprintln(in.stderr, err)
		var bad *config.Error
		if errors.As(err, &bad) {
			return bad.ExitCode()
		}
		return exitConfig
	}
	m := &member{cfg: cfg, in: in, log: newLogger(cfg, in.stderr)}
	for _, w := range warnings {
		m.log.Warn("configuration", "reason", string(w))
	}
	defer m.lock.Close()
	stopped, err := untilStop(ctx, signals, m.prepare)
	switch {
	case stopped != 0: // asked to stop, it has: as any other stop of a member, early though it is
		return exitOK
	case err == nil:
		return m.run(ctx, signals)
	}
	fmt.Fprintf(in.stderr, "error: %v\n", err)
	switch {
	case errors.Is(err, errLocked):
		return exitTemp
	case errors.Is(err, errEnvironment):
		return exitConfig
	}
	return exitFailure
}

func (m *member) run(ctx context.Context, signals <-chan os.Signal) int {
	children, err := proc.New(proc.Options{Logger: m.log})
	if err != nil {
		m.log.Error("start", "err", err)
		return exitFailure
	}
	defer children.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := make(chan struct{}, 8)
	reload := make(chan struct{}, 1)
	go clusterSignals(ctx, signals, stop, reload, m.in.stderr)
	opt := m.options(children)
	opt.Stop, opt.Reload = stop, reload
	return node.Run(ctx, opt)
}

// clusterSignals turns signals into requests. SIGTERM means the same as SIGINT here: Postgres' own meaning, to wait
// for every client, would turn each planned stop of a primary into an outage.
func clusterSignals(ctx context.Context, signals <-chan os.Signal, stop, reload chan<- struct{}, stderr io.Writer) {
	ask := func(c chan<- struct{}) {
		select {
		case c <- struct{}{}:
		default: // asked often enough
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case sig := <-signals:
			switch sig {
			case syscall.SIGINT, syscall.SIGTERM:
				ask(stop)
			case syscall.SIGQUIT:
				ask(stop)
				ask(stop) // the second one skips the hand-over
			case syscall.SIGHUP:
				ask(reload)
			case syscall.SIGUSR1:
				buf := make([]byte, 1<<20)
				_, _ = stderr.Write(buf[:runtime.Stack(buf, true)])
			}
		}
	}
}

func (m *member) options(children *proc.Children) node.Options {
	cfg := m.cfg
	peers := make([]transport.Peer, 0, len(cfg.Members))
	names := make([]cluster.NodeName, 0, len(cfg.Members))
	for _, p := range cfg.Members {
		peers = append(peers, transport.Peer{Name: p.Name, Host: p.Host, Port: p.Port})
		names = append(names, p.Name)
	}
	mode := cluster.ModeQuorum
	if cfg.Durability == "async" {
		mode = cluster.ModeAsync
	}
	return node.Options{
		Name: cfg.Self.Name, Peers: peers, Secret: []byte(cfg.Secret.Reveal()), Incarnation: m.id.incarnation, Boot: m.id.boot, Boots: m.id.boots,
		Registered: m.id.registered,
		KernelBoot: m.id.kernel, PID1: children.Scope().Own, Version: version,
		Formed: cluster.Formed{
			Cluster: cfg.Cluster, Peers: sorted(names), LeaseMS: cfg.Lease.Milliseconds(), Mode: mode,
			FastOff: !cfg.FastFailover, MaxLag: uint64(cfg.MaxLag), Paused: cfg.Failover == "manual",
		},
		Rejoin: cluster.Rejoin{
			NoRewind: !slices.Contains(cfg.Rejoin, "rewind"), NoClone: !slices.Contains(cfg.Rejoin, "clone"),
		},
		RejoinKeep: cfg.RejoinKeep, FormingLimit: cfg.BootstrapTimeout,
		Priority: cfg.Priority, StopTimeout: cfg.StopTimeout, StopGuard: cfg.StopGuard, StopSmart: cfg.StopMode == "smart", Heartbeat: cfg.Heartbeat, Election: cfg.ElectionTimeout,
		StateDir: m.stateDir, DataDir: m.dataDir, RunDir: m.runDir, BinDir: m.binDir,
		ServerArgs: cfg.Args, Env: m.serverEnv(), PGPort: m.port(), RaftPort: cfg.Self.Port, APIPort: cfg.APIPort,
		Listen: cfg.Listen, ReplUser: cfg.ReplicationUser, ReplPassword: cfg.ReplicationPassword.Reveal(),
		ReplTLS: cfg.ReplicationTLS, ReplFrom: cfg.HBAReplication, Superuser: cfg.Postgres.User,
		EnsureInit: "docker-ensure-initdb.sh", Entrypoint: cfg.Entrypoint,
		Children: children, Log: m.log,
	}
}
