// SPDX-License-Identifier: Apache-2.0

// Package seed says where tests that draw by chance begin.
//
// The suite sets the variable from the content of a clean checkout, so that a commit is judged by the same draws wherever
// and whenever it is tested, and every commit by others. A test run by hand begins by the clock.
package seed
