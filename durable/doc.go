// SPDX-License-Identifier: Apache-2.0

// Package durable writes small files so that they survive a crash, whole or not at all: a temporary file beside the
// target, fsync, rename, fsync of the directory. Reserve makes a large one, of which only its size counts. A write that has returned nil is on disk; one that failed may have
// happened or not, and must be treated as either.
//
// No fsync is tried again after an error: the kernel may have dropped the pages (PROTOCOL 4.9, P9). One writer per
// file; the temporary name is fixed, so that crashes leave at most one behind.
package durable
