// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"testing"

	"github.com/pgquorum/pgquorum/pgctl/procfs"
)

func TestEnds(t *testing.T) {
	g := New(Options{LocalRole: "pgquorum_local", ReplicationRole: "pgquorum"})
	for title, want := range map[string]bool{
		"postgres: app db [local] idle":                              true,
		"postgres: walreceiver streaming 10.0.0.1(5) idle":           true,
		"postgres: startup recovering [local] idle":                  true,
		"postgres: pgquorum_local postgres [local] idle":             false,
		"postgres: pgquorum_local postgres 10.0.0.1(5) idle":         true,
		"postgres: pgquorum_local x postgres [local] idle":           true,
		"postgres: walsender pgquorum 10.0.0.1(5) streaming 0/1":     false,
		"postgres: walsender other db 10.0.0.1(5) START_REPLICATION": true,
		"postgres: checkpointer":                                     false,
		"postgres: parallel worker for PID 5":                        false,
		"postgres: pg_cron launcher":                                 false,
		"postgres: autovacuum worker db":                             false,
		"postgres: slotsync worker":                                  false,
	} {
		if got := g.ends(title, procfs.Classify(title)); got != want {
			t.Errorf("ends(%q) = %v", title, got)
		}
	}
}

func TestParseError(t *testing.T) {
	code, text := parseError([]byte("SFATAL\x00C28000\x00Mpg_hba.conf rejects connection\x00\x00"))
	if a := (answer{kind: 'E', code: code, message: text}); !a.rejectedByHBA() {
		t.Error(code, text)
	}
	for _, a := range []answer{{kind: 'R'}, {kind: 'E', code: "28000", message: `role "x" does not exist`}, {kind: 'E', code: "57P03"}} {
		if a.rejectedByHBA() {
			t.Errorf("%+v", a)
		}
	}
}

func FuzzParseError(f *testing.F) {
	f.Add([]byte("SFATAL\x00C28000\x00Mx\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) { parseError(b) })
}
