// SPDX-License-Identifier: Apache-2.0

package api

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgquorum/pgquorum/cluster"
)

// The names of what is counted as it happens.
const (
	nameDecisions = "pgquorum_decisions_total"
	nameElections = "pgquorum_elections_total"
	nameTasks     = "pgquorum_task_seconds"
	nameRefused   = "pgquorum_refused_links_total"
	nameRepairs   = "pgquorum_override_repairs_total"
	nameRequests  = "pgquorum_requests_total"
)

func counters() []metric {
	return []metric{
		{nameDecisions, []string{"rule"}, "Decisions by rule (docs/rules.md); one that repeats counts once.", nil, kindCounter},
		{nameElections, []string{"cause"}, "Elections that this node saw begin, by cause.", nil, kindCounter},
		{nameTasks, []string{"action", "result"}, "How long work on Postgres took, by kind and by result (ok, error, cancelled).", nil, kindHistogram},
		{nameRefused, nil, "Connections that did not belong to this cluster and were refused.", nil, kindCounter},
		{nameRepairs, nil, "Times that a setting of ours was overridden from outside and put right.", nil, kindCounter},
		{nameRequests, []string{"op", "result"}, "Operators' orders given on this node, by result (ok, refused, error).", nil, kindCounter},
	}
}

// Counters are what happens on a node, counted as it happens. Its methods may be called from any goroutine.
type Counters struct {
	decisions *prometheus.CounterVec
	elections *prometheus.CounterVec
	tasks     *prometheus.HistogramVec
	refused   prometheus.Counter
	repairs   prometheus.Counter
	requests  *prometheus.CounterVec
}

// NewCounters makes them at zero.
func NewCounters() *Counters {
	rows := map[string]metric{}
	for _, m := range counters() {
		rows[m.name] = m
	}
	vec := func(name string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: rows[name].help}, rows[name].labels)
	}
	c := &Counters{
		decisions: vec(nameDecisions),
		elections: vec(nameElections),
		requests:  vec(nameRequests),
		refused:   prometheus.NewCounter(prometheus.CounterOpts{Name: nameRefused, Help: rows[nameRefused].help}),
		repairs:   prometheus.NewCounter(prometheus.CounterOpts{Name: nameRepairs, Help: rows[nameRepairs].help}),
		tasks: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: nameTasks, Help: rows[nameTasks].help,
			Buckets: []float64{.005, .02, .05, .1, .25, .5, 1, 2.5, 10, 60, 600, 3600},
		}, rows[nameTasks].labels),
	}
	for _, cause := range []cluster.Cause{
		cluster.CauseLeaseLapsed, cluster.CausePgDown, cluster.CauseEvidence, cluster.CauseOperator,
		cluster.CauseSwitchover, cluster.CauseNoProgress, cluster.CauseTimeout,
	} {
		c.elections.WithLabelValues(string(cause)) // there from the start, so that a rate sees the first one
	}
	return c
}

func (c *Counters) register(r prometheus.Registerer) {
	r.MustRegister(c.decisions, c.elections, c.tasks, c.refused, c.repairs, c.requests)
}

// Decision counts a new decision.
func (c *Counters) Decision(rule cluster.RuleID) { c.decisions.WithLabelValues(string(rule)).Inc() }

// Election counts an election that begins.
func (c *Counters) Election(cause cluster.Cause) { c.elections.WithLabelValues(string(cause)).Inc() }

// Task records work on Postgres that ended: result is ok, error or cancelled.
func (c *Counters) Task(action, result string, took time.Duration) {
	c.tasks.WithLabelValues(action, result).Observe(took.Seconds())
}

// RefusedLink counts a connection that was refused.
func (c *Counters) RefusedLink() { c.refused.Inc() }

// OverrideRepair counts a setting that was put right.
func (c *Counters) OverrideRepair() { c.repairs.Inc() }

func (c *Counters) request(op, result string) {
	if c != nil {
		c.requests.WithLabelValues(op, result).Inc()
	}
}
