// SPDX-License-Identifier: Apache-2.0

package config

import "strings"

// Names that are needed before, or without, a whole Config.
const (
	peersVar      = "PGQUORUM_PEERS"
	entrypointVar = "PGQUORUM_ENTRYPOINT"
	prefix        = "PGQUORUM_"
	fileSuffix    = "_FILE"

	defaultEntrypoint = "docker-entrypoint.sh"
)

// ClusterMode says whether this container is a member of a cluster: exactly when PGQUORUM_PEERS (or its _FILE twin)
// is set and not empty.
func ClusterMode(environ []string) bool {
	return Lookup(environ, peersVar) != "" || Lookup(environ, peersVar+fileSuffix) != ""
}

// EntrypointPath is the image's own entrypoint. It is asked separately because a foreign command (bash, psql) must
// run whatever else the environment says.
func EntrypointPath(environ []string) string {
	if v := Lookup(environ, entrypointVar); v != "" {
		return v
	}
	return defaultEntrypoint
}

// Lookup returns the value of a variable, the last one when it is there twice. Empty means unset.
func Lookup(environ []string, name string) string {
	var value string
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok && k == name {
			value = v
		}
	}
	return value
}

// SingleModeWarnings names the variables that have no effect without PGQUORUM_PEERS.
func SingleModeWarnings(environ []string) []string {
	var out []string
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		base := strings.TrimSuffix(name, fileSuffix)
		if strings.HasPrefix(name, prefix) && value != "" && base != entrypointVar && base != peersVar {
			out = append(out, name+" has no effect without PGQUORUM_PEERS (this is a single server)")
		}
	}
	return out
}
