// SPDX-License-Identifier: Apache-2.0

package config

import (
	"reflect"
	"slices"
	"strings"
)

const docsHead = `# Configuration

Generated from the struct in ` + "`config/config.go`" + `; do not edit. To make it again:
` + "`go test ./config -run TestDocs -rewrite`" + `.

Everything is set by environment variables. A container is a member of a cluster exactly when ` + "`PGQUORUM_PEERS`" + ` is
set; without it, it is an ordinary single Postgres and none of the variables of the first table has an effect.
A cluster needs three, the same on every node: ` + "`POSTGRES_PASSWORD`, `PGQUORUM_PEERS` and `PGQUORUM_SECRET`" + `.

- Empty means unset.
- Each variable can be read from a file: set ` + "`NAME_FILE`" + ` to its path instead (line breaks at the end are dropped).
  Setting both is an error. Exceptions are marked.
- Boolean: ` + "`1 0 true false yes no on off`" + `. Duration: ` + "`500ms`, `10s`, `2m`" + `; a bare number is seconds. Size: Postgres'
  units, ` + "`512kB`, `16MB`, `1GB`" + `. List: separated by commas, semicolons or white space.
- An unknown name that begins with ` + "`PGQUORUM_`" + ` is an error. All errors are reported together, exit code 78.
- Scope C: a property of the cluster. Give the same value to every node; it counts when the cluster is formed.
  Scope N: a property of this node.
- Reserved: the name exists, but only its default is accepted until the feature is built.

`

const docsArgs = `
## Settings of Postgres

Arguments of the container go to Postgres, as with the official image: ` + "`-c name=value`" + `. Configuration files and
` + "`ALTER SYSTEM`" + ` work as usual. What failover has to decide itself is refused on the command line of a cluster member, in
every form that Postgres takes (` + "`-c a=b`, `-ca=b`, `--a=b`" + `):

`

// Docs is the text of docs/configuration.md.
func Docs() string {
	var b strings.Builder
	b.WriteString(docsHead)
	table(&b, "## Variables of pgquorum", rows(reflect.TypeFor[Config]()))
	table(&b, "\n## Variables of the base image that pgquorum reads too", rows(reflect.TypeFor[Postgres]()))
	b.WriteString(docsArgs)
	names := make([]string, 0, len(managed))
	for name := range managed {
		names = append(names, name)
	}
	slices.Sort(names)
	b.WriteString("| Setting | Refused | What to do |\n|---|---|---|\n")
	for _, name := range names {
		when := "always"
		if managed[name].allow != nil {
			when = "values that break replication"
		}
		b.WriteString("| `" + name + "` | " + when + " | " + managed[name].fix + " |\n")
	}
	return b.String()
}

func table(b *strings.Builder, head string, list []variable) {
	b.WriteString(head + "\n\n| Variable | Value | Default | Scope | Meaning |\n|---|---|---|---|---|\n")
	for _, v := range list {
		def, doc := "", v.doc
		if v.def != "" {
			def = "`" + v.def + "`"
		}
		if v.later != "" {
			doc = "**Reserved.** " + doc
		}
		if !v.twin {
			doc += " No `_FILE` twin."
		}
		b.WriteString("| `" + v.name + "` | " + v.kind + " | " + def + " | " + v.scope + " | " + doc + " |\n")
	}
}
