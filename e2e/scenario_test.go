// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/e2e/scenario"
)

// pick is which scenarios a run plays: those marked quick, those whose names hold PGQ_SCENARIOS, or "all" and the controls.
func pick(t *testing.T) (all []*scenario.Scenario) {
	t.Helper()
	list, err := scenario.Load("scenarios")
	if err != nil {
		t.Fatal(err)
	}
	want := os.Getenv("PGQ_SCENARIOS")
	if want == "all" {
		controls, err := scenario.Load("scenarios/controls")
		if err != nil {
			t.Fatal(err)
		}
		return append(list, controls...)
	}
	return slices.DeleteFunc(list, func(s *scenario.Scenario) bool {
		return want == "" && !s.Quick || !strings.Contains(s.File, want)
	})
}

// TestScenarios plays e2e/scenarios on containers. Those that want the same settings share a stack: each begins with a
// redundant one. sim/scenario_test.go plays the same files on virtual time.
func TestScenarios(t *testing.T) {
	stacks := map[string]*containers{}
	made := 0
	for _, s := range pick(t) {
		name := strings.TrimSuffix(s.File, ".txt")
		if why := s.NotIn(scenario.Containers); why != "" {
			t.Run(name, func(t *testing.T) { t.Skip(why) })
			continue
		}
		key := fmt.Sprint(s.Settings)
		c := stacks[key]
		if c == nil {
			c = newContainers(t, s.Settings, 25471+10*made)
			stacks[key] = c
			made++
		}
		if ok := t.Run(name, func(t *testing.T) { c.play(t, s) }); !ok {
			c.ledger.Stop() // the next scenario gets a new stack
			delete(stacks, key)
		}
	}
	for _, c := range stacks {
		c.finish()
	}
}

// newContainers is a stack with the settings of a scenario.
func newContainers(t *testing.T, settings []scenario.Setting, port int) *containers {
	t.Helper()
	set := setup{project: fmt.Sprintf("pgq-scenarios-%d", port), port: port, env: map[string]string{}, nodeEnv: map[string]map[string]string{}}
	for _, s := range settings {
		switch {
		case s.Node == "":
			set.env[s.Name] = s.Value
		case set.nodeEnv[s.Node] == nil:
			set.nodeEnv[s.Node] = map[string]string{s.Name: s.Value}
		default:
			set.nodeEnv[s.Node][s.Name] = s.Value
		}
	}
	c := &containers{world: startWorld(t, set), frozen: map[string][]int{}, most: stepLimit}
	t.Cleanup(func() { c.forget() })
	return c
}

// play plays one scenario, and makes the stack whole for the next.
func (c *containers) play(t *testing.T, s *scenario.Scenario) {
	sub := *c.world
	sub.t = t
	whole := c.world
	c.world = &sub
	defer func() { c.world = whole }()
	if s.Open != "" {
		c.most = openLimit
	}
	began := time.Now()
	err := scenario.Play(c.ctx, s, c, func(text string) {
		t.Logf("%7.3f  %s", time.Since(began).Seconds(), text)
	})
	c.most = stepLimit
	switch {
	case s.Fails == "" && s.Open == "" && err != nil:
		t.Fatal(err)
	case s.Fails != "" && (err == nil || !strings.Contains(err.Error(), s.Fails)):
		t.Fatalf("it ended with %v, and not with %q", err, s.Fails)
	case s.Open != "" && err == nil:
		t.Fatalf("open: %s: it passes now: remove the line", s.Open)
	}
	if err := c.reset(); err != nil {
		t.Fatalf("make it whole again: %v", err)
	}
	if s.Open != "" {
		t.Skipf("open: %s: it fails, as it is known to: %v", s.Open, err)
	}
}
