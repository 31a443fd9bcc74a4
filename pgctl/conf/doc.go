// SPDX-License-Identifier: Apache-2.0

// Package conf renders and parses the configuration files of Postgres: the generated postgresql.conf and its
// managed part, pg_hba.conf, pg_ident.conf, and the entries of postgresql.auto.conf that are not the user's to
// set (PROTOCOL 12). It is pure: bytes in, bytes out; package pgctl decides where they live and when they are
// written.
//
// Start with Main and Managed in render.go. Three layers make the effective settings, the later one winning:
// defaults of ours that a user may override, the user's own files, and the managed settings that failover
// depends on.
package conf
