// SPDX-License-Identifier: Apache-2.0

// Package raft is the product's consensus: etcd's raft library (imported as etcdraft), its write-ahead log, and the
// loop that drives both. It knows nothing of Postgres; what is agreed on are opaque commands, and the FSM that the
// owner supplies gives them meaning.
//
// Read in this order:
//
//   - core.go: Core, one raft member without goroutine, clock or network. Core.Ready carries out one Ready of the
//     library completely: persist, then hand out messages, then apply. The simulator runs this very code.
//   - store.go: LogStore, what Core needs from a disk, and MemStore. walstore.go: the real one, on etcd's WAL plus
//     small snapshot files (snapfile.go).
//   - node.go: Node, the loop around Core in the container: 50 ms ticks, its own or given, bounded queues, immediate handling.
//   - storetest/: what a LogStore promises across a crash, for every store; powerloss_test.go cuts the power at every
//     write of the real one.
//   - wire.go: how a raft message is framed for a peer; transport/ carries the frames.
//
// What was decided here and why:
//
//   - Raft starts from a snapshot at index 1, term 1 that every founding node writes for itself (CreateGenesis), not
//     from bootstrap entries: what is in it is the same bytes everywhere by PROTOCOL 9.2. A node that joins later
//     starts from an empty store (CreateEmpty) and is fed a snapshot by the leader.
//   - PreVote and CheckQuorum are on. A node that comes back from a partition disturbs nobody, and a leader that has
//     lost its quorum steps down by itself. The price, waiting out an election timeout after a leader's death, is
//     taken back by ForgetLeader and Campaign where there is evidence of death (PROTOCOL 6.6).
//   - One member changes at a time, never a joint configuration (PROTOCOL 4.6.b). A change passes the FSM's guards
//     when it is applied; a refused one is applied to raft as an empty change (PROTOCOL 2.4).
//   - A failed write or fsync is fatal and is never tried again (PROTOCOL 4.9): after an error the kernel may have
//     dropped the dirty pages, and a second fsync would report success for data that is gone.
//   - The commit index is not durable: a restarted member may not know that an entry it has applied was committed.
//     Whoever needs that (the promise) keeps a file of its own (PROTOCOL 1.7).
package raft
