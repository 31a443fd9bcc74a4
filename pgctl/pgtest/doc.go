// SPDX-License-Identifier: Apache-2.0

// Package pgtest runs real Postgres servers for contract tests: initdb, base backups, a primary and its standbys in
// a temporary directory, on loopback ports and unix sockets. Nothing of the product imports it.
//
// Each calls a test once for every Postgres from 15 on under /usr/lib/postgresql. Contract tests carry the build tag
// "contract" and run as any user but root:
//
//	CGO_ENABLED=0 go test -c -tags contract -o wal.test ./pgctl/wal && runuser -u postgres -- ./wal.test -test.v
//
// PGQ_CONTRACT_ROUNDS sets how often a randomised test repeats, PGQ_CONTRACT_VERSIONS (such as "15,18") which
// servers it uses, PGQ_CONTRACT_SEED what it draws.
package pgtest
