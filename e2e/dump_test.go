// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgquorum/pgquorum/e2e/docker"
)

// dumpsAgree compares all that pg_dumpall tells of each node byte by byte: roles, memberships, grants, schemas and data
// of every database. A change of one grant must show, or the comparison is worth nothing.
func dumpsAgree(w *world) {
	p := w.primary()
	before := w.sameDumps(p)
	ctx, cancel := w.limit(time.Minute)
	defer cancel()
	for _, s := range []string{"grant insert on orders to reporter", "revoke insert on orders from reporter"} {
		_, err := w.sql(ctx, p, s)
		w.must(err)
		after := w.sameDumps(p)
		if changed := difference(before, after) != ""; changed != strings.HasPrefix(s, "grant") {
			w.t.Fatalf("after %q the dump differs from the first: %t", s, changed)
		}
	}
	for _, want := range []string{"CREATE ROLE reporter", "GRANT SELECT ON TABLE public.orders TO reporter", "COPY public.ledger", "second", "GRANT writers TO reporter"} {
		if !strings.Contains(before, want) {
			w.t.Errorf("the dump does not hold %q", want)
		}
	}
	w.t.Logf("the dumps of all nodes are the same, %d kB", len(before)>>10)
}

// sameDumps is the primary's dump, which each standby has to have too once it has replayed everything.
func (w *world) sameDumps(p string) string {
	w.t.Helper()
	ctx, cancel := w.limit(time.Minute)
	defer cancel()
	end, err := w.sql(ctx, p, "select pg_current_wal_flush_lsn()")
	w.must(err)
	want, err := w.dump(ctx, p)
	w.must(err)
	for _, n := range w.standbys(p) {
		w.must(docker.Wait(ctx, n+" to replay up to "+end, func(ctx context.Context) error {
			now, err := w.sql(ctx, n, "select pg_last_wal_replay_lsn() >= '"+end+"'")
			if err == nil && now != "t" {
				err = fmt.Errorf("it has not")
			}
			return err
		}))
		got, err := w.dump(ctx, n)
		w.must(err)
		if d := difference(want, got); d != "" || want != got {
			w.t.Fatalf("the dumps of %s and %s differ:\n%s", p, n, firstLines(d, 20))
		}
	}
	return want
}

// dump leaves out what may differ between two dumps of the same data: the random key with which pg_dump fences psql's
// commands, and the state of sequences, of which a standby sees the value that was logged ahead.
func (w *world) dump(ctx context.Context, node string) (string, error) {
	text, err := w.exec(ctx, node, "pg_dumpall -U postgres")
	if err != nil {
		return "", err
	}
	lines := slices.DeleteFunc(strings.Split(text, "\n"), func(l string) bool {
		return strings.HasPrefix(l, `\restrict `) || strings.HasPrefix(l, `\unrestrict `) || strings.HasPrefix(l, "SELECT pg_catalog.setval(")
	})
	return strings.Join(lines, "\n"), nil
}

// difference lists the lines that only one of two texts has, without their order.
func difference(a, b string) string {
	count := map[string]int{}
	for l := range strings.Lines(a) {
		count[l]++
	}
	for l := range strings.Lines(b) {
		count[l]--
	}
	var out strings.Builder
	for _, side := range []struct {
		sign, text string
		more       int
	}{{"- ", a, 1}, {"+ ", b, -1}} {
		for l := range strings.Lines(side.text) {
			if count[l]*side.more > 0 {
				out.WriteString(side.sign + strings.TrimSuffix(l, "\n") + "\n")
				count[l] -= side.more
			}
		}
	}
	return out.String()
}

func firstLines(text string, n int) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[:min(n, len(lines))], "\n")
}
