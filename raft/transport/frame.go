// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Kind is the first byte of a frame.
type Kind byte

// The kinds of frames. Hello, Goodbye and Ping are the transport's own.
const (
	KindHello   Kind = 'H'
	KindRaft    Kind = 'R'
	KindAgent   Kind = 'M'
	KindGoodbye Kind = 'G'
	KindPing    Kind = 'P'
)

// A frame is: kind, length of the payload (4 bytes, big endian), payload.
const (
	headerSize   = 5
	maxRaftFrame = 16 << 20
	maxFrame     = 1 << 20
	// A payload is read in steps, so that a length that is a lie costs no memory.
	readStep = 64 << 10
)

var errFrame = errors.New("frame is malformed")

// MaxPayload is the bound for a kind; zero for a kind that does not exist.
func (k Kind) MaxPayload() int {
	switch k {
	case KindRaft:
		return maxRaftFrame
	case KindHello, KindAgent, KindGoodbye:
		return maxFrame
	case KindPing: // has none
	}
	return 0
}

func (k Kind) known() bool { return k == KindPing || k.MaxPayload() > 0 }

func appendHeader(b []byte, k Kind, size int) []byte {
	return binary.BigEndian.AppendUint32(append(b, byte(k)), uint32(size))
}

// readFrame reads one frame. The payload is the caller's to keep.
func readFrame(r io.Reader) (Kind, []byte, error) {
	var h [headerSize]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	k, size := Kind(h[0]), int(binary.BigEndian.Uint32(h[1:]))
	if !k.known() {
		return 0, nil, fmt.Errorf("%w: kind %#02x", errFrame, h[0])
	}
	if size > k.MaxPayload() {
		return 0, nil, fmt.Errorf("%w: kind %q with %d bytes", errFrame, byte(k), size)
	}
	var payload []byte
	for len(payload) < size {
		at, n := len(payload), min(size-len(payload), max(readStep, len(payload)))
		payload = append(payload, make([]byte, n)...)
		if _, err := io.ReadFull(r, payload[at:]); err != nil {
			return 0, nil, err
		}
	}
	return k, payload, nil
}
