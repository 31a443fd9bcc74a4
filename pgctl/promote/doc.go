// SPDX-License-Identifier: Apache-2.0

// Package promote takes a standby out of recovery onto the timeline that the cluster has chosen, and verifies that it
// went there and nowhere else (PROTOCOL 5.6.b and c).
//
// Postgres picks the number of a new timeline itself: the lowest that has no history file. So every number between the
// node's own timeline and the wanted one is plugged with a stub history file first. The stubs stay: standbys
// ask for every number in between.
//
// It never waits in pg_promote(), which looks every 100 ms; the server takes writes long before.
package promote
