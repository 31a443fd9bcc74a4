// SPDX-License-Identifier: Apache-2.0

// Package gate closes and opens a Postgres to its users (PROTOCOL 1.10). The gate is a pg_hba.conf that rejects every
// role but ours; the package swaps the file, proves that the postmaster has taken it, and ends the sessions of before.
//
// The order is the whole point:
//
//  1. the closed file renamed in, SIGHUP;
//  2. a probe connection refused: a backend forked from then on has the new rules, so every older one is in the list
//     taken next;
//  3. SIGTERM to every session in that list, children without a title included.
//
// After Close every session is doomed: none begins another statement. That they are gone is a fact of its own: WaitGone.
//
// Left alone: auxiliary processes, our sessions and WAL senders, parallel workers (their leader ends them), and
// background workers of extensions and of logical replication. The latter are no clients of pg_hba.conf, and
// their own connections are refused like anybody's; but a worker that is connected to a database from inside goes on.
package gate
