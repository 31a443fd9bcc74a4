// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bufio"
	"time"
)

// enqueue never blocks. What does not fit is dropped; raft and the agent both repeat what matters.
func (l *link) enqueue(kind Kind, payload []byte) bool {
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
	ping := time.NewTicker(l.t.opts.Ping)
	defer ping.Stop()
	for {
		var f outFrame
		select {
		case <-l.stop:
			l.bid(w)
			return
		case <-l.helloDue:
			f = outFrame{kind: KindHello}
		case f = <-l.agent:
		case f = <-l.raft:
		case <-ping.C:
			f = outFrame{kind: KindPing}
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
