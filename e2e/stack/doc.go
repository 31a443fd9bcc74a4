// SPDX-License-Identifier: Apache-2.0

// Package stack runs the shipped compose file: the three-node stack of `make up`, and the same stack under a project
// name and ports of its own for tests.
//
// New prepares the secrets, Up starts, WaitRedundant waits until every member streams, Primary asks the cluster. What
// the cluster thinks is asked with `pgquorum status --json` inside a node's container, as an operator would.
package stack
