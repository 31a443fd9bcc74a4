// SPDX-License-Identifier: Apache-2.0

package config

import (
	"reflect"
	"strings"
)

// variable is one row of the table of variables, read from a struct field's tags.
type variable struct {
	field, name, def, kind, scope, doc, later string
	secret, twin                              bool // twin: NAME_FILE is read too
}

// variables reads the table out of Config's tags.
func variables() []variable {
	return append(rows(reflect.TypeFor[Config]()), rows(reflect.TypeFor[Postgres]())...)
}

func rows(t reflect.Type) []variable {
	var out []variable
	for f := range t.Fields() {
		name, ok := f.Tag.Lookup("env")
		if !ok {
			continue
		}
		out = append(out, variable{
			field: f.Name, name: name, def: f.Tag.Get("envDefault"), kind: f.Tag.Get("type"), scope: f.Tag.Get("scope"),
			doc: f.Tag.Get("doc"), later: f.Tag.Get("later"),
			secret: f.Type == reflect.TypeFor[Secret](), twin: f.Tag.Get("file") != "no",
		})
	}
	return out
}

// nearest returns the known name that is closest to a mistyped one, or "" when none is close.
func nearest(name string, known []variable) string {
	best, bestDistance := "", 4
	for _, v := range known {
		if !strings.HasPrefix(v.name, prefix) {
			continue
		}
		if d := distance(name, v.name); d < bestDistance {
			best, bestDistance = v.name, d
		}
	}
	return best
}

// distance is the number of letters to change, add, drop, or swap with a neighbour.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
