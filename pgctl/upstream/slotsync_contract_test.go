// SPDX-License-Identifier: Apache-2.0

//go:build contract

package upstream_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/pgctl/pgtest"
	"github.com/pgquorum/pgquorum/pgctl/procfs"
	"github.com/pgquorum/pgquorum/pgctl/upstream"
)

// TestContractSlotSync: the slot sync worker of 17 and later reads the upstream file too, and stays connected although the
// file is parked and read again. A fence ends it, and an order makes it go where the file says (E55).
func TestContractSlotSync(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		a := newPair(t, l, "wal_level=logical\n")
		if l.Version < 17 {
			if pgtest.Query(t, a.sc, "select count(*) from pg_settings where name = 'sync_replication_slots'")[0] != "0" {
				t.Error("this Postgres can have a slot sync worker")
			}
			return
		}
		reload := func() {
			t.Helper()
			before := pgtest.Query(t, a.sc, "select pg_conf_load_time()")[0]
			pgtest.Query(t, a.sc, "select pg_reload_conf()")
			pgtest.Wait(t, "settings are read again", 5*time.Second, func() bool { return pgtest.Query(t, a.sc, "select pg_conf_load_time()")[0] != before })
		}
		for _, s := range []string{"hot_standby_feedback", "sync_replication_slots"} {
			pgtest.Query(t, a.sc, "alter system set "+s+" = on")
		}
		reload()
		connected := func() bool { // a session under the name in the file, beside the WAL receiver's sender
			return pgtest.Query(t, a.pc, "select count(*) from pg_stat_activity where application_name like 's_e%' and backend_type = 'client backend'")[0] != "0"
		}
		workers := func() []int {
			var pids []int
			for _, p := range a.s.Children() {
				if procfs.Classify(p.Title) == procfs.KindSlotSync {
					pids = append(pids, p.PID)
				}
			}
			return pids
		}
		pgtest.Wait(t, "the worker is connected", 20*time.Second, connected)
		old := workers()
		if err := a.file.Park(); err != nil || len(old) != 1 {
			t.Fatal(old, err)
		}
		reload()
		if !connected() || !slices.Equal(workers(), old) {
			t.Error("parking alone ends the worker: nobody has to end it then")
		}
		if _, err := upstream.Fence(context.Background(), upstream.FenceParams{File: a.file, PostmasterPID: a.s.PID}); err != nil {
			t.Fatal(err)
		}
		if slices.Contains(workers(), old[0]) {
			t.Error("the worker outlives the fence")
		}
		pgtest.Wait(t, "the primary sees its end", 5*time.Second, func() bool { return !connected() })
		a.next()
		a.streaming()
		pgtest.Wait(t, "the worker follows the order", 30*time.Second, func() bool {
			if c, err := a.s.Dial(pgtest.User); err == nil { // something has to wake the postmaster, which starts one every 10 s at most
				c.Close(context.Background())
			}
			return connected()
		})
	})
}
