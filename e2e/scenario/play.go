// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// play is a scenario on its way.
type play struct {
	w     World
	names map[string]string
	base  uint64 // the epoch that changes are counted from; zero: none yet
	say   func(string)
}

// Play carries out a scenario. Say is told each step before it, and what was measured.
func Play(ctx context.Context, s *Scenario, w World, say func(string)) error {
	p := &play{w: w, names: map[string]string{}, say: say}
	for _, step := range s.Steps {
		say(step.Text)
		err := p.step(ctx, step)
		if err != nil {
			return fmt.Errorf("%s:%d: %s: %w", s.File, step.Line, step.Text, err)
		}
	}
	return nil
}

func (p *play) step(ctx context.Context, s Step) error {
	if s.word.acts {
		if err := p.w.Mark(ctx); err != nil {
			return err
		}
	}
	return s.word.call(ctx, p, s)
}

// node finds who is meant, now.
func (p *play) node(ctx context.Context, r Ref) (string, error) {
	switch r.Name {
	case "":
		return "", nil
	case "primary":
		return p.w.Primary(ctx)
	case "elected":
		return p.w.Elected(ctx)
	case "leader":
		return p.w.Leader(ctx)
	}
	if i, ok := standby(r.Name); ok {
		primary, err := p.w.Primary(ctx)
		if err != nil {
			return "", fmt.Errorf("find %s: %w", r.Name, err)
		}
		rest := slices.DeleteFunc(p.w.Data(), func(n string) bool { return n == primary })
		if i > len(rest) {
			return "", fmt.Errorf("find %s: there are %d beside %s", r.Name, len(rest), primary)
		}
		return rest[i-1], nil
	}
	if n := p.names[r.Name]; n != "" {
		return n, nil
	}
	return r.Name, nil
}

// standby is the number in standby1.
func standby(name string) (int, bool) {
	digits, ok := strings.CutPrefix(name, "standby")
	i, err := strconv.Atoi(digits)
	return i, ok && err == nil && i > 0 && i < 10 && len(digits) == 1
}

func (p *play) one(ctx context.Context, r Ref, do func(string) error) error {
	n, err := p.node(ctx, r)
	if err != nil {
		return err
	}
	return do(n)
}

// each does it to a node, or to all at once, who are told by no name.
func (p *play) each(ctx context.Context, r Ref, do func(...string) error) error {
	if r.Name == "all" {
		return do()
	}
	return p.one(ctx, r, func(n string) error { return do(n) })
}

func (p *play) cut(ctx context.Context, s Step) error {
	n, err := p.node(ctx, s.Node)
	if err != nil {
		return err
	}
	if !s.Optional {
		return p.w.Cut(ctx, s.Word, n)
	}
	o, err := p.node(ctx, s.Other)
	if err == nil && o == n {
		err = fmt.Errorf("both ends are %s", n)
	}
	if err != nil {
		return err
	}
	return p.w.Cut(ctx, s.Word, n, o)
}

func (p *play) strike(ctx context.Context, s Step) error {
	if s.Node.Else != "" {
		return p.w.Strike(ctx, s.Name, s.Node.Else, true, s.Number)
	}
	return p.one(ctx, s.Node, func(n string) error { return p.w.Strike(ctx, s.Name, n, false, s.Number) })
}

func (p *play) redundant(ctx context.Context) error {
	if err := p.w.Redundant(ctx); err != nil || p.base != 0 {
		return err
	}
	var err error
	p.base, err = p.w.Epoch(ctx)
	return err
}

func (p *play) epochs(ctx context.Context, s Step) error {
	e, err := p.w.Epoch(ctx)
	if err != nil {
		return err
	}
	was := p.base
	p.base = e
	if e == was+s.Number || s.Optional && e > was+s.Number {
		return nil
	}
	return fmt.Errorf("epoch %d after %d", e, was)
}

func (p *play) followed(ctx context.Context, s Step, want bool) error {
	node, err := p.node(ctx, s.Node)
	if err != nil {
		return err
	}
	n, err := p.w.Rule(ctx, s.Name, node)
	if err != nil || (n > 0) == want {
		return err
	}
	if want {
		return errors.New("nobody asked followed it")
	}
	return fmt.Errorf("it was followed %d times", n)
}

func (p *play) outage(ctx context.Context, s Step) error {
	d, judge, err := p.w.Outage(ctx)
	switch {
	case err != nil:
		return err
	case !judge:
		p.say(fmt.Sprintf("  outage %s, not judged: the clock is real", d.Round(time.Millisecond)))
	case d >= s.Duration:
		return fmt.Errorf("no write was acknowledged for %s", d.Round(time.Microsecond))
	}
	return nil
}
