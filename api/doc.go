// SPDX-License-Identifier: Apache-2.0

// Package api shows a node to the outside: the document behind `pgquorum status`, Patroni's health checks over HTTP,
// Prometheus metrics, and the local socket that the command line talks to.
//
// Everything is computed from one plain value, the View (node.go), at the moment somebody asks: nothing is cached,
// nothing here asks Postgres, and an answer takes microseconds. document.go turns a View into the status document;
// health.go says what each health check demands; http.go serves it on the network, where it only reads; local.go
// serves the socket, where orders are taken; metrics.go is the table of metrics and docs/metrics.md is made from it.
//
// The network side has no way to change anything. Orders come through the socket alone, and its file mode is the
// whole of its access control.
package api
