// SPDX-License-Identifier: Apache-2.0

// Package watchdog is the second holder of the lease's deadline: a tiny child of process 1 that kills every process
// of the container when process 1 does not extend the deadline in time (PROTOCOL 4.5.c), and that holds a copy of
// every link's socket, so that a peer reads EOF only after the whole container is dead (PROTOCOL 6.2.b).
//
// Main (child.go) is the child: one thread, one poll over a socket and a timer, no TLS, no raft. Client (client.go)
// is process 1's end. message.go is what they say to each other.
//
// What is odd here, and why: when the socket closes without a goodbye, the child does not exit. A dying process 1
// closes its files before the kernel kills the rest of its container; a child that then left by itself would close
// the links too early and peers would take over while backends still run. So it stays until it is killed, in the
// same sweep as everything else, and for the same reason process 1 starts it without a parent-death signal: that
// one fires when a *thread* ends, which is earlier still.
package watchdog
