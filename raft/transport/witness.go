// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// witness is a connection below TLS. It remembers the first error that the kernel gave to a read.
//
// It reads and writes by system calls of which Go's scheduler hears nothing. They never block, for the socket is
// non-blocking, so the scheduler has nothing to do meanwhile; but it would wake its monitor thread at each of them, which
// was a quarter of what an idle node cost.
type witness struct {
	*net.TCPConn
	sys    syscall.RawConn
	sysErr error

	mu  sync.Mutex
	err error
}

func newWitness(c *net.TCPConn) *witness {
	w := &witness{TCPConn: c}
	w.sys, w.sysErr = c.SyscallConn()
	return w
}

func (w *witness) Read(b []byte) (int, error) {
	n, err := w.read(b)
	if err != nil {
		w.mu.Lock()
		if w.err == nil {
			w.err = err
		}
		w.mu.Unlock()
	}
	return n, err
}

func (w *witness) read(b []byte) (int, error) {
	if w.sysErr != nil || len(b) == 0 {
		return 0, w.sysErr
	}
	var n int
	var errno syscall.Errno
	err := w.sys.Read(func(fd uintptr) bool {
		n, errno = transfer(syscall.SYS_READ, fd, b)
		return errno != syscall.EAGAIN
	})
	switch {
	case err != nil:
		return 0, err
	case errno != 0:
		return 0, os.NewSyscallError("read", errno)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (w *witness) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) && w.sysErr == nil {
		var n int
		var errno syscall.Errno
		err := w.sys.Write(func(fd uintptr) bool {
			n, errno = transfer(syscall.SYS_WRITE, fd, b[done:])
			return errno != syscall.EAGAIN
		})
		if err == nil && errno != 0 {
			err = os.NewSyscallError("write", errno)
		}
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, w.sysErr
}

// transfer reads or writes once.
func transfer(trap, fd uintptr, b []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall(trap, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		if errno == 0 {
			return int(n), 0
		}
		if !errors.Is(errno, syscall.EINTR) {
			return 0, errno
		}
	}
}

func (w *witness) first() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}
