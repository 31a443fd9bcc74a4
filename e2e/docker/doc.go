// SPDX-License-Identifier: Apache-2.0

// Package docker drives the docker client for tests and for the verbs of the Makefile.
//
// Every injected fault proves its effect before the call returns: Kill waits until the container is seen dead, Pause
// until it is seen frozen. A fault that silently did nothing is a test that passes for the wrong reason. All waiting
// goes through Wait, which polls a condition under the context's deadline and reports what it saw last.
package docker
