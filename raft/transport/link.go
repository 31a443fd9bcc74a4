// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

type outFrame struct {
	kind    Kind
	payload []byte
}

// link is one connection. The reader runs on the goroutine that calls serve, the writer on its own.
type link struct {
	t       *Transport
	raw     *net.TCPConn // also what keeps the descriptor alive: a collected conn would be closed
	seen    *witness
	tls     *tls.Conn
	dialled bool
	peer    Peer // as dialled; zero on an accepted link
	agree   bool

	mu       sync.Mutex
	hello    Hello // the peer's
	held     bool
	holdTurn int
	release  func()
	ended    bool

	raft, agent chan outFrame
	queued      atomic.Int64
	wake        chan struct{} // something is queued that should leave now
	helloDue    chan struct{}
	pingDue     chan struct{}
	wrote       atomic.Bool // since the last look of the pinger
	stop        chan struct{}
	stopOnce    sync.Once
	goodbye     atomic.Bool // we say goodbye when stopping
	local       atomic.Bool // we closed it
	leaving     atomic.Bool // the peer has said goodbye
	writerErr   error       // read after the writer has ended
	writerDone  chan struct{}
}

func (t *Transport) newLink(raw *net.TCPConn, dialled bool) *link {
	l := &link{
		t: t, raw: raw, seen: newWitness(raw), dialled: dialled,
		raft: make(chan outFrame, raftQueue), agent: make(chan outFrame, agentQueue),
		wake: make(chan struct{}, 1), helloDue: make(chan struct{}, 1), pingDue: make(chan struct{}, 1), stop: make(chan struct{}), writerDone: make(chan struct{}),
	}
	l.setSocketOptions()
	l.hold()
	return l
}

// setSocketOptions is best effort: a link without them is slower to notice silence, and nothing else.
func (l *link) setSocketOptions() {
	_ = l.raw.SetNoDelay(true)
	if rc, err := l.raw.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout,
				int(l.t.opts.Silence/time.Millisecond))
		})
	}
}

// tcpUserTimeout is Linux' TCP_USER_TIMEOUT, which package syscall does not name.
const tcpUserTimeout = 18

// hold asks for the socket to be held twice, and says so in a new Hello once it is. An earlier claim is withdrawn
// first.
func (l *link) hold() {
	l.withdraw()
	if l.t.opts.Holder == nil {
		return
	}
	l.mu.Lock()
	turn := l.holdTurn
	l.mu.Unlock()
	go func() {
		release, err := l.t.opts.Holder.Hold(l.raw)
		l.mu.Lock()
		current := !l.ended && turn == l.holdTurn
		if current && err == nil {
			l.held, l.release = true, release
		}
		l.mu.Unlock()
		if err != nil {
			if current { // that a link which has ended is not held means nothing
				l.t.note("hold", "link is not held twice", "host", l.raw.RemoteAddr().String(), "err", err)
			}
			return
		}
		if !current {
			release()
			return
		}
		l.sayHello()
	}()
}

// withdraw takes back the claim that the socket is held twice.
func (l *link) withdraw() {
	l.mu.Lock()
	release, was := l.release, l.held
	l.held, l.release = false, nil
	l.holdTurn++
	l.mu.Unlock()
	if was {
		l.sayHello()
	}
	if release != nil {
		release()
	}
}

func (l *link) sayHello() {
	signal(l.helloDue)
	signal(l.wake)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (l *link) ownHello() ([]byte, error) {
	h := l.t.opts.Hello()
	h.Name = l.t.opts.Self
	h.Protocol = protocolVersion
	h.Local, h.Remote = l.raw.LocalAddr().String(), l.raw.RemoteAddr().String()
	l.mu.Lock()
	h.HeldTwice = l.held
	l.mu.Unlock()
	b, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode hello: %w", err)
	}
	return b, nil
}

func (l *link) peerHello() Hello {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hello
}

// refusal is a peer that proved who it is and is not welcome all the same.
type refusal struct{ err error }

func (r refusal) Error() string { return "peer refused: " + r.err.Error() }
func (r refusal) Unwrap() error { return r.err }

// establish does everything up to the point where the link is usable. On an error the link is closed; the peer's
// Hello may be set even then.
func (t *Transport) establish(ctx context.Context, raw *net.TCPConn, peer Peer, dialled bool) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	l := t.newLink(raw, dialled)
	l.peer = peer
	if dialled {
		conf := t.opts.ClientTLS.Clone()
		conf.ServerName = string(peer.Name)
		l.tls = tls.Client(l.seen, conf)
	} else {
		l.tls = tls.Server(l.seen, t.opts.ServerTLS)
	}
	err := l.tls.HandshakeContext(ctx)
	if err == nil {
		if deadline, ok := ctx.Deadline(); ok {
			_ = raw.SetDeadline(deadline)
		}
		err = l.greet()
		_ = raw.SetDeadline(time.Time{})
	}
	if err != nil {
		l.local.Store(true)
		l.finish()
		return l, err
	}
	l.agree = addressesAgree(raw, l.hello)
	return l, nil
}

