// SPDX-License-Identifier: Apache-2.0

package pgctl

import (
	"errors"
	"io/fs"
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

// TestOldDirectoryStays: a clone that is swapped in takes the place of the old directory, which stays aside until the clone
// streams, whatever is said before (PROTOCOL 8.5).
func TestOldDirectoryStays(t *testing.T) {
	dir := t.TempDir()
	p := &Postgres{opt: Options{DataDir: filepath.Join(dir, "data"), StateDir: dir, Log: slog.New(slog.DiscardHandler)}}
	plan := Plan{Kind: PlanClone, Step: StepSwap, Clone: p.opt.DataDir + ".clone-1", Old: p.opt.DataDir + ".old-1"}
	for path, text := range map[string]string{p.opt.DataDir: "old", plan.Clone: "new"} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path, "PG_VERSION"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(after, path, want string) {
		t.Helper()
		if text, err := os.ReadFile(filepath.Join(path, "PG_VERSION")); string(text) != want {
			t.Errorf("%s: %s holds %q: %v", after, filepath.Base(path), text, err)
		}
	}
	if err := p.writePlan(plan); err != nil {
		t.Fatal(err)
	}
	if err := p.swap(plan); !errors.Is(err, fs.ErrNotExist) { // there is no control file, which comes last
		t.Fatal(err)
	}
	check("swapped", p.opt.DataDir, "new")
	check("swapped", plan.Old, "old")
	if err := p.ConfirmStreaming(); err != nil { // of a swap that has not been written down as done
		t.Fatal(err)
	}
	check("confirmed too early", plan.Old, "old")
	plan.Step = StepSwapped
	if err := p.writePlan(plan); err != nil {
		t.Fatal(err)
	}
	if err := p.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("started again", plan.Old, "old")
	if err := p.ConfirmStreaming(); err != nil || exists(plan.Old) {
		t.Errorf("it stays for ever: %v", err)
	}
}
