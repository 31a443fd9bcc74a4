// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// ticksPerSecond is the unit of start times in /proc: USER_HZ, 100 on every Linux that runs Postgres.
const ticksPerSecond = 100

// Process is one process as /proc showed it.
type Process struct {
	PID     int
	Parent  int
	State   byte   // R, S, D, T, Z, X …
	Threads int    // live threads, the leader included
	Start   uint64 // in ticks of 10 ms since boot; with PID it names a process for good
	Title   string // only where titles were asked for
	comm    [15]byte
	ran     uint64 // see Certain
}

// Comm is the name of the program, cut to 15 bytes: the one thing about a process of another user that needs no
// capability to be read.
func (p Process) Comm() string { return string(bytes.TrimRight(p.comm[:], "\x00")) }

// Dead says that nothing of the process runs any more; it only waits to be reaped. A leader can be a zombie while its
// other threads still exit, hence the number of threads.
func (p Process) Dead() bool {
	return p.State == 'X' || p.State == 'x' || p.State == 'Z' && p.Threads <= 1
}

// Reader reads /proc without allocating for processes that are of no interest. It is not safe for
// concurrent use.
type Reader struct {
	buf  [4096]byte
	dirs [32768]byte
	path []byte
	pids []int
}

// NewReader returns a reader of /proc.
func NewReader() *Reader { return &Reader{path: make([]byte, 0, 64)} }

// Now is the time since boot in the unit of Process.Start.
func Now() (uint64, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0, fmt.Errorf("read boot clock: %w", err)
	}
	return uint64(t.Sec)*ticksPerSecond + uint64(t.Nsec)/(1_000_000_000/ticksPerSecond), nil
}

// Children appends the children of parent, with titles, to dst. A child that lives during the whole call is
// never left out.
func (r *Reader) Children(dst []Process, parent int) ([]Process, error) {
	if err := r.list(); err != nil {
		return dst, err
	}
	for _, pid := range r.pids {
		p, err := r.stat(pid)
		if err != nil {
			return dst, err
		}
		if p.PID == 0 || p.Parent != parent {
			continue
		}
		r.name(&p)
		dst = append(dst, p)
	}
	return dst, nil
}

// All appends every process to dst, with titles.
func (r *Reader) All(dst []Process) ([]Process, error) {
	if err := r.list(); err != nil {
		return dst, err
	}
	for _, pid := range r.pids {
		p, err := r.stat(pid)
		if err != nil {
			return dst, err
		}
		if p.PID != 0 {
			p.Title = r.Title(pid)
			dst = append(dst, p)
		}
	}
	return dst, nil
}

// list fills r.pids with every pid in /proc.
func (r *Reader) list() error {
	fd, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /proc: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	r.pids = r.pids[:0]
	for {
		n, err := unix.Getdents(fd, r.dirs[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read /proc: %w", err)
		}
		if n == 0 {
			return nil
		}
		for b := r.dirs[:n]; len(b) > 19; {
			size := int(b[16]) | int(b[17])<<8
			if size < 20 || size > len(b) {
				return errors.New("read /proc: broken directory entry")
			}
			name := b[19:size]
			if i := bytes.IndexByte(name, 0); i >= 0 {
				name = name[:i]
			}
			if pid, ok := number(name); ok {
				r.pids = append(r.pids, pid)
			}
			b = b[size:]
		}
	}
}

func number(b []byte) (int, bool) {
	if len(b) == 0 || len(b) > 9 {
		return 0, false
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

// read returns what one read of /proc/pid/file gives; nothing when the process is gone. Any other error is one: who
// cannot be looked at must not pass for gone.
func (r *Reader) read(pid int, file string) ([]byte, error) {
	r.path = append(r.path[:0], "/proc/"...)
	r.path = strconv.AppendInt(r.path, int64(pid), 10)
	r.path = append(r.path, '/')
	r.path = append(r.path, file...)
	fd, err := unix.Open(string(r.path), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, r.unless(err)
	}
	defer func() { _ = unix.Close(fd) }()
	for {
		n, err := unix.Read(fd, r.buf[:])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, r.unless(err)
		default:
			return r.buf[:n], nil
		}
	}
}

// unless is the error, unless it says that the process is gone.
func (r *Reader) unless(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return fmt.Errorf("read %s: %w", r.path, err)
}

// Stat reads one process; false when there is none, or it cannot be told.
func (r *Reader) Stat(pid int) (Process, bool) {
	p, err := r.stat(pid)
	return p, err == nil && p.PID != 0
}

// stat reads one process; the zero one when it is gone.
func (r *Reader) stat(pid int) (Process, error) {
	b, err := r.read(pid, "stat")
	if err != nil || len(b) == 0 {
		return Process{}, err
	}
	p, ok := parse(b)
	if !ok || p.PID != pid {
		return Process{}, fmt.Errorf("read process %d: its status is %q", pid, b)
	}
	return p, nil
}

// parse takes a line of /proc/PID/stat apart. The command name stands in parentheses and may hold anything, so fields
// are counted from the last one.
func parse(b []byte) (Process, bool) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 2 || end < open || len(b) < end+4 {
		return Process{}, false
	}
	pid, ok := number(b[:open-1])
	if !ok {
		return Process{}, false
	}
	p := Process{PID: pid, State: b[end+2]}
	copy(p.comm[:], b[open+1:end])
	rest := b[end+4:]
	for field := 4; ; field++ {
		j := bytes.IndexByte(rest, ' ')
		if j < 0 {
			return Process{}, false
		}
		switch field {
		case 4:
			p.Parent, ok = number(rest[:j])
		case 20:
			p.Threads, ok = number(rest[:j])
		case 22:
			for _, c := range rest[:j] {
				p.Start = p.Start*10 + uint64(c-'0')
			}
			return p, true
		}
		if !ok {
			return Process{}, false
		}
		rest = rest[j+1:]
	}
}

// name reads the title of a process that was just found.
func (r *Reader) name(p *Process) {
	p.Title, p.ran = r.Title(p.PID), r.ran(p.PID)
}

// Title reads the title of a process, as ps shows its first word; empty for a process that has left its memory.
func (r *Reader) Title(pid int) string {
	b, _ := r.read(pid, "cmdline")
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(bytes.TrimRight(b, " "))
}

// Same says whether the process p is still there, as the same process, and not dead.
func (r *Reader) Same(p Process) bool {
	q, ok := r.Stat(p.PID)
	return ok && q.Start == p.Start && !q.Dead()
}

// Signal sends a signal to p and to nothing else: a pid that was given to another process meanwhile is left alone.
// A process that is gone is no error.
func (r *Reader) Signal(p Process, sig unix.Signal) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	switch {
	case errors.Is(err, unix.ESRCH):
		return nil
	case err != nil: // an old kernel or a seccomp filter; the pid is milliseconds old
		if !r.Same(p) {
			return nil
		}
		err = unix.Kill(p.PID, sig)
	default:
		defer func() { _ = unix.Close(fd) }()
		if !r.Same(p) {
			return nil
		}
		err = unix.PidfdSendSignal(fd, sig, nil, 0)
	}
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process %d: %w", p.PID, err)
	}
	return nil
}
