// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"strings"
	"testing"
)

// FuzzClassify: no role, database or cluster name makes a session or a WAL sender look like a process that the gate and
// the fence leave alone or mistake for a receiver (PROTOCOL 1.10, 5.2.b).
func FuzzClassify(f *testing.F) {
	f.Add("", "alice", "db", "SELECT")
	f.Add("walreceiver", "walreceiver", "streaming 0/3000000", "idle")
	f.Add("a: startup recovering", "checkpointer", "autovacuum worker", "x")
	f.Add("c: ", "parallel worker for PID 1", "slotsync worker", "")
	f.Fuzz(func(t *testing.T, clusterName, role, db, what string) {
		title := "postgres: "
		if clusterName != "" {
			title += clusterName + ": "
		}
		for _, host := range []string{"[local]", "10.0.0.1(5432)", "::1(65535)"} {
			session := title + role + " " + db + " " + host + " " + what
			if k := Classify(session); k != KindClient && k != KindSender {
				t.Fatalf("%q is of kind %d", session, k)
			}
			if k := Classify(title + "walsender " + role + " " + host + " streaming 0/3000000"); k != KindSender {
				t.Fatalf("a sender of %q is of kind %d", role, k)
			}
			if _, ok := RecoveringSegment(session); ok {
				t.Fatalf("%q is a startup process", session)
			}
		}
		if strings.Contains(clusterName, "[local]") || hasHost(clusterName) {
			return // such a name is refused by nobody, and only makes more processes look like sessions
		}
		for _, own := range []string{"walreceiver", "walreceiver streaming 0/3000000", "walreceiver restarting at 0/3000000", "walreceiver idle"} {
			if k := Classify(title + own); k != KindReceiver {
				t.Fatalf("%q is of kind %d", title+own, k)
			}
		}
	})
}
