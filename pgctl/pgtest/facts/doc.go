// SPDX-License-Identifier: Apache-2.0

// Package facts says what Postgres does, once for two worlds: real Postgres 15, 17 and 18 (real_contract_test.go, build
// tag contract) and the simulated one (sim/facts_test.go). Where they differ the simulator is wrong. Tests only.
//
// A Fact is a name, the findings of the safety research that it repeats, and a statement in terms of World and Server.
// Begin with All. What a statement needs and the simulator has no notion of (sessions that are cancelled, libpq, files)
// is not here but in the contract tests of the package that depends on it.
//
// That a statement can fail is shown by sim/facts_control_test.go: for each there is a Postgres of which it is not true.
package facts
