// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"slices"
	"strings"
)

// titleSpace is how many bytes of environment a postmaster needs at least: Postgres writes titles over arguments and
// environment, and a title cut short of its host could pass for an auxiliary process.
const titleSpace = 1024

// serverReads are libpq's variables that the server itself reads as settings. A caller that wants them kept turns
// them into settings.
var serverReads = map[string]string{"PGPORT": "port", "PGDATESTYLE": "datestyle", "PGCLIENTENCODING": "client_encoding"}

// Env is what a postmaster's environment must be: env without anything that steers libpq, with PGSERVICEFILE and the
// HOME of its user. PGDATA and other names that are not libpq's stay.
func Env(env []string, serviceFile, home string) []string {
	var out []string
	size := 0
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if isLibpq(name) || name == "HOME" || name == titlePad {
			continue
		}
		out = append(out, kv)
		size += len(kv) + 1
	}
	out = append(out, "PGSERVICEFILE="+serviceFile, "HOME="+home)
	if size < titleSpace {
		out = append(out, titlePad+"="+strings.Repeat("-", titleSpace-size))
	}
	return out
}

const titlePad = "PGQUORUM_TITLE_SPACE"

// Settings are the settings that a postmaster would have taken from the variables that Env removes.
func Settings(env []string) map[string]string {
	out := map[string]string{}
	for _, kv := range env {
		name, v, _ := strings.Cut(kv, "=")
		if s, ok := serverReads[name]; ok && v != "" {
			out[s] = v
		}
	}
	return out
}

// isLibpq takes every name that begins with PG and a letter for libpq's, but for what other programs are known to
// read: a new libpq may know more names than we do.
func isLibpq(name string) bool {
	if len(name) < 3 || !strings.HasPrefix(name, "PG") || name[2] == '_' {
		return false
	}
	return !slices.Contains([]string{"PGDATA", "PGTZ", "PGCTLTIMEOUT"}, name) && !strings.HasPrefix(name, "PGQUORUM")
}
