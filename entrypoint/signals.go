// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// handled are the signals that we take. SIGPIPE is taken so that a write to a closed output does not end us, and
// must not be "ignored" instead: children would inherit that. SIGABRT, SIGALRM and the terminal's stop signals are
// taken because process 1 of a container does not die of them today, and should not from now on.
var handled = []os.Signal{
	syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2,
	syscall.SIGWINCH, syscall.SIGCONT,
	syscall.SIGPIPE, syscall.SIGABRT, syscall.SIGALRM, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU,
}

// catchSignals must come first thing: process 1 loses what it does not handle.
func catchSignals() (signals chan os.Signal, stop func()) {
	signals = make(chan os.Signal, 16)
	signal.Notify(signals, handled...)
	return signals, func() { signal.Stop(signals) }
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
