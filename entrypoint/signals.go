// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"syscall"

	"github.com/pgquorum/pgquorum/entrypoint/early"
)

// pendingStop is the signal that asked the container to end before it had begun, if any.
func pendingStop() syscall.Signal {
	signals, release := early.Signals()
	release()
	for {
		select {
		case sig := <-signals:
			if isStop(sig) {
				return sig.(syscall.Signal)
			}
		default:
			return 0
		}
	}
}

// isStop says that a signal asks the container to end.
func isStop(sig os.Signal) bool {
	return sig == syscall.SIGINT || sig == syscall.SIGTERM || sig == syscall.SIGQUIT
}

// untilStop runs f, and cancels its context when a signal asks the container to end. Nothing runs yet then that
// could want another signal.
func untilStop(
	ctx context.Context, signals <-chan os.Signal, f func(context.Context) error,
) (stopped syscall.Signal, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	for {
		select {
		case err := <-done:
			return stopped, err
		case sig := <-signals:
			if isStop(sig) && stopped == 0 {
				stopped = sig.(syscall.Signal)
				cancel()
			}
		}
	}
}
