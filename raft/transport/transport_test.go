// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

func up(name string, dialled bool) func(LinkUp) bool {
	return func(e LinkUp) bool { return string(e.Peer.Name) == name && e.Dialled == dialled }
}

func down(dialled bool) func(LinkDown) bool {
	return func(e LinkDown) bool { return e.Dialled == dialled }
}

// pair is two nodes that dial each other.
func pair(t *testing.T) (a, b *testNode) {
	t.Helper()
	auth := testAuthority(t)
	a, b = startNode(t, auth, "pg1", nil), startNode(t, auth, "pg2", nil)
	a.setPeers(b.peer("pg2"), a.peer("pg1"))
	b.setPeers(a.peer("pg1"), b.peer("pg2"))
	for _, dialled := range []bool{true, false} {
		await(t, a.inbox, "link up", up("pg2", dialled))
		await(t, b.inbox, "link up", up("pg1", dialled))
	}
	return a, b
}

func TestFramesTravel(t *testing.T) {
	a, b := pair(t)
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MB
	if !a.Send(b.hello.Node, KindRaft, big) || !a.SendName("pg2", KindAgent, []byte("hello")) {
		t.Fatal("a frame was dropped")
	}
	await(t, b.inbox, "agent frame", func(m Message) bool {
		return m.Kind == KindAgent && string(m.Payload) == "hello" && m.From.Name == "pg1"
	})
	await(t, b.inbox, "raft frame", func(m Message) bool { return m.Kind == KindRaft && bytes.Equal(m.Payload, big) })
	if a.SendName("nobody", KindAgent, nil) || a.Send(1, KindRaft, nil) || a.SendName("pg2", KindHello, nil) ||
		a.SendName("pg2", KindAgent, make([]byte, maxFrame+1)) {
		t.Fatal("a frame that cannot be sent was taken")
	}
	if s := a.Stats(); s.Sent != 2 || s.Dropped != 4 {
		t.Fatalf("counters %+v", s)
	}
	for _, l := range a.Links() {
		if !l.AddressesAgree {
			t.Fatalf("addresses disagree on loopback: %+v", l)
		}
	}
}

func TestRepliesUseAcceptedLink(t *testing.T) {
	auth := testAuthority(t)
	a, b := startNode(t, auth, "pg1", nil), startNode(t, auth, "pg2", nil)
	a.setPeers(b.peer("pg2"))
	await(t, b.inbox, "link up", up("pg1", false))
	if !b.SendName("pg1", KindAgent, []byte("reply")) {
		t.Fatal("reply dropped")
	}
	await(t, a.inbox, "reply", func(m Message) bool { return string(m.Payload) == "reply" })
}

func TestHeldTwiceIsConfirmedAndWithdrawn(t *testing.T) {
	a, b := pair(t)
	held := func(want bool) func() bool {
		return func() bool {
			links := b.Links()
			return len(links) == 2 && !slices.ContainsFunc(links, func(l LinkInfo) bool { return l.Peer.HeldTwice != want })
		}
	}
	poll(t, "both links held twice", held(true))
	a.Withdraw()
	poll(t, "withdrawn", held(false))
	a.Rehold()
	poll(t, "held again", held(true))
	await(t, b.inbox, "changed hello", func(e HelloChanged) bool { return !e.Peer.HeldTwice })
	h := a.opts.Holder.(*fakeHolder)
	if err := a.Close(false); err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.holding != h.released {
		t.Fatalf("%d held, %d released", h.holding, h.released)
	}
}

