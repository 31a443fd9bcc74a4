// SPDX-License-Identifier: Apache-2.0

package api

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgquorum/pgquorum/cluster"
)

// metric is one row of the tables that both the registry and docs/metrics.md are made from.
type metric struct {
	name   string
	labels []string
	help   string
	value  func(*View, func(float64, ...string)) // reports each series; nil: a counter of Counters
	kind   string
}

const (
	kindGauge     = "gauge"
	kindCounter   = "counter"
	kindHistogram = "histogram"
)

func one(f func(*View) float64) func(*View, func(float64, ...string)) {
	return func(v *View, emit func(float64, ...string)) { emit(f(v)) }
}

func yesno(f func(*View) bool) func(*View, func(float64, ...string)) {
	return one(func(v *View) float64 {
		if f(v) {
			return 1
		}
		return 0
	})
}

// gauges are computed from the View when somebody scrapes.
func gauges() []metric {
	return slices.Concat(clusterGauges(), nodeGauges(), diskGauges())
}

func clusterGauges() []metric {
	return []metric{
		{
			"pgquorum_build_info",
			[]string{"version"},
			"Always 1; the version is the label.",
			func(v *View, emit func(float64, ...string)) { emit(1, v.Version) }, kindGauge,
		},
		{
			"pgquorum_formed", nil, "1 once this node is part of a cluster.",
			yesno(func(v *View) bool { return v.State != nil }), kindGauge,
		},
		{
			"pgquorum_registered", nil, "1 once this boot of the node is known to the cluster.",
			yesno(func(v *View) bool { return v.Registered }), kindGauge,
		},
		{
			"pgquorum_primary", nil, "1 on the node that the cluster names as its primary.",
			yesno(func(v *View) bool { return v.Self != 0 && v.primary() == v.Self }), kindGauge,
		},
		{
			"pgquorum_serving", nil, "1 on the primary while clients are let in under a lease that runs.",
			yesno((*View).serving), kindGauge,
		},
		{
			"pgquorum_leader", nil, "1 on the node that leads raft and therefore decides.",
			yesno(func(v *View) bool { return v.Self != 0 && v.Leader == v.Self }), kindGauge,
		},
		{
			"pgquorum_epoch", nil, "The current epoch; it grows by one with every change of primary.",
			one(func(v *View) float64 { return float64(v.epoch().Epoch) }), kindGauge,
		},
		{
			"pgquorum_timeline", nil, "The Postgres timeline of the current epoch.",
			one(func(v *View) float64 { return float64(v.epoch().Timeline) }), kindGauge,
		},
		{
			"pgquorum_electing", nil, "1 while an election is open.",
			yesno(func(v *View) bool { return v.State != nil && v.State.Phase == cluster.PhaseElecting }), kindGauge,
		},
		{
			"pgquorum_lease_remaining_seconds", nil, "How long this node may still serve as primary without a renewal.",
			one(leaseSeconds), kindGauge,
		},
		{
			"pgquorum_postgres_up", nil, "1 while the local Postgres answers.",
			yesno(func(v *View) bool { return v.ReadOnlyOK || v.serving() }), kindGauge,
		},
		{
			"pgquorum_streaming", nil, "1 on a standby while it streams from the primary.",
			yesno(func(v *View) bool { return v.Local.Streaming }), kindGauge,
		},
	}
}

func nodeGauges() []metric {
	return []metric{
		{
			"pgquorum_wal_position_bytes", nil, "End of the WAL on this node's disk.",
			one(func(v *View) float64 { return float64(v.Local.Position.LSN) }), kindGauge,
		},
		{
			"pgquorum_replay_position_bytes", nil, "End of the WAL that this standby has replayed.",
			one(func(v *View) float64 { return float64(v.Local.ReplayLSN) }), kindGauge,
		},
		{
			"pgquorum_replication_lag_bytes",
			[]string{"peer"},
			"How far the disk of a node is behind the primary's; on the primary only.",
			lags, kindGauge,
		},
		{
			"pgquorum_sync_standbys", nil, "Standbys whose acknowledgements count now; on the primary only.",
			one(syncStandbys), kindGauge,
		},
		{
			"pgquorum_sync_standbys_required", nil, "How many acknowledgements a commit needs beside the primary's own disk.",
			one(func(v *View) float64 {
				if v.State == nil {
					return 0
				}
				return float64(v.State.D.K)
			}), kindGauge,
		},
		{
			"pgquorum_commit_stuck_seconds", nil, "How long commits have waited without progress; on the primary only.",
			one(func(v *View) float64 { return float64(v.Local.StuckMS) / 1000 }), kindGauge,
		},
		{
			"pgquorum_redundant", nil, "1 while any one node may be lost without losing a commit or the service.",
			yesno((*View).redundant), kindGauge,
		},
		{
			"pgquorum_members", nil, "Members of the cluster.",
			one(func(v *View) float64 {
				if v.State == nil {
					return 0
				}
				return float64(len(v.State.Members))
			}), kindGauge,
		},
		{"pgquorum_linked_peers", nil, "Other nodes to which a link is up.", one(linkedPeers), kindGauge},
		{
			"pgquorum_raft_term", nil, "Raft's term.",
			one(func(v *View) float64 { return float64(v.Term) }), kindGauge,
		},
		{
			"pgquorum_raft_applied_index", nil, "Index of the last log entry that this node applied.",
			one(func(v *View) float64 { return float64(v.Applied) }), kindGauge,
		},
		{
			"pgquorum_paused", nil, "1 while automatic failover is paused.",
			yesno(func(v *View) bool { return v.State != nil && v.State.Paused }), kindGauge,
		},
		{
			"pgquorum_trouble", nil, "1 while this node needs an operator; `pgquorum status` says what for.",
			yesno(func(v *View) bool { return v.Local.Trouble != "" }), kindGauge,
		},
	}
}

