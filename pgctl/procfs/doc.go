// SPDX-License-Identifier: Apache-2.0

// Package procfs reads /proc. It finds the children of a postmaster and says what each of them is; tree.go lists all
// processes for those that kill and reap.
//
// Two rules of the protocol rest on it: the fence waits for every WAL receiver (5.2.b), and the gate ends every
// session (1.10). Both must not miss a process, so children are found by reading all of /proc: the kernel's own
// children file may omit a living child while its siblings exit.
//
// What a child is, is read from its title. Postgres puts role, database and host of a session into it, and the
// first two are chosen by users: Classify is written so that no role or database name makes a session look like
// an auxiliary process. A child without a title of its own is KindUntitled; it may become anything.
//
// Start with Reader.Children and Classify.
package procfs