func poll(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestRefreshedHello(t *testing.T) {
	a, b := pair(t)
	a.mu.Lock()
	a.hello.Cluster = "after genesis"
	a.mu.Unlock()
	a.RefreshHello()
	await(t, b.inbox, "new cluster id", func(e HelloChanged) bool { return e.Peer.Cluster == "after genesis" })
}

func TestGoodbyeIsNotEvidence(t *testing.T) {
	a, b := pair(t)
	if err := b.Close(true); err != nil {
		t.Fatal(err)
	}
	for _, dialled := range []bool{true, false} {
		d := await(t, a.inbox, "link down", down(dialled))
		if d.Cause != CauseGoodbye || d.Redial != RedialNotTried || d.ProvesDeath() {
			t.Fatalf("%+v", d)
		}
	}
	if d := await(t, b.inbox, "link down", down(true)); d.Cause != CauseLocal {
		t.Fatalf("our own close is %s", d.Cause)
	}
}

func TestCloseByCodeIsNotEvidence(t *testing.T) {
	a, b := pair(t)
	if err := b.Close(false); err != nil {
		t.Fatal(err)
	}
	if d := await(t, a.inbox, "link down", down(true)); d.Cause != CauseClosed || d.ProvesDeath() {
		t.Fatalf("%+v", d)
	}
}

func TestKilledProcessIsEvidence(t *testing.T) {
	auth := testAuthority(t)
	var worst time.Duration
	for range 10 {
		a := startNode(t, auth, "pg1", nil)
		c := startChild(t, auth, "pg2", 0)
		a.setPeers(c.peer("pg2"))
		u := await(t, a.inbox, "link up", up("pg2", true))
		poll(t, "held", func() bool { return len(a.Links()) == 1 && a.Links()[0].Peer.HeldTwice })
		start := time.Now()
		if err := c.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		d := await(t, a.inbox, "link down", down(true))
		took := time.Since(start)
		if d.Redial != RedialRefused || !d.ProvesDeath() || d.Peer.Boot != u.Peer.Boot {
			t.Fatalf("%+v", d)
		}
		worst = max(worst, took)
		_ = a.Close(false)
	}
	t.Logf("slowest evidence of 10 kills: %s", worst)
}

func TestStoppedProcessIsOnlySilent(t *testing.T) {
	auth := testAuthority(t)
	a := startNode(t, auth, "pg1", func(o *Options) { o.Ping, o.Silence = 100*time.Millisecond, 500*time.Millisecond })
	c := startChild(t, auth, "pg2", 0)
	a.setPeers(c.peer("pg2"))
	await(t, a.inbox, "link up", up("pg2", true))
	if err := c.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	d := await(t, a.inbox, "link down", down(true))
	if d.Cause != CauseTimeout || d.Redial != RedialNotTried || d.ProvesDeath() {
		t.Fatalf("%+v", d)
	}
	if err := c.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	a.clear()
	await(t, a.inbox, "link up after the stop", up("pg2", true))
}

// relay is a port that forwards to another one and can be cut, to play a proxy or a broken connection.
type relay struct {
	ln    net.Listener
	mu    sync.Mutex
	to    string
	conns []*net.TCPConn
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{ln: ln, to: to}
	t.Cleanup(func() { _ = ln.Close(); r.reset() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			o, err := net.Dial("tcp", r.to)
			if err != nil {
				_ = c.Close()
				r.mu.Unlock()
				continue
			}
			r.conns = append(r.conns, c.(*net.TCPConn), o.(*net.TCPConn))
			r.mu.Unlock()
			go func() { _, _ = io.Copy(c, o); _ = c.Close() }()
			go func() { _, _ = io.Copy(o, c); _ = o.Close() }()
		}
	}()
	return r
}

// reset cuts every connection with a reset in both directions.
func (r *relay) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
	r.conns = nil
}

func (r *relay) peer(name string) Peer {
	return Peer{Name: cluster.NodeName(name), Host: "127.0.0.1", Port: r.ln.Addr().(*net.TCPAddr).Port}
}

func TestProxyIsNoEvidence(t *testing.T) {
	auth := testAuthority(t)
	a, b := startNode(t, auth, "pg1", nil), startNode(t, auth, "pg2", nil)
	r := newRelay(t, b.Addr().String())
	a.setPeers(r.peer("pg2"))
	if u := await(t, a.inbox, "link up", up("pg2", true)); u.AddressesAgree {
		t.Fatal("a proxy was not noticed")
	}
	_ = r.ln.Close()
	r.reset()
	d := await(t, a.inbox, "link down", down(true))
	if d.Cause != CauseReset && d.Cause != CauseEOF {
		t.Fatalf("cause %s", d.Cause)
	}
	if d.Redial != RedialRefused || d.ProvesDeath() {
		t.Fatalf("a dead proxy proves a death: %+v", d)
	}
}

