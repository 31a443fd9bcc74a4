// SPDX-License-Identifier: Apache-2.0

package early

import (
	"syscall"
	"testing"
	"time"
)

// TestOnlyRunTakesSignals: Ctrl-C has to end an operator's command.
func TestOnlyRunTakesSignals(t *testing.T) {
	for _, args := range [][]string{{"pgquorum"}, {"pgquorum", "status", "--watch"}, {"pgquorum", "status", "run"}} {
		if begin(args) != nil {
			t.Errorf("%v takes signals", args)
		}
	}
	if begin([]string{"pgquorum", "run", "postgres"}) == nil {
		t.Error("run takes none")
	}
}

// TestSignalsOfBefore: what came before anybody asked is there.
func TestSignalsOfBefore(t *testing.T) {
	caught = begin([]string{"pgquorum", "run"})
	defer func() { caught = nil }()
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	signals, stop := Signals()
	defer stop()
	select {
	case sig := <-signals:
		if sig != syscall.SIGTERM {
			t.Errorf("got %s", sig)
		}
	case <-time.After(10 * time.Second):
		t.Error("the signal was lost")
	}
}
