// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgquorum/pgquorum/pgctl/proc"
)

// socketFD is where process 1 put the child's end.
const socketFD = 3

// child is the state of the watchdog process.
type child struct {
	socket   int // -1 after EOF
	timer    int
	parent   int
	whole    bool // kill(-1) is right: our parent is process 1 of a namespace of its own
	deadline time.Duration
	held     map[uint64]int
}

// Main is the watchdog process. It returns an exit code only when told to quit or when it cannot work.
func Main() int {
	runtime.LockOSThread()
	// A Ctrl-C or a stray "kill" is process 1's business. Nothing is executed from here that could inherit this.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	c := &child{socket: socketFD, parent: os.Getppid(), held: make(map[uint64]int)}
	c.whole = c.parent == 1 && proc.OwnNamespace() == nil
	timer, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		fmt.Fprintf(os.Stderr, "pgquorum watchdog: make timer: %v\n", err)
		return 1
	}
	c.timer = timer
	unix.CloseOnExec(c.socket)
	if err := unix.SetNonblock(c.socket, true); err != nil {
		fmt.Fprintf(os.Stderr, "pgquorum watchdog: use socket: %v\n", err)
		return 1
	}
	debug.FreeOSMemory() // what package initialisation needed
	c.say(message{kind: kindReady, arg: boolArg(c.whole)})
	return c.loop()
}

func (c *child) loop() int {
	for {
		fds := []unix.PollFd{{Fd: int32(c.timer), Events: unix.POLLIN}, {Fd: int32(c.socket), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, syscall.EINTR) {
			fmt.Fprintf(os.Stderr, "pgquorum watchdog: poll: %v\n", err)
			return 1
		}
		// First what process 1 said, then the clock: a deadline that was extended in time counts also when we were
		// not scheduled in time to hear it.
		quit, err := c.hear()
		if err != nil {
			fmt.Fprintf(os.Stderr, "pgquorum watchdog: %v\n", err)
			return 1
		}
		if quit {
			return 0
		}
		if c.deadline != 0 && Now() >= c.deadline {
			c.fire()
		}
	}
}

// hear handles what is in the socket.
func (c *child) hear() (quit bool, err error) {
	buf, oob := make([]byte, messageSize+1), make([]byte, unix.CmsgSpace(4*4))
	for c.socket >= 0 {
		n, oobn, _, _, err := unix.Recvmsg(c.socket, buf, oob, unix.MSG_CMSG_CLOEXEC)
		switch {
		case errors.Is(err, syscall.EAGAIN):
			return false, nil
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.ECONNRESET) || (err == nil && n == 0):
			if !c.whole {
				return true, nil // we guard nothing that we could still find
			}
			_ = unix.Close(c.socket)
			c.socket = -1 // stay, with the links and the deadline, until we are killed (see doc.go)
			return false, nil
		case err != nil:
			return false, fmt.Errorf("read from process 1: %w", err)
		}
		m, err := decode(buf[:n])
		if err != nil {
			return false, err
		}
		if m.kind == kindQuit {
			return true, nil
		}
		answer := message{kind: kindAck, seq: m.seq}
		if !c.handle(m, descriptors(oob[:oobn])) {
			answer.kind = kindRefuse
		}
		c.say(answer)
	}
	return false, nil
}

func (c *child) handle(m message, fds []int) bool {
	if m.kind == kindHold && len(fds) == 1 && len(c.held) < maxHeld && c.held[m.arg] == 0 {
		c.held[m.arg] = fds[0]
		return true
	}
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
	switch m.kind {
	case kindDeadline:
		return c.arm(time.Duration(m.arg))
	case kindDisarm:
		return c.arm(0)
	case kindPing:
		return true
	case kindRelease:
		if fd := c.held[m.arg]; fd != 0 {
			_ = unix.Close(fd)
			delete(c.held, m.arg)
		}
		return true
	}
	return false
}

func (c *child) arm(deadline time.Duration) bool {
	c.deadline = deadline
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(deadline))} // zero disarms; the past fires at once
	return unix.TimerfdSettime(c.timer, unix.TFD_TIMER_ABSTIME, &spec, nil) == nil
}

// fire kills everything but process 1 and ourselves, then says so.
func (c *child) fire() {
	var err error
	if c.whole {
		err = proc.KillNamespace()
	} else {
		err = proc.KillDescendants(c.parent, 1000)
	}
	c.arm(0)
	c.say(message{kind: kindFired})
	fmt.Fprintln(os.Stderr, "pgquorum watchdog: lease deadline passed without a word from process 1: killed every process")
	if err != nil {
		fmt.Fprintf(os.Stderr, "pgquorum watchdog: %v\n", err)
	}
}

func (c *child) say(m message) {
	if c.socket >= 0 {
		_ = unix.Sendmsg(c.socket, m.encode(), nil, nil, unix.MSG_NOSIGNAL) // a full or closed socket: nobody listens
	}
}

func descriptors(oob []byte) []int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var fds []int
	for _, m := range messages {
		got, err := unix.ParseUnixRights(&m)
		if err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

func boolArg(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
