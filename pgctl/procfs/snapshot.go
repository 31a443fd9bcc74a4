// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// maxHeld bounds the open descriptors of a snapshot; children beyond it are signalled by pid, after another look.
const maxHeld = 2048

// Snapshot knows who was there a moment ago, so that Children reads only newcomers. When many processes are about
// to be ended, most of the looking can be done before the moment that counts, and before they take the processor
// away. It is for one short operation: it relies on no pid being used twice meanwhile.
type Snapshot struct {
	reader *Reader
	parent int
	known  map[int]member
	held   int
}

type member struct {
	Process
	child bool
	fd    int // pidfd; -1: none
}

// Snapshot looks at all processes now. Close it.
func (r *Reader) Snapshot(parent int) (*Snapshot, error) {
	s := &Snapshot{reader: r, parent: parent, known: map[int]member{}}
	if _, err := s.Children(nil); err != nil {
		return nil, err
	}
	return s, nil
}

// Children appends the children of the parent. One that lives during the whole call is never left out; one that the
// snapshot knew may have ended. Its title is that of when it was first seen, when it may have had only a part of it: see
// Reader.Certain.
func (s *Snapshot) Children(dst []Process) ([]Process, error) {
	if err := s.reader.list(); err != nil {
		return dst, err
	}
	for _, pid := range s.reader.pids {
		m, ok := s.known[pid]
		if !ok {
			if m, ok = s.read(pid); !ok {
				continue
			}
			s.known[pid] = m
		}
		if !m.child {
			continue
		}
		dst = append(dst, m.Process)
	}
	return dst, nil
}

func (s *Snapshot) read(pid int) (member, bool) {
	p, ok := s.reader.Stat(pid)
	if !ok {
		return member{}, false
	}
	m := member{Process: p, child: p.Parent == s.parent, fd: -1}
	if !m.child {
		return m, true
	}
	if s.held < maxHeld {
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			m.fd = fd
			s.held++
		}
	}
	s.reader.name(&m.Process)
	return m, true
}

// Signal signals children of this snapshot in one sweep. One that is gone is no error.
func (s *Snapshot) Signal(list []Process, sig unix.Signal) error {
	var failed error
	for _, p := range list {
		m := s.known[p.PID]
		if m.Start != p.Start || m.fd < 0 {
			failed = errors.Join(failed, s.reader.Signal(p, sig))
			continue
		}
		if err := unix.PidfdSendSignal(m.fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			failed = errors.Join(failed, fmt.Errorf("signal process %d: %w", p.PID, err))
		}
	}
	return failed
}

// Close lets go of the processes.
func (s *Snapshot) Close() {
	for _, m := range s.known {
		if m.fd >= 0 {
			_ = unix.Close(m.fd)
		}
	}
	s.known = nil
}
