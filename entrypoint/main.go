// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"

	"github.com/pgquorum/pgquorum/cli"
	"github.com/pgquorum/pgquorum/config"
)

// Exit codes of our own. A server's code is passed on: its own, or 128+n when signal n ended it.
const (
	exitOK       = 0
	exitFailure  = 1
	exitUsage    = 2
	exitTemp     = 75 // EX_TEMPFAIL: the volume is in use by another container
	exitConfig   = 78 // EX_CONFIG: invalid settings
	exitNotFound = 127
	exitSignal   = 128
)

// version is set by the linker (-X main.version=...).
var version = "dev"

// invocation is what a command may use of the outside world.
type invocation struct {
	args           []string // after the command's name
	env            []string
	stdin          io.Reader
	stdout, stderr io.Writer
}

// command is one verb. Front ends of other rooms are wired by adding a row to commands.
type command struct {
	name, help string // no help: not listed
	run        func(ctx context.Context, in invocation) int
}

func commands() []command {
	return []command{
		{"run", "run Postgres (the container's entrypoint); arguments as for the image's own", runCommand},
		{"watchdog", "", watchdogCommand},
		{"docs", "", docsCommand},
		{"status", "show the cluster as this node sees it (--json, --watch)", operator(cli.Status)},
		{"switchover", "hand over to NODE, or to the best standby", operator(cli.Switchover)},
		{"health", "for health checks: is this node alive (--ready: and in service)", operator(cli.Health)},
		{"version", "print the version", versionCommand},
	}
}

func main() {
	setMemoryLimits(os.Environ())
	os.Exit(run(context.Background(), os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program, so that a test can call it.
func run(ctx context.Context, args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	in := invocation{env: env, stdin: stdin, stdout: stdout, stderr: stderr}
	if len(args) == 0 {
		usage(stderr)
		return exitUsage
	}
	if slices.Contains([]string{"help", "-h", "--help"}, args[0]) {
		usage(stdout)
		return exitOK
	}
	if args[0] == "--version" {
		args[0] = "version"
	}
	in.args = args[1:]
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(ctx, in)
		}
	}
	fmt.Fprintf(stderr, "pgquorum: unknown command %q\n\n", args[0])
	usage(stderr)
	return exitUsage
}

func usage(w io.Writer) {
	fmt.Fprint(w, "usage: pgquorum COMMAND [ARGUMENTS]\n\n")
	for _, c := range commands() {
		if c.help != "" {
			fmt.Fprintf(w, "  %-12s %s\n", c.name, c.help)
		}
	}
}

func versionCommand(_ context.Context, in invocation) int {
	fmt.Fprintln(in.stdout, "pgquorum "+version)
	return exitOK
}

// setMemoryLimits keeps the supervisor from ever being the fat process of the container. The environment's own
// GOGC and GOMEMLIMIT win.
func setMemoryLimits(env []string) {
	if config.Lookup(env, "GOGC") == "" {
		debug.SetGCPercent(50)
	}
	if config.Lookup(env, "GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(64 << 20)
	}
}
