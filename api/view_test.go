// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"flag"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files")

// golden compares with a file, or writes it.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || got != string(want) {
		t.Errorf("%s is stale (%v); run go test with -rewrite. Got:\n%s", path, err, got)
	}
}

// fixed is a Node whose view a test sets.
type fixed struct {
	mu      sync.Mutex
	view    View
	request func(context.Context, cluster.Request) (cluster.Response, error)
}

func (f *fixed) View() View {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.view
}

func (f *fixed) Request(ctx context.Context, r cluster.Request) (cluster.Response, error) {
	return f.request(ctx, r)
}

const (
	pg1 = cluster.Incarnation(0x1111)
	pg2 = cluster.Incarnation(0x2222)
	pg3 = cluster.Incarnation(0x3333)
	end = cluster.LSN(0x5000148)
)

func state() *cluster.State {
	all := []cluster.Incarnation{pg1, pg2, pg3}
	return &cluster.State{
		Format: 1, ClusterID: "7c1f9a2b4d5e6f70", System: 7400000000000000001,
		Members: []cluster.Member{
			{Inc: pg1, Name: "pg1", Voter: true, Priority: 100},
			{Inc: pg2, Name: "pg2", Voter: true, Priority: 100},
			{Inc: pg3, Name: "pg3", Voter: true, Priority: 100},
		},
		Configs: []cluster.VoterConfig{{Index: 1, Voters: all}},
		Epochs: []cluster.EpochRecord{
			{Epoch: 1, Primary: pg2, Timeline: 1, Promoted: true},
			{Epoch: 2, Primary: pg1, Timeline: 2, Elected: cluster.Position{Timeline: 1, LSN: 0x3000000}, Switch: 0x3000060, Promoted: true},
		},
		Phase: cluster.PhasePromoted, D: cluster.Durability{Set: all, K: 1, Mode: cluster.ModeQuorum}, LeaseMS: 2000,
		History: []cluster.Decided{
			{Index: 9, Epoch: 2, What: "elect", Rule: "F250", Detail: "pg1 has the best position"},
			{Index: 11, Epoch: 2, What: "admitted", Timings: []cluster.NamedDuration{{Name: "promote", MS: 12}}},
		},
	}
}

func primaryStatus() cluster.Status {
	sender := func(n cluster.NodeName, inc cluster.Incarnation) cluster.Sender {
		return cluster.Sender{App: cluster.SyncName(n, inc, 2), Flush: end, Replay: end, State: "streaming", Sync: "quorum"}
	}
	return cluster.Status{
		Role: cluster.RoleServing, Epoch: 2, Position: cluster.Position{Timeline: 2, LSN: end}, Known: true, Eligible: true,
		Serving: true, LeaseLeftMS: 1800, Port: 5432, Senders: []cluster.Sender{sender("pg2", pg2), sender("pg3", pg3)},
	}
}

func standbyStatus() cluster.Status {
	return cluster.Status{
		Role: cluster.RoleFollowing, Epoch: 2, Position: cluster.Position{Timeline: 2, LSN: end}, Known: true, Eligible: true,
		Streaming: true, ReplayLSN: end, Port: 5432, Task: "following",
	}
}

func peerOf(name cluster.NodeName, inc cluster.Incarnation, s cluster.Status) Peer {
	return Peer{Name: name, Inc: inc, Host: string(name), Linked: true, LinkAge: time.Minute, Status: &s, StatusAge: 40 * time.Millisecond}
}

// onPrimary is the view of pg1, the primary of a healthy cluster.
func onPrimary() View {
	return View{
		Name: "pg1", Self: pg1, Host: "pg1", State: state(), Local: primaryStatus(), Leader: pg2, Term: 4, Applied: 12,
		Registered: true, Decision: "serving", Rule: "R440", Version: "0.1", ReadOnlyOK: true, Now: time.Minute,
		Peers: []Peer{peerOf("pg2", pg2, standbyStatus()), peerOf("pg3", pg3, standbyStatus())},
	}
}

// onStandby is the view of pg2, a standby of a healthy cluster and the leader.
func onStandby() View {
	v := onPrimary()
	v.Name, v.Self, v.Host, v.Local, v.Decision, v.Rule = "pg2", pg2, "pg2", standbyStatus(), "following", "R699"
	v.Peers = []Peer{peerOf("pg1", pg1, primaryStatus()), peerOf("pg3", pg3, standbyStatus())}
	return v
}

type situation struct {
	name string
	view View
}

func change(v View, f func(*View)) View {
	f(&v)
	return v
}

// situations are the views of the golden tests, in order.
func situations() []situation {
	return append(healthySituations(), badSituations()...)
}

