// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/pgquorum/pgquorum/config"
	"github.com/pgquorum/pgquorum/pgctl/proc"
)

// kind is what the arguments of "pgquorum run" ask for.
type kind int

const (
	kindForeign kind = iota // not a server: the image's entrypoint takes over, and we are gone
	kindSingle              // an ordinary single Postgres with us as process 1
	kindCluster             // a member of a cluster
)

// helpFlags are the arguments with which the image's entrypoint does not set up a database, exact and anywhere.
var helpFlags = []string{"-?", "--help", "--describe-config", "-V", "--version"}

// dispatch decides who runs. No arguments mean postgres: a Dockerfile that sets ENTRYPOINT loses the base image's
// CMD without a word, and the image's own entrypoint would then end silently with code 0.
func dispatch(args, env []string) (kind, []string) {
	if len(args) == 0 {
		args = []string{"postgres"}
	}
	server := args[0] == "postgres" || strings.HasPrefix(args[0], "-")
	help := slices.ContainsFunc(args, func(a string) bool { return slices.Contains(helpFlags, a) })
	switch {
	case !server || help:
		return kindForeign, args
	case config.ClusterMode(env):
		return kindCluster, args
	}
	return kindSingle, args
}

func runCommand(ctx context.Context, in invocation) int {
	kind, args := dispatch(in.args, in.env)
	switch kind {
	case kindForeign:
		if sig := pendingStop(); sig != 0 {
			return exitSignal + int(sig)
		}
		return execEntrypoint(args, in.env, in.stderr)
	case kindCluster:
		return runClusterMode(ctx, args, in)
	case kindSingle:
	}
	return runSingle(ctx, args, in)
}

// execEntrypoint becomes the image's own entrypoint. It returns only when that is impossible.
func execEntrypoint(args, env []string, stderr io.Writer) int {
	path, err := findEntrypoint(env)
	if err == nil {
		err = syscall.Exec(path, append([]string{filepath.Base(path)}, args...), env)
	}
	fmt.Fprintf(stderr, "pgquorum: run the image's entrypoint: %v\n", err)
	if errors.Is(err, syscall.EACCES) {
		return exitNotFound - 1
	}
	return exitNotFound
}

func findEntrypoint(env []string) (string, error) {
	name := config.EntrypointPath(env)
	path, err := proc.Lookup(name, env)
	if err != nil {
		return "", fmt.Errorf("%w (set PGQUORUM_ENTRYPOINT to the entrypoint of the base image)", err)
	}
	return path, nil
}
