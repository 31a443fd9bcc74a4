// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"strings"
	"testing"
)

// The count decides whether a change lands: each kind of end must be seen, and a parent not counted beside its children.
func TestCount(t *testing.T) {
	tests := []struct {
		name, events string
		want         counts
	}{
		{"passes", `{"Action":"run","Package":"p","Test":"A"}
{"Action":"pass","Package":"p","Test":"A"}
{"Action":"pass","Package":"p"}`, counts{passed: 1}},
		{"subtests count, the parent does not", `{"Action":"run","Package":"p","Test":"A"}
{"Action":"run","Package":"p","Test":"A/x"}
{"Action":"run","Package":"p","Test":"A/y"}
{"Action":"pass","Package":"p","Test":"A/x"}
{"Action":"fail","Package":"p","Test":"A/y"}
{"Action":"fail","Package":"p","Test":"A"}
{"Action":"fail","Package":"p"}`, counts{passed: 1, failed: 1}},
		{"a parent that fails by itself counts", `{"Action":"run","Package":"p","Test":"A"}
{"Action":"run","Package":"p","Test":"A/x"}
{"Action":"pass","Package":"p","Test":"A/x"}
{"Action":"fail","Package":"p","Test":"A"}
{"Action":"fail","Package":"p"}`, counts{passed: 1, failed: 1}},
		{"skips", `{"Action":"run","Package":"p","Test":"A"}
{"Action":"output","Package":"p","Test":"A","Output":"why"}
{"Action":"skip","Package":"p","Test":"A"}`, counts{skipped: 1}},
		{"a package that does not compile", `{"Action":"build-output","ImportPath":"p","Output":"syntax error"}
{"Action":"fail","Package":"p"}`, counts{failed: 1}},
		{"a test that never ended", `{"Action":"run","Package":"p","Test":"A"}
{"Action":"fail","Package":"p"}`, counts{failed: 1}},
		{"a package without tests", `{"Action":"skip","Package":"p"}`, counts{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, r := newCollector(), newReport(io.Discard)
			c.read(strings.NewReader(tt.events), io.Discard)
			c.sum(r)
			if r.counts != tt.want {
				t.Fatalf("got %s, want %s", r.counts, tt.want)
			}
		})
	}
}

func TestCoverShare(t *testing.T) {
	if n, err := coverShare("ok  \tx/cluster\t0.2s\tcoverage: 98.8% of statements\n"); err != nil || n != 98.8 {
		t.Errorf("%v, %v", n, err)
	}
	for _, bad := range []string{"", "ok x 0.2s", "coverage: [no statements]"} {
		if _, err := coverShare(bad); err == nil {
			t.Errorf("%q is no share", bad)
		}
	}
}

func TestParseTree(t *testing.T) {
	if n, ok := parseTree("00000000ff4b825dc642cb6eb9a060e54bf8d69288fbee4904"); !ok || n != 0xff+1 {
		t.Error(n, ok)
	}
	for _, bad := range []string{"", "4b82", "not a hash at all"} {
		if _, ok := parseTree(bad); ok {
			t.Errorf("%q is a hash", bad)
		}
	}
}
