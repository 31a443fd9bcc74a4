// SPDX-License-Identifier: Apache-2.0

package pgctl

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// clone is what a clone leaves that streams: the old directory aside, and a plan that says so.
func cloned(t *testing.T, p *Postgres, name string, empty bool, older ...string) {
	t.Helper()
	old := p.opt.DataDir + "." + name
	for _, dir := range append(older, old) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if !empty {
			if err := os.WriteFile(filepath.Join(dir, "PG_VERSION"), []byte("18\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := p.writePlan(Plan{Kind: PlanClone, Step: StepSwapped, Old: old, Older: older}); err != nil {
		t.Fatal(err)
	}
	if err := p.ConfirmStreaming(); err != nil {
		t.Fatal(err)
	}
	if plan, err := p.readPlan(); err != nil || plan.Kind != "" {
		t.Fatalf("the plan is not over: %+v, %v", plan, err)
	}
}

func beside(t *testing.T, p *Postgres) []string {
	t.Helper()
	found, err := filepath.Glob(p.opt.DataDir + ".*")
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range found {
		found[i] = filepath.Base(f)
	}
	return found
}

func TestReplacedDirectoriesAreKept(t *testing.T) {
	for keep, want := range map[int][]string{
		0: {"data.old-77"},
		1: {"data.old-1", "data.old-77"},
		2: {"data.old-1", "data.old-2", "data.old-77"},
		9: {"data.old-0", "data.old-1", "data.old-2", "data.old-3", "data.old-77"},
	} {
		dir := t.TempDir()
		p := &Postgres{opt: Options{
			DataDir: filepath.Join(dir, "data"), StateDir: dir, KeepOld: keep, Log: slog.New(slog.DiscardHandler),
		}}
		if err := os.Mkdir(p.opt.DataDir+".old-77", 0o700); err != nil { // an operator's: it is on no list
			t.Fatal(err)
		}
		cloned(t, p, "old-3", false, p.opt.DataDir+".old-0")
		cloned(t, p, "old-2", false)
		cloned(t, p, "old-4", true) // a wiped volume: nothing to keep
		cloned(t, p, "old-1", false)
		if got := beside(t, p); !slices.Equal(got, want) {
			t.Errorf("keep %d: %v, want %v", keep, got, want)
		}
		// The next clone needs the room of those that would go with it.
		if err := p.keepOld(nil, max(0, keep-1)); err != nil {
			t.Fatal(err)
		}
		if got := beside(t, p); keep > 0 && keep < 9 && len(got) != len(want)-1 {
			t.Errorf("keep %d: before the next clone there are %v", keep, got)
		}
	}
}
