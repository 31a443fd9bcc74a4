// SPDX-License-Identifier: Apache-2.0

// Package pgctl is everything that touches Postgres: its processes, files, settings, roles, slots, the upstream
// file, promotion, rewind and clone. It decides nothing; package agent calls it.
//
// Start with Options and New (pgctl.go), then Start and Stop (server.go): how one life of the postmaster goes.
// observe.go says what is known about a running one, settings.go how a change of the quorum is settled
// (PROTOCOL 3.3.a), plan.go how rewinds (rewind.go) and clones (clone.go) survive being interrupted
// (PROTOCOL 8), space.go the reserve for a promotion on a full disk (PROTOCOL 5.6.a). Below it: conf renders the files, proc starts and kills processes, wal reads the control file
// and the log, upstream parks and fences, gate closes and opens the door to clients, promote promotes.
//
// Two kinds of connection are made, both as the role pgquorum_local over the unix socket: one is kept for
// Observe, which must work when every slot of max_connections is taken; everything else that may block gets
// a fresh one of its own.
package pgctl
