// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bufio"
	"time"
)

// pings keeps links from being silent. One timer serves all of them, so that they cost one wake-up.
func (t *Transport) pings() {
	defer t.wg.Done()
	ticker := time.NewTicker(t.opts.Ping)
	defer ticker.Stop()
	for {
		select {
		case <-t.ctx.Done():
			return
		case <-ticker.C:
		}
		for _, l := range t.all() {
			if !l.wrote.Swap(false) {
				signal(l.pingDue)
				signal(l.wake)
			}
		}
	}
}

// Flush sends off the frames that were told to wait.
func (t *Transport) Flush() {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, l := range t.links {
		if len(l.agent) > 0 {
			signal(l.wake)
		}
	}
}

// enqueue never blocks. What does not fit is dropped; raft and the agent both repeat what matters. A frame that may wait
// leaves with the next one, or at the next Flush.
func (l *link) enqueue(kind Kind, payload []byte, wait bool) bool {
	size := int64(len(payload))
	if l.queued.Add(size) > maxQueuedBytes && size < l.queued.Load() {
		l.queued.Add(-size)
		return false
	}
	q := l.agent
	if kind == KindRaft {
		q = l.raft
	}
	select {
	case q <- outFrame{kind, payload}:
		if !wait {
			signal(l.wake)
		}
		return true
	default:
		l.queued.Add(-size)
		return false
	}
}

// write carries queued frames out until the link is stopped or a write fails. A failed write does not close the link:
// the reader must see for itself why it ended.
func (l *link) write() {
	defer close(l.writerDone)
	w := bufio.NewWriterSize(l.tls, 32<<10)
	for {
		select {
		case <-l.stop:
			l.bid(w)
			return
		case <-l.wake:
		}
		f, ok := l.next()
		if !ok {
			continue // it left with an earlier one
		}
		if l.writerErr = l.writeBatch(w, f); l.writerErr != nil {
			<-l.stop // by the reader's end, or by shut
			_ = l.raw.CloseRead()
			return
		}
	}
}

// writeBatch writes f and whatever else is waiting, the agent's frames first, and flushes once.
func (l *link) writeBatch(w *bufio.Writer, f outFrame) error {
	for {
		if f.kind == KindHello {
			own, err := l.ownHello()
			if err != nil {
				return err
			}
			f.payload = own
		}
		if err := writeFrame(w, f); err != nil {
			return err
		}
		if f.kind == KindRaft || f.kind == KindAgent {
			l.queued.Add(-int64(len(f.payload)))
		}
		var ok bool
		if f, ok = l.next(); !ok {
			l.wrote.Store(true)
			return w.Flush()
		}
	}
}

func (l *link) next() (outFrame, bool) {
	select {
	case <-l.helloDue:
		return outFrame{kind: KindHello}, true
	default:
	}
	select {
	case f := <-l.agent:
		return f, true
	default:
	}
	select {
	case f := <-l.raft:
		return f, true
	default:
	}
	select {
	case <-l.pingDue:
		return outFrame{kind: KindPing}, true
	default:
		return outFrame{}, false
	}
}

func writeFrame(w *bufio.Writer, f outFrame) error {
	if _, err := w.Write(appendHeader(w.AvailableBuffer(), f.kind, len(f.payload))); err != nil {
		return err
	}
	_, err := w.Write(f.payload)
	return err
}

// bid writes out what is queued and the goodbye, closes TLS and wakes our own reader. All of it is best effort
// within the deadline that shut has set.
func (l *link) bid(w *bufio.Writer) {
	if f, ok := l.next(); ok {
		l.writerErr = l.writeBatch(w, f)
	}
	if l.goodbye.Load() && l.writerErr == nil {
		l.writerErr = writeFrame(w, outFrame{kind: KindGoodbye})
		if l.writerErr == nil {
			l.writerErr = w.Flush()
		}
	}
	_ = l.tls.CloseWrite()
	_ = l.raw.CloseWrite()
	_ = l.raw.CloseRead()
}
