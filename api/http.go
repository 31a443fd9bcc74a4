// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Options are what the front ends need.
type Options struct {
	Node     Node
	Log      *slog.Logger
	Port     int       // of the network side, the same on every node; 0: other nodes' addresses are not shown
	Counters *Counters // nil: metrics hold what the View says and nothing else
}

// stuckAfter is how long the node's clock may stand still before the node is not alive any more. A step takes
// microseconds; the slack is for a machine that swaps.
const stuckAfter = 10 * time.Second

// check is one health check on a view.
type check func(*View, url.Values) verdict

// checks are Patroni's health checks by path.
func checks() map[string]check {
	return map[string]check{
		"/": (*View).isPrimary, "/primary": (*View).isPrimary, "/master": (*View).isPrimary,
		"/read-write": (*View).isPrimary, "/leader": (*View).isPrimary,
		"/standby-leader": (*View).isStandbyLeader, "/standby_leader": (*View).isStandbyLeader,
		"/replica": (*View).isReplica, "/read-only": (*View).isReadOnly,
		"/sync": (*View).isSync, "/synchronous": (*View).isSync, "/quorum": (*View).isSync,
		"/async": (*View).isAsync, "/asynchronous": (*View).isAsync,
		"/read-only-sync": (*View).isReadOnlySync, "/read-only-synchronous": (*View).isReadOnlySync,
		"/read-only-quorum": (*View).isReadOnlySync,
		"/health":           (*View).isHealthy, "/readiness": (*View).isReady,
	}
}

// front is the network side.
type front struct {
	opt     Options
	checks  map[string]check
	pulse   pulse
	metrics http.Handler
}

// NewHTTP makes the handler of the network side: Patroni's health checks and documents, and metrics. It only reads.
func NewHTTP(o Options) http.Handler {
	o.Log = orDiscard(o.Log)
	gather := prometheus.Gatherers{NewRegistry(o.Node, o.Counters), prometheus.DefaultGatherer}
	return &front{opt: o, checks: checks(), metrics: promhttp.HandlerFor(gather, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4, Timeout: 5 * time.Second,
	})}
}

func orDiscard(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

// ServeHTTP answers HEAD and OPTIONS as GET, without the body: that is what load balancers send.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
	default:
		w.Header().Set("Allow", "GET, HEAD, OPTIONS")
		http.Error(w, "this port only answers questions", http.StatusMethodNotAllowed)
		return
	}
	if r.Method != http.MethodGet {
		w = bodyless{w}
	}
	path := "/" + strings.Trim(r.URL.Path, "/")
	if path == "/metrics" {
		f.metrics.ServeHTTP(w, r)
		return
	}
	v := f.opt.Node.View()
	switch path {
	case "/liveness":
		f.answer(w, &v, f.pulse.alive(&v, time.Now()))
	case "/patroni":
		writeJSON(w, http.StatusOK, patroniStatus(&v, ""))
	case "/cluster":
		writeJSON(w, http.StatusOK, patroniCluster(&v, f.opt.Port))
	case "/history":
		writeJSON(w, http.StatusOK, patroniHistory(&v))
	case "/status":
		writeJSON(w, http.StatusOK, Status(v))
	default:
		f.health(w, r, &v, path)
	}
}

// health answers a health check. As with Patroni an unknown path is 503: a balancer with a typo must not send
// clients anywhere.
func (f *front) health(w http.ResponseWriter, r *http.Request, v *View, path string) {
	c, ok := f.checks[path]
	if !ok {
		f.answer(w, v, no("no such health check"))
		return
	}
	f.answer(w, v, c(v, r.URL.Query()))
}

func (f *front) answer(w http.ResponseWriter, v *View, a verdict) {
	code := http.StatusOK
	if !a.ok {
		code = http.StatusServiceUnavailable
	}
	writeJSON(w, code, patroniStatus(v, a.why))
}

func writeJSON(w http.ResponseWriter, code int, doc any) {
	b, err := json.MarshalIndent(doc, "", " ")
	if err != nil {
		http.Error(w, "encode the answer", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(append(b, '\n')) // whoever asked has gone: nothing to do about it
}

// bodyless drops the body.
type bodyless struct{ http.ResponseWriter }

func (b bodyless) Write(p []byte) (int, error) { return len(p), nil }

// pulse notices that the node's clock stands still. It sees it only between two questions, which is enough: somebody
// who wants to restart dead nodes asks again and again.
type pulse struct {
	mu    sync.Mutex
	now   time.Duration
	since time.Time
}

func (p *pulse) alive(v *View, at time.Time) verdict {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since.IsZero() || v.Now != 0 && v.Now != p.now {
		p.now, p.since = v.Now, at
		return yes
	}
	if at.Sub(p.since) >= stuckAfter {
		return no("the node's loop stands still")
	}
	return yes
}
