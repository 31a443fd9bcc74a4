// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func frame(kind byte, body string) string {
	n := binary.BigEndian.AppendUint32(nil, uint32(len(body)+4))
	return string(kind) + string(n) + body
}

// postgres is a server that reads a startup message and answers with reply.
func postgres(t *testing.T, network, address, reply string) net.Listener {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				var n [4]byte
				if _, err := io.ReadFull(c, n[:]); err != nil {
					return
				}
				_, _ = io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(n[:])-4))
				_, _ = io.WriteString(c, reply)
				_, _ = io.Copy(io.Discard, c)
			}()
		}
	}()
	return ln
}

func TestAccepts(t *testing.T) {
	ok := frame('R', "\x00\x00\x00\x00") + frame('S', "a\x00b\x00") + frame('K', "12345678") + frame('Z', "I")
	cases := []struct{ name, reply, want string }{
		{"let in", ok, ""},
		{"password", frame('R', "\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00"), ""},
		{"too many clients", frame('E', "SFATAL\x00C53300\x00Msorry\x00\x00"), ""},
		{"starting", frame('E', "SFATAL\x00VFATAL\x00C57P03\x00Mstarting up\x00\x00"), "does not accept connections yet"},
		{"starting after auth", frame('R', "\x00\x00\x00\x00") + frame('E', "C57P03\x00\x00"), "does not accept connections yet"},
		{"not postgres", "HTTP/1.1 400 Bad Request\r\n\r\n", "a message of"},
		{"wrong message", frame('D', ""), "unexpected message"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ln := postgres(t, "tcp", "127.0.0.1:0", c.reply)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			err := accepts(ctx, "tcp", ln.Addr().String(), "postgres")
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestHealthOfSingleServer(t *testing.T) {
	dir := t.TempDir()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(closed.Addr().String())
	closed.Close() // nobody listens there now
	env := map[string]string{"PGQUORUM_STATE_DIR": dir, "PGPORT": port, "PGHOST": dir}
	if c, out := call(env); Health(t.Context(), c) != exitFailure || !strings.Contains(out.String(), "connect to postgres") {
		t.Fatalf("no server: %s", out)
	}
	postgres(t, "unix", filepath.Join(dir, ".s.PGSQL."+port), frame('R', "\x00\x00\x00\x0a"))
	if c, out := call(env); Health(t.Context(), c) != exitOK {
		t.Fatalf("unix socket only: %s", out)
	}
	if c, out := call(env, "--ready"); Health(t.Context(), c) != exitFailure {
		t.Fatalf("a server that is being set up is not ready: %s", out)
	}
	postgres(t, "tcp", "127.0.0.1:"+port, frame('R', "\x00\x00\x00\x0a"))
	if c, out := call(env, "--ready"); Health(t.Context(), c) != exitOK {
		t.Fatalf("tcp: %s", out)
	}
}

func TestHealthOfNodeWithoutSocket(t *testing.T) {
	c, out := call(map[string]string{"PGQUORUM_STATE_DIR": t.TempDir(), "PGQUORUM_PEERS": "pg1,pg2"})
	if Health(t.Context(), c) != exitFailure || !strings.Contains(out.String(), "there is no socket") {
		t.Fatalf("got %s", out)
	}
}
