// SPDX-License-Identifier: Apache-2.0

// Package scenario is the language in which faults and what is expected after them are written down once, for two
// worlds: the simulation and real containers.
//
// A scenario is a file of lines (e2e/scenarios/*.txt): a head that says what it is about and what cluster it needs, then
// steps, one a line. words.go is the whole vocabulary, a table with a pattern, a meaning and the call of each step; parse.go
// reads files by it and reports every mistake with its line; world.go is what a world has to be able to do; play.go carries
// out a scenario in one. sim/scenario_test.go and e2e/scenario_test.go are the two worlds.
//
// Steps have no times of their own: a fault lasts until another step ends it, and what a scenario waits for is a condition.
// So the same file means the same on virtual time and on a slow machine. What can only be said in one world says so in the
// head, with the reason, and is skipped in the other with that reason.
package scenario
