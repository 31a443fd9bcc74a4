// SPDX-License-Identifier: Apache-2.0

package transport

import "testing"

// A frame that may wait wakes no writer until another frame comes or Flush is called, and never overtakes.
func TestFrameWaitsForCompany(t *testing.T) {
	l := &link{agent: make(chan outFrame, 4), raft: make(chan outFrame, 4), wake: make(chan struct{}, 1)}
	tr := &Transport{links: []*link{l}}
	tr.Flush()
	if len(l.wake) != 0 {
		t.Fatal("a link with nothing to send was woken")
	}
	l.enqueue(KindAgent, []byte("status"), true)
	if len(l.wake) != 0 {
		t.Fatal("a frame that may wait woke the writer")
	}
	tr.Flush()
	if len(l.wake) != 1 {
		t.Fatal("Flush left a frame behind")
	}
	<-l.wake
	l.enqueue(KindAgent, []byte("grant"), false)
	if len(l.wake) != 1 {
		t.Fatal("a frame in a hurry did not wake the writer")
	}
	for _, want := range []string{"status", "grant"} {
		if f, ok := l.next(); !ok || string(f.payload) != want {
			t.Fatalf("%q leaves, want %q", f.payload, want)
		}
	}
}
