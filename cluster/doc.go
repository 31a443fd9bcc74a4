// SPDX-License-Identifier: Apache-2.0

// Package cluster is the pure core of pgquorum: the replicated state, the commands that change it, and the
// rules that decide what the cluster and each of its nodes does next.
//
// It imports a short list of the standard library and does no I/O, reads no clock, draws no random number and
// starts no goroutine. Start with State and Apply (state.go, apply.go), then failover.go, the leader's table of
// numbered rules. docs/protocol.md says why each rule is as it is; every rule cites it.
package cluster
