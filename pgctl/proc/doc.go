// SPDX-License-Identifier: Apache-2.0

// Package proc starts, counts, reaps and kills processes. It is the only place of the product that starts one.
//
// PID 1 of a container inherits every orphan in it, so it has to reap; a Go program that calls wait4(-1) beside its
// own waits loses exit codes (measured: 260 of 1200). Children solves this by owning both sides: Start forks and
// registers the pid under one mutex, and under the same mutex the reaper looks through /proc for zombies of ours
// that are not registered and waits for exactly those. Read children.go first, then reap.go.
//
// KillAll and Gone (kill.go) are the fence's last resort: see PROTOCOL 4.5.b in docs/protocol.md for why
// kill(-1, SIGKILL) is a stop, killing the postmaster is not, and when either may be used.
//
// Lists of processes are always read from all of /proc (package procfs), never from the kernel's "children" file, which
// is documented to be unreliable while children exit.
package proc
