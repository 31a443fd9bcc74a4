// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"bytes"
	"math"
	"testing"
)

func FuzzDecode(f *testing.F) {
	f.Add(message{kind: kindDeadline, seq: 1, arg: math.MaxUint64}.encode())
	f.Add(message{kind: kindFired}.encode())
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{1}, messageSize+1))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if (err == nil) != (len(b) == messageSize) {
			t.Fatalf("%d bytes: %v", len(b), err)
		}
		if err == nil && !bytes.Equal(m.encode(), b) {
			t.Fatalf("%x came back as %x", b, m.encode())
		}
	})
}