func TestResetOfLiveNodeIsSameBoot(t *testing.T) {
	auth := testAuthority(t)
	a, b := startNode(t, auth, "pg1", nil), startNode(t, auth, "pg2", nil)
	r := newRelay(t, b.Addr().String())
	a.setPeers(r.peer("pg2"))
	await(t, a.inbox, "link up", up("pg2", true))
	r.reset()
	d := await(t, a.inbox, "link down", down(true))
	if d.Redial != RedialSameBoot || d.ProvesDeath() {
		t.Fatalf("%+v", d)
	}
	// Frames are lost with the link that they were queued on, and the old accepted link may be ending still: senders
	// repeat what matters.
	poll(t, "a frame over the redial's link", func() bool {
		a.SendName("pg2", KindAgent, []byte("x"))
		_, ok := find(b.inbox, func(m Message) bool { return string(m.Payload) == "x" })
		return ok
	})
}

func TestOtherBootIsEvidence(t *testing.T) {
	auth := testAuthority(t)
	a, b := startNode(t, auth, "pg1", nil), startNode(t, auth, "pg2", nil)
	c := startNode(t, auth, "pg2", nil) // the same name, another boot
	r := newRelay(t, b.Addr().String())
	a.setPeers(r.peer("pg2"))
	await(t, a.inbox, "link up", up("pg2", true))
	r.mu.Lock()
	r.to = c.Addr().String()
	r.mu.Unlock()
	r.reset()
	d := await(t, a.inbox, "link down", down(true))
	if d.Redial != RedialOtherBoot || d.Peer.Boot != b.hello.Boot {
		t.Fatalf("%+v", d)
	}
	await(t, a.inbox, "link to the new boot", func(e LinkUp) bool { return e.Peer.Boot == c.hello.Boot })
}

func TestAnotherNodeAtTheAddressIsNoAnswer(t *testing.T) {
	auth := testAuthority(t)
	a, b := startNode(t, auth, "pg1", nil), startNode(t, auth, "pg2", nil)
	c := startNode(t, auth, "pg3", nil)
	r := newRelay(t, b.Addr().String())
	a.setPeers(r.peer("pg2"))
	await(t, a.inbox, "link up", up("pg2", true))
	r.mu.Lock()
	r.to = c.Addr().String()
	r.mu.Unlock()
	r.reset()
	if d := await(t, a.inbox, "link down", down(true)); d.Redial != RedialNoAnswer {
		t.Fatalf("%+v", d)
	}
	if len(a.Links()) != 0 {
		t.Fatal("a link to the wrong node is up")
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestStrangersAreRefusedAndLoggedOnce(t *testing.T) {
	auth, other := testAuthority(t), testAuthority(t)
	var logged syncBuffer
	a := startNode(t, auth, "pg1", func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&logged, nil)) })
	b := startNode(t, auth, "pg2", nil)
	a.setPeers(b.peer("pg2"))
	await(t, a.inbox, "link up", up("pg2", true))
	stranger := startNode(t, other, "pg3", nil)
	stranger.setPeers(a.peer("pg1"))
	poll(t, "five refusals", func() bool { return a.Stats().Refused >= 5 })
	plain, err := net.Dial("tcp", a.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = plain.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
	_, _ = io.ReadAll(plain)
	_ = plain.Close()
	if n := strings.Count(logged.String(), "connection refused"); n != 1 {
		t.Fatalf("%d lines for one host:\n%s", n, logged.String())
	}
	if len(a.Links()) != 1 || len(stranger.Links()) != 0 {
		t.Fatal("the stranger disturbed something")
	}
	if !a.SendName("pg2", KindAgent, []byte("still here")) {
		t.Fatal("the good link is gone")
	}
	await(t, b.inbox, "frame", func(m Message) bool { return string(m.Payload) == "still here" })
}

