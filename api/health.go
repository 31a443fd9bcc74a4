// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/pgquorum/pgquorum/api/status"
	"github.com/pgquorum/pgquorum/cluster"
)

const (
	// readyLag is how far behind a node that is ready may be, unless ?lag= says otherwise.
	readyLag = cluster.SegmentBytes
	// lagKnownFor is how long the last position heard of a primary is good enough to tell a standby's lag: longer
	// than any failover, short enough that a node cut off from the cluster does not vouch for itself.
	lagKnownFor = 10 * time.Second
)

// verdict is the answer to a health check.
type verdict struct {
	ok  bool
	why string // when it is not
}

var yes = verdict{ok: true}

func no(why string) verdict { return verdict{why: why} }

// isPrimary is the answer to /primary: clients may write here, now, under a lease that runs.
func (v *View) isPrimary(url.Values) verdict {
	switch {
	case v.serving():
		return yes
	case v.State == nil:
		return no("not part of a cluster yet")
	case v.primary() != v.Self:
		return no("not the primary")
	case !v.Local.Serving:
		return no("the primary does not let clients in yet")
	}
	return no("the primary's lease has run out")
}

// isStandbyLeader is about standby clusters, which do not exist here.
func (v *View) isStandbyLeader(url.Values) verdict { return no("not a standby cluster") }

// isReplica is the answer to /replica: a standby that answers reads, no further behind than ?lag= says. During an
// election every node is fenced and readers may stay; afterwards a node that follows nobody is out, because it may
// hold what the cluster has not.
func (v *View) isReplica(q url.Values) verdict {
	following := v.Local.Role == cluster.RoleFollowing
	switch {
	case v.State == nil:
		return no("not part of a cluster yet")
	case v.primary() == v.Self:
		return no("the primary")
	case !following && (v.Local.Role != cluster.RoleFenced || v.State.Phase == cluster.PhasePromoted):
		return no("not following the primary")
	case !v.ReadOnlyOK:
		return no("postgres does not answer")
	}
	for key := range q {
		if strings.HasPrefix(key, "tag_") {
			return no("no node has tags")
		}
	}
	if want := q.Get("replication_state"); want != "" && (want != "streaming" || !v.Local.Streaming) {
		return no("replication state is not " + want)
	}
	if q.Get("lag") == "" {
		return yes
	}
	return v.within(q, 0, v.Local.ReplayLSN)
}

// within checks a position of this node against ?lag=.
func (v *View) within(q url.Values, limit uint64, at cluster.LSN) verdict {
	if text := q.Get("lag"); text != "" {
		var err error
		if limit, err = parseBytes(text); err != nil {
			return no(err.Error())
		}
	}
	ahead, known := v.newest()
	if !known {
		return no("the lag is not known")
	}
	if lag := behind(ahead, at); lag > limit {
		return no(fmt.Sprintf("%d bytes behind", lag))
	}
	return yes
}

// newest is the furthest position that this node knows of the primary, or has itself.
func (v *View) newest() (lsn cluster.LSN, known bool) {
	inc := cluster.Incarnation(0)
	if v.State != nil {
		inc = v.State.Primary() // during an election: the last one
	}
	if p := v.peer(inc); p != nil && p.Status != nil && p.StatusAge <= lagKnownFor {
		return max(p.Status.Position.LSN, v.Local.Position.LSN), true
	}
	return 0, false
}

func (v *View) isReadOnly(q url.Values) verdict {
	if v.serving() {
		return yes
	}
	return v.isReplica(q)
}

// isSync is the answer to /sync and /quorum alike: every synchronous standby here is one of a quorum.
func (v *View) isSync(q url.Values) verdict {
	if r := v.isReplica(q); !r.ok {
		return r
	}
	if !v.sync(v.Self) {
		return no("not a synchronous standby")
	}
	return yes
}

func (v *View) isAsync(q url.Values) verdict {
	if r := v.isReplica(q); !r.ok {
		return r
	}
	if v.sync(v.Self) {
		return no("a synchronous standby")
	}
	return yes
}

func (v *View) isReadOnlySync(q url.Values) verdict {
	if v.serving() {
		return yes
	}
	return v.isSync(q)
}

// isHealthy is the answer to /health: Postgres runs, in whatever role.
func (v *View) isHealthy(url.Values) verdict {
	if v.ReadOnlyOK || v.serving() {
		return yes
	}
	return no("postgres does not answer")
}

// isReady is the answer to /readiness: it serves, or streams and is level.
func (v *View) isReady(q url.Values) verdict {
	switch {
	case v.serving():
		return yes
	case v.State != nil && v.primary() == v.Self:
		return v.isPrimary(q)
	case v.State != nil && v.role(v.Self) == status.RoleWitness:
		return yes
	case v.Local.Role != cluster.RoleFollowing || !v.Local.Streaming:
		return no("not streaming")
	case !v.ReadOnlyOK:
		return no("postgres does not answer")
	}
	at := v.Local.ReplayLSN
	switch q.Get("mode") {
	case "", "apply":
	case "write":
		at = v.Local.Position.LSN
	default:
		return no("mode is apply or write")
	}
	return v.within(q, readyLag, at)
}

// units are those of Postgres' settings.
var units = []struct {
	suffix string
	bytes  uint64
}{{"kb", 1 << 10}, {"mb", 1 << 20}, {"gb", 1 << 30}, {"tb", 1 << 40}, {"b", 1}, {"", 1}}

// parseBytes reads a size such as 1048576, 16MB or 1 GB.
func parseBytes(text string) (uint64, error) {
	low := strings.ToLower(strings.TrimSpace(text))
	for _, u := range units {
		digits, ok := strings.CutSuffix(low, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 64)
		if err != nil || n > (1<<63)/u.bytes {
			break
		}
		return n * u.bytes, nil
	}
	return 0, fmt.Errorf("parse lag %q: want bytes, kB, MB or GB", text)
}
