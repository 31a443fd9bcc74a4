// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"testing"
)

func TestAddressForms(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"10.0.0.1:5", "10.0.0.1:5", true},
		{"[::ffff:10.0.0.1]:5", "10.0.0.1:5", true},
		{"[fe80::1%eth0]:5", "[fe80::1]:5", true},
		{"10.0.0.1:5", "10.0.0.1:6", false},
		{"10.0.0.1:5", "", false},
	} {
		if sameAddress(c.a, c.b) != c.same {
			t.Errorf("%s and %s: want %v", c.a, c.b, c.same)
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add(append(appendHeader(nil, KindAgent, 3), "abc"...))
	f.Add(appendHeader(nil, KindRaft, maxRaftFrame))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		kind, payload, err := readFrame(r)
		if err != nil {
			return
		}
		if len(payload) > kind.MaxPayload() && kind != KindPing {
			t.Fatalf("%q with %d bytes", byte(kind), len(payload))
		}
		again := append(appendHeader(nil, kind, len(payload)), payload...)
		if !bytes.Equal(again, b[:len(b)-r.Len()]) {
			t.Fatal("a frame does not come back as it was")
		}
	})
}

func FuzzParseHello(f *testing.F) {
	f.Add([]byte(`{"name":"pg1","protocol":1,"boot":{"number":1,"id":2}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := parseHello(b); err == nil && (h.Name == "" || h.Protocol != protocolVersion) {
			t.Fatalf("%+v", h)
		}
	})
}
