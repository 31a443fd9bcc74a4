// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// goTest runs a command that prints the events of `go test -json` and adds them to the report.
func goTest(r *report, cmd *exec.Cmd) {
	c := newCollector()
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		r.fail("go test", err.Error())
		return
	}
	var stderr strings.Builder
	cmd.Stderr = io.MultiWriter(&stderr, &r.log)
	if cmd.Env == nil {
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	}
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		r.fail("go test", err.Error())
		return
	}
	c.read(pipe, &r.log)
	err = cmd.Wait()
	before := r.failed
	c.sum(r)
	// No event told of the failure: a package that does not exist, a killed process, an interrupt.
	if err != nil && r.failed == before {
		var said strings.Builder
		for _, name := range c.order {
			said.WriteString(c.tests[name].output.String())
		}
		r.fail(filepath.Base(cmd.Path), fmt.Sprintf("%v: %q\n%s%s%s", err, cmd.Args, c.build.String(), said.String(), stderr.String()))
	}
}

// packages lists the import paths of patterns, without those for which skip is true.
func packages(ctx context.Context, r *report, tags string, skip func(string) bool) []string {
	out, err := command(ctx, &r.log, nil, "go", "list", "-tags", tags, "-f", "{{.ImportPath}}", "./...")
	if err != nil {
		r.fail("go list", out)
		return nil
	}
	return slices.DeleteFunc(strings.Fields(out), skip)
}

func unit(ctx context.Context, r *report) {
	list := packages(ctx, r, tags, func(p string) bool {
		return strings.Contains(p, "/sim") || strings.HasSuffix(p, "/model")
	})
	if len(list) == 0 {
		return
	}
	args := append([]string{"test", "-json", "-tags", tags, "-count=1", "-timeout", "5m"}, list...)
	goTest(r, exec.CommandContext(ctx, "go", args...))
	coverage(ctx, r)
}

// coverMin is the share of cluster's statements, in percent, that its own tests must run: what no test runs may
// decide about data.
const coverMin = 95.0

var covered = regexp.MustCompile(`coverage: ([0-9.]+)% of statements`)

func coverage(ctx context.Context, r *report) {
	const what = "coverage of cluster"
	out, err := command(ctx, &r.log, []string{"CGO_ENABLED=0"}, "go", "test", "-tags", tags, "-count=1", "-cover", "./cluster")
	if err != nil {
		r.fail(what, out)
		return
	}
	share, err := coverShare(out)
	if err != nil {
		r.fail(what, err.Error())
		return
	}
	fmt.Fprintf(r.out, "   %s: %.1f %% of statements, at least %.0f %%\n", what, share, coverMin)
	if share < coverMin {
		r.fail(what, fmt.Sprintf("%.1f %% is less than %.0f %%; see go test -coverprofile", share, coverMin))
		return
	}
	r.pass(what)
}

// coverShare reads the output of go test -cover.
func coverShare(out string) (float64, error) {
	m := covered.FindStringSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("no coverage in %q", out)
	}
	return strconv.ParseFloat(m[1], 64)
}

func simulation(ctx context.Context, r *report) {
	if _, err := os.Stat("sim"); err != nil {
		r.skip("simulation", "there is no sim/ yet")
		return
	}
	args := []string{"test", "-json", "-tags", tags, "-count=1", "-timeout", "15m", "./sim"}
	if n := os.Getenv("PGQ_SIM_SEEDS"); n != "" {
		args = append(args, "-args", "-seeds", n)
	}
	goTest(r, exec.CommandContext(ctx, "go", args...))
}

func modelCheck(ctx context.Context, r *report) {
	goTest(r, exec.CommandContext(ctx, "go", "test", "-json", "-tags", tags, "-count=1", "-timeout", "15m", "./model"))
}

// containers runs the tests of e2e. Those of the cluster measure times and run one after the other; those of single
// containers mostly wait and run four at a time afterwards.
func containers(ctx context.Context, r *report) {
	args := []string{"test", "-json", "-tags", tags + ",e2e", "-count=1", "-timeout", "35m", "-parallel", "4"}
	if run := os.Getenv("PGQ_E2E_RUN"); run != "" {
		args = append(args, "-run", run)
	}
	goTest(r, exec.CommandContext(ctx, "go", append(args, "./e2e")...))
}

// contract compiles each package's contract tests once and runs them in a container of each major, where the programs
// are that the product will find.
func contract(ctx context.Context, r *report) {
	files, err := contractFiles(".")
	if err != nil {
		r.fail("contract", err.Error())
		return
	}
	if len(files) == 0 {
		r.skip("contract", "no file is tagged contract yet")
		return
	}
	dir, err := filepath.Abs(".cache/contract")
	if err != nil {
		r.fail("contract", err.Error())
		return
	}
	for _, pkg := range slices.Sorted(maps.Keys(files)) {
		names := files[pkg]
		name := strings.ReplaceAll(pkg, "/", "-") + ".test"
		if !check(ctx, r, "compile "+pkg, "go", "test", "-c", "-tags", tags+",contract", "-o", filepath.Join(dir, name), "./"+pkg) {
			continue
		}
		r.passed-- // compiling is no test
		for _, major := range majors() {
			goTest(r, contractCommand(ctx, dir, name, pkg, major, names))
		}
	}
}

// contractCommand is a shell line, for the container's output goes through test2json.
func contractCommand(ctx context.Context, dir, name, pkg, major string, tests []string) *exec.Cmd {
	image := os.Getenv("PGQ_CONTRACT_IMAGE")
	if image == "" {
		image = "pgquorum"
	}
	line := `set -o pipefail; docker run --rm --user postgres --shm-size 256m --tmpfs /tmp:exec,mode=1777 -v "$1":/contract:ro ` +
		`-v "$6":/src:ro -w /src -e PGQ_CONTRACT_ROUNDS -e PGQ_CONTRACT_SEED --entrypoint "/contract/$2" "$3" -test.v=test2json -test.timeout 20m -test.run "$4" 2>&1 </dev/null | ` +
		`go tool test2json -t -p "$5"`
	src, _ := filepath.Abs(pkg) // cannot fail: contract made an absolute path before
	return exec.CommandContext(ctx, "bash", "-c", line, "contract", dir, name, image+":"+major,
		"^("+strings.Join(tests, "|")+")$", "contract/"+major+"/"+pkg, src)
}

// contractFiles maps each package that has contract tests to the names of those tests.
func contractFiles(root string) (map[string][]string, error) {
	found := map[string][]string{}
	name := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != root {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), "//go:build contract\n") {
			return err
		}
		for _, m := range name.FindAllStringSubmatch(string(text), -1) {
			found[filepath.Dir(path)] = append(found[filepath.Dir(path)], m[1])
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for contract tests: %w", err)
	}
	return found, nil
}
