// SPDX-License-Identifier: Apache-2.0

// Package ledger writes rows through a fault and says afterwards what became of them.
//
// Start runs writers that behave as a client with libpq's multi-host string does: one connection, and when it breaks,
// the hosts in order until one admits writes. Every attempt uses an id of its own and ends as acknowledged, failed
// (cannot have been committed) or unknown (nobody told us). Check compares that with what the table holds: every
// acknowledged row exactly once, no failed row, no row nobody wrote. Read check.go first: it is the promise.
//
// A prober (Options.PerHost) keeps a connection to every host and gives each a short limit. It measures what a client
// sees of a frozen host, which still accepts connections and would hold an ordinary client for seconds.
package ledger
