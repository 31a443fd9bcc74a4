// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"strings"
)

// Exit codes of a configuration error.
const (
	exitOfficial = 1  // what the base image does for the same mistake
	exitConfig   = 78 // EX_CONFIG
)

// Problem is one mistake.
type Problem struct {
	Variable string // or command line argument
	Value    string // as given, secrets masked; empty when there is none to show
	Rule     string // what is wrong
	Fix      string // the way out, if the rule does not say it

	official bool // Rule is the base image's own text, and its exit code applies
}

func (p Problem) String() string {
	if p.official {
		return "error: " + p.Rule
	}
	var b strings.Builder
	b.WriteString("error: " + p.Variable)
	if p.Value != "" {
		fmt.Fprintf(&b, "=%q", p.Value)
	}
	b.WriteString(": " + p.Rule)
	if p.Fix != "" {
		b.WriteString("\n  " + p.Fix)
	}
	return b.String()
}

// Error is everything that is wrong with the configuration.
type Error struct{ Problems []Problem }

func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// ExitCode is the code to end with: the base image's for its own mistakes, otherwise EX_CONFIG.
func (e *Error) ExitCode() int {
	for _, p := range e.Problems {
		if !p.official {
			return exitConfig
		}
	}
	return exitOfficial
}

// Warning is something that works but is probably not meant.
type Warning string