func TestOwnerRefusesAndRechecks(t *testing.T) {
	auth := testAuthority(t)
	var refuse atomic.Bool
	refuse.Store(true)
	a := startNode(t, auth, "pg1", func(o *Options) {
		o.Accept = func(h Hello) error {
			if refuse.Load() && h.Boot.Number < 2 {
				return errors.New("boot number is too low")
			}
			return nil
		}
	})
	b := startNode(t, auth, "pg2", nil)
	b.setPeers(a.peer("pg1"))
	a.setPeers(b.peer("pg2"))
	poll(t, "refusals", func() bool { return a.Stats().Refused >= 3 })
	if len(a.Links()) != 0 {
		t.Fatalf("links %+v", a.Links())
	}
	refuse.Store(false)
	await(t, a.inbox, "link up", up("pg2", true))
	refuse.Store(true)
	a.Recheck()
	if d := await(t, a.inbox, "link down", down(true)); d.Cause != CauseLocal {
		t.Fatalf("%+v", d)
	}
}

// A member that breaks the framing loses its link and nothing else.
func TestOversizedFrameEndsTheLink(t *testing.T) {
	auth := testAuthority(t)
	a := startNode(t, auth, "pg1", nil)
	_, conf := auth.configs("pg2")
	conf.ServerName = "pg1"
	c, err := tls.Dial("tcp", a.Addr().String(), conf)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	own := []byte(`{"name":"pg2","protocol":1}`)
	if _, err := c.Write(append(appendHeader(nil, KindHello, len(own)), own...)); err != nil {
		t.Fatal(err)
	}
	await(t, a.inbox, "link up", up("pg2", false))
	if _, err := c.Write(appendHeader(nil, KindAgent, maxFrame+1)); err != nil {
		t.Fatal(err)
	}
	if d := await(t, a.inbox, "link down", down(false)); d.Cause != CauseError {
		t.Fatalf("%+v", d)
	}
}

func TestNameMustMatchCertificate(t *testing.T) {
	auth := testAuthority(t)
	a := startNode(t, auth, "pg1", nil)
	b := startNode(t, auth, "pg2", nil)
	a.setPeers(b.peer("pg3"))
	liar := startNode(t, auth, "pg4", func(o *Options) { o.ServerTLS, o.ClientTLS = auth.configs("pg5") })
	liar.setPeers(a.peer("pg1"))
	poll(t, "refusals", func() bool { return a.Stats().Refused >= 2 && b.Stats().Refused >= 2 })
	if len(a.Links())+len(b.Links()) != 0 {
		t.Fatal("a link under a wrong name is up")
	}
}

func TestFullQueueDropsAndCounts(t *testing.T) {
	l := &link{agent: make(chan outFrame, 2), raft: make(chan outFrame, 2)}
	for i, want := range []bool{true, true, false} {
		if got := l.enqueue(KindAgent, []byte("x"), false); got != want {
			t.Fatalf("frame %d: %v", i, got)
		}
	}
	if !l.enqueue(KindRaft, make([]byte, 10), false) || l.queued.Load() != 12 {
		t.Fatalf("raft has a queue of its own; %d bytes queued", l.queued.Load())
	}
	if l.enqueue(KindRaft, make([]byte, maxQueuedBytes), false) || l.queued.Load() != 12 {
		t.Fatal("the bound on bytes is not kept")
	}
}

func TestRedialComesFast(t *testing.T) {
	auth := testAuthority(t)
	a := startNode(t, auth, "pg1", nil)
	c := startChild(t, auth, "pg2", 0)
	a.setPeers(c.peer("pg2"))
	await(t, a.inbox, "link up", up("pg2", true))
	_ = c.cmd.Process.Kill()
	await(t, a.inbox, "link down", down(true))
	a.clear()
	_ = c.cmd.Wait()
	d := startChild(t, auth, "pg2", c.port)
	start := time.Now()
	await(t, a.inbox, "link up", up("pg2", true))
	if took := time.Since(start); took > time.Second {
		t.Fatalf("link to the restarted peer took %s", took)
	}
	_ = d
}