func healthySituations() []situation {
	return []situation{
		{"forming", View{
			Name: "pg1", Self: pg1, Forming: "waiting for pg2, pg3", Version: "0.1", Now: time.Second,
			Local: cluster.Status{Role: cluster.RoleDown}, Peers: []Peer{{Name: "pg2"}, {Name: "pg3", Inc: pg3, Linked: true}},
		}},
		{"primary", onPrimary()},
		{"standby", onStandby()},
		{"standby far behind", change(onStandby(), func(v *View) {
			v.Local.ReplayLSN = end - 20<<20
			v.Local.Position.LSN = end - 20<<20
			p := primaryStatus()
			p.Senders[0].State, p.Senders[0].Flush = "catchup", end-20<<20
			v.Peers[0] = peerOf("pg1", pg1, p)
		})},
		{"standby of an unlisted kind", change(onStandby(), func(v *View) {
			v.State.D.Set = []cluster.Incarnation{pg1, pg3}
			p := primaryStatus()
			p.Senders[0].Sync = "async"
			v.Peers[0] = peerOf("pg1", pg1, p)
		})},
		{"promoting", change(onPrimary(), func(v *View) {
			v.State.Phase = cluster.PhasePromoting
			v.Local.Role, v.Local.Serving, v.Local.Senders = cluster.RolePromoting, false, nil
		})},
		{"admitting", change(onPrimary(), func(v *View) { v.Local.Role, v.Local.Serving = cluster.RolePromoting, false })},
		{"cloning", change(onStandby(), func(v *View) {
			v.Local = cluster.Status{Role: cluster.RoleDown, Epoch: 2, Task: "clone", TaskNote: "412 of 900 MB", WhyNot: "no data"}
			v.ReadOnlyOK = false
			p := primaryStatus()
			p.Senders = p.Senders[1:]
			v.Peers[0] = peerOf("pg1", pg1, p)
		})},
		{"successor joins", change(onStandby(), func(v *View) {
			v.Peers[1] = peerOf("pg3", 0x4444, cluster.Status{Role: cluster.RoleDown, Task: "not a member (yet)"})
		})},
		{"witness", change(onStandby(), func(v *View) {
			v.State.Members[1].Witness = true
			v.State.D.Set = []cluster.Incarnation{pg1, pg3}
			v.Local, v.ReadOnlyOK = cluster.Status{Role: cluster.RoleDown, Epoch: 2, WhyNot: "witness"}, false
		})},
		{"change pending", change(onPrimary(), func(v *View) {
			v.State.Pending = &cluster.Durability{Set: []cluster.Incarnation{pg1, pg2}, K: 1, Mode: cluster.ModeQuorum}
		})},
	}
}

func badSituations() []situation {
	return []situation{
		{"lease ran out", change(onPrimary(), func(v *View) { v.Local.LeaseLeftMS = 0 })},
		{"postgres of the primary down", change(onPrimary(), func(v *View) {
			v.Local = cluster.Status{Role: cluster.RoleDown, Epoch: 2, LeaseLeftMS: 900, Task: "postgres is down"}
			v.ReadOnlyOK = false
		})},
		{"fenced in an election", change(onStandby(), func(v *View) {
			v.State.Phase = cluster.PhaseElecting
			v.Local.Role, v.Local.Streaming = cluster.RoleFenced, false
			v.Peers[0].Linked, v.Peers[0].LinkAge, v.Peers[0].StatusAge = false, 1200*time.Millisecond, 1300*time.Millisecond
			v.Decision, v.Rule = "waiting for the election", "R240"
		})},
		{"fenced after an election", change(onStandby(), func(v *View) {
			v.Local.Role, v.Local.Streaming, v.Local.TaskNote = cluster.RoleFenced, false, "diverged: waiting for the primary's checkpoint"
			p := primaryStatus()
			p.Senders = p.Senders[1:]
			v.Peers[0] = peerOf("pg1", pg1, p)
		})},
		{"standby cut off", change(onStandby(), func(v *View) {
			v.Local.Streaming = false
			for i := range v.Peers {
				v.Peers[i].Linked, v.Peers[i].LinkAge, v.Peers[i].StatusAge = false, time.Minute, time.Minute
			}
		})},
		{"reads not answered", change(onStandby(), func(v *View) { v.ReadOnlyOK = false })},
		{"wrong data", change(onStandby(), func(v *View) {
			v.Local = cluster.Status{Role: cluster.RoleDown, Trouble: "PGDATA belongs to another Postgres cluster", WhyNot: "no data"}
			v.ReadOnlyOK = false
		})},
	}
}

// A node with the data of another cluster plays no role, even if the state still calls it the primary; and a peer
// without a link is shown with the reason.
func TestMembersSayWhatIsWrong(t *testing.T) {
	v := change(onPrimary(), func(v *View) {
		v.Local.Serving, v.Local.Role, v.Local.Foreign = false, cluster.RoleDown, true
		v.Peers[1].Linked, v.Peers[1].LinkAge = false, 12*time.Second
		v.Unreached = map[cluster.NodeName]string{"pg2": "it was rolled back", "pg3": "nothing listens on pg3:7432"}
		v.Peers = v.Peers[1:] // pg2 has not been linked since the start
	})
	got := map[string]string{}
	for _, m := range Status(v).Members {
		got[m.Name] = m.Role + ", " + m.State + ", " + m.WhyNot
	}
	if want := "none, down, "; got["pg1"] != want {
		t.Errorf("pg1: %q, want %q", got["pg1"], want)
	}
	if want := "standby, unreachable, no link for 12s: nothing listens on pg3:7432"; got["pg3"] != want {
		t.Errorf("pg3: %q, want %q", got["pg3"], want)
	}
	if want := "standby, unreachable, no link: it was rolled back"; got["pg2"] != want {
		t.Errorf("pg2: %q, want %q", got["pg2"], want)
	}
}
