// SPDX-License-Identifier: Apache-2.0

// Package status holds the documents that the api writes and the cli reads: what `pgquorum status --json` prints,
// and an operator's order with its outcome.
//
// It is a leaf: plain types and names, no logic, nothing imported. That is why both rooms may know it although rooms
// of one level never import one another. Fields are only ever added; their names and meanings are a promise to
// scripts.
package status
