// SPDX-License-Identifier: Apache-2.0

package early

import (
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

// caught has what came since the program began; nil: this process is not asked to run Postgres.
var caught = begin(os.Args)

func begin(args []string) chan os.Signal {
	if len(args) < 2 || args[1] != "run" {
		return nil // an operator's command ends by the signals that every command ends by
	}
	return take()
}

func take() chan os.Signal {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, handled...)
	return signals
}

// Signals are those of this process, from its first moments on, until stop is called.
func Signals() (signals chan os.Signal, stop func()) {
	if signals = caught; signals == nil {
		signals = take()
	}
	return signals, func() { signal.Stop(signals) }
}
