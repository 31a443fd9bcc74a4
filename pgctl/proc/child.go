// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
)

// Exit is how a process ended.
type Exit struct {
	Code   int            // when it left by itself
	Signal syscall.Signal // when a signal ended it, otherwise 0
	Err    error          // when its end could not be learnt
}

func newExit(state *os.ProcessState, err error) Exit {
	if err != nil {
		return Exit{Code: 255, Err: err}
	}
	status := state.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return Exit{Signal: status.Signal()}
	}
	return Exit{Code: status.ExitStatus()}
}

// OK says that the process left by itself with code 0.
func (e Exit) OK() bool { return e == Exit{} }

// Status is the exit code that a shell would report: 128+n for signal n.
func (e Exit) Status() int {
	if e.Signal != 0 {
		return 128 + int(e.Signal)
	}
	return e.Code
}

func (e Exit) String() string {
	switch {
	case e.Err != nil:
		return fmt.Sprintf("exit unknown: %v", e.Err)
	case e.Signal != 0:
		return fmt.Sprintf("killed by signal %d (%s)", int(e.Signal), e.Signal)
	}
	return fmt.Sprintf("exit code %d", e.Code)
}

// Child is a process that we started.
type Child struct {
	pid     int
	name    string
	process *os.Process
	group   bool
	ended   chan struct{}
	done    chan struct{}
	exit    Exit // valid once done is closed

	mu     sync.Mutex
	reaped bool
}

// Pid is the process' id. It may mean another process once Done is closed.
func (c *Child) Pid() int { return c.pid }

// Name is the base name of the program.
func (c *Child) Name() string { return c.name }

// Ended is closed when the process has ended and was reaped. Its heirs may still hold its output: see Done.
func (c *Child) Ended() <-chan struct{} { return c.ended }

// Done is closed when the process has ended, was reaped and its output was read.
func (c *Child) Done() <-chan struct{} { return c.done }

// Exit is how the process ended. Call it after Ended or Done only.
func (c *Child) Exit() Exit {
	select {
	case <-c.ended:
		return c.exit
	default:
		panic("proc: exit asked of a running process")
	}
}

// Wait waits for the end of the process. An error means that ctx ended first; the process goes on.
func (c *Child) Wait(ctx context.Context) (Exit, error) {
	select {
	case <-c.done:
		return c.exit, nil
	case <-ctx.Done():
		return Exit{}, fmt.Errorf("wait for %s (pid %d): %w", c.name, c.pid, context.Cause(ctx))
	}
}

// Signal sends a signal to the process. A process that has ended is no error.
func (c *Child) Signal(sig syscall.Signal) error { return c.send(c.pid, sig) }

// SignalGroup sends a signal to the process group of a child that was started with one. Postgres' backends are not
// in it: each makes a session of its own.
func (c *Child) SignalGroup(sig syscall.Signal) error {
	if !c.group {
		return c.send(c.pid, sig)
	}
	return c.send(-c.pid, sig)
}

// Kill sends SIGKILL to the process, and to its group if it has one.
func (c *Child) Kill() error { return c.SignalGroup(syscall.SIGKILL) }

func (c *Child) send(to int, sig syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reaped {
		return nil
	}
	if err := syscall.Kill(to, sig); err != nil && err != syscall.ESRCH {
		return fmt.Errorf("send signal %d to %s (pid %d): %w", int(sig), c.name, to, err)
	}
	return nil
}
