// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// Peer is where a node is said to be. Host is a name, looked up at every dial, or an address.
type Peer struct {
	Name cluster.NodeName
	Host string
	Port int
}

// Holder keeps a second copy of a connection's socket in another process (PROTOCOL 6.2.b). Hold returns once that
// process has confirmed it; release tells it to let go. Hold may be slow, it is called on a goroutine of its own.
// An implementation reaches the descriptor by c.SyscallConn, never by c.File, which would make the socket blocking.
type Holder interface {
	Hold(c *net.TCPConn) (release func(), err error)
}

// Handler takes the events. It is called on the goroutine of the link in question (several at a time for several
// links) and must not block: hand the event on and return. For one link: LinkUp, then any, LinkDown last.
type Handler interface {
	LinkUp(LinkUp)
	LinkDown(LinkDown)
	HelloChanged(HelloChanged)
	Message(Message)
}

// LinkUp says that a peer is connected and was accepted.
type LinkUp struct {
	Peer           Hello
	Dialled        bool // by us
	AddressesAgree bool
}

// HelloChanged says that a peer has sent another Hello on a link that is up.
type HelloChanged struct {
	Peer    Hello
	Dialled bool
}

// Message is a raft or agent frame. The payload is the receiver's to keep.
type Message struct {
	From    Hello
	Kind    Kind
	Payload []byte
}

// Cause is why a link ended; see the package comment for which mean what.
type Cause uint8

// The causes.
const (
	CauseError Cause = iota
	CauseEOF
	CauseReset
	CauseLocal
	CauseTimeout
	CauseGoodbye
	CauseClosed
)

func (c Cause) String() string {
	switch c {
	case CauseError:
		return "error"
	case CauseEOF:
		return "eof"
	case CauseReset:
		return "reset"
	case CauseLocal:
		return "local"
	case CauseTimeout:
		return "timeout"
	case CauseGoodbye:
		return "goodbye"
	case CauseClosed:
		return "closed"
	}
	return fmt.Sprintf("cause %d", uint8(c))
}

// Redial is what the immediate redial of the closed link's own remote address came to.
type Redial uint8

// The outcomes.
const (
	RedialNotTried Redial = iota
	RedialRefused
	RedialOtherBoot
	RedialSameBoot
	RedialNoAnswer
)

func (r Redial) String() string {
	switch r {
	case RedialNotTried:
		return "not tried"
	case RedialRefused:
		return "refused"
	case RedialOtherBoot:
		return "other boot"
	case RedialSameBoot:
		return "same boot"
	case RedialNoAnswer:
		return "no answer"
	}
	return fmt.Sprintf("redial %d", uint8(r))
}

// LinkDown says how a link ended. Peer is its last Hello there.
type LinkDown struct {
	Peer           Hello
	Dialled        bool
	Cause          Cause
	Redial         Redial
	HeldTwice      bool
	AddressesAgree bool
	At             time.Time // when the end was seen, before the redial; carries Go's monotonic reading
}

// ProvesDeath reports whether this alone is evidence that the peer's PID 1, and with it every process of its
// container, is gone (PROTOCOL 6.2, 6.3). It names Peer.Boot. Whether it may be used is the agent's to judge (6.4).
func (d LinkDown) ProvesDeath() bool {
	return d.Dialled && (d.Cause == CauseEOF || d.Cause == CauseReset) &&
		(d.Redial == RedialRefused || d.Redial == RedialOtherBoot) &&
		d.HeldTwice && d.AddressesAgree && d.Peer.PID1
}

// Options are what a Transport is made of. Zero durations mean the defaults.
type Options struct {
	Self   cluster.NodeName
	Listen string        // host:port to listen on
	Peers  func() []Peer // asked every second and at PeersChanged; our own name in it is skipped

	ServerTLS *tls.Config
	ClientTLS *tls.Config // ServerName is set for each peer

	Hello   func() Hello      // our own; asked at every link and at RefreshHello
	Accept  func(Hello) error // refuses a link: a volume that was rolled back, another cluster; also asked at Recheck
	Handler Handler
	Holder  Holder // nil: no link is held twice
	Logger  *slog.Logger

	BackoffMin time.Duration // 20 ms
	BackoffMax time.Duration // 500 ms
	Ping       time.Duration // 1 s of silence of our own before we send a ping
	Silence    time.Duration // 3 s of silence of the peer before the link is closed
}

// Bounds and times that nobody needs to change.
const (
	dialTimeout      = time.Second
	handshakeTimeout = 2 * time.Second
	redialLimit      = 200 * time.Millisecond
	redialPause      = 2 * time.Millisecond
	closeTimeout     = 300 * time.Millisecond
	peersInterval    = time.Second
	logInterval      = time.Minute
	maxHandshakes    = 32
	maxAccepted      = 4 // links that one name may have dialled to us
	raftQueue        = 1024
	agentQueue       = 512
	maxQueuedBytes   = 32 << 20
)

func (o *Options) complete() error {
	if o.Self == "" || o.Peers == nil || o.ServerTLS == nil || o.ClientTLS == nil || o.Hello == nil ||
		o.Accept == nil || o.Handler == nil || o.Logger == nil {
		return errors.New("start transport: an option is missing")
	}
	for _, d := range []struct {
		v *time.Duration
		d time.Duration
	}{
		{&o.BackoffMin, 20 * time.Millisecond},
		{&o.BackoffMax, 500 * time.Millisecond},
		{&o.Ping, time.Second},
		{&o.Silence, 3 * time.Second},
	} {
		if *d.v == 0 {
			*d.v = d.d
		}
	}
	return nil
}
