// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgquorum/pgquorum/pgctl/procfs"
)

// ErrKilled is returned by Start when KillAll ran while the process was being made; it has been killed too.
var ErrKilled = errors.New("proc: everything was killed meanwhile")

// ErrClosed is returned by Start after Close.
var ErrClosed = errors.New("proc: closed")

// Bounds of this package.
const (
	defaultTick = 10 * time.Second       // SIGCHLD coalesces and can be lost to us: look anyway
	outputDelay = 500 * time.Millisecond // how long a dead child's heirs may keep its output pipe open
	gonePoll    = 2 * time.Millisecond
)

// Spec says what to start. Only Path is required.
type Spec struct {
	Path string   // looked up in PATH of Env when it has no slash
	Args []string // without the program's name
	Name string   // argv[0]; default Path
	Env  []string // the whole environment; nil means none
	Dir  string   // default: ours

	// Stdin, Stdout and Stderr are passed on untouched when they are files; another reader or writer gets a pipe.
	// Nil is /dev/null.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	ExtraFiles     []*os.File // descriptors 3, 4, ...

	Credential *syscall.Credential // nil: ours
	Setsid     bool                // a session of its own
	Setpgid    bool                // a process group of its own
	Foreground bool                // with Setpgid: and make it the terminal's foreground group; Stdin must be the terminal

	// KeepAfterUs drops the net that kills the child when we die (PR_SET_PDEATHSIG SIGKILL). The net is lost anyway
	// when the child changes its user by itself.
	KeepAfterUs bool

	// Aside says that the child is no part of what KillAll ends: Gone does not wait for it. It may be killed all the
	// same, and be started again while Gone still waits for others.
	Aside bool
}

// Options for New.
type Options struct {
	Logger *slog.Logger  // default: silent
	Tick   time.Duration // slow look for strangers, default 10 s
}

// Children owns every process that we start, and reaps every one that we inherit. One per program.
type Children struct {
	opt     Options
	scope   Scope
	gen     atomic.Uint64 // +1 by each KillAll
	started atomic.Uint64
	reaped  atomic.Uint64

	spawn chan func()   // runs on the one thread that never ends
	poke  chan struct{} // look for strangers now
	stop  chan struct{}
	done  chan struct{}
	once  sync.Once

	mu     sync.Mutex // {fork, register} and {find strangers, wait for them} exclude each other
	own    map[int]*Child
	aside  map[int]bool // of own
	closed bool
}

// New makes this process the reaper of its orphans and starts looking for them.
func New(opt Options) (*Children, error) {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Tick <= 0 {
		opt.Tick = defaultTick
	}
	// Behind another init (tini, a pause container) orphans would go past us to it.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become reaper of orphans: %w", err)
	}
	// The os package forks a probe of its own at its first use; it must not see us reap it.
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		_ = p.Release()
	}
	c := &Children{
		opt: opt, scope: FindScope(),
		spawn: make(chan func()), poke: make(chan struct{}, 1),
		stop: make(chan struct{}), done: make(chan struct{}),
		own: make(map[int]*Child), aside: map[int]bool{},
	}
	go c.spawner()
	go c.reaper()
	return c, nil
}

// Close ends the reaper. Running children keep running and are still waited for. Start fails from now on.
func (c *Children) Close() {
	c.once.Do(func() {
		c.mu.Lock()
		c.closed = true
		c.mu.Unlock()
		close(c.stop)
	})
	<-c.done
}

// spawner forks for everybody: PR_SET_PDEATHSIG fires when the *thread* that forked ends, and Go ends threads at
// will, but never one that a living goroutine has locked.
func (c *Children) spawner() {
	runtime.LockOSThread()
	for f := range c.spawn {
		f()
	}
}

func (c *Children) onSpawner(f func()) {
	done := make(chan struct{})
	c.spawn <- func() { f(); close(done) }
	<-done
}

