// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pgquorum/pgquorum/pgctl/procfs"
)

// initialPidNamespace is how the kernel names the PID namespace of the machine itself; the number is fixed
// (PROC_PID_INIT_INO).
const initialPidNamespace = "pid:[4026531836]"

// Scope says how far KillAll may reach.
type Scope struct {
	// Own: this program is process 1 of a PID namespace that is not the machine's, and /proc shows that namespace.
	// Only then is everything else in it ours to kill.
	Own bool
	Why string // when not Own
}

// FindScope looks at who we are. Every doubt means "not our own".
func FindScope() Scope {
	if pid := os.Getpid(); pid != 1 {
		return Scope{Why: fmt.Sprintf("not process 1 of the container, but %d", pid)}
	}
	if err := OwnNamespace(); err != nil {
		return Scope{Why: err.Error()}
	}
	return Scope{Own: true}
}

// OwnNamespace says why this process cannot be sure to live in a PID namespace that is not the machine's and that
// /proc shows; nil when it is sure.
func OwnNamespace() error {
	link, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return fmt.Errorf("read pid namespace: %w", err)
	}
	if link == initialPidNamespace {
		return errors.New("the pid namespace is the machine's own")
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return fmt.Errorf("read pid namespace: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		ids, ok := strings.CutPrefix(line, "NSpid:")
		if !ok {
			continue
		}
		// Our pid in the namespace that /proc shows, then in each one below it down to our own.
		if f := strings.Fields(ids); len(f) != 1 || f[0] != fmt.Sprint(os.Getpid()) {
			return fmt.Errorf("/proc shows another pid namespace than ours (NSpid %s)", strings.Join(f, " "))
		}
		return nil
	}
	return errors.New("the kernel does not tell pid namespaces apart (no NSpid)")
}

// Scope says how far KillAll reaches.
func (c *Children) Scope() Scope { return c.scope }

// KillAll kills every other process that we may kill: as process 1 of our own PID namespace by one kill(-1,
// SIGKILL), after which no process there returns to user mode; anywhere else by finding our descendants and killing
// them one by one until none is left alive. A Start that runs at the same time fails with ErrKilled.
//
// It takes no lock and starts nothing: a fence waits for nobody.
func (c *Children) KillAll() error {
	c.gen.Add(1)
	if c.scope.Own {
		return KillNamespace()
	}
	return KillDescendants(os.Getpid(), killRounds)
}

// killRounds bounds how often KillDescendants looks again; each round kills all that it finds, so a second one is
// only needed for what was forked during the first.
const killRounds = 1000

// KillNamespace is kill(-1, SIGKILL). The kernel spares the caller and process 1. The caller answers for being in a
// namespace where that is right.
func KillNamespace() error {
	if err := syscall.Kill(-1, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
		return fmt.Errorf("kill every process of the container: %w", err)
	}
	return nil
}

// KillDescendants kills the descendants of root one by one, except the caller, until a look finds none alive or
// rounds are used up. Orphans count only while root is their reaper.
func KillDescendants(root, rounds int) error {
	self := os.Getpid()
	for range rounds {
		all, err := procfs.List()
		if err != nil {
			return fmt.Errorf("kill descendants of %d: %w", root, err)
		}
		alive := 0
		for _, p := range procfs.Descendants(all, root) {
			if p.PID == self || p.Dead() {
				continue
			}
			if err := syscall.Kill(p.PID, syscall.SIGKILL); err == nil {
				alive++
			}
		}
		if alive == 0 {
			return nil
		}
	}
	return fmt.Errorf("kill descendants of %d: some still live after %d rounds", root, rounds)
}

// Gone waits until no process is left that KillAll would reach, children that were started aside left out. A process
// that only waits to be reaped is gone. Processes of other users (a shell of an operator, say) are not ours and do not
// count.
func (c *Children) Gone(ctx context.Context) error {
	self := os.Getpid()
	for {
		all, err := procfs.List()
		if err != nil {
			return err
		}
		if !c.scope.Own {
			all = procfs.Descendants(all, self)
		}
		c.mu.Lock() // whoever was forked before the list was made is registered by now
		left := slices.DeleteFunc(all, func(p procfs.Process) bool {
			return p.PID == self || p.Dead() || c.aside[p.PID] || syscall.Kill(p.PID, 0) != nil
		})
		c.mu.Unlock()
		if len(left) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the end of %d processes, first %s (pid %d): %w",
				len(left), left[0].Comm(), left[0].PID, ctx.Err())
		case <-time.After(gonePoll):
		}
	}
}
