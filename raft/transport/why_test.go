// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// Why a peer has no link is told apart, and says what to set: a name twice and a secret that differs look alike to TLS.
func TestUnreachedSaysWhy(t *testing.T) {
	auth, other := testAuthority(t), testAuthority(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := Peer{Name: "pg4", Host: "127.0.0.1", Port: closed.Addr().(*net.TCPAddr).Port}
	_ = closed.Close()
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
	go func() {
		for {
			c, err := web.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.0 400 Bad Request\r\n\r\n")
			_ = c.Close()
		}
	}()
	a := startNode(t, auth, "pg1", func(o *Options) {
		o.Accept = func(h Hello) error {
			if h.Name == "pg9" {
				return errors.New("pg9 is of another cluster")
			}
			return nil
		}
	})
	twin, secret, renamed := startNode(t, auth, "pg1", nil), startNode(t, other, "pg3", nil), startNode(t, auth, "pg7", nil)
	refused, both := startNode(t, auth, "pg9", nil), startNode(t, other, "pg1", nil)
	reached := startNode(t, auth, "pg11", nil)
	a.setPeers(twin.peer("pg2"), secret.peer("pg3"), nobody, Peer{Name: "pg5", Host: "pg5.invalid", Port: 1},
		a.peer("pg6"), renamed.peer("pg8"), refused.peer("pg9"), both.peer("pg10"), reached.peer("pg11"),
		Peer{Name: "pg12", Host: "127.0.0.1", Port: web.Addr().(*net.TCPAddr).Port})
	want := map[cluster.NodeName]string{
		"pg2":  "the container reached as 127.0.0.1 is called pg1, as this one is: give each container its own hostname",
		"pg3":  "pg3 has another PGQUORUM_SECRET than this node: give every node the same",
		"pg4":  "(connection refused)",
		"pg5":  "the name pg5.invalid", // how exactly depends on the machine's resolver
		"pg6":  "the name 127.0.0.1 leads back to this container, which is called pg1: ",
		"pg8":  "the container reached as 127.0.0.1 is called pg7: ",
		"pg9":  "pg9 is of another cluster",
		"pg10": "pg10 has another PGQUORUM_SECRET",
		"pg12": "is no pgquorum node",
	}
	said := func(name cluster.NodeName, got string) bool { return strings.Contains(got, want[name]) }
	poll(t, "a reason for each peer", func() bool { return len(a.Unreached()) == len(want) })
	for name, got := range a.Unreached() {
		if !said(name, got) {
			t.Errorf("%s: %q, want %q", name, got, want[name])
		}
	}
	// A peer that is reached in the end is no longer in it.
	_ = secret.Close(false)
	good := startNode(t, auth, "pg3", func(o *Options) { o.Listen = secret.Addr().String() })
	await(t, a.inbox, "link up", up("pg3", true))
	if got, ok := a.Unreached()["pg3"]; ok {
		t.Errorf("%s is reached, and still %q", good.hello.Name, got)
	}
}

// That a link which ended before it was up is not held twice is no news; that a good one is not, is.
func TestNotHeldIsSaidOnlyOfLinks(t *testing.T) {
	auth, other := testAuthority(t), testAuthority(t)
	var logged syncBuffer
	slow := &endedHolder{asked: make(chan struct{}, 64)}
	a := startNode(t, auth, "pg1", func(o *Options) {
		o.Holder, o.Logger = slow, slog.New(slog.NewTextHandler(&logged, nil))
	})
	stranger := startNode(t, other, "pg2", nil)
	a.setPeers(stranger.peer("pg2"))
	for range 3 {
		<-slow.asked
	}
	if strings.Contains(logged.String(), "not held twice") {
		t.Fatalf("said of a link that never was:\n%s", logged.String())
	}
	b := startNode(t, auth, "pg3", nil)
	a.setPeers(b.peer("pg3"))
	poll(t, "the line about a good link", func() bool { return strings.Contains(logged.String(), "not held twice") })
}

// endedHolder answers like a watchdog that is asked late: a link that has ended meanwhile cannot be held.
type endedHolder struct{ asked chan struct{} }

func (h *endedHolder) Hold(c *net.TCPConn) (func(), error) {
	until := time.Now().Add(100 * time.Millisecond)
	for time.Now().Before(until) {
		if _, err := c.SyscallConn(); err != nil {
			break
		}
		raw, _ := c.SyscallConn()
		if err := raw.Control(func(uintptr) {}); err != nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	select {
	case h.asked <- struct{}{}:
	default:
	}
	return nil, errors.New("use of closed network connection")
}
