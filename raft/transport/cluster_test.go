// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/raft"
)

// The whole of the room together: members on disk, over real links, in one process.

// journal is a replicated list of commands.
type journal struct {
	mu       sync.Mutex
	items    []string
	restored int
}

func (j *journal) Apply(_, _ uint64, data []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if data != nil {
		j.items = append(j.items, string(data))
	}
}

func (j *journal) ApplyConf(_, _ uint64, _ raft.ConfChange) bool { return true }

func (j *journal) Snapshot() []byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	return []byte(strings.Join(j.items, "\n"))
}

func (j *journal) Restore(_ uint64, data []byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.restored++
	j.items = nil
	if len(data) > 0 {
		j.items = strings.Split(string(data), "\n")
	}
	return nil
}

func (j *journal) list() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.items)
}

// member is one node of the product, as far as this room goes.
type member struct {
	*journal
	id   uint64
	name string
	dir  string
	link *testNode
	node *raft.Node
}

const group = "test cluster"

// Send implements raft.Sender.
func (m *member) Send(to uint64, msg *raftpb.Message) bool {
	b, err := raft.Encode(group, msg)
	return err == nil && m.link.Send(cluster.Incarnation(to), KindRaft, b)
}

type assembly struct {
	t       *testing.T
	dir     string
	auth    *authority
	members map[string]*member
}

// newAssembly starts a cluster of three voters.
func newAssembly(t *testing.T) *assembly {
	t.Helper()
	// The directory comes first: it must outlive the members.
	a := &assembly{t: t, dir: t.TempDir(), auth: testAuthority(t), members: map[string]*member{}}
	t.Cleanup(func() {
		for n := range a.members {
			a.stop(n)
		}
	})
	voters := []uint64{1001, 1002, 1003}
	for i, id := range voters {
		a.create(fmt.Sprintf("pg%d", i+1), id, voters)
	}
	return a
}

func (a *assembly) create(name string, id uint64, voters []uint64) {
	a.t.Helper()
	m := &member{id: id, name: name, dir: filepath.Join(a.dir, name)}
	o := raft.WALOptions{Dir: m.dir, ID: id, Logger: quiet()}
	var err error
	if len(voters) > 0 {
		err = raft.CreateGenesis(o, voters, nil)
	} else {
		err = raft.CreateEmpty(o)
	}
	if err != nil {
		a.t.Fatal(err)
	}
	a.members[name] = m
	a.start(name)
}

// start boots a member from its disk and introduces everybody to everybody.
func (a *assembly) start(name string) {
	a.t.Helper()
	m := a.members[name]
	m.journal = &journal{}
	store, err := raft.OpenWAL(raft.WALOptions{Dir: m.dir, ID: m.id, Logger: quiet()})
	if err != nil {
		a.t.Fatal(err)
	}
	link, err := newNode(a.auth, name, func(o *Options) {
		hello := o.Hello
		o.Hello = func() Hello { h := hello(); h.Node = cluster.Incarnation(m.id); return h }
	})
	if err != nil {
		a.t.Fatal(err)
	}
	m.link = link
	m.node, err = raft.Start(raft.NodeOptions{
		Core:   raft.Options{ID: m.id, Store: store, FSM: m.journal, Logger: quiet(), SnapshotEvery: 200, KeepEntries: 50},
		Sender: m, Tick: 10 * time.Millisecond,
	})
	if err != nil {
		a.t.Fatal(err)
	}
	node := m.node
	link.inbox.mu.Lock()
	link.onEvent = func(e any) {
		switch e := e.(type) {
		case Message:
			if msg, err := raft.Decode(group, e.Payload); err == nil {
				node.Step(msg)
			}
		case LinkDown:
			_ = node.ReportUnreachable(uint64(e.Peer.Node))
		}
	}
	link.inbox.mu.Unlock()
	var peers []Peer
	for n, o := range a.members {
		if o.link != nil {
			peers = append(peers, o.link.peer(n))
		}
	}
	for _, o := range a.members {
		if o.link != nil {
			o.link.setPeers(peers...)
		}
	}
}

func (a *assembly) stop(name string) {
	a.t.Helper()
	m := a.members[name]
	if m.link == nil {
		return
	}
	_ = m.link.Close(false)
	if err := m.node.Close(); err != nil {
		a.t.Fatal(err)
	}
	m.link = nil
}

