// SPDX-License-Identifier: Apache-2.0

// Package early takes the signals of process 1 before anything else of the program is made ready. It imports next to
// nothing, so that Go initialises it among the first: until then the runtime ends the process with code 2 when a container is
// stopped in the first milliseconds of its life.
package early
