// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgquorum/pgquorum/config"
	"github.com/pgquorum/pgquorum/entrypoint/early"
	"github.com/pgquorum/pgquorum/pgctl/proc"
	"github.com/pgquorum/pgquorum/pgctl/procfs"
)

// runSingle is an ordinary Postgres container: the image's own entrypoint runs as our child, and we add only what
// process 1 owes. Were Postgres process 1 itself, every orphan that ends with a code above 1 would look to it like a
// crashed backend, and it would restart the whole database.
//
// It prints nothing at the default log level: tools wait for exact lines of the image's output.
func runSingle(ctx context.Context, args []string, in invocation) int {
	signals, stop := early.Signals()
	defer stop()
	warn := func(format string, a ...any) { fmt.Fprintf(in.stderr, "pgquorum: "+format+"\n", a...) }
	for _, w := range config.SingleModeWarnings(in.env) {
		warn("warning: %s", w)
	}
	path, err := findEntrypoint(in.env)
	if err != nil {
		warn("%v", err)
		return exitNotFound
	}
	var lock volumeLock
	defer lock.Close()
	if code, ok := lockSingle(ctx, &lock, config.Lookup(in.env, "PGDATA"), signals, warn); !ok {
		return code
	}
	children, err := proc.New(proc.Options{})
	if err != nil {
		warn("%v", err)
		return exitFailure
	}
	defer children.Close()
	child, err := children.Start(proc.Spec{
		Path: path, Name: filepath.Base(path), Args: args, Env: in.env, Setpgid: true, Foreground: ownsTerminal(in.stdin),
		Stdin: in.stdin, Stdout: in.stdout, Stderr: in.stderr,
	})
	if err != nil {
		warn("%v", err)
		return exitNotFound
	}
	r := relay{child: child, warn: warn, term: ownsTerminal(in.stdin)}
	return r.loop(signals)
}

// lockSingle takes the volume lock. Where that is impossible for another reason than a holder (no such directory
// and no right to make it, no locks on the file system), the image's entrypoint goes on and says what is wrong in
// its own words.
func lockSingle(
	ctx context.Context, lock *volumeLock, pgdata string, signals <-chan os.Signal, warn func(string, ...any),
) (code int, ok bool) {
	if pgdata == "" || os.MkdirAll(pgdata, 0o755) != nil {
		return 0, true
	}
	stopped, err := untilStop(ctx, signals, func(ctx context.Context) error {
		for _, path := range singleLockPaths(pgdata) {
			err := lock.add(ctx, path, lockWait, func() {
				warn("warning: %s is in use by another container; waiting up to %s for it to stop", path, lockWait)
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case stopped != 0:
		return exitSignal + int(stopped), false
	case errors.Is(err, errLocked):
		warn("error: %s", lockText(pgdata))
		return exitTemp, false
	case err != nil && !errors.Is(err, os.ErrPermission):
		warn("warning: no protection against a second container on this volume: %v", err)
	}
	return 0, true
}

// ownsTerminal says that stdin is a terminal and we are its foreground group, so that the child should be.
func ownsTerminal(stdin io.Reader) bool {
	f, ok := stdin.(*os.File)
	if !ok {
		return false
	}
	group, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP)
	return err == nil && group == syscall.Getpgrp()
}

// relay hands signals to the one child of single mode, and ends with its exit code.
type relay struct {
	child *proc.Child
	warn  func(string, ...any)
	term  bool

	stopped syscall.Signal // the first stop signal that came while no server ran yet
}

func (r *relay) loop(signals <-chan os.Signal) int {
	for {
		select {
		case sig := <-signals:
			r.handle(sig.(syscall.Signal))
		case <-r.child.Done():
			return r.end(signals)
		}
	}
}

func (r *relay) handle(sig syscall.Signal) {
	server := r.serverRuns()
	switch sig {
	case syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT:
		if server {
			_ = r.child.Signal(sig)
			return
		}
		// The image's entrypoint, a shell, ignores these as process 1, and so every stop during the first start
		// would take the whole grace period and end in SIGKILL. Ours ends at once.
		first := r.stopped == 0
		if first {
			r.stopped = sig
			_ = r.child.SignalGroup(syscall.SIGTERM)
			return
		}
		_ = r.child.SignalGroup(syscall.SIGKILL)
	case syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2:
		if server { // a shell would die of them
			_ = r.child.Signal(sig)
		}
	case syscall.SIGWINCH, syscall.SIGCONT:
		if r.term {
			_ = r.child.Signal(sig)
		}
	}
}

// serverRuns says whether the child has become Postgres; before, it is the image's entrypoint. The name is the one
// thing about a process of another user that we can read without a capability.
func (r *relay) serverRuns() bool {
	p, there := procfs.NewReader().Stat(r.child.Pid())
	return there && isServer(p)
}

func isServer(p procfs.Process) bool {
	name := p.Comm()
	return name == "postgres" || name == "postmaster" || strings.HasPrefix(name, ".postgres") // a nix wrapper's
}

// end returns the exit code. After a stop during the first start it first stops the server that the entrypoint had
// started for itself: pg_ctl gave that a session of its own, so it outlived the group.
func (r *relay) end(signals <-chan os.Signal) int {
	if r.stopped == 0 {
		return r.child.Exit().Status()
	}
	how := syscall.SIGINT
	for told := false; ; told = true {
		servers := orphanServers()
		if len(servers) == 0 {
			break
		}
		if !told {
			signalAll(servers, how)
		}
		select {
		case sig := <-signals:
			if isStop(sig) {
				how = syscall.SIGQUIT
				signalAll(servers, how)
			}
		case <-time.After(20 * time.Millisecond):
		}
	}
	r.warn("warning: stopped by %s before the server was up; if this was the first start, the data directory may be"+
		" incomplete and should be removed", unix.SignalName(r.stopped))
	return exitSignal + int(r.stopped)
}

func orphanServers() []procfs.Process {
	all, err := procfs.List()
	if err != nil {
		return nil
	}
	var servers []procfs.Process
	for _, p := range procfs.ChildrenOf(all, os.Getpid()) {
		if isServer(p) && !p.Dead() {
			servers = append(servers, p)
		}
	}
	return servers
}

func signalAll(list []procfs.Process, sig syscall.Signal) {
	for _, p := range list {
		_ = syscall.Kill(p.PID, sig)
	}
}
