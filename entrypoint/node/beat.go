// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// beatEvery is the pace of a calm node: raft's tick by default, and the agent's.
const beatEvery = 50 * time.Millisecond

// beat is one timer for all that a calm node does from time to time, so that it wakes once for everything that is due. It
// is the kernel's: each timer of Go's own also wakes the runtime's monitor thread, and is slept for twice.
type beat struct {
	file      *os.File
	listeners []chan struct{}
}

func newBeat() (*beat, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make timer: %w", err)
	}
	b := &beat{file: os.NewFile(uintptr(fd), "beat")}
	every := unix.NsecToTimespec(int64(beatEvery))
	if err := unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Interval: every, Value: every}, nil); err != nil {
		_ = b.file.Close()
		return nil, fmt.Errorf("start timer: %w", err)
	}
	return b, nil
}

// listen returns a channel that gets a value at every beat. Who does not listen in time misses some. It is called before
// run.
func (b *beat) listen() <-chan struct{} {
	c := make(chan struct{}, 1)
	b.listeners = append(b.listeners, c)
	return c
}

// run beats until ctx ends, and calls each at every beat.
func (b *beat) run(ctx context.Context, each func()) error {
	defer context.AfterFunc(ctx, func() { _ = b.file.Close() })()
	conn, err := b.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("wait for the timer: %w", err)
	}
	for {
		var fired uint64
		var errno syscall.Errno
		err := conn.Read(func(fd uintptr) bool {
			// Raw, as the links do: it never blocks.
			_, _, errno = syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&fired)), unsafe.Sizeof(fired))
			return errno != syscall.EAGAIN
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil && errno == syscall.EINTR:
			continue
		case err == nil && errno != 0:
			err = errno
		}
		if err != nil {
			return fmt.Errorf("wait for the timer: %w", err)
		}
		each()
		for _, c := range b.listeners {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
}
