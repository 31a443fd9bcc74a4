// SPDX-License-Identifier: Apache-2.0

package pgctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/pgquorum/pgquorum/durable"
	"github.com/pgquorum/pgquorum/pgctl/wal"
)

// PlanKind is what a journaled plan does.
type PlanKind string

// The kinds of plan.
const (
	PlanRewind PlanKind = "rewind"
	PlanClone  PlanKind = "clone"
)

// Step is how far a plan has come. It is on disk before the step begins.
type Step string

// The steps.
const (
	StepRecover Step = "recover" // rewind: the directory is still whole
	StepRewind  Step = "rewind"  // pg_rewind is at work: the directory is garbage until it is done
	StepBackup  Step = "backup"  // clone: the copy beside is being made
	StepSwap    Step = "swap"    // the copy is whole; two renames
	StepSwapped Step = "swapped" // the old directory stays until the copy streams
)

// Plan is the content of S/plan.json. The zero Plan is none.
type Plan struct {
	Kind PlanKind `json:"kind,omitempty"`
	Step Step     `json:"step,omitempty"`
	// Garbage: the data directory is what an interrupted plan left. It is never started, only replaced.
	Garbage bool   `json:"garbage,omitempty"`
	Clone   string `json:"clone,omitempty"` // the copy being made
	Old     string `json:"old,omitempty"`   // where the old directory goes
	// Older are directories that clones which never streamed had replaced.
	Older []string `json:"older,omitempty"`
}

func (p *Postgres) readPlan() (plan Plan, err error) {
	text, err := os.ReadFile(p.stateFile("plan.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return plan, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &plan)
	}
	if err != nil {
		return plan, fmt.Errorf("read plan: %w", err)
	}
	return plan, nil
}

func (p *Postgres) writePlan(plan Plan) error {
	if plan.Kind == "" {
		return durable.Remove(p.stateFile("plan.json"))
	}
	text, err := json.Marshal(plan)
	if err != nil {
		return fmt.Errorf("write plan: %w", err)
	}
	return p.save(p.stateFile("plan.json"), text)
}

// Recover takes up what the last run of this program left: it ends a swap, removes half a clone or ballast, and marks a
// directory whose rewind did not end as garbage. To be called at start, before anything else.
func (p *Postgres) Recover(_ context.Context) error {
	p.work.Lock()
	defer p.work.Unlock()
	plan, err := p.readPlan()
	if err == nil && plan.Kind != "" {
		err = p.recover(plan)
	}
	if err != nil {
		return fmt.Errorf("recover plan: %w", err)
	}
	return durable.Remove(durable.Unfinished(p.ballastFile()))
}

func (p *Postgres) recover(plan Plan) error {
	switch plan.Step {
	case StepRecover:
		return p.writePlan(Plan{})
	case StepRewind:
		plan.Garbage = true
		return p.writePlan(plan)
	case StepBackup:
		return p.dropClone(plan)
	case StepSwap:
		return p.swap(plan)
	case StepSwapped:
		return nil
	}
	return fmt.Errorf("unknown step %q", plan.Step)
}

// dropClone removes half a clone. What the directory in place was before, it still is.
func (p *Postgres) dropClone(plan Plan) error {
	if err := os.RemoveAll(plan.Clone); err != nil {
		return fmt.Errorf("remove half a clone: %w", err)
	}
	switch {
	case plan.Garbage:
		return p.writePlan(Plan{Kind: PlanRewind, Step: StepRewind, Garbage: true, Older: plan.Older})
	case len(plan.Older) > 0:
		return p.writePlan(Plan{Kind: PlanClone, Step: StepSwapped, Older: plan.Older})
	}
	return p.writePlan(Plan{})
}

// swap puts a whole clone in place. Each of its renames may have happened already.
func (p *Postgres) swap(plan Plan) error {
	if exists(plan.Clone) {
		if exists(p.opt.DataDir) {
			if err := durable.Rename(p.opt.DataDir, plan.Old); err != nil {
				return err
			}
		}
		if err := durable.Rename(plan.Clone, p.opt.DataDir); err != nil {
			return err
		}
	}
	if _, err := wal.ReadControl(p.opt.DataDir); err != nil {
		return err
	}
	plan.Step, plan.Garbage, plan.Clone = StepSwapped, false, ""
	if err := p.writePlan(plan); err != nil {
		return err
	}
	// Whatever an unfinished init left is in Old now.
	if m, err := p.readInitMark(); err == nil && m.State == initBegun {
		return durable.Remove(p.stateFile("initdone"))
	}
	return nil
}

// The directories that clones have replaced and that are kept for people are listed in S/kept.json, the newest first.
// Only what is listed there or in the plan is ever removed: a directory that somebody moved aside by hand is theirs.

// ConfirmStreaming says that the new directory streams: a good copy stands, so no more of the old ones than are to be
// kept have to stay.
func (p *Postgres) ConfirmStreaming() error {
	p.work.Lock()
	defer p.work.Unlock()
	plan, err := p.readPlan()
	if err != nil || plan.Step != StepSwapped {
		return err
	}
	slices.Reverse(plan.Older)
	if err := p.keepOld(append([]string{plan.Old}, plan.Older...), p.opt.KeepOld); err != nil {
		return err
	}
	return p.writePlan(Plan{})
}

// keepOld adds directories to those that are kept, and removes all but the newest n of them.
func (p *Postgres) keepOld(newest []string, n int) error {
	text, err := os.ReadFile(p.stateFile("kept.json"))
	var kept []string
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err == nil:
		err = json.Unmarshal(text, &kept)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the list of kept data directories: %w", err)
	}
	var stay []string
	for _, dir := range append(newest, kept...) {
		if dir == "" || slices.Contains(stay, dir) {
			continue
		}
		if empty, err := isEmpty(dir); err != nil {
			return err
		} else if !empty && len(stay) < n {
			stay = append(stay, dir)
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove old data directory: %w", err)
		}
	}
	if slices.Equal(stay, kept) {
		return nil
	}
	if len(stay) == 0 {
		return durable.Remove(p.stateFile("kept.json"))
	}
	p.opt.Log.Info("replaced data directory is kept", "path", stay[0], "count", len(stay))
	if text, err = json.Marshal(stay); err != nil {
		return fmt.Errorf("write the list of kept data directories: %w", err)
	}
	return p.save(p.stateFile("kept.json"), text)
}
