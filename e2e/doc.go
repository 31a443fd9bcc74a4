// SPDX-License-Identifier: Apache-2.0

// Package e2e tests the shipped image and the shipped compose files with real containers and real faults.
//
// Start with harness_test.go: what a test may ask for. single_test.go tests one container; the tests of the cluster use
// the three-node stack of compose/, under a project name and ports of their own: world_test.go is that stack under a
// writer, faults_test.go the catalogue of what is done to it, cluster_test.go a whole life. scenario_test.go plays the
// files of scenarios/, as the simulation does. The rooms below are programs too:
// docker drives the client and proves every fault, stack runs the compose file, ledger writes rows through a fault and
// checks that every acknowledged one is there exactly once; cmd/stack and cmd/suite are the Makefile's verbs.
//
// The tests carry the build tag e2e and need the image pgquorum:18 (make image). PGQUORUM_IMAGE names another one.
package e2e
