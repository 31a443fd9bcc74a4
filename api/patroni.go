// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/pgquorum/pgquorum/api/status"
	"github.com/pgquorum/pgquorum/cluster"
)

// The documents of this file have Patroni's field names and words, for tools that were written for it.

// patroniNode is the body of every health check and of /patroni.
type patroniNode struct {
	State            string          `json:"state"` // of Postgres: running, starting, stopped
	Role             string          `json:"role"`
	Why              string          `json:"why,omitempty"` // ours: why the check says no
	XLog             patroniXLog     `json:"xlog"`
	Timeline         uint32          `json:"timeline,omitempty"`
	ReplicationState string          `json:"replication_state,omitempty"`
	Replication      []patroniSender `json:"replication,omitempty"`
	SyncStandby      bool            `json:"sync_standby,omitempty"`
	QuorumStandby    bool            `json:"quorum_standby,omitempty"`
	ClusterUnlocked  bool            `json:"cluster_unlocked,omitempty"`
	Pause            bool            `json:"pause,omitempty"`
	System           string          `json:"database_system_identifier,omitempty"`
	Patroni          patroniSelf     `json:"patroni"`
	Epoch            cluster.Epoch   `json:"epoch"` // ours
	LeaseMS          int64           `json:"lease_ms,omitempty"`
	Decision         string          `json:"decision,omitempty"`
	Forming          string          `json:"forming,omitempty"`
}

type patroniXLog struct {
	Location uint64 `json:"location,omitempty"` // primary
	Received uint64 `json:"received_location,omitempty"`
	Replayed uint64 `json:"replayed_location,omitempty"`
}

type patroniSender struct {
	Application string `json:"application_name"`
	State       string `json:"state"`
	Sync        string `json:"sync_state"`
}

type patroniSelf struct {
	Version string `json:"version"`
	Scope   string `json:"scope"`
	Name    string `json:"name"`
}

func patroniStatus(v *View, why string) patroniNode {
	n := patroniNode{
		State: "stopped", Role: "replica", Why: why, Timeline: uint32(v.Local.Position.Timeline),
		Patroni: patroniSelf{Version: v.Version, Name: string(v.Name)},
		Epoch:   v.Local.Epoch, Decision: v.Decision, Forming: v.Forming,
	}
	switch {
	case v.ReadOnlyOK || v.serving():
		n.State = "running"
	case v.Local.Role != cluster.RoleDown && v.Local.Role != "":
		n.State = "starting"
	}
	if v.State == nil {
		n.Role = "uninitialized"
		return n
	}
	n.Patroni.Scope, n.Pause = v.State.ClusterID, v.State.Paused
	if v.State.System != 0 {
		n.System = strconv.FormatUint(uint64(v.State.System), 10)
	}
	p, age := v.primaryStatus()
	n.ClusterUnlocked = p == nil || leaseLeft(p, age) <= 0
	if v.primary() == v.Self {
		n.Role, n.LeaseMS, n.XLog.Location = "primary", v.Local.LeaseLeftMS, uint64(v.Local.Position.LSN)
		for _, s := range v.Local.Senders {
			n.Replication = append(n.Replication, patroniSender{s.App, s.State, s.Sync})
		}
		return n
	}
	n.XLog.Received, n.XLog.Replayed = uint64(v.Local.Position.LSN), uint64(v.Local.ReplayLSN)
	if v.Local.Streaming {
		n.ReplicationState = "streaming"
	}
	n.QuorumStandby = v.sync(v.Self)
	return n
}

type patroniMembers struct {
	Members []patroniMember `json:"members"`
	Scope   string          `json:"scope"`
	Pause   bool            `json:"pause,omitempty"`
}

type patroniMember struct {
	Name     string `json:"name"`
	Role     string `json:"role"`
	State    string `json:"state"`
	APIURL   string `json:"api_url,omitempty"`
	Host     string `json:"host,omitempty"`
	Port     int    `json:"port,omitempty"`
	Timeline uint32 `json:"timeline,omitempty"`
	LSN      string `json:"lsn,omitempty"`
	Lag      any    `json:"lag,omitempty"` // bytes, or "unknown"; not for the leader
}

func patroniCluster(v *View, port int) patroniMembers {
	doc := patroniMembers{Members: []patroniMember{}}
	if v.State != nil {
		doc.Scope, doc.Pause = v.State.ClusterID, v.State.Paused
	}
	for _, m := range Status(*v).Members {
		if m.Role == status.RoleWitness || m.Incarnation == "" {
			continue
		}
		pm := patroniMember{Name: m.Name, Role: patroniRole(m), State: patroniState(m), Timeline: m.Timeline, LSN: m.LSN}
		if m.Role != status.RolePrimary {
			pm.Lag = "unknown"
			if m.LagBytes != nil {
				pm.Lag = *m.LagBytes
			}
		}
		pm.Host, pm.Port = v.address(m.Incarnation)
		if pm.Host != "" && port != 0 {
			pm.APIURL = "http://" + net.JoinHostPort(pm.Host, strconv.Itoa(port)) + "/patroni"
		}
		doc.Members = append(doc.Members, pm)
	}
	return doc
}

func patroniRole(m status.Member) string {
	switch {
	case m.Role == status.RolePrimary:
		return "leader"
	case m.Sync:
		return "quorum_standby"
	}
	return "replica"
}

func patroniState(m status.Member) string {
	switch m.State {
	case status.StateServing, status.StateAdmitting, status.StatePromoting, status.StateCatchingUp, status.StateFenced:
		return "running"
	case status.StateStreaming:
		return "streaming"
	case status.StateCloning, status.StateFounding:
		return "creating replica"
	case status.StateStarting, status.StateRewinding:
		return "starting"
	}
	return "stopped"
}

// address is where a node's Postgres listens, as far as it is known.
func (v *View) address(inc string) (host string, port int) {
	if inc == v.Self.String() {
		return v.Host, v.Local.Port
	}
	i := slices.IndexFunc(v.Peers, func(p Peer) bool { return p.Inc.String() == inc })
	if i < 0 {
		return "", 0
	}
	if s := v.Peers[i].Status; s != nil {
		port = s.Port
	}
	return v.Peers[i].Host, port
}

// patroniHistory has one row for each change of timeline: the timeline that was left, where, why, when and for whom.
// When is empty: the replicated state holds no wall clock.
func patroniHistory(v *View) [][]any {
	rows := [][]any{}
	if v.State == nil {
		return rows
	}
	for _, e := range v.State.Epochs {
		if e.Elected.Timeline == 0 {
			continue // the first epoch left no timeline
		}
		at := cmp.Or(e.Switch, e.Elected.LSN)
		rows = append(rows, []any{e.Elected.Timeline, uint64(at), fmt.Sprintf("epoch %d", e.Epoch), "", v.State.NameOf(e.Primary)})
	}
	return rows
}
