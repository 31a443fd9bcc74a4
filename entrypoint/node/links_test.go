// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/raft"
	"github.com/pgquorum/pgquorum/raft/transport"
)

// TestEvidence: only the end of a link that we dialled, by the kernel, to PID 1 of a container, at an address that both ends
// agree about, with a redial that is refused or finds another boot, says that a node is dead (PROTOCOL 6.2, 6.3).
func TestEvidence(t *testing.T) {
	boot := cluster.Boot{Number: 3, ID: 7}
	dead := transport.LinkDown{
		Peer: transport.Hello{Name: "a", Node: 1, Boot: boot, PID1: true}, Dialled: true,
		Cause: transport.CauseEOF, Redial: transport.RedialRefused, HeldTwice: true, AddressesAgree: true,
	}
	changed := func(f func(*transport.LinkDown)) transport.LinkDown {
		e := dead
		f(&e)
		return e
	}
	for what, e := range map[string]transport.LinkDown{
		"EOF":                      dead,
		"reset":                    changed(func(e *transport.LinkDown) { e.Cause = transport.CauseReset }),
		"another boot answers":     changed(func(e *transport.LinkDown) { e.Redial = transport.RedialOtherBoot }),
		"the socket was held once": changed(func(e *transport.LinkDown) { e.HeldTwice = false }),
	} {
		if got := evidence(e); got == nil || !got.About(1, boot) || got.HeldTwice != e.HeldTwice {
			t.Errorf("%s: evidence %+v", what, got)
		}
	}
	for what, e := range map[string]transport.LinkDown{
		"not PID 1":           changed(func(e *transport.LinkDown) { e.Peer.PID1 = false }),
		"addresses disagree":  changed(func(e *transport.LinkDown) { e.AddressesAgree = false }),
		"time-out":            changed(func(e *transport.LinkDown) { e.Cause = transport.CauseTimeout }),
		"closed by its code":  changed(func(e *transport.LinkDown) { e.Cause = transport.CauseClosed }),
		"our own close":       changed(func(e *transport.LinkDown) { e.Cause = transport.CauseLocal }),
		"goodbye":             changed(func(e *transport.LinkDown) { e.Cause = transport.CauseGoodbye }),
		"the same boot":       changed(func(e *transport.LinkDown) { e.Redial = transport.RedialSameBoot }),
		"a redial in vain":    changed(func(e *transport.LinkDown) { e.Redial = transport.RedialNoAnswer }),
		"no redial":           changed(func(e *transport.LinkDown) { e.Redial = transport.RedialNotTried }),
		"a link that came in": changed(func(e *transport.LinkDown) { e.Dialled = false }),
	} {
		if got := evidence(e); got != nil {
			t.Errorf("%s is evidence: %+v", what, got)
		}
	}
}

// quiet is a shell to which nothing is of interest.
type quiet struct{ agent.Shell }

func (quiet) Send(cluster.Incarnation, cluster.Envelope, bool) {}
func (quiet) Calm(bool)                                        {}

// member is node 1 of the cluster "ours", with a loop that runs.
func member(t *testing.T) *node {
	t.Helper()
	id := "ours"
	n := &node{opt: Options{Incarnation: 1}, log: slog.New(slog.DiscardHandler)}
	n.clusterID.Store(&id)
	n.links = newLinks(n)
	n.loop = agent.NewLoop(agent.LoopOptions{Machine: agent.Options{Self: 1}, Shell: quiet{}, Clock: Now, Log: n.log})
	n.links.attach(n.loop)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan int, 1)
	go func() { done <- n.loop.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		n.loop.Post(agent.StopAsked{}) // nothing is formed: it leaves
		<-done
	})
	return n
}

// TestMessageOfAnotherCluster: a node of another cluster id is neither linked nor heard. A forced recovery will make such an
// id (PROTOCOL 9.10); a volume from elsewhere has one today.
func TestMessageOfAnotherCluster(t *testing.T) {
	n := member(t)
	for id, ok := range map[string]bool{"ours": true, "theirs": false, "": true} { // empty: it has still to join
		if err := n.accept(transport.Hello{Name: "b", Node: 2, Cluster: id}); (err == nil) != ok {
			t.Errorf("link of cluster %q: %v", id, err)
		}
	}
	say := func(from cluster.Incarnation, id string) {
		n.links.message(transport.Hello{Node: from}, cluster.Envelope{ClusterID: id, Detach: &cluster.Detach{Epoch: 9}})
	}
	say(7, "theirs")
	say(8, "")
	say(2, "ours")
	heard := func() map[cluster.Incarnation]bool {
		who := map[cluster.Incarnation]bool{}
		if err := n.loop.Ask(t.Context(), func(m *agent.Machine) {
			for _, p := range m.Snapshot().Peers {
				who[p.Inc] = true
			}
		}); err != nil {
			t.Fatal(err)
		}
		return who
	}
	for end := time.Now().Add(10 * time.Second); !heard()[2]; { // the loop takes them in their order
		if time.Now().After(end) {
			t.Fatal("a message of the cluster is not heard")
		}
	}
	if who := heard(); who[7] || who[8] {
		t.Errorf("heard: %v", who)
	}
}

// TestRolledBackVolume: its links are refused by what was applied, and after a kill by what the log says until that is applied
// again (PROTOCOL 1.13).
func TestRolledBackVolume(t *testing.T) {
	store, err := raft.NewMemStore([]uint64{1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	register := cluster.Command{Register: &cluster.Register{Inc: 2, Boot: cluster.Boot{Number: 2, ID: 20}}}
	entry := &raftpb.Entry{Index: proto.Uint64(2), Term: proto.Uint64(1), Data: register.Encode()}
	if err := store.Save(nil, []*raftpb.Entry{entry}, nil, true); err != nil {
		t.Fatal(err)
	}
	n := &node{opt: Options{Incarnation: 1}}
	n.fsm = &fsm{node: n}
	id := "c"
	n.clusterID.Store(&id)
	state := func(boot uint64) *cluster.State {
		return &cluster.State{ClusterID: id, Members: []cluster.Member{{Inc: 2, Name: "b", Boot: cluster.Boot{Number: boot, ID: 10 * boot}}}}
	}
	hello := func(boots ...cluster.Boot) error {
		return n.accept(transport.Hello{Name: "b", Node: 2, Cluster: id, Boot: boots[len(boots)-1], Boots: boots})
	}
	old := []cluster.Boot{{Number: 1, ID: 10}, {Number: 2, ID: 21}}
	if err := n.readLog(store); err != nil {
		t.Fatal(err)
	}
	n.fsm.changed(1, state(1), nil)
	if hello(old...) == nil {
		t.Error("let in against the log")
	}
	if err := hello(append(old[:1:1], cluster.Boot{Number: 2, ID: 20}, cluster.Boot{Number: 3, ID: 30})...); err != nil {
		t.Errorf("the volume itself: %v", err)
	}
	n.fsm.changed(2, state(1), nil) // as if that Register had been refused
	if err := hello(old...); err != nil {
		t.Errorf("refused for a Register that came to nothing: %v", err)
	}
	if n.fsm.changed(3, state(2), nil); hello(old...) == nil {
		t.Error("let in against the state")
	}
}