// greet exchanges Hellos and judges the peer's.
func (l *link) greet() error {
	name, err := certificateName(l.tls.ConnectionState())
	if err != nil {
		return err
	}
	own, err := l.ownHello()
	if err != nil {
		return err
	}
	if _, err := l.tls.Write(append(appendHeader(nil, KindHello, len(own)), own...)); err != nil {
		return fmt.Errorf("send hello: %w", err)
	}
	kind, payload, err := readFrame(l.tls)
	if err != nil {
		return fmt.Errorf("receive hello: %w", err)
	}
	if kind != KindHello {
		return fmt.Errorf("receive hello: %w: kind %q comes first", errFrame, byte(kind))
	}
	h, err := parseHello(payload)
	if err != nil {
		return err
	}
	if err := l.identify(h, name); err != nil {
		return err
	}
	l.mu.Lock()
	l.hello = h
	l.mu.Unlock()
	if err := l.t.opts.Accept(h); err != nil {
		return refusal{err}
	}
	return nil
}

// certificateName is the node name that the peer's verified certificate is for: its first alternative name.
func certificateName(s tls.ConnectionState) (cluster.NodeName, error) {
	if len(s.VerifiedChains) == 0 || len(s.PeerCertificates[0].DNSNames) == 0 {
		return "", errors.New("read peer name: no verified certificate with a name")
	}
	return cluster.NodeName(s.PeerCertificates[0].DNSNames[0]), nil
}

func (l *link) identify(h Hello, certificate cluster.NodeName) error {
	if h.Name != certificate {
		return fmt.Errorf("receive hello: peer calls itself %q, its certificate is for %q", h.Name, certificate)
	}
	if h.Name == l.t.opts.Self {
		return fmt.Errorf("receive hello: peer has our own name %q", h.Name)
	}
	if l.dialled && h.Name != l.peer.Name {
		return fmt.Errorf("receive hello: dialled %q, got %q", l.peer.Name, h.Name)
	}
	return nil
}

// read carries frames to the handler until the link ends.
func (l *link) read() error {
	r := bufio.NewReaderSize(patientReader{l}, 16<<10)
	for {
		kind, payload, err := readFrame(r)
		if err != nil {
			return err
		}
		switch kind {
		case KindPing:
		case KindGoodbye:
			l.leaving.Store(true)
			return nil
		case KindHello:
			if err := l.helloAgain(payload); err != nil {
				return err
			}
		default:
			l.t.opts.Handler.Message(Message{From: l.peerHello(), Kind: kind, Payload: payload})
		}
	}
}

// patientReader gives every read the same patience, so that a large frame on a slow line is not a silent link.
type patientReader struct{ l *link }

func (p patientReader) Read(b []byte) (int, error) {
	if err := p.l.raw.SetReadDeadline(time.Now().Add(p.l.t.opts.Silence)); err != nil {
		return 0, err
	}
	return p.l.tls.Read(b)
}

func (l *link) helloAgain(payload []byte) error {
	h, err := parseHello(payload)
	if err != nil {
		return err
	}
	old := l.peerHello()
	if h.Name != old.Name || h.Node != old.Node || h.Boot != old.Boot || !slices.Equal(h.Boots, old.Boots) || h.Local != old.Local ||
		h.Remote != old.Remote || h.PID1 != old.PID1 {
		return fmt.Errorf("receive hello: peer %q has become another on one connection", old.Name)
	}
	l.mu.Lock()
	l.hello = h
	l.mu.Unlock()
	if err := l.t.opts.Accept(h); err != nil {
		l.shut(false)
		return refusal{err}
	}
	if !reflect.DeepEqual(h, old) {
		l.t.opts.Handler.HelloChanged(HelloChanged{Peer: h, Dialled: l.dialled})
	}
	return nil
}

// shut closes the link on purpose. It returns at once; the writer says what there is to say.
func (l *link) shut(goodbye bool) {
	l.stopOnce.Do(func() {
		l.local.Store(true)
		l.goodbye.Store(goodbye)
		_ = l.raw.SetWriteDeadline(time.Now().Add(closeTimeout))
		close(l.stop)
	})
}

// finish ends a link: TLS close and shutdown(2) of both directions first, because with a second holder close(2) alone
// would tell the peer nothing; then the holder lets go; then our own descriptor goes.
func (l *link) finish() {
	_ = l.raw.SetDeadline(time.Now().Add(closeTimeout))
	if l.local.Load() && l.tls != nil {
		_ = l.tls.CloseWrite()
	}
	_ = l.raw.CloseWrite()
	_ = l.raw.CloseRead()
	l.mu.Lock()
	l.ended = true
	release := l.release
	l.release = nil
	l.mu.Unlock()
	if release != nil {
		release()
	}
	_ = l.raw.Close()
}

// cause judges the end of the link from what the kernel said. It is called after both reader and writer have ended.
func (l *link) cause(readErr error) Cause {
	raw := l.seen.first()
	switch {
	case l.local.Load():
		return CauseLocal
	case l.leaving.Load():
		return CauseGoodbye
	case errors.Is(readErr, os.ErrDeadlineExceeded), errors.Is(raw, syscall.ETIMEDOUT),
		errors.Is(l.writerErr, syscall.ETIMEDOUT):
		// The kernel reports a time-out once: if the writer got it, the reader sees a plain end of file.
		return CauseTimeout
	case raw == nil && (errors.Is(readErr, io.EOF) || errors.Is(readErr, io.ErrUnexpectedEOF)):
		return CauseClosed
	case errors.Is(raw, io.EOF):
		return CauseEOF
	case errors.Is(raw, syscall.ECONNRESET):
		return CauseReset
	}
	return CauseError
}
