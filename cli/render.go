// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/pgquorum/pgquorum/api/status"
)

const (
	widthMax = 80
	nameMin  = 4
	none     = "-"
)

// Render is the status for people: at most 80 columns wide.
func Render(d status.Doc) string {
	var b strings.Builder
	head := func(key, text string) { b.WriteString(wrap(fmt.Sprintf("%-9s ", key), text)) }
	switch {
	case d.Primary != "":
		head("primary", d.Primary)
	case d.Forming != "" && d.Cluster == "":
		head("primary", "none, the cluster is not formed yet: "+d.Forming)
	default:
		head("primary", "none, "+d.Phase)
	}
	if d.Cluster != "" {
		head("cluster", fmt.Sprintf("%s, epoch %d, timeline %d, %s", d.Cluster, d.Epoch, d.Timeline, d.Phase))
		head("leader", fmt.Sprintf("%s (of raft: it decides); seen from %s", cmp.Or(d.Leader, "none known"), d.Node))
		head("commits", commits(d))
		head("redundant", redundant(d))
	} else {
		head("node", d.Node)
	}
	if d.Paused {
		head("paused", "automatic failover is off until pgquorum resume")
	}
	b.WriteString("\n" + table(d.Members))
	notes := strings.Builder{}
	for _, m := range d.Members {
		if m.Trouble != "" {
			notes.WriteString(wrap(m.Name+": ", "TROUBLE: "+m.Trouble))
		}
		if m.WhyNot != "" {
			notes.WriteString(wrap(m.Name+": ", m.WhyNot))
		}
	}
	if d.Decision != "" {
		rule := ""
		if d.Rule != "" {
			rule = " [" + d.Rule + "]"
		}
		notes.WriteString(wrap("last decision on "+d.Node+": ", d.Decision+rule))
	}
	if notes.Len() > 0 {
		b.WriteString("\n" + notes.String())
	}
	return b.String()
}

// commits says in words what an acknowledged commit is worth.
func commits(d status.Doc) string {
	text := promise(d.Durability, d)
	if p := d.Durability.Pending; p != nil {
		text += "; changing: " + promise(*p, d)
	}
	return text
}

func promise(u status.Durability, d status.Doc) string {
	var others []string
	for _, n := range u.Set {
		if !isPrimary(d, n) {
			others = append(others, n)
		}
	}
	switch {
	case u.K == 0 && u.Mode == "async":
		return "acknowledged by the primary alone (async)"
	case u.K == 0:
		return "acknowledged by the primary alone: no standby in the set yet"
	case len(others) == len(u.Set):
		return fmt.Sprintf("on %d of %s", u.K+1, strings.Join(others, ", "))
	case len(others) == u.K:
		return "on the primary and " + strings.Join(others, ", ")
	}
	return fmt.Sprintf("on the primary and %d of %s", u.K, strings.Join(others, ", "))
}

func isPrimary(d status.Doc, name string) bool {
	return slices.ContainsFunc(d.Members, func(m status.Member) bool {
		return m.Name == name && m.Role == status.RolePrimary
	})
}

func redundant(d status.Doc) string {
	if d.Redundant {
		return "yes"
	}
	streaming, data := 0, 0
	for _, m := range d.Members {
		if m.Role != status.RolePrimary && m.Role != status.RoleWitness {
			data++
			if m.Streaming {
				streaming++
			}
		}
	}
	return fmt.Sprintf("no, %d of %d standbys stream", streaming, data)
}

var columns = []string{"NAME", "ROLE", "STATE", "TL", "LSN", "LAG", "SYNC", "LEASE", "EPOCH"}

// table fits: with two blanks between the columns if there is room, else with one, else with names cut short.
func table(members []status.Member) string {
	rows := [][]string{columns}
	for _, m := range members {
		rows = append(rows, row(m))
	}
	widths, sum := make([]int, len(columns)), 0
	for i := range columns {
		for _, r := range rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(r[i]))
		}
		sum += widths[i]
	}
	gap := "  "
	if sum+2*(len(columns)-1) > widthMax {
		gap = " "
	}
	if over := sum + len(gap)*(len(columns)-1) - widthMax; over > 0 {
		widths[0] = max(nameMin, widths[0]-over)
	}
	var b strings.Builder
	for _, r := range rows {
		line := ""
		for i, cell := range r {
			if i == 0 {
				cell = cut(cell, widths[0])
			}
			line += cell + strings.Repeat(" ", max(0, widths[i]-utf8.RuneCountInString(cell))) + gap
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}

func row(m status.Member) []string {
	r := []string{m.Name, m.Role, m.State, none, cmp.Or(m.LSN, none), none, "no", none, none}
	if m.Timeline != 0 {
		r[3] = strconv.FormatUint(uint64(m.Timeline), 10)
	}
	if m.LagBytes != nil {
		r[5] = size(*m.LagBytes)
	}
	switch {
	case m.Role == status.RolePrimary || m.Role == status.RoleWitness:
		r[6] = none
	case m.Sync:
		r[6] = "yes"
	}
	if m.Role == status.RolePrimary && m.LeaseMS > 0 {
		r[7] = fmt.Sprintf("%.1f s", float64(m.LeaseMS)/1000)
	}
	if m.Epoch != 0 {
		r[8] = strconv.FormatUint(m.Epoch, 10)
	}
	return r
}

// size is at most 7 characters.
func size(n uint64) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	i := 0
	f := float64(n)
	for f >= 1000 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 || f >= 10 {
		return fmt.Sprintf("%.0f %s", f, units[i])
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}

func cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-1]) + "~"
}

// wrap breaks text at blanks; further lines stand under the first word. A word that is too long for a line is broken.
func wrap(label, text string) string {
	indent := utf8.RuneCountInString(label)
	if indent > widthMax/2 {
		label, indent = cut(label, widthMax/2), widthMax/2
	}
	room := widthMax - indent
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		for utf8.RuneCountInString(word) > room {
			if line != "" {
				lines, line = append(lines, line), ""
			}
			r := []rune(word)
			lines, word = append(lines, string(r[:room])), string(r[room:])
		}
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > room {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	if line != "" || len(lines) == 0 {
		lines = append(lines, line)
	}
	return label + strings.Join(lines, "\n"+strings.Repeat(" ", indent)) + "\n"
}
