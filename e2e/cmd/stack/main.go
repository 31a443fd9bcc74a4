// SPDX-License-Identifier: Apache-2.0

// Command stack is what the Makefile's verbs call: up, down, status, logs and kill-primary on the shipped compose file.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/pgquorum/pgquorum/e2e/ledger"
	"github.com/pgquorum/pgquorum/e2e/stack"
)

const usage = "usage: stack up | down | destroy | status | logs | kill-primary"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, args []string) error {
	verbs := map[string]func(context.Context, io.Writer, *stack.Stack) error{
		"up": up, "status": status, "logs": logs, "kill-primary": killPrimary,
		"down":    func(ctx context.Context, _ io.Writer, s *stack.Stack) error { return s.Down(ctx, false) },
		"destroy": func(ctx context.Context, _ io.Writer, s *stack.Stack) error { return s.Down(ctx, true) },
	}
	if len(args) != 1 || verbs[args[0]] == nil {
		return errors.New(usage)
	}
	s, err := stack.New(ctx, stack.Options{Image: os.Getenv("PGQUORUM_IMAGE")})
	if err != nil {
		return err
	}
	return verbs[args[0]](ctx, out, s)
}

func up(ctx context.Context, out io.Writer, s *stack.Stack) error {
	fmt.Fprintln(out, "starting pg1, pg2 and pg3")
	if err := s.Up(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	p := newProgress(out)
	st, err := s.WaitRedundant(ctx, p.say)
	if err != nil {
		fmt.Fprintln(out, tail(s.Logs(context.WithoutCancel(ctx)), 60))
		return err
	}
	if err := s.CheckPassword(ctx); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nthree nodes replicate after %s; the primary is %s\n\n", p.elapsed(), st.Primary)
	return connections(out, s)
}

// connections prints strings that work when pasted.
func connections(out io.Writer, s *stack.Stack) error {
	rw, err := s.DSN()
	if err != nil {
		return err
	}
	ro, err := s.ReadDSN()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "write, wherever the primary is:\n  psql '%s'\nread, from a standby:\n  psql '%s'\none node:\n", rw, ro)
	for _, n := range s.Nodes() {
		dsn, err := s.NodeDSN(n)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "  psql '%s'  # %s\n", dsn, n)
	}
	fmt.Fprintf(out, "\nnext: make status, make kill-primary, make down\n")
	return nil
}

// status lets the nodes print: the first that answers does, and its exit code is passed on as an error.
func status(ctx context.Context, out io.Writer, s *stack.Stack) error {
	var errs []error
	for _, n := range s.Nodes() {
		c, err := s.Container(ctx, n)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		res, err := c.Exec(ctx, "pgquorum", "status")
		if err == nil && res.Stdout != "" {
			fmt.Fprint(out, res.Stdout)
			if res.Code != 0 {
				return fmt.Errorf("status of %s: exit code %d", n, res.Code)
			}
			return nil
		}
		errs = append(errs, err, fmt.Errorf("ask %s: exit code %d %s", n, res.Code, strings.TrimSpace(res.Stderr)))
	}
	return errors.Join(errs...)
}

func logs(ctx context.Context, out io.Writer, s *stack.Stack) error {
	_, err := io.WriteString(out, s.Logs(ctx))
	return err
}

// killPrimary is the demonstration: a writer runs, the primary's container is killed, and the figures are counted.
func killPrimary(ctx context.Context, out io.Writer, s *stack.Stack) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if _, err := s.WaitRedundant(ctx, newProgress(out).say); err != nil {
		return err
	}
	primary, err := s.Primary(ctx)
	if err != nil {
		return err
	}
	c, err := s.Container(ctx, primary)
	if err != nil {
		return err
	}
	dsn, err := s.DSN()
	if err != nil {
		return err
	}
	l, err := ledger.Start(ctx, ledger.Options{DSN: dsn})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "a client writes one row every 10 ms; the primary is %s\n", primary)
	if err := pace(ctx, l, 100); err != nil {
		l.Stop()
		return err
	}
	fmt.Fprintf(out, "killing %s (SIGKILL to every process in it)\n", primary)
	killed := time.Now()
	killErr := c.Kill(ctx)
	err = errors.Join(killErr, pace(ctx, l, 100), c.Restart(ctx))
	if err != nil {
		l.Stop()
		return err
	}
	st, err := s.WaitRedundant(ctx, newProgress(out).say)
	back := time.Since(killed)
	h := l.Stop()
	if err != nil {
		return err
	}
	return verdict(ctx, out, l, h, st, back)
}

// pace waits until n more writes were acknowledged.
func pace(ctx context.Context, l *ledger.Ledger, n int) error {
	for range n {
		if err := l.WaitAck(ctx); err != nil {
			return err
		}
	}
	return nil
}

func verdict(ctx context.Context, out io.Writer, l *ledger.Ledger, h ledger.History, st stack.Status, back time.Duration) error {
	rep, err := l.Verify(ctx, h)
	if err != nil {
		return err
	}
	outage, from := h.Outage()
	if os.Getenv("VERBOSE") != "" {
		fmt.Fprintf(out, "\nwhat the client saw from its last row before the outage:\n%s", h.Story(from, from.Add(outage)))
	}
	fmt.Fprintf(out, "\nthe new primary is %s; all nodes replicate again after %s\n", st.Primary, back.Round(time.Millisecond))
	fmt.Fprintf(out, "outage seen by the client: %d ms\n", outage.Milliseconds())
	fmt.Fprintf(out, "rows acknowledged: %d, lost: %d (%d failed, %d of unknown outcome)\n",
		rep.Acknowledged, len(rep.Lost), rep.Failed, rep.Unknown)
	return rep.Err()
}

func tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// progress prints a state when it changes, with the seconds since the start.
type progress struct {
	out   io.Writer
	start time.Time
	last  string
}

func newProgress(out io.Writer) *progress { return &progress{out: out, start: time.Now()} }

func (p *progress) elapsed() time.Duration { return time.Since(p.start).Round(100 * time.Millisecond) }

func (p *progress) say(state string) {
	if state != p.last {
		fmt.Fprintf(p.out, "%6.1f s  %s\n", time.Since(p.start).Seconds(), state)
		p.last = state
	}
}
