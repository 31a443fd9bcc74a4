// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strings"
)

// InitEnv is what the base image's first-time initialisation is run with: the image's variables as the user gave
// them, with those of the _FILE twins resolved, because the files may be readable for root only.
func (c Config) InitEnv(environ []string, home string) []string {
	resolved := map[string]string{
		"POSTGRES_PASSWORD": c.Postgres.Password.Reveal(), "POSTGRES_USER": c.Postgres.User,
		"POSTGRES_DB": c.Postgres.DB, "POSTGRES_INITDB_ARGS": c.Postgres.InitdbArgs,
	}
	out := make([]string, 0, len(environ)+1)
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		_, twin := resolved[strings.TrimSuffix(name, fileSuffix)]
		if ours(name) || name == "HOME" || (twin && strings.HasSuffix(name, fileSuffix)) {
			continue
		}
		out = append(out, kv)
	}
	for _, name := range []string{"POSTGRES_PASSWORD", "POSTGRES_USER", "POSTGRES_DB", "POSTGRES_INITDB_ARGS"} {
		if c.resolved[name] && resolved[name] != "" {
			out = append(out, name+"="+resolved[name])
		}
	}
	return append(out, "HOME="+home)
}

func ours(name string) bool { return strings.HasPrefix(name, prefix) && !serviceLink.MatchString(name) }
