// SPDX-License-Identifier: Apache-2.0

// Package cli holds the commands that an operator runs inside a node's container: status, switchover, pause, resume
// and health.
//
// They are clients of the node's local socket (client.go) and need no flags, addresses or tokens: who may open the
// socket may give orders. Each command takes a Call and returns the process' exit code; it reads nothing of the
// process itself, so that a test can run it. The documents are those of package api/status.
//
// Exit codes: 0 fine; 1 the node cannot be reached, or the order was not carried out; 2 no primary (status), or wrong
// usage.
package cli
