// SPDX-License-Identifier: Apache-2.0

// Package storetest says what a raft.LogStore promises across a crash, once for every store: etcd's write-ahead log on a
// real file system that loses power (raft/powerloss_test.go), MemStore, and the simulator's disk. Tests only.
//
// A Script is a history of writes as raft makes them. After a crash, Check compares what a store holds with what it may
// hold: all that was synced, of what came later a part from the front, and of the write under way a part of its entries
// with the hard state of before. What is less is a vote or an acknowledged entry that was forgotten; what is more was
// never written.
package storetest
