// SPDX-License-Identifier: Apache-2.0

// Package node wires one member of a cluster: raft and its links, Postgres, the agent's loop and the API, with the
// real clock, disk and network. It takes no decisions. Run (node.go) is the order of a start and of an end;
// fsm.go joins raft to the replicated state, links.go the transport to the agent's events, shell.go and worker.go
// the agent's actions to the world (postgres.go is the part of it that tests replace), formation.go is the time before
// there is a cluster. beat.go and pace.go keep a node at rest from waking more than it must.
package node