func (a *assembly) running() []*member {
	var out []*member
	for _, m := range a.members {
		if m.link != nil {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(x, y *member) int { return strings.Compare(x.name, y.name) })
	return out
}

func (a *assembly) leader() *member {
	a.t.Helper()
	var found *member
	poll(a.t, "a leader", func() bool {
		for _, m := range a.running() {
			if s := m.node.Status(); s.Role == raft.Leader {
				found = m
				return true
			}
		}
		return false
	})
	return found
}

// propose gives n commands to a member, waiting for room in its queue, and waits until all running members have them.
func (a *assembly) propose(m *member, tag string, n int) {
	a.t.Helper()
	want := len(m.list()) + n
	for i := range n {
		poll(a.t, "room for a proposal", func() bool {
			return m.node.Propose(fmt.Appendf(nil, "%s-%d", tag, i)) == nil
		})
	}
	a.settle(m, want)
}

func (a *assembly) settle(m *member, want int) {
	a.t.Helper()
	poll(a.t, fmt.Sprintf("%d items everywhere", want), func() bool {
		for _, o := range a.running() {
			if len(o.list()) != want {
				return false
			}
		}
		return true
	})
	for _, o := range a.running() {
		if !slices.Equal(o.list(), m.list()) {
			a.t.Fatalf("%s and %s have different items", m.name, o.name)
		}
	}
}

func TestThreeMembersLive(t *testing.T) {
	a := newAssembly(t)
	lead := a.leader()
	start := time.Now()
	a.propose(lead, "first", 1000)
	t.Logf("1000 proposals on three members: %s", time.Since(start))

	a.stop(lead.name)
	second := a.leader()
	a.propose(second, "second", 300)
	t.Logf("the dead member misses 300 entries, more than the %d that are kept", 50)

	a.start(lead.name)
	a.settle(second, len(second.list()))
	if lead.restored < 2 {
		t.Fatalf("the lagging member was not fed a snapshot: %d restores", lead.restored)
	}

	a.create("pg4", 1004, nil)
	a.change(raft.ConfChange{Type: raft.AddLearner, ID: 1004})
	poll(t, "the learner has everything", func() bool { return len(a.members["pg4"].list()) == len(second.list()) })
	a.change(raft.ConfChange{Type: raft.AddVoter, ID: 1004})
	poll(t, "four voters", func() bool { return len(a.members["pg4"].node.Status().Voters) == 4 })

	gone := a.leader()
	a.change(raft.ConfChange{Type: raft.Remove, ID: gone.id})
	a.stop(gone.name)
	a.propose(a.leader(), "last", 50)
	if v := a.leader().node.Status().Voters; len(v) != 3 || slices.Contains(v, gone.id) {
		t.Fatalf("voters %v", v)
	}
}

// change proposes until the configuration shows it: a proposal may be lost without a word.
func (a *assembly) change(c raft.ConfChange) {
	a.t.Helper()
	done := func(s raft.Status) bool {
		switch c.Type {
		case raft.AddLearner:
			return slices.Contains(s.Learners, c.ID)
		case raft.AddVoter:
			return slices.Contains(s.Voters, c.ID)
		case raft.Remove:
		}
		return !slices.Contains(s.Voters, c.ID)
	}
	for range 50 {
		m := a.leader()
		if err := m.node.ProposeConf(c); err != nil {
			a.t.Fatal(err)
		}
		deadline := time.Now().Add(200 * time.Millisecond)
		for time.Now().Before(deadline) {
			if done(m.node.Status()) {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	a.t.Fatalf("%s %d did not happen", c.Type, c.ID)
}

// Evidence of death makes an election take a few milliseconds instead of an election timeout.
func TestElectionAfterEvidence(t *testing.T) {
	a := newAssembly(t)
	lead := a.leader()
	a.propose(lead, "x", 10)
	a.stop(lead.name)
	start := time.Now()
	for _, m := range a.running() {
		if err := m.node.ForgetLeader(); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.running()[0].node.Campaign(); err != nil {
		t.Fatal(err)
	}
	poll(t, "a new leader", func() bool { return a.running()[0].node.Status().Role == raft.Leader })
	t.Logf("election took %s", time.Since(start))
}

func TestCommitLatency(t *testing.T) {
	a := newAssembly(t)
	lead := a.leader()
	a.propose(lead, "warm", 10)
	var took []time.Duration
	for i := range 100 {
		n := len(lead.list())
		start := time.Now()
		if err := lead.node.Propose(fmt.Appendf(nil, "c%d", i)); err != nil {
			t.Fatal(err)
		}
		poll(t, "commit", func() bool { return len(lead.list()) > n })
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	t.Logf("commit on the leader: median %s, worst %s", took[50], took[99])
}
