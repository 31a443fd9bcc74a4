// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/pgquorum/pgquorum/e2e/docker"
)

// Member is one node as `pgquorum status --json` shows it.
type Member struct {
	Name      string `json:"name"`
	Role      string `json:"role"`
	State     string `json:"state"`
	Streaming bool   `json:"streaming"`
	Sync      bool   `json:"sync"`
	Linked    bool   `json:"linked"`
	WhyNot    string `json:"why_not"`
	Trouble   string `json:"trouble"`
}

// Status is the part of `pgquorum status --json` that the stack looks at.
type Status struct {
	Primary   string   `json:"primary"`
	Leader    string   `json:"leader"`
	Epoch     uint64   `json:"epoch"`
	Members   []Member `json:"members"`
	Redundant bool     `json:"redundant"`
}

// Member finds a node; the zero Member stands for one that is not there.
func (s Status) Member(name string) Member {
	for _, m := range s.Members {
		if m.Name == name {
			return m
		}
	}
	return Member{}
}

// String is one line for a progress display: "pg1 primary, pg2 standby streaming, pg3 clone".
func (s Status) String() string {
	parts := make([]string, 0, len(s.Members))
	for _, m := range s.Members {
		words := []string{m.Name}
		for _, w := range []string{m.Role, m.State} {
			if w != "" && w != words[len(words)-1] {
				words = append(words, w)
			}
		}
		if m.Streaming && m.State != "streaming" {
			words = append(words, "streaming")
		}
		parts = append(parts, strings.Join(words, " "))
	}
	if len(parts) == 0 {
		return "no members yet"
	}
	return strings.Join(parts, ", ")
}

// Status asks one node. No primary is no error: the command says so with its exit code and still prints.
func (s *Stack) Status(ctx context.Context, node string) (Status, error) {
	var st Status
	c, err := s.Container(ctx, node)
	if err != nil {
		return st, err
	}
	res, err := c.Exec(ctx, "pgquorum", "status", "--json")
	if err != nil {
		return st, err
	}
	if err := json.Unmarshal([]byte(res.Stdout), &st); err != nil {
		return st, fmt.Errorf("ask %s for its status: exit code %d, %s", node, res.Code, firstLine(res.Stderr+res.Stdout))
	}
	return st, nil
}

// AnyStatus asks all nodes at once and returns the answer of the latest epoch that knows a primary: a node that is cut
// off goes on to name the one that it knew.
func (s *Stack) AnyStatus(ctx context.Context) (Status, error) {
	type answer struct {
		st  Status
		err error
	}
	answers := make([]answer, len(s.nodes))
	var wg sync.WaitGroup
	for i, node := range s.nodes {
		wg.Go(func() {
			st, err := s.Status(ctx, node)
			answers[i] = answer{st, err}
		})
	}
	wg.Wait()
	var best *Status
	var errs []error
	for _, a := range answers {
		switch {
		case a.err != nil:
			errs = append(errs, a.err)
		case best == nil, a.st.better(*best):
			best = &a.st
		}
	}
	if best == nil {
		return Status{}, errors.Join(errs...)
	}
	return *best, nil
}

// better says that s knows more than o.
func (s Status) better(o Status) bool {
	if (s.Primary == "") != (o.Primary == "") {
		return s.Primary != ""
	}
	return s.Epoch > o.Epoch
}

// Primary waits until the cluster names a primary.
func (s *Stack) Primary(ctx context.Context) (string, error) {
	var primary string
	err := docker.Wait(ctx, "a primary", func(ctx context.Context) error {
		st, err := s.AnyStatus(ctx)
		if err != nil {
			return err
		}
		if st.Primary == "" {
			return errors.New("no primary: " + st.String())
		}
		primary = st.Primary
		return nil
	})
	return primary, err
}

// WaitRedundant waits until every node streams from the primary. Progress is told each answer; it may be nil.
func (s *Stack) WaitRedundant(ctx context.Context, progress func(string)) (Status, error) {
	var last Status
	err := docker.Wait(ctx, "all nodes to replicate", func(ctx context.Context) error {
		st, err := s.AnyStatus(ctx)
		if err == nil {
			last, err = st, redundant(st, len(s.nodes))
		}
		if progress != nil {
			if err != nil && last.Members == nil {
				progress(firstLine(err.Error()))
			} else {
				progress(st.String())
			}
		}
		return err
	})
	return last, err
}

func redundant(st Status, nodes int) error {
	streaming := 0
	for _, m := range st.Members {
		if m.Streaming {
			streaming++
		}
	}
	if st.Primary == "" || !st.Redundant || streaming < nodes-1 {
		return fmt.Errorf("primary %q, %d of %d standbys stream, redundant: %t (%s)", st.Primary, streaming, nodes-1, st.Redundant, st)
	}
	return nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
