// SPDX-License-Identifier: Apache-2.0

package conf

import (
	"path/filepath"
	"strings"
)

// LocalRole is the superuser that pgquorum uses over the unix socket.
const LocalRole = "pgquorum_local"

// identMap is the name of our map in pg_ident.conf.
const identMap = "pgquorum"

// HBAParams is what the generated pg_hba.conf depends on.
type HBAParams struct {
	ReplUser string
	ReplTLS  bool
	// LocalPassword: the local role logs in by SCRAM instead of by peer, for an OS user without a name.
	LocalPassword bool
	// Replication addresses (CIDR or "all") from which the replication role may come; empty: all.
	From []string
	// Closed rejects every role but ours (PROTOCOL 1.10).
	Closed bool
	// Probe is the line by which an open gate is known from a closed one; before any of the user's.
	Probe string
	// User is the text of the user's file, for an open gate; UserFile is where it is, for relative names.
	User, UserFile string
}

// HBA renders pg_hba.conf: our lines first, then either a closed gate or a copy of the user's.
func HBA(p HBAParams) string {
	var b strings.Builder
	b.WriteString(header)
	role := HBAQuote(p.ReplUser)
	if p.LocalPassword {
		b.WriteString("local all " + LocalRole + " scram-sha-256\n")
	} else {
		b.WriteString("local all " + LocalRole + " peer map=" + identMap + "\n")
	}
	b.WriteString("local replication " + LocalRole + " reject\n")
	b.WriteString("host all,replication " + LocalRole + " all reject\n")
	conn := "hostssl"
	if !p.ReplTLS {
		conn = "host"
	}
	from := p.From
	if len(from) == 0 {
		from = []string{"all"}
	}
	for _, f := range from {
		b.WriteString(conn + " replication,postgres " + role + " " + f + " scram-sha-256\n")
	}
	// Whatever the user's lines say, this role has no other way in.
	b.WriteString("host all,replication " + role + " all reject\n")
	b.WriteString("local all,replication " + role + " reject\n")
	if p.Closed {
		b.WriteString("\n# closed\nlocal all,replication all reject\nhost all,replication all all reject\n")
		return b.String()
	}
	b.WriteString(p.Probe)
	b.WriteString("\n# A copy of " + strings.ReplaceAll(p.UserFile, "\n", " ") + "\n")
	b.WriteString(absoluteNames(p.User, filepath.Dir(p.UserFile)))
	return b.String()
}

// HBAQuote quotes a name for pg_hba.conf and pg_ident.conf, where quotes also take away the meaning of words
// such as all.
func HBAQuote(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// Ident renders pg_ident.conf: our map, then a copy of the user's.
func Ident(osUser, user, userFile string) string {
	var b strings.Builder
	b.WriteString(header)
	if osUser != "" {
		b.WriteString(identMap + " " + HBAQuote(osUser) + " " + LocalRole + "\n")
	}
	b.WriteString("\n# A copy of " + strings.ReplaceAll(userFile, "\n", " ") + "\n")
	b.WriteString(absoluteNames(user, filepath.Dir(userFile)))
	return b.String()
}

// absoluteNames makes the relative file names in a copied file absolute: @file in a list, and the include
// directives of Postgres 16 and later.
func absoluteNames(text, dir string) string {
	if text == "" {
		return ""
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i, line := range lines {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if len(f) >= 2 && (f[0] == "include" || f[0] == "include_if_exists" || f[0] == "include_dir") {
			name := strings.Trim(f[1], `"`)
			if !filepath.IsAbs(name) {
				lines[i] = f[0] + " " + HBAQuote(filepath.Join(dir, name))
			}
			continue
		}
		lines[i] = absoluteLists(line, dir)
	}
	return strings.Join(lines, "\n") + "\n"
}

// absoluteLists rewrites @name where a field or a list element starts, outside quotes and comments.
func absoluteLists(line, dir string) string {
	var b strings.Builder
	start, quoted := true, false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '#' && !quoted:
			b.WriteString(line[i:])
			return b.String()
		case c == '"':
			quoted = !quoted
			start = false
		case c == '@' && start && !quoted && i+1 < len(line) && line[i+1] != '/' && line[i+1] != '"':
			b.WriteString("@" + dir + "/")
			start = false
			continue
		default:
			start = !quoted && (c == ' ' || c == '\t' || c == ',')
		}
		b.WriteByte(c)
	}
	return b.String()
}
