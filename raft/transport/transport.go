// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// Transport is all links of one node. Its methods are safe for concurrent use.
type Transport struct {
	opts     Options
	listener net.Listener
	ctx      context.Context
	cancel   context.CancelFunc
	peersDue chan struct{}
	seats    chan struct{} // handshakes of accepted connections under way
	wg       sync.WaitGroup

	mu      sync.RWMutex
	links   []*link // in the order in which they came up
	closing bool
	// why a dialled peer has no link; in why.go
	unreached map[cluster.NodeName]string

	notes throttle
	stats counters
}

type counters struct{ sent, dropped, refused atomic.Uint64 }

// Stats counts since the start.
type Stats struct {
	Sent    uint64 // frames queued on a link
	Dropped uint64 // frames for which there was no link or no room
	Refused uint64 // accepted connections that did not become a link
}

// LinkInfo describes a link for status output.
type LinkInfo struct {
	Peer           Hello
	Dialled        bool
	AddressesAgree bool
	HeldTwice      bool // by our own side
	RemoteAddress  string
}

// New listens, and starts to dial every peer.
func New(o Options) (*Transport, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	ln, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("start transport: %w", err)
	}
	t := &Transport{
		opts: o, listener: ln,
		peersDue:  make(chan struct{}, 1),
		seats:     make(chan struct{}, maxHandshakes),
		notes:     throttle{last: map[string]time.Time{}},
		unreached: map[cluster.NodeName]string{},
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.wg.Add(3)
	go t.acceptLoop()
	go t.keepPeers()
	go t.pings()
	return t, nil
}

// Addr is where the transport listens.
func (t *Transport) Addr() net.Addr { return t.listener.Addr() }

// Send queues a raft or agent frame for an incarnation. It never blocks; false means dropped. The payload must not be
// changed any more.
func (t *Transport) Send(to cluster.Incarnation, kind Kind, payload []byte) bool {
	return t.send(kind, payload, false, func(h *Hello) bool { return h.Node == to })
}

// SendLater is Send of a frame that is in no hurry: it leaves with the next one, or at the next Flush.
func (t *Transport) SendLater(to cluster.Incarnation, kind Kind, payload []byte) bool {
	return t.send(kind, payload, true, func(h *Hello) bool { return h.Node == to })
}

// SendName is Send by name, for the time before there are members.
func (t *Transport) SendName(to cluster.NodeName, kind Kind, payload []byte) bool {
	return t.send(kind, payload, false, func(h *Hello) bool { return h.Name == to })
}

func (t *Transport) send(kind Kind, payload []byte, wait bool, match func(*Hello) bool) bool {
	ok := (kind == KindRaft || kind == KindAgent) && len(payload) <= kind.MaxPayload()
	if ok {
		l := t.pick(match)
		ok = l != nil && l.enqueue(kind, payload, wait)
	}
	if ok {
		t.stats.sent.Add(1)
	} else {
		t.stats.dropped.Add(1)
	}
	return ok
}

// pick prefers the newest link that we dialled.
func (t *Transport) pick(match func(*Hello) bool) *link {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var best *link
	for _, l := range slices.Backward(t.links) {
		l.mu.Lock()
		ok := match(&l.hello)
		l.mu.Unlock()
		if ok && l.dialled {
			return l
		}
		if ok && best == nil {
			best = l
		}
	}
	return best
}

// Links describes all links that are up.
func (t *Transport) Links() []LinkInfo {
	var out []LinkInfo
	for _, l := range t.all() {
		l.mu.Lock()
		out = append(out, LinkInfo{
			Peer: l.hello, Dialled: l.dialled, AddressesAgree: l.agree, HeldTwice: l.held,
			RemoteAddress: l.raw.RemoteAddr().String(),
		})
		l.mu.Unlock()
	}
	return out
}

// Stats returns the counters.
func (t *Transport) Stats() Stats {
	return Stats{Sent: t.stats.sent.Load(), Dropped: t.stats.dropped.Load(), Refused: t.stats.refused.Load()}
}

// PeersChanged makes the transport look at Options.Peers now.
func (t *Transport) PeersChanged() {
	signal(t.peersDue)
}

// RefreshHello sends our Hello again on every link, because something in it has changed.
func (t *Transport) RefreshHello() {
	for _, l := range t.all() {
		l.sayHello()
	}
}

// Withdraw takes back on every link that it is held twice: the holder is gone.
func (t *Transport) Withdraw() {
	for _, l := range t.all() {
		l.withdraw()
	}
}

// Rehold withdraws, and asks the (new) holder for every link again.
func (t *Transport) Rehold() {
	for _, l := range t.all() {
		l.hold()
	}
}

// Recheck asks Options.Accept about every link again and closes those that it refuses now.
func (t *Transport) Recheck() {
	for _, l := range t.all() {
		if err := t.opts.Accept(l.peerHello()); err != nil {
			t.opts.Logger.Info("link closed", "peer", string(l.peerHello().Name), "err", err)
			l.shut(false)
		}
	}
}

