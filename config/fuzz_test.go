// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// FuzzEnvironment: any environment is a configuration or an *Error whose every problem names its variable; no panic, and
// the secret in no message.
func FuzzEnvironment(f *testing.F) {
	const secret = "a-secret-that-nobody-prints"
	f.Add("PGQUORUM_LEASE=3s\nPGQUORUM_PEERS=pg1, pg2:7000;pg3\nPGQUORUM_NODE=pg2", "pg2")
	f.Add("PGQUORUM_PEERS=[::1]:1,a:b:c\nPGQUORUM_DURABILITY=x\nPGQUORUM_LAESE=1", "")
	f.Add("PGQUORUM_MAX_LAG=99999999999999TB\nPGQUORUM_LEASE=-1\nPOSTGRES_PASSWORD_FILE=/x\n=\nx", "pg1\n")
	f.Fuzz(func(t *testing.T, lines, host string) {
		environ := append([]string{"PGQUORUM_SECRET=" + secret, "PGDATA=/var/lib/postgresql/18/docker"}, strings.Split(lines, "\n")...)
		cfg, warnings, err := Parse(environ, nil, host, noFiles)
		said := fmt.Sprintf("%v %v %+v", err, warnings, cfg)
		if strings.Contains(said, secret) {
			t.Fatalf("the secret is printed: %s", said)
		}
		var e *Error
		if err != nil && (!errors.As(err, &e) || len(e.Problems) == 0) {
			t.Fatalf("an error without problems: %v", err)
		}
		if err == nil && (len(cfg.Members) == 0 || cfg.Lease <= 0) {
			t.Fatalf("accepted %+v", cfg)
		}
	})
}

// FuzzValues: what a value parses to prints as something that parses to the same.
func FuzzValues(f *testing.F) {
	for _, s := range []string{"1", "-1", "2s", "1h30m", "16MB", "1kB", "1KB", "9223372036854775807", "on", "No", " 7 ", "a, b;c\td", ","} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := parseDuration(s); err == nil {
			if again, err := parseDuration(d.String()); d < 0 || err != nil || again != d {
				t.Fatalf("duration %q: %s, then %s, %v", s, d, again, err)
			}
		}
		if n, err := parseSize(s); err == nil {
			if again, err := parseSize(fmt.Sprintf("%d", int64(n))); n < 0 || err != nil || again != n {
				t.Fatalf("size %q: %d, then %d, %v", s, n, again, err)
			}
		}
		if b, err := parseBool(s); err == nil {
			if again, err := parseBool(fmt.Sprint(b)); err != nil || again != b {
				t.Fatalf("bool %q: %t", s, b)
			}
		}
		for _, word := range parseList(s) {
			if word == "" || strings.ContainsAny(word, ",; \t\n") {
				t.Fatalf("list %q has the word %q", s, word)
			}
		}
	})
}
