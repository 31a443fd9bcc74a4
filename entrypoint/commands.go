// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/pgquorum/pgquorum/cli"
	"github.com/pgquorum/pgquorum/config"
	"github.com/pgquorum/pgquorum/entrypoint/watchdog"
)

// watchdogCommand is the child that process 1 starts; it is of no use to anybody else.
func watchdogCommand(context.Context, invocation) int { return watchdog.Main() }

// docsCommand prints what is generated for docs/.
func docsCommand(_ context.Context, in invocation) int {
	if len(in.args) != 1 || in.args[0] != "configuration" {
		fmt.Fprintln(in.stderr, "usage: pgquorum docs configuration")
		return exitUsage
	}
	fmt.Fprint(in.stdout, config.Docs())
	return exitOK
}

// operator makes a command of one of package cli's, which talk to the node in this container.
func operator(f func(context.Context, cli.Call) int) func(context.Context, invocation) int {
	return func(ctx context.Context, in invocation) int {
		return f(ctx, cli.Call{
			Args: in.args, Stdout: in.stdout, Stderr: in.stderr,
			Getenv: func(name string) string { return config.Lookup(in.env, name) },
		})
	}
}
