// SPDX-License-Identifier: Apache-2.0

// Command pgquorum is process 1 of the container. This package looks at the arguments, does what process 1 owes
// (signals, reaping, the watchdog child), prepares the node while it is still root, and wires the rooms together.
// It decides nothing about the cluster.
//
// Start with run in main.go, then dispatch.go: which arguments mean a server of ours and which belong to the
// image's own entrypoint untouched. single.go is everything there is to single mode; boot.go prepares a cluster
// node up to the point where root is given away; cluster.go takes over from there.
package main
