// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"fmt"
	"time"
)

// The worlds that a scenario can be played in.
const (
	Sim        = "sim"
	Containers = "containers"
)

// Scenario is a file.
type Scenario struct {
	File     string
	About    string
	Found    []string  // where it comes from: a line of docs/testing.md, a decision
	Nodes    int       // with data
	Witness  int       // the last nodes, without
	Settings []Setting // of the containers
	Noise    bool      // of the simulation: messages are late, tasks fail
	Only     string    // the one world that it can be played in; empty: both
	Why      string    // only there
	Quick    bool      // it is among those that `make test` plays on containers
	Catches  []string  // broken builds of the simulation in which it must fail
	Fails    string    // a control: it must fail, and say so
	Open     string    // a defect that is known and not mended: it must fail, and is counted as skipped
	Steps    []Step
}

// Setting is an environment variable of one node or of all.
type Setting struct{ Node, Name, Value string }

// Step is a line that does, waits for or expects something. Which of the fields count is said by its pattern.
type Step struct {
	Line     int
	Text     string
	Node     Ref    // NODE, NODES
	Other    Ref    // OTHER
	Word     string // the one taken of a|b|c
	Number   uint64 // NUMBER, +NUMBER
	Duration time.Duration
	Name     string // NAME, KIND, RULE
	Optional bool   // what stands in brackets is there

	word *word
}

// Ref is a node as a step names it.
type Ref struct {
	Name string // pg1, primary, all, what a let has named; empty: none
	Else string // of primary/pg2: if nobody serves
}

// NotIn says why a world cannot play it; empty: it can.
func (s *Scenario) NotIn(world string) string {
	if s.Only == "" || s.Only == world {
		return ""
	}
	return fmt.Sprintf("only %s: %s", s.Only, s.Why)
}
