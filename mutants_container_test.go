// SPDX-License-Identifier: Apache-2.0

//go:build e2e && bench

package pgquorum_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// brokenImage is pgquorum:18 with another binary.
const brokenImage = "pgquorum:broken"

// TestContainerMutants: a scenario on containers that no broken build fails proves nothing. Each build with a line
// "container SCENARIO" becomes an image, and that scenario must fail on it; CI shows that it passes on the real one.
func TestContainerMutants(t *testing.T) {
	played := 0
	for _, m := range readMutants(t) {
		if p := *mutantsFlag; m.scenario == "" || p != "sample" && p != "all" && !strings.Contains(m.name, p) {
			continue
		}
		played++
		t.Run(strings.ReplaceAll(m.name, " ", "_"), func(t *testing.T) {
			m.image(t)
			cmd := exec.Command("go", "test", "-tags", "grpcnotrace e2e", "-count=1", "-timeout", "20m", "-run", "^TestScenarios$", "-v", "./e2e")
			cmd.Env = append(os.Environ(), "PGQUORUM_IMAGE="+brokenImage, "PGQ_SCENARIOS="+m.scenario)
			out, err := cmd.CombinedOutput()
			var failed []string
			for _, f := range failedTest.FindAllStringSubmatch(string(out), -1) {
				failed = append(failed, f[1])
			}
			if err == nil || !slices.Contains(failed, "TestScenarios/"+m.scenario) {
				t.Fatalf("%s (%s) is not found by scenario %s: %v\n%s", m.name, m.rule, m.scenario, err, out)
			}
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, m.scenario+".txt:") { // the step that failed, and why
					t.Log(strings.TrimSpace(line))
				}
			}
		})
	}
	if played == 0 {
		t.Fatal("no broken build has a scenario for containers")
	}
}

// image builds the broken program into an image.
func (m *sourceMutant) image(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	out, err := m.build(t, dir, filepath.Join(dir, "pgquorum"))
	if err == nil {
		file := "FROM pgquorum:18\nCOPY pgquorum /usr/local/bin/pgquorum\n"
		if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err = exec.Command("docker", "build", "-q", "-t", brokenImage, dir).CombinedOutput()
	}
	if err != nil {
		t.Fatalf("build %s: %v\n%s", m.name, err, out)
	}
}

func (m *sourceMutant) build(t *testing.T, dir, program string) ([]byte, error) {
	t.Helper()
	cmd := exec.Command("go", "build", "-overlay", m.overlay(t, dir), "-trimpath", "-tags", "grpcnotrace", "-ldflags", "-s -w", "-o", program, "./entrypoint")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return cmd.CombinedOutput()
}
