// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Each message is one packet of a SOCK_SEQPACKET pair: kind, sequence number, argument. Descriptors travel beside
// a hold. The child answers each with an ack of the same number.
const (
	kindDeadline byte = iota + 1 // argument: nanoseconds of CLOCK_BOOTTIME
	kindDisarm
	kindHold    // argument: id; with one descriptor
	kindRelease // argument: id
	kindQuit
	kindPing
	kindAck    // child: done
	kindRefuse // child: not done (too many held, no descriptor)
	kindReady  // child: runs; argument: 1 when it may kill the whole namespace
	kindFired  // child: the deadline passed and everything was killed
)

const messageSize = 1 + 8 + 8

// maxHeld bounds the descriptors that the child holds.
const maxHeld = 1024

type message struct {
	kind byte
	seq  uint64
	arg  uint64
}

func (m message) encode() []byte {
	b := make([]byte, messageSize)
	b[0] = m.kind
	binary.LittleEndian.PutUint64(b[1:], m.seq)
	binary.LittleEndian.PutUint64(b[9:], m.arg)
	return b
}

func decode(b []byte) (message, error) {
	if len(b) != messageSize {
		return message{}, fmt.Errorf("decode watchdog message: %d bytes", len(b))
	}
	return message{b[0], binary.LittleEndian.Uint64(b[1:]), binary.LittleEndian.Uint64(b[9:])}, nil
}

// Now reads CLOCK_BOOTTIME, the clock of leases: it goes on while the machine sleeps.
func Now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(fmt.Sprintf("watchdog: read CLOCK_BOOTTIME: %v", err)) // no kernel we run on lacks it
	}
	return time.Duration(ts.Nano())
}
