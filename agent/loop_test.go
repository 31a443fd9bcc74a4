// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// badDisk is a shell whose promises cannot be written.
type badDisk struct {
	Shell
	fatal []error
}

var errDisk = errors.New("fsync: input/output error")

func (*badDisk) SavePromise(cluster.Epoch) error { return errDisk }
func (s *badDisk) Fatal(err error)               { s.fatal = append(s.fatal, err) }

// TestPromiseThatCannotBeWritten ends PID 1: it is neither tried again nor believed (PROTOCOL 4.9).
func TestPromiseThatCannotBeWritten(t *testing.T) {
	sh := &badDisk{}
	l := NewLoop(LoopOptions{Machine: Options{Self: 1}, Shell: sh, Clock: func() time.Duration { return time.Second }})
	l.savePromise(3)
	if len(sh.fatal) != 1 || !errors.Is(sh.fatal[0], errDisk) {
		t.Errorf("fatal: %v", sh.fatal)
	}
	select {
	case e := <-l.events:
		t.Errorf("the machine is told %+v", e)
	default:
	}
}

// idleShell is told of nothing but rest.
type idleShell struct{ Shell }

func (idleShell) Calm(bool)              {}
func (idleShell) Deadline(time.Duration) {}

// TestAskedOfNow: a node that was frozen, and is asked before it has looked at its clock, does not take what it knew for fresh.
func TestAskedOfNow(t *testing.T) {
	thawed := false
	l := NewLoop(LoopOptions{Machine: Options{Self: 1}, Shell: idleShell{}, Clock: func() time.Duration {
		if !thawed {
			return time.Second
		}
		return time.Minute
	}})
	thawed = true
	go l.Run(t.Context())
	if err := l.Ask(t.Context(), func(m *Machine) {
		if got := m.Snapshot().Now; got != time.Minute {
			t.Errorf("asked at 1m0s, it answers as of %s", got)
		}
	}); err != nil {
		t.Fatal(err)
	}
}