// Close closes all links, with a goodbye if this PID 1 leaves on purpose and its Postgres has ended (PROTOCOL 6.1).
// The port is closed last: a peer that redials meanwhile must not be refused before it has read the goodbye.
func (t *Transport) Close(goodbye bool) error {
	t.mu.Lock()
	t.closing = true
	t.mu.Unlock()
	links := t.all()
	for _, l := range links {
		l.shut(goodbye)
	}
	deadline := time.After(closeTimeout)
	for _, l := range links {
		select {
		case <-l.writerDone:
		case <-deadline:
		}
	}
	t.cancel()
	err := t.listener.Close()
	t.wg.Wait()
	if err != nil {
		return fmt.Errorf("close transport: %w", err)
	}
	return nil
}

func (t *Transport) all() []*link {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Clone(t.links)
}

func (t *Transport) acceptLoop() {
	defer t.wg.Done()
	for {
		c, err := t.listener.Accept()
		if t.ctx.Err() != nil {
			if err == nil {
				_ = c.Close()
			}
			return
		}
		if err != nil {
			t.note("accept", "connection not accepted", "err", err)
			select {
			case <-t.ctx.Done():
			case <-time.After(t.opts.BackoffMin):
			}
			continue
		}
		select {
		case t.seats <- struct{}{}:
			t.wg.Add(1)
			go t.accepted(c.(*net.TCPConn))
		default:
			t.stats.refused.Add(1)
			t.note("seats", "too many connections that are not authenticated", "limit", maxHandshakes)
			_ = c.Close()
		}
	}
}

func (t *Transport) accepted(raw *net.TCPConn) {
	defer t.wg.Done()
	l, err := t.establish(t.ctx, raw, Peer{}, false)
	<-t.seats
	if err != nil {
		t.stats.refused.Add(1)
		if t.ctx.Err() == nil {
			host, _, _ := net.SplitHostPort(raw.RemoteAddr().String())
			t.note("accept "+host, "incoming connection refused", "host", host, "reason", strange(err), "err", err)
		}
		return
	}
	t.serve(t.ctx, l)
}

// serve runs a link that is established until it ends, and reports how it ended. It returns the link that the redial
// got, if any.
func (t *Transport) serve(ctx context.Context, l *link) *link {
	if !t.enter(l) {
		l.local.Store(true)
		l.finish()
		return nil
	}
	peer := l.peerHello()
	if l.dialled {
		t.reached(l.peer.Name)
	}
	t.opts.Logger.Info("link up", "peer", string(peer.Name), "dialled", l.dialled,
		"address", l.raw.RemoteAddr().String())
	t.opts.Handler.LinkUp(LinkUp{Peer: peer, Dialled: l.dialled, AddressesAgree: l.agree})
	go l.write()
	unhook := context.AfterFunc(ctx, func() { l.shut(false) })
	readErr := l.read()
	end := time.Now()
	unhook()
	t.leave(l)
	// Wake the writer without claiming that the end was ours.
	l.stopOnce.Do(func() { close(l.stop) })
	patience := end.Add(closeTimeout) // time for a TLS close, unless the connection is gone anyhow
	if raw := l.seen.first(); raw != nil && !errors.Is(raw, os.ErrDeadlineExceeded) {
		patience = end
	}
	_ = l.raw.SetWriteDeadline(patience)
	<-l.writerDone
	down := LinkDown{Dialled: l.dialled, Cause: l.cause(readErr), AddressesAgree: l.agree, At: end}
	l.finish()
	var next *link
	if l.dialled && (down.Cause == CauseEOF || down.Cause == CauseReset) && ctx.Err() == nil {
		down.Redial, next = t.redial(ctx, l)
	}
	down.Peer = l.peerHello()
	down.HeldTwice = down.Peer.HeldTwice
	t.opts.Logger.Info("link down", "peer", string(peer.Name), "dialled", l.dialled, "cause", down.Cause.String(),
		"redial", down.Redial.String(), "held_twice", down.HeldTwice, "err", readErr)
	t.opts.Handler.LinkDown(down)
	return next
}

// enter makes a link known. A peer that dials again has given up its older link; an older link of another boot is
// left to end by itself, because how it ends says something about that boot.
func (t *Transport) enter(l *link) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing {
		return false
	}
	var same []*link
	h := l.peerHello()
	for _, o := range t.links {
		if oh := o.peerHello(); !l.dialled && !o.dialled && oh.Name == h.Name {
			if oh.Boot == h.Boot {
				o.shut(false)
			} else {
				same = append(same, o)
			}
		}
	}
	if len(same) >= maxAccepted {
		same[0].shut(false)
	}
	t.links = append(t.links, l)
	return true
}

func (t *Transport) leave(l *link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.links = slices.DeleteFunc(t.links, func(o *link) bool { return o == l })
}

// note logs a failure that repeats: the first time, and then once a minute for each key.
func (t *Transport) note(key, message string, args ...any) {
	if t.notes.allow(key) {
		t.opts.Logger.Warn(message, args...) //nolint:sloglint // callers give constants
	}
}

const maxNotes = 256

type throttle struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// forget makes the next failure of a kind that begins so one to log again.
func (n *throttle) forget(prefix string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.DeleteFunc(n.last, func(key string, _ time.Time) bool { return strings.HasPrefix(key, prefix) })
}

func (n *throttle) allow(key string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	if last, ok := n.last[key]; ok && now.Sub(last) < logInterval {
		return false
	}
	if len(n.last) >= maxNotes {
		clear(n.last)
	}
	n.last[key] = now
	return true
}
