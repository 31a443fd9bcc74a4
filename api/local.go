// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/pgquorum/pgquorum/api/status"
	"github.com/pgquorum/pgquorum/cluster"
)

const (
	orderBytesMax = 4 << 10
	// orderMax bounds the wait for an order's outcome. A switchover waits for a checkpoint, which can take minutes.
	orderMax = 10 * time.Minute
)

// ops are the orders that may be given.
var ops = []string{"switchover", "pause", "resume", "reinit"}

// local is the socket's side.
type local struct {
	opt   Options
	pulse pulse
}

// NewLocal makes the handler of the local socket: the status document, health, and orders.
func NewLocal(o Options) http.Handler {
	o.Log = orDiscard(o.Log)
	l := &local{opt: o}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+status.PathStatus, l.status)
	mux.HandleFunc("GET "+status.PathHealth, l.health)
	mux.HandleFunc("POST "+status.PathRequest, l.request)
	return mux
}

func (l *local) status(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, Status(l.opt.Node.View()))
}

// health is for container health checks: fine while the node's loop runs, whatever the node waits for. With ready=1
// it must serve or stream.
func (l *local) health(w http.ResponseWriter, r *http.Request) {
	v := l.opt.Node.View()
	a := l.pulse.alive(&v, time.Now())
	if a.ok && r.URL.Query().Get("ready") != "" {
		a = v.inService()
	}
	code, msg := http.StatusOK, cmp.Or(v.Decision, v.Forming)
	if !a.ok {
		code, msg = http.StatusServiceUnavailable, a.why
	}
	writeJSON(w, code, status.Outcome{OK: a.ok, Message: msg})
}

// inService: it serves, or it streams. Unlike /readiness it asks for no lag: a container's health is not a balancer's.
func (v *View) inService() verdict {
	switch {
	case v.serving():
		return yes
	case v.State == nil:
		return no("not part of a cluster yet: " + v.Forming)
	case v.role(v.Self) == status.RoleWitness && v.Registered:
		return yes
	case v.Local.Role == cluster.RoleFollowing && v.Local.Streaming:
		return yes
	}
	return no("neither serves nor streams: " + v.Decision)
}

func (l *local) request(w http.ResponseWriter, r *http.Request) {
	var o status.Order
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, orderBytesMax))
	if err == nil {
		err = json.Unmarshal(body, &o)
	}
	if err != nil {
		l.end(w, http.StatusBadRequest, "", status.Outcome{Message: "read the order: " + err.Error()})
		return
	}
	if !slices.Contains(ops, o.Op) {
		l.end(w, http.StatusBadRequest, "", status.Outcome{Message: "unknown order " + o.Op})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), orderMax)
	defer cancel()
	begun := time.Now()
	l.opt.Log.Info("order given", "action", o.Op, "peer", o.Target)
	res, err := l.opt.Node.Request(ctx, cluster.Request{ID: orderID(), Op: o.Op, Target: cluster.NodeName(o.Target)})
	out := status.Outcome{OK: res.OK, Message: res.Msg, DurationMS: time.Since(begun).Milliseconds()}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		out.OK, out.Message = false, "no outcome yet; the order may still be carried out"
		l.end(w, http.StatusGatewayTimeout, o.Op, out)
	case err != nil:
		out.OK, out.Message = false, err.Error()
		l.end(w, http.StatusInternalServerError, o.Op, out)
	case !out.OK:
		l.end(w, http.StatusConflict, o.Op, out)
	default:
		l.end(w, http.StatusOK, o.Op, out)
	}
}

func (l *local) end(w http.ResponseWriter, code int, op string, out status.Outcome) {
	if op != "" {
		result := map[int]string{http.StatusOK: "ok", http.StatusConflict: "refused"}[code]
		if result == "" {
			result = "error"
		}
		l.opt.Counters.request(op, result)
		l.opt.Log.Info("order ended", "action", op, "result", result, "reason", out.Message, "duration_ms", out.DurationMS)
	}
	writeJSON(w, code, out)
}

// orderID is random because orders of several nodes meet at the primary.
func orderID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return binary.LittleEndian.Uint64(b[:]) | 1
}
