// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	tags      = "grpcnotrace"
	sizeLimit = 20_000_000 // bytes of the stripped binary
	golangci  = "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0"
	binary    = "bin/pgquorum"
)

// stage is one part of the suite.
type stage struct {
	name, what string
	docker     bool // it needs a docker daemon
	images     bool // it needs what the stage "images" makes
	run        func(context.Context, *report)
}

// stages in the order in which they run: what fails fast and cheaply comes first, after the images.
func stages() []stage {
	return []stage{
		{"images", "base images and the product's for 18, 17 and 15", true, false, images},
		{"build", "the binary", false, false, build},
		{"lint", "gofmt, go vet, golangci-lint", false, false, lint},
		{"size", "the binary's size", false, false, size},
		{"unit", "tests that need nothing but Go", false, false, unit},
		{"simulation", "the whole on virtual time", false, false, simulation},
		{"model", "every state of small clusters", false, false, modelCheck},
		{"contract", "our code against real Postgres 15, 17 and 18", true, true, contract},
		{"containers", "the shipped image and compose file", true, true, containers},
	}
}

// command runs a program, logs all of its output and returns it.
func command(ctx context.Context, log io.Writer, env []string, name string, args ...string) (string, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout = io.MultiWriter(&out, log)
	cmd.Stderr = cmd.Stdout
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("run %s: %w", name, err)
	}
	return out.String(), nil
}

// check runs a command as one test.
func check(ctx context.Context, r *report, what string, name string, args ...string) bool {
	out, err := command(ctx, &r.log, []string{"CGO_ENABLED=0"}, name, args...)
	if err != nil {
		r.fail(what, out+err.Error())
		return false
	}
	r.pass(what)
	return true
}

func images(ctx context.Context, r *report) {
	tools := []string{"docker", "compose"}
	if !check(ctx, r, "prepare", "images/prepare", tools...) || !check(ctx, r, "base images", "images/build") {
		return
	}
	for _, major := range majors() {
		check(ctx, r, "pgquorum:"+major, "images/product", "postgres:"+major, "pgquorum:"+major, version(ctx))
	}
}

func majors() []string { return []string{"18", "17", "15"} }

func version(ctx context.Context) string {
	if v := os.Getenv("VERSION"); v != "" {
		return v
	}
	out, err := command(ctx, io.Discard, nil, "git", "describe", "--always", "--dirty")
	if err != nil {
		return "dev"
	}
	return strings.TrimSpace(out)
}

func build(ctx context.Context, r *report) {
	check(ctx, r, "go build", "go", "build", "-trimpath", "-tags", tags,
		"-ldflags", "-s -w -X main.version="+version(ctx), "-o", binary, "./entrypoint")
}

func lint(ctx context.Context, r *report) {
	out, err := command(ctx, &r.log, nil, "git", "ls-files", "-co", "--exclude-standard", "*.go")
	if err != nil {
		r.fail("gofmt", err.Error())
		return
	}
	// A file that git knows and somebody deleted is no finding.
	files := slices.DeleteFunc(strings.Fields(out), func(f string) bool {
		_, err := os.Stat(f)
		return err != nil
	})
	out, err = command(ctx, &r.log, nil, "gofmt", append([]string{"-l"}, files...)...)
	if err != nil || out != "" {
		r.fail("gofmt", "not formatted:\n"+out)
	} else {
		r.pass("gofmt")
	}
	check(ctx, r, "go vet", "go", "vet", "-tags", tags, "./...")
	check(ctx, r, "go vet, all tags", "go", "vet", "-tags", tags+",e2e,contract,bench", "./...")
	golangciLint(ctx, r)
}

// golangciLint builds the linter through the module proxy on first use and keeps it in .cache/bin.
func golangciLint(ctx context.Context, r *report) {
	bin, err := filepath.Abs(".cache/bin")
	if err != nil {
		r.fail("golangci-lint", err.Error())
		return
	}
	tool := filepath.Join(bin, "golangci-lint")
	_, want, _ := strings.Cut(golangci, "@v")
	if have, err := command(ctx, &r.log, nil, tool, "version"); err != nil || !strings.Contains(have, want) {
		fmt.Fprintln(r.out, "   building golangci-lint (once)")
		out, err := command(ctx, &r.log, []string{"GOBIN=" + bin, "CGO_ENABLED=0"}, "go", "install", golangci)
		if err != nil {
			r.fail("golangci-lint", "build it: "+out)
			return
		}
	}
	check(ctx, r, "golangci-lint", tool, "run", "--build-tags", tags, "--timeout", "10m", "./...")
}

func size(ctx context.Context, r *report) {
	limit := sizeLimit
	if v, err := strconv.Atoi(os.Getenv("PGQ_SIZE_LIMIT")); err == nil {
		limit = v
	}
	if _, err := os.Stat(binary); errors.Is(err, os.ErrNotExist) {
		build(ctx, r)
	}
	info, err := os.Stat(binary)
	if err != nil {
		r.fail("binary size", err.Error())
		return
	}
	fmt.Fprintf(r.out, "   %s: %d bytes, limit %d\n", binary, info.Size(), limit)
	if info.Size() > int64(limit) {
		r.fail("binary size", fmt.Sprintf("%d bytes are more than %d", info.Size(), limit))
		return
	}
	r.pass("binary size")
}
