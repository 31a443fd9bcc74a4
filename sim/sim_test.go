// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"os"
	"testing"
	"testing/cryptotest"
	"time"
)

func newWorld(t *testing.T, opt Options) *World {
	t.Helper()
	cryptotest.SetGlobalRandom(t, opt.Seed)
	if opt.Data == 0 {
		opt.Data, opt.Clients = 3, 3
	}
	if testing.Verbose() && opt.Out == nil && *flagTrace {
		opt.Out = os.Stdout
	}
	return New(opt)
}

func (w *World) startAll() {
	for _, n := range w.nodes {
		w.after(w.between(0, 500*time.Millisecond), n.start)
	}
}

func healthy(t *testing.T, w *World, d time.Duration) {
	t.Helper()
	began := w.now
	ok, err := w.Until(d, func() bool { return w.Healthy() == "" })
	if err != nil {
		t.Fatalf("seed %d: %v\n%s", w.opt.Seed, err, w.Tail())
	}
	if !ok {
		t.Fatalf("seed %d: after %s: %s\n%s", w.opt.Seed, d, w.Healthy(), w.Tail())
	}
	w.trace("test", "healthy after %s", w.now-began)
}

func TestForm(t *testing.T) {
	w := newWorld(t, Options{Seed: 1})
	w.startAll()
	healthy(t, w, 30*time.Second)
}

func TestFailover(t *testing.T) {
	w := newWorld(t, Options{Seed: 2})
	w.startAll()
	healthy(t, w, 30*time.Second)
	p := w.serving()
	at := w.now
	p.kill()
	ok, err := w.Until(10*time.Second, func() bool { return w.serving() != nil && w.check.lastAck > at })
	if err != nil || !ok {
		t.Fatalf("no failover: %v\n%s", err, w.Tail())
	}
	t.Logf("first write after %s", w.check.lastAck-at)
	p.start()
	healthy(t, w, 30*time.Second)
}
