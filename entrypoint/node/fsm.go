// SPDX-License-Identifier: Apache-2.0

package node

import (
	"sync"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/raft"
)

// fsm joins raft's log to the replicated state. Its methods run on raft's goroutine; what they produce is kept until
// the agent's loop listens.
type fsm struct {
	node *node
	st   *cluster.State

	trimmed bool // the volume's list of boots begins with this one

	mu      sync.Mutex
	loop    *agent.Loop
	waiting []agent.Event
}

func (f *fsm) post(e agent.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.loop == nil {
		f.waiting = append(f.waiting, e)
		return
	}
	f.loop.Post(e)
}

// open lets events through, those that waited first.
func (f *fsm) open(l *agent.Loop) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.waiting {
		l.Post(e)
	}
	f.waiting, f.loop = nil, l
}

func (f *fsm) changed(index uint64, s *cluster.State, events []cluster.Event) {
	f.st = s
	f.node.state.Store(s)
	if l := f.node.logged.Load(); l != nil && l.Over(index) {
		f.node.logged.Store(nil)
	}
	f.registered(s)
	f.post(agent.Applied{Index: index, State: s, Events: events})
}

// registered makes the volume's list of boots begin with this one once it is registered. Without it the list is longer
// and as true.
func (f *fsm) registered(s *cluster.State) {
	o := &f.node.opt
	if me := s.Member(o.Incarnation); f.trimmed || me == nil || me.Boot != o.Boot {
		return
	}
	f.trimmed = true
	if err := o.Registered(); err != nil {
		f.node.log.Warn("list of boots not written", "err", err)
	}
}

// Apply carries out a committed command.
func (f *fsm) Apply(index, _ uint64, data []byte) {
	if len(data) == 0 || f.st == nil {
		return
	}
	c, err := cluster.DecodeCommand(data)
	if err != nil {
		f.node.log.Warn("log entry is not a command of this version", "err", err)
		return
	}
	s, events := cluster.Apply(f.st, index, c)
	if c.Register != nil && s != f.st {
		defer f.node.tr.Load().Recheck() // links of boots that are over end here
	}
	f.changed(index, s, events)
}

// ApplyConf decides about a committed change of the configuration.
func (f *fsm) ApplyConf(index, _ uint64, change raft.ConfChange) bool {
	if f.st == nil {
		return true // a member that joins is fed a snapshot that already holds the outcome
	}
	c, err := cluster.DecodeMemberChange(change.Context)
	if err != nil || uint64(c.Member.Inc) != change.ID {
		return false
	}
	s, events, ok := cluster.ApplyConf(f.st, index, c)
	if ok && c.Kind == cluster.Remove {
		defer f.node.tr.Load().Recheck()
	}
	f.changed(index, s, events)
	return ok
}

// Snapshot is the whole state.
func (f *fsm) Snapshot() []byte {
	if f.st == nil {
		return nil
	}
	return f.st.Encode()
}

// Restore replaces the state.
func (f *fsm) Restore(index uint64, data []byte) error {
	s, err := cluster.DecodeState(data)
	if err != nil {
		return err
	}
	f.changed(index, s, nil)
	f.node.tr.Load().Recheck() // what was linked before anything was known
	return nil
}
