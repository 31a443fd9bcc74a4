// SPDX-License-Identifier: Apache-2.0

// Package wal reads what a data directory says about its write-ahead log, without a server.
//
//   - ReadControl parses global/pg_control.
//   - ReadHistory, WriteStubs, SetStubs and MoveForeignAside look after timeline history files (PROTOCOL 5.5.f, 5.6.b).
//   - End walks record headers and checksums to the last complete record on disk: a node's position (1.5, 5.2.d).
//
// A position is a claim about bytes that are held. It is therefore made from the bytes alone: no view, no status
// message, no received_tli.
package wal
