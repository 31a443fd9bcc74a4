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
