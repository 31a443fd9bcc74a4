// SPDX-License-Identifier: Apache-2.0

// Package model explores the abstract protocol exhaustively: every order in which nodes apply entries, fence, report,
// attach, stream, promote, admit clients, die and come back, within stated bounds, in small clusters. Tests only.
//
// The replicated state is a real *cluster.State, changed by the product's Genesis, Apply and ApplyConf. The leader of
// an election is the product's failover table, asked with the reports of every set of nodes that sent one; grants are
// MayGrant and Lease, attach checks CheckAttach, what diverged FitsState. So the rules' arithmetic is the product's;
// the model adds what happens around it, and chooses whatever is worse:
//
//   - Time is left out. A grant is held or it has ended; it ends for the primary before it ends for its voter (4.1).
//     Anybody may do anything late, which is also what a cut link or a frozen node is.
//   - Raft is a committed log. An entry needs a majority of the newest voters alive; each node applies it when it likes.
//   - WAL is a list of records, each with its timeline and the epoch that wrote it. A receiver brings one at a time. One
//     that has diverged brings nothing and acknowledges all the same, as Postgres does.
//   - What opens an election, which of the best wins, why a member changes: any of it may happen at any time.
//   - Clients are told of a commit at the first moment at which they may be.
//
// Start with state.go (what a cluster is at one instant), then step.go (the actions) and postgres.go, election.go and
// change.go. check.go has the invariants: I1, I2, I3, I4, I5, I11, I12, I13, I14 of PROTOCOL 13 as far as they are about
// states; I6 is what IncarnationReused breaks. I7, I8 and I10 are about files and records that are not here; I9, which is
// liveness, is the simulation's. explore.go is the search, breadth first, so that the story of a violation is
// the shortest; symmetry.go makes states that differ in names alone one. mutants.go lists guards that are taken away, in
// this package and never in the product: each must yield a story. docs/model.md has the figures.
package model
