// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

func TestMetricsDoc(t *testing.T) {
	golden(t, "../docs/metrics.md", MetricsDoc())
}

// scrape is what a scrape shows of ours.
func scrape(t *testing.T, v View, c *Counters) string {
	t.Helper()
	w := ask(NewHTTP(Options{Node: &fixed{view: v}, Counters: c}), http.MethodGet, "/metrics")
	if w.Code != http.StatusOK {
		t.Fatalf("code %d: %s", w.Code, w.Body)
	}
	var b strings.Builder
	for line := range strings.Lines(w.Body.String()) {
		if strings.Contains(line, "pgquorum_") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func TestMetrics(t *testing.T) {
	c := NewCounters()
	c.Decision("F250")
	c.Election(cluster.CauseEvidence)
	c.Task("promote", "ok", 12*time.Millisecond)
	c.RefusedLink()
	c.OverrideRepair()
	c.request("switchover", "ok")
	text := scrape(t, onPrimary(), c)
	golden(t, "testdata/metrics.txt", text)
	for _, m := range append(gauges(), counters()...) {
		for _, want := range []string{"# HELP " + m.name + " ", "# TYPE " + m.name + " " + m.kind + "\n"} {
			if !strings.Contains(text, want) {
				t.Errorf("a scrape has no %q", want)
			}
		}
		if !strings.HasSuffix(m.help, ".") {
			t.Errorf("%s: the help is no sentence: %s", m.name, m.help)
		}
	}
}

// TestMetricsInEverySituation: no situation spoils a scrape, as doubled series would.
func TestMetricsInEverySituation(t *testing.T) {
	for _, s := range situations() {
		if text := scrape(t, s.view, nil); !strings.Contains(text, "pgquorum_build_info") {
			t.Errorf("%s: %s", s.name, text)
		}
	}
	v := onPrimary()
	v.State.Members = append(v.State.Members, cluster.Member{Inc: 0x4444, Name: "pg3", Voter: true}) // both are members for a moment
	v.Local.Senders = append(v.Local.Senders, cluster.Sender{App: cluster.SyncName("pg3", 0x4444, 2), Flush: end, State: "streaming"})
	if text := scrape(t, v, nil); strings.Count(text, `pgquorum_replication_lag_bytes{peer="pg3"}`) != 1 {
		t.Error(text)
	}
}
