// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"net"
	"strconv"
	"syscall"
	"time"
)

// keepPeers starts and ends dial loops as the list of peers changes.
func (t *Transport) keepPeers() {
	defer t.wg.Done()
	running := map[Peer]context.CancelFunc{}
	ticker := time.NewTicker(peersInterval)
	defer ticker.Stop()
	for {
		wanted := map[Peer]bool{}
		for _, p := range t.opts.Peers() {
			if p.Name != t.opts.Self {
				wanted[p] = true
			}
		}
		for p, cancel := range running {
			if !wanted[p] {
				cancel()
				delete(running, p)
			}
		}
		for p := range wanted {
			if running[p] == nil {
				ctx, cancel := context.WithCancel(t.ctx)
				running[p] = cancel
				t.wg.Add(1)
				go t.dialLoop(ctx, p)
			}
		}
		select {
		case <-t.ctx.Done():
			for _, cancel := range running {
				cancel()
			}
			return
		case <-t.peersDue:
		case <-ticker.C:
		}
	}
}

// dialLoop keeps one link to a peer up, for ever.
func (t *Transport) dialLoop(ctx context.Context, p Peer) {
	defer t.wg.Done()
	backoff := t.opts.BackoffMin
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		l, err := t.dial(ctx, p)
		if err != nil {
			if ctx.Err() == nil {
				t.noteDial(p, err)
			}
			timer.Reset(backoff)
			backoff = min(2*backoff, t.opts.BackoffMax)
			continue
		}
		for l != nil {
			l = t.serve(ctx, l)
		}
		backoff = t.opts.BackoffMin
		timer.Reset(backoff)
	}
}

func (t *Transport) dial(ctx context.Context, p Peer) (*link, error) {
	raw, err := t.connect(ctx, net.JoinHostPort(p.Host, strconv.Itoa(p.Port)), dialTimeout)
	if err != nil {
		return nil, err
	}
	return t.establish(ctx, raw, p, true)
}

func (t *Transport) connect(ctx context.Context, address string, limit time.Duration) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: limit}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// redial asks the kernel at the other end of a link that has just died whether somebody still listens there. It goes
// to the very address of that link: a look-up might find another container by now. The link it gets, if any, is used.
//
// A process that is being killed closes its sockets one after the other, so a redial may still reach a listener that
// is about to go and is then cut off; that is no answer yet, and within the limit it is asked again.
func (t *Transport) redial(ctx context.Context, dead *link) (Redial, *link) {
	ctx, cancel := context.WithTimeout(ctx, redialLimit)
	defer cancel()
	address := dead.raw.RemoteAddr().String()
	for {
		raw, err := t.connect(ctx, address, redialLimit)
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			return RedialRefused, nil
		case err == nil:
			l, err := t.establish(ctx, raw, dead.peer, true)
			if r, known := compareBoots(dead.peerHello(), l.peerHello(), err); known {
				if err != nil {
					l = nil
				}
				return r, l
			}
		}
		select {
		case <-ctx.Done():
			return RedialNoAnswer, nil
		case <-time.After(redialPause):
		}
	}
}

// compareBoots judges an answer. A Hello that proved its name counts even if the peer is not welcome: what matters is
// that somebody else answers where the dead one did.
func compareBoots(dead, answer Hello, err error) (Redial, bool) {
	var refused refusal
	if err != nil && !errors.As(err, &refused) {
		return RedialNoAnswer, false
	}
	if answer.Boot == dead.Boot && answer.Node == dead.Node {
		return RedialSameBoot, true
	}
	return RedialOtherBoot, true
}
