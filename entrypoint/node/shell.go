// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/pgctl"
	"github.com/pgquorum/pgquorum/raft"
	"github.com/pgquorum/pgquorum/raft/transport"
)

// shell carries out the agent's actions; worker.go has those on Postgres.
type shell struct {
	n *node

	mu       sync.Mutex
	requests map[uint64]chan cluster.Response
	nextID   uint64

	status  *cluster.Status // the last one that was sent
	encoded []byte
	pace    pace
}

func newShell(n *node) *shell {
	return &shell{n: n, requests: map[uint64]chan cluster.Response{}, pace: newPace()}
}

// raftSender is the network as raft sees it.
type raftSender struct{ n *node }

// Send hands a raft message to the network.
func (s *raftSender) Send(to uint64, m *raftpb.Message) bool {
	b, err := raft.Encode(*s.n.clusterID.Load(), m)
	if err != nil {
		s.n.log.Error("encode raft message", "err", err)
		return false
	}
	return s.n.tr.Load().Send(cluster.Incarnation(to), transport.KindRaft, b)
}

// Send gives an envelope to a peer. It is called by the loop alone.
func (s *shell) Send(to cluster.Incarnation, env cluster.Envelope, later bool) {
	env.ClusterID, env.From, env.Boot = *s.n.clusterID.Load(), s.n.opt.Incarnation, s.n.opt.Boot
	b := s.encoded
	if env.Status == nil || env.Status != s.status { // every peer is sent the same status
		b = env.Encode()
	}
	if env.Status != nil {
		s.status, s.encoded = env.Status, b
	}
	tr := s.n.tr.Load()
	if later {
		tr.SendLater(to, transport.KindAgent, b)
		return
	}
	tr.Send(to, transport.KindAgent, b)
}

// Calm is told whether the node is at rest.
func (s *shell) Calm(yes bool) { s.pace.set(yes) }

// Propose a command to raft. A proposal that is lost is repeated by the machine.
func (s *shell) Propose(c cluster.Command) {
	if err := s.n.raft.Propose(c.Encode()); err != nil {
		s.n.log.Debug("proposal dropped", "err", err)
	}
}

// ProposeConf proposes a membership change.
func (s *shell) ProposeConf(c cluster.MemberChange) {
	kind := raft.AddLearner
	switch c.Kind {
	case cluster.AddLearner:
	case cluster.AddVoter:
		kind = raft.AddVoter
	case cluster.Remove:
		kind = raft.Remove
	}
	change := raft.ConfChange{Type: kind, ID: uint64(c.Member.Inc), Context: c.Encode()}
	if err := s.n.raft.ProposeConf(change); err != nil {
		s.n.log.Debug("proposal dropped", "err", err)
	}
}

// Transfer raft leadership.
func (s *shell) Transfer(to cluster.Incarnation) { _ = s.n.raft.TransferLeader(uint64(to)) }

// ForgetLeader drops raft's memory of a dead leader.
func (s *shell) ForgetLeader(campaign bool) {
	_ = s.n.raft.ForgetLeader()
	if campaign {
		_ = s.n.raft.Campaign()
	}
}

// SavePromise makes a promise durable.
func (s *shell) SavePromise(e cluster.Epoch) error { return s.n.store.savePromise(e) }

// Deadline moves the watchdog's deadline.
func (s *shell) Deadline(at time.Duration) {
	d := s.n.dog.Load()
	if d == nil {
		return
	}
	var err error
	if at == 0 {
		err = d.Disarm()
	} else {
		err = d.Extend(at)
	}
	if err != nil {
		s.n.log.Warn("tell the watchdog", "err", err)
	}
}

// Answer ends an operator's request.
func (s *shell) Answer(r cluster.Response) {
	s.mu.Lock()
	ch := s.requests[r.ID]
	delete(s.requests, r.ID)
	s.mu.Unlock()
	if ch != nil {
		ch <- r
	}
}

// Fatal ends PID 1 at once (PROTOCOL 4.9).
func (s *shell) Fatal(err error) {
	select {
	case s.n.fatal <- err:
	default:
	}
}

// request posts an operator's order and waits for its outcome.
func (s *shell) request(ctx context.Context, r cluster.Request) (cluster.Response, error) {
	l := s.n.links.loop()
	if l == nil {
		return cluster.Response{}, errors.New("the cluster is not formed yet")
	}
	ch := make(chan cluster.Response, 1)
	s.mu.Lock()
	s.nextID++
	r.ID = s.nextID
	s.requests[r.ID] = ch
	s.mu.Unlock()
	l.Post(agent.Requested{Request: r})
	select {
	case a := <-ch:
		return a, nil
	case <-ctx.Done():
		s.mu.Lock()
		delete(s.requests, r.ID)
		s.mu.Unlock()
		return cluster.Response{}, ctx.Err()
	}
}

// moveForeign leaves WAL of the epoch's lineage alone to a running standby, before it follows or is promoted. It is started
// again if it may have adopted a foreign timeline (PROTOCOL 5.5.f).
func (s *shell) moveForeign(ctx context.Context, t agent.Task) error {
	if t.Timeline == 0 { // the lineage is not ours yet
		return nil
	}
	pg := s.n.pg
	moved, err := pg.MoveForeign(t.Timeline, t.Lineage)
	if err != nil || moved == 0 {
		return err
	}
	if _, err := pg.Stop(ctx, pgctl.StopSpec{Mode: pgctl.Fast, Timeout: 2 * time.Second}); err != nil {
		return err
	}
	return pg.Start(ctx, pgctl.StartSpec{Recovery: true, Settings: pgctl.Nobody()})
}
