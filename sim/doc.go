// SPDX-License-Identifier: Apache-2.0

// Package sim runs whole clusters in one goroutine on virtual time: the real agent.Machine, the real raft.Core and
// the real cluster.Apply, over a simulated clock, network, disk and Postgres. A run is decided by its seed alone, so
// every failure replays. Tests only.
//
// World (world.go) is a heap of (time, sequence, function), and has the clients, who write. node.go is a container: its
// volume outlives its lives; disk.go is the device under it. form.go is a container without raft state, which forms a
// cluster. link.go is the network between PID 1s, with what counts as evidence of death and what does not. postgres.go is a
// model of Postgres in which write-ahead log is a list of records with unique ids, stream.go its replication, tasks.go what
// the real node's worker does with it, upstream.go those of its tasks that change where write-ahead log comes from.
// nemesis.go draws a plan of faults (faults.go has them) from the seed, carries it out, and makes a plan that fails
// shorter. check.go looks at every event whether an invariant of PROTOCOL 13 is broken. mutant.go lists the broken builds
// that the checkers must catch, mutate.go has those that change what the real code is told and says.
//
// scenario_test.go plays e2e/scenarios here: written faults instead of drawn ones.
//
// facts_test.go holds the simulated Postgres against what pgctl/pgtest/facts says of the real one, store_test.go the
// simulated disk's log against raft/storetest.
//
// What is not here: libpq, files of a data directory, the sessions behind the gate. Where the model knowingly
// differs from the real Postgres, docs/testing.md says so.
package sim
