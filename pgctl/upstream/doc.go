// SPDX-License-Identifier: Apache-2.0

// Package upstream decides where a node's WAL comes from, and can stop it from coming: the upstream file and the
// fence (PROTOCOL 1.8, 5.2.b, 5.2.d, 5.7.c).
//
// primary_conninfo is a constant that names a libpq service. libpq reads the service file at every connection
// attempt, so renaming one file re-points a node without any part of Postgres having to agree. File renders and
// renames it; Parking is the socket that a parked file names.
//
// Fence parks the file and ends every WAL receiver that may have read the old one. When it returns without error, no
// acknowledgement can reach the old upstream any more. Only then is a position worth reading: Position walks the
// log from where replay stands.
//
// What the fence does not need is the startup process: it holds while replay is paused, delayed or in conflict with
// a reader, where changing primary_conninfo does not.
package upstream