// Start starts a process and registers it. The exit status is delivered once, by Child.Done and Child.Exit.
func (c *Children) Start(spec Spec) (*Child, error) {
	name := filepath.Base(spec.Path)
	path, err := Lookup(spec.Path, spec.Env)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	pipes, err := openPipes(spec)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	child, err := c.fork(path, name, spec, pipes)
	pipes.closeTheirs()
	if err != nil {
		pipes.abort()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	pipes.run()
	go c.wait(child, pipes)
	return child, nil
}

func (c *Children) fork(path, name string, spec Spec, pipes *pipes) (child *Child, err error) {
	argv := append([]string{spec.Path}, spec.Args...)
	if spec.Name != "" {
		argv[0] = spec.Name
	}
	attr := &os.ProcAttr{
		Dir: spec.Dir, Env: spec.Env, Files: append(pipes.theirs[:], spec.ExtraFiles...),
		Sys: &syscall.SysProcAttr{
			Credential: spec.Credential, Setsid: spec.Setsid, Setpgid: spec.Setpgid, Foreground: spec.Foreground,
		},
	}
	if attr.Env == nil {
		attr.Env = []string{} // nil would mean ours
	}
	if !spec.KeepAfterUs {
		attr.Sys.Pdeathsig = syscall.SIGKILL
	}
	gen := c.gen.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	var p *os.Process
	c.onSpawner(func() { p, err = os.StartProcess(path, argv, attr) })
	if err != nil {
		return nil, err
	}
	child = &Child{pid: p.Pid, name: name, process: p, group: spec.Setpgid || spec.Setsid, ended: make(chan struct{}), done: make(chan struct{})}
	c.own[p.Pid] = child
	if spec.Aside {
		c.aside[p.Pid] = true
	}
	c.started.Add(1)
	if c.gen.Load() != gen {
		_ = p.Kill()
		go c.wait(child, nil)
		return nil, ErrKilled
	}
	return child, nil
}

// wait delivers the exit of one child. It first waits without reaping, so that between the moment of reaping and
// the note that it happened nobody can signal a pid that means another process by now.
func (c *Children) wait(child *Child, pipes *pipes) {
	for {
		err := unix.Waitid(unix.P_PID, child.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	child.mu.Lock()
	state, err := child.process.Wait()
	child.reaped = true
	child.mu.Unlock()

	c.mu.Lock()
	delete(c.own, child.pid)
	delete(c.aside, child.pid)
	c.mu.Unlock()
	c.look() // the kernel may have given the pid to a stranger that died meanwhile

	child.exit = newExit(state, err)
	close(child.ended)
	if pipes != nil {
		pipes.drain(outputDelay)
	}
	close(child.done)
}

// Look asks the reaper to look for strangers now.
func (c *Children) look() {
	select {
	case c.poke <- struct{}{}:
	default:
	}
}

func (c *Children) reaper() {
	defer close(c.done)
	chld := make(chan os.Signal, 1)
	signal.Notify(chld, syscall.SIGCHLD)
	defer signal.Stop(chld)
	tick := time.NewTicker(c.opt.Tick)
	defer tick.Stop()
	for {
		if err := c.reapStrangers(); err != nil {
			c.opt.Logger.Warn("reap orphans", "err", err)
		}
		select {
		case <-chld:
		case <-c.poke:
		case <-tick.C:
		case <-c.stop:
			return
		}
	}
}

// reapStrangers waits for the zombies that are our children but were not started by us.
func (c *Children) reapStrangers() error {
	// One cheap question first: is there any zombie at all that waits for us? The answer may name a child of our
	// own, whose waiter will take it, so it only ever saves work.
	var info unix.Siginfo
	err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil)
	if errors.Is(err, syscall.ECHILD) || (err == nil && info.Signo == 0) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	all, err := procfs.List()
	if err != nil {
		return err
	}
	self := os.Getpid()
	for _, p := range all {
		if p.Parent != self || p.State != 'Z' || c.own[p.PID] != nil {
			continue
		}
		if got, err := unix.Wait4(p.PID, nil, unix.WNOHANG, nil); err == nil && got == p.PID {
			c.reaped.Add(1)
		}
	}
	return nil
}

// Stats says how many processes were started, and how many orphans were reaped.
func (c *Children) Stats() (started, reaped uint64) { return c.started.Load(), c.reaped.Load() }

// Running lists the pids of the living processes that we started.
func (c *Children) Running() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	pids := make([]int, 0, len(c.own))
	for pid := range c.own {
		pids = append(pids, pid)
	}
	return pids
}

// Run starts a process and waits for it. When ctx ends first it is killed, with its group if it has one.
func (c *Children) Run(ctx context.Context, spec Spec) (Exit, error) {
	child, err := c.Start(spec)
	if err != nil {
		return Exit{}, err
	}
	exit, err := child.Wait(ctx)
	if err == nil {
		return exit, nil
	}
	_ = child.Kill()
	<-child.Done()
	return child.Exit(), fmt.Errorf("run %s: %w", child.name, err)
}

// Lookup finds a program in the PATH of env.
func Lookup(file string, env []string) (string, error) {
	if strings.Contains(file, "/") {
		return file, nil
	}
	var path string
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	for _, dir := range filepath.SplitList(path) {
		if dir == "" {
			continue // the current directory is no place for programs
		}
		full := filepath.Join(dir, file)
		if info, err := os.Stat(full); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return full, nil
		}
	}
	return "", fmt.Errorf("find %s in PATH: %w", file, exec.ErrNotFound)
}
