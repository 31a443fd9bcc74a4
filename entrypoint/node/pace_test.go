// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"testing"
	"time"
)

// A beat reaches everybody, and who does not listen holds up nobody.
func TestBeat(t *testing.T) {
	b, err := newBeat()
	if err != nil {
		t.Fatal(err)
	}
	heard, deaf := b.listen(), b.listen()
	each := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	began := time.Now()
	go func() { ended <- b.run(ctx, func() { each <- struct{}{} }) }()
	const beats = 4
	for range beats {
		select {
		case <-heard:
		case <-time.After(10 * time.Second):
			t.Fatal("no beat within 10 s")
		}
	}
	if took := time.Since(began); took < (beats-1)*beatEvery {
		t.Fatalf("%d beats in %s", beats, took)
	}
	if len(each) < beats-1 || len(deaf) != 1 {
		t.Fatalf("called at %d beats; %d for who does not listen", len(each), len(deaf))
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// A node gets one processor after a second of rest, and all of them at once when it is disturbed.
func TestPace(t *testing.T) {
	const all = 8
	used := make(chan int, 10)
	p := newPace()
	p.use = func(n int) int {
		if n > 0 {
			used <- n
		}
		return all
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { p.run(ctx); close(done) }()
	next := func(want int) time.Duration {
		t.Helper()
		began := time.Now()
		select {
		case n := <-used:
			if n != want {
				t.Fatalf("%d processors, want %d", n, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("not given %d processors within 10 s", want)
		}
		return time.Since(began)
	}
	p.set(true)
	if took := next(1); took < restFor/2 {
		t.Fatalf("one processor after %s of rest", took)
	}
	p.set(false)
	next(all)
	p.set(true)
	p.set(false) // within the second
	next(all)
	cancel()
	<-done
	for len(used) > 0 {
		next(all)
	}
}