func diskGauges() []metric {
	return []metric{
		{
			"pgquorum_wal_disk_free_bytes", nil, "What Postgres may still write to the disk of its WAL; 0 also while that is not known.",
			one(func(v *View) float64 { return float64(v.Local.DiskFree) }), kindGauge,
		},
		{
			"pgquorum_ballast_bytes", nil, "Reserve that a promotion on a full disk deletes; 0 when there is none.",
			one(func(v *View) float64 { return float64(v.Local.Ballast) }), kindGauge,
		},
	}
}

func (v *View) epoch() cluster.EpochRecord {
	if v.State == nil {
		return cluster.EpochRecord{}
	}
	return v.State.Epoch()
}

func leaseSeconds(v *View) float64 {
	if v.primary() != v.Self || v.Self == 0 {
		return 0
	}
	return float64(max(0, v.Local.LeaseLeftMS)) / 1000
}

func lags(v *View, emit func(float64, ...string)) {
	if v.Self == 0 || v.primary() != v.Self {
		return
	}
	for _, m := range v.State.Members {
		if m.Inc == v.Self || m.Witness {
			continue
		}
		// A replaced node and its successor share a name: two series with the same labels would spoil the scrape.
		if v.State.MemberNamed(m.Name).Inc != m.Inc {
			continue
		}
		if bytes, known := v.lag(m.Inc); known {
			emit(float64(bytes), string(m.Name))
		}
	}
}

func syncStandbys(v *View) float64 {
	if v.Self == 0 || v.primary() != v.Self {
		return 0
	}
	n := 0
	for _, m := range v.State.Members {
		if m.Inc != v.Self && v.sync(m.Inc) {
			n++
		}
	}
	return float64(n)
}

func linkedPeers(v *View) float64 {
	n := 0
	for _, p := range v.Peers {
		if p.Linked {
			n++
		}
	}
	return float64(n)
}

// collector computes the gauges at each scrape, all from one View.
type collector struct {
	node  Node
	rows  []metric
	descs []*prometheus.Desc
}

func newCollector(n Node) *collector {
	c := &collector{node: n, rows: gauges()}
	for _, m := range c.rows {
		c.descs = append(c.descs, prometheus.NewDesc(m.name, m.help, m.labels, nil))
	}
	return c
}

// Describe is prometheus.Collector's.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect is prometheus.Collector's.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	v := c.node.View()
	for i, m := range c.rows {
		m.value(&v, func(x float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(c.descs[i], prometheus.GaugeValue, x, labels...)
		})
	}
}

// NewRegistry makes a registry with everything of ours. The raft log's own metrics are in the default registry,
// which the log's package fills by itself.
func NewRegistry(n Node, c *Counters) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(newCollector(n))
	if c != nil {
		c.register(r)
	}
	return r
}

// MetricsDoc is docs/metrics.md.
func MetricsDoc() string {
	var b strings.Builder
	b.WriteString("# Metrics\n\n<!-- Generated from the tables in api/; do not edit: go test ./api -run TestMetricsDoc -rewrite -->\n\n")
	b.WriteString("`GET :8008/metrics` on every node, in Prometheus' text format. Everything is computed at the scrape from what the node\n")
	b.WriteString("knows at that moment; a scrape asks nothing of Postgres. The raft log's `etcd_disk_wal_*` and the Go runtime's\n")
	b.WriteString("`go_*` and `process_*` are there too.\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, m := range append(gauges(), counters()...) {
		labels := strings.Join(m.labels, ", ")
		b.WriteString("| `" + m.name + "` | " + m.kind + " | " + labels + " | " + m.help + " |\n")
	}
	return b.String()
}
