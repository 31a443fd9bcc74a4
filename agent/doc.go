// SPDX-License-Identifier: Apache-2.0

// Package agent is one node's step machine and the loop that runs it.
//
// Machine (machine.go) takes one event and a time and returns actions. It never blocks, reads a clock, draws a
// random number or starts a goroutine, so the same code runs in the container and in the simulator. What it wants
// done is decided by the rule tables of package cluster; the machine only keeps the view they are asked with, and
// turns their outcomes into actions: messages, proposals, tasks for Postgres.
//
// At most one task that changes Postgres runs at a time (tasks.go); a kill pre-empts it. Every task is idempotent,
// has a deadline and ends with exactly one Done event. Nothing in memory is resumed after a crash: the next step
// works from what is observed.
//
// Read event.go for the vocabulary, machine.go for the dispatch, node.go for what this node does to its own
// Postgres, leader.go for what raft's leader decides, lease.go for who may serve, attach.go for who follows whom,
// stop.go for planned changes, form.go for the first formation.
package agent
