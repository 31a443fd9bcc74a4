// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// counts of tests. A test that has subtests is not counted beside them.
type counts struct{ passed, failed, skipped int }

func (c *counts) add(o counts) {
	c.passed += o.passed
	c.failed += o.failed
	c.skipped += o.skipped
}

func (c counts) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", c.passed, c.failed, c.skipped)
}

// report collects what one stage did.
type report struct {
	counts
	out io.Writer
	log bytes.Buffer
}

func newReport(out io.Writer) *report { return &report{out: out} }

// pass counts something that is no Go test.
func (r *report) pass(name string) {
	r.passed++
	fmt.Fprintf(&r.log, "PASS %s\n", name)
}

// fail counts and prints a failure at once.
func (r *report) fail(name, why string) {
	r.failed++
	fmt.Fprintf(&r.log, "FAIL %s\n%s\n", name, why)
	fmt.Fprintf(r.out, "-- FAIL %s\n%s\n", name, indent(lastLines(why, 80)))
}

func (r *report) skip(name, why string) {
	r.skipped++
	fmt.Fprintf(&r.log, "SKIP %s\n%s\n", name, why)
	fmt.Fprintf(r.out, "-- SKIP %s\n%s\n", name, indent(lastLines(why, 3)))
}

// finish writes the log.
func (r *report) finish(path string) {
	if err := os.WriteFile(path, r.log.Bytes(), 0o600); err != nil {
		fmt.Fprintln(r.out, "write the stage's log:", err)
	}
}

// event is a line of `go test -json`.
type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

// test is what is known of one test, or of a package when its name is empty.
type test struct {
	action string
	output strings.Builder
	parent bool
}

// collector turns the events of one run of `go test -json` into counts.
type collector struct {
	tests map[string]*test
	order []string
	build strings.Builder
}

func newCollector() *collector { return &collector{tests: map[string]*test{}} }

func (c *collector) get(name string) *test {
	t := c.tests[name]
	if t == nil {
		t = &test{}
		c.tests[name] = t
		c.order = append(c.order, name)
	}
	return t
}

// key names a test so that a package's own events are "pkg" and a test's are "pkg Test/sub".
func key(pkg, name string) string { return strings.TrimSpace(pkg + " " + name) }

// read consumes a stream of events. Lines that are no events (a compiler's) are kept for the package's failure.
func (c *collector) read(in io.Reader, log io.Writer) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if !bytes.HasPrefix(lines.Bytes(), []byte("{")) || json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintf(log, "%s\n", lines.Bytes())
			c.build.Write(append(lines.Bytes(), '\n'))
			continue
		}
		fmt.Fprint(log, e.Output)
		c.event(e)
	}
}

func (c *collector) event(e event) {
	switch e.Action {
	case "build-output":
		c.build.WriteString(e.Output)
	case "output":
		c.get(key(e.Package, e.Test)).output.WriteString(e.Output)
	case "run":
		c.get(key(e.Package, e.Test))
		for i, r := range e.Test {
			if r == '/' {
				c.get(key(e.Package, e.Test[:i])).parent = true
			}
		}
	case "pass", "fail", "skip":
		c.get(key(e.Package, e.Test)).action = e.Action
	}
}

// sum adds everything to the report. A package that failed without a failed test (it does not compile, it panicked, it
// ran out of time) counts as one failure.
func (c *collector) sum(r *report) {
	failed := map[string]bool{}
	for _, name := range c.order {
		pkg, isTest, t := packageOf(name), strings.Contains(name, " "), c.tests[name]
		if !isTest {
			continue
		}
		switch {
		case t.action == "" && !t.parent:
			failed[pkg] = true
			r.fail(name, "it began and never ended\n"+t.output.String())
		case t.action == "fail" && (!t.parent || !c.failedBelow(name)):
			failed[pkg] = true
			r.fail(name, t.output.String())
		case t.parent:
		case t.action == "pass":
			r.passed++
		case t.action == "skip":
			r.skip(name, t.output.String())
		}
	}
	for _, name := range c.order {
		if t := c.tests[name]; !strings.Contains(name, " ") && t.action == "fail" && !failed[name] {
			r.fail(name, c.build.String()+t.output.String())
		}
	}
}

func (c *collector) failedBelow(name string) bool {
	return slices.ContainsFunc(c.order, func(n string) bool {
		return strings.HasPrefix(n, name+"/") && c.tests[n].action == "fail"
	})
}

func packageOf(name string) string {
	pkg, _, _ := strings.Cut(name, " ")
	return pkg
}

func indent(text string) string {
	return "   " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n   ")
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) <= n {
		return strings.Join(lines, "\n")
	}
	return fmt.Sprintf("[%d lines before]\n%s", len(lines)-n, strings.Join(lines[len(lines)-n:], "\n"))
}
