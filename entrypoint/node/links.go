// SPDX-License-Identifier: Apache-2.0

package node

import (
	"net"
	"sync"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/raft"
	"github.com/pgquorum/pgquorum/raft/transport"
)

// links turns the transport's events into the agent's. Before the agent's loop listens it remembers which links are
// up, and gives messages of the formation to the former.
type links struct {
	n *node

	mu     sync.Mutex
	l      *agent.Loop
	up     map[linkKey]agent.LinkUp
	count  map[linkKey]int // a new link may be up before the old one's end is heard
	former chan formed
}

type linkKey struct {
	inc  cluster.Incarnation
	boot cluster.Boot
	out  bool
}

// formed is an event of the time before there is a cluster.
type formed struct {
	env  cluster.Envelope
	name cluster.NodeName
	gone cluster.Incarnation
}

func newLinks(n *node) *links {
	return &links{n: n, up: map[linkKey]agent.LinkUp{}, count: map[linkKey]int{}, former: make(chan formed, 256)}
}

func (k *links) loop() *agent.Loop {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.l
}

// attach lets the loop hear events, the links that are up first.
func (k *links) attach(l *agent.Loop) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.l = l
	for _, e := range k.up {
		l.Post(e)
	}
}

func (k *links) post(e agent.Event) {
	if l := k.loop(); l != nil {
		l.Post(e)
	}
}

// LinkUp is called by the transport.
func (k *links) LinkUp(e transport.LinkUp) { k.link(e.Peer, e.Dialled, 1) }

// HelloChanged is called by the transport.
func (k *links) HelloChanged(e transport.HelloChanged) { k.link(e.Peer, e.Dialled, 0) }

func (k *links) link(h transport.Hello, dialled bool, more int) {
	up := agent.LinkUp{Inc: h.Node, Name: h.Name, Boot: h.Boot, Out: dialled, HeldTwice: h.HeldTwice}
	if dialled {
		up.Host = k.address(h)
	}
	k.mu.Lock()
	key := linkKey{h.Node, h.Boot, dialled}
	k.up[key] = up
	k.count[key] += more
	k.mu.Unlock()
	k.post(up)
}

// address is where we reached the peer: its Postgres listens there too.
func (k *links) address(h transport.Hello) string {
	if tr := k.n.tr.Load(); tr != nil {
		for _, l := range tr.Links() {
			if l.Dialled && l.Peer.Node == h.Node {
				if host, _, err := net.SplitHostPort(l.RemoteAddress); err == nil {
					return host
				}
			}
		}
	}
	host, _, err := net.SplitHostPort(h.Local)
	if err != nil {
		return ""
	}
	return host
}

// evidence is what the end of a link says of the peer's PID 1 (PROTOCOL 6.2, 6.3). Whether its socket was held twice
// decides the margin (5.7.d), not whether it is evidence.
func evidence(e transport.LinkDown) *cluster.Evidence {
	h := e.Peer
	if e.Dialled && (e.Cause == transport.CauseEOF || e.Cause == transport.CauseReset) &&
		(e.Redial == transport.RedialRefused || e.Redial == transport.RedialOtherBoot) && e.AddressesAgree && h.PID1 {
		return &cluster.Evidence{Inc: h.Node, Boot: h.Boot, HeldTwice: e.HeldTwice}
	}
	return nil
}

// LinkDown is called by the transport.
func (k *links) LinkDown(e transport.LinkDown) {
	h := e.Peer
	down := agent.LinkDown{Inc: h.Node, Boot: h.Boot, Out: e.Dialled, Evidence: evidence(e)}
	key := linkKey{h.Node, h.Boot, e.Dialled}
	k.mu.Lock()
	k.count[key]--
	last := k.count[key] <= 0
	if last {
		delete(k.up, key)
		delete(k.count, key)
	}
	k.mu.Unlock()
	if !last && down.Evidence == nil {
		return
	}
	k.early(formed{gone: h.Node})
	k.post(down)
}

// Message is called by the transport.
func (k *links) Message(e transport.Message) {
	switch e.Kind {
	case transport.KindRaft:
		if r := k.n.raft; r != nil && k.loop() != nil {
			if m, err := raft.Decode(*k.n.clusterID.Load(), e.Payload); err == nil {
				r.Step(m)
			}
		}
	case transport.KindAgent:
		env, err := cluster.DecodeEnvelope(e.Payload)
		if err != nil {
			k.n.log.Warn("message of a peer cannot be read", "peer", string(e.From.Name), "err", err)
			return
		}
		k.message(e.From, env)
	case transport.KindHello, transport.KindGoodbye, transport.KindPing:
	}
}

func (k *links) message(from transport.Hello, env cluster.Envelope) {
	if env.Offer != nil || env.Genesis != nil {
		if k.loop() == nil {
			k.early(formed{env: env, name: from.Name})
		} else if env.Offer != nil {
			k.n.answerOffer(from.Name, *env.Offer)
		}
		return
	}
	if id := *k.n.clusterID.Load(); id == "" || env.ClusterID != id {
		return
	}
	k.post(agent.Received{From: from.Node, Boot: from.Boot, Env: env})
}

func (k *links) early(f formed) {
	select {
	case k.former <- f:
	default: // it is repeated
	}
}
