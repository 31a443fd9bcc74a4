// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import "testing"

// never is a node that may not be primary.
const never = "pg3"

// TestMajors is a shorter life of a cluster on each major, with one node that may hold data but not be primary.
func TestMajors(t *testing.T) {
	for i, major := range []string{"15", "17", "18"} {
		t.Run(major, func(t *testing.T) {
			w := startWorld(t, setup{
				project: "pgq-" + major, port: 25331 + 10*i, image: imageOf(major),
				nodeEnv: map[string]map[string]string{never: {"PGQUORUM_PRIORITY": "0"}},
			})
			if got, err := w.sql(w.ctx, w.primary(), "select current_setting('server_version_num')::int / 10000"); err != nil || got != major {
				t.Fatalf("the server is of major %q, not %s: %v", got, major, err)
			}
			list := []step{
				{"formed", formed},
				{"catch-up of a late standby", catchUp},
			}
			if major != "18" { // there TestCluster does all of it
				list = append(list, step1(killPrimary), step1(switchOver), step1(wipeStandby))
			}
			w.steps(list)
			w.finish()
			if major != "18" {
				w.steps([]step{{"dumps", dumpsAgree}})
			}
		})
	}
}
