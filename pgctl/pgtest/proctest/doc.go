// SPDX-License-Identifier: Apache-2.0

// Package proctest makes children of a test that look like children of a postmaster: they have any title, change it
// when told, and can be held in the middle of a change.
//
// A test calls Child, and its TestMain begins with Main. Nothing of the product uses this package.
package proctest
