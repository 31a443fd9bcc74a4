// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// quietShell does nothing, and says what of it was asked for.
type quietShell struct {
	calm chan bool
	sent chan cluster.Envelope
}

func (s quietShell) Send(_ cluster.Incarnation, env cluster.Envelope, _ bool) { s.sent <- env }
func (s quietShell) Calm(yes bool)                                            { s.calm <- yes }
func (quietShell) Propose(cluster.Command)                                    {}
func (quietShell) ProposeConf(cluster.MemberChange)                           {}
func (quietShell) Transfer(cluster.Incarnation)                               {}
func (quietShell) ForgetLeader(bool)                                          {}
func (quietShell) SavePromise(cluster.Epoch) error                            { return nil }
func (quietShell) Deadline(time.Duration)                                     {}
func (quietShell) Answer(cluster.Response)                                    {}
func (quietShell) Fatal(error)                                                {}
func (quietShell) Work(ctx context.Context, _ Task, _ func(string)) (Result, error) {
	<-ctx.Done()
	return Result{}, ctx.Err()
}

// A loop at rest steps at the beats that it is given and has no timer of its own; when the rest ends it says so.
func TestLoopAtRest(t *testing.T) {
	lab := serving(t)
	var now atomic.Int64
	now.Store(int64(lab.now))
	sh := quietShell{calm: make(chan bool, 10), sent: make(chan cluster.Envelope, 1000)}
	beat := make(chan struct{})
	l := NewLoop(LoopOptions{
		Shell: sh, Beat: beat, Log: slog.New(slog.DiscardHandler), Clock: func() time.Duration { return time.Duration(now.Load()) },
	})
	l.m = lab.m
	go l.Run(t.Context())
	expect := func(want bool) {
		t.Helper()
		select {
		case yes := <-sh.calm:
			if yes != want {
				t.Fatalf("calm: %v, want %v", yes, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("not told that calm is %v within 10 s", want)
		}
	}
	expect(true)
	for len(sh.sent) > 0 {
		<-sh.sent
	}
	now.Add(int64(statusToAll))
	select {
	case e := <-sh.sent:
		t.Fatalf("sent without a beat: %+v", e)
	case <-time.After(3 * calmTick):
	}
	beat <- struct{}{}
	select {
	case <-sh.sent:
	case <-time.After(10 * time.Second):
		t.Fatal("nothing sent 10 s after a beat")
	}
	l.Post(Exited{Why: "a test"})
	expect(false)
}
