// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/pgctl"
	"github.com/pgquorum/pgquorum/raft"
	"github.com/pgquorum/pgquorum/raft/transport"
)

// errNotFormed ends a node that was told to wait only so long.
var errNotFormed = errors.New("the cluster was not formed in time (PGQUORUM_BOOTSTRAP_TIMEOUT)")

// The line that says what the formation waits for comes when it has changed, and again.
const (
	sayEvery = time.Minute
	sayAgain = time.Second // reasons come and go while containers start
)

func (n *node) raftDir() string { return filepath.Join(n.opt.StateDir, "raft") }

// form returns when this node has raft state: at once after a restart, else when every listed peer is here, or an
// existing cluster has been found. stopped: the user wants it to end before.
func (n *node) form(ctx context.Context) (stopped bool, err error) {
	if raft.Exists(n.raftDir()) {
		return false, nil
	}
	if g, err := n.store.genesis(); err == nil { // cut off between the two writes
		return false, n.found(g)
	}
	offer, err := n.offer(ctx)
	if err != nil {
		return false, err
	}
	f := agent.NewFormer(offer, Now(), n.opt.FormingLimit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var said saying
	for {
		if r := f.Result(); r != nil {
			c := r.Genesis()
			g := genesisFile{ClusterID: c.ClusterID, State: c.State}
			if err := n.store.saveGenesis(g); err != nil {
				return false, err
			}
			return false, n.found(g)
		}
		n.say(&said, f.Why(n.unreached()))
		if f.GaveUp(Now()) {
			return false, fmt.Errorf("%w after %s: %s", errNotFormed, n.opt.FormingLimit, f.Why(n.unreached()))
		}
		select {
		case <-ctx.Done():
			return true, nil
		case <-n.opt.Stop:
			return true, nil
		case <-tick.C:
			n.sendOffer(f)
		case e := <-n.links.former:
			if e.gone != 0 {
				f.Gone(e.gone)
			} else {
				f.Received(e.env)
			}
		}
	}
}

func (n *node) sendOffer(f *agent.Former) {
	env, to, due := f.Offer(Now())
	if !due {
		return
	}
	for _, name := range to {
		n.tr.Load().SendName(name, transport.KindAgent, env.Encode())
	}
}

// saying is what was said last of the formation.
type saying struct {
	why string
	at  time.Duration
}

// say keeps for the status what the formation waits for, and logs it.
func (n *node) say(last *saying, why string) {
	n.forming.Store(&why)
	now := Now()
	if why != last.why && now > last.at+sayAgain || now > last.at+sayEvery {
		last.why, last.at = why, now
		n.log.Info("formation", "reason", why)
	}
}

// found makes the raft state that goes with a genesis, or an empty one for a node that joins.
func (n *node) found(g genesisFile) error {
	w := raft.WALOptions{Dir: n.raftDir(), ID: uint64(n.opt.Incarnation), Logger: n.log}
	n.clusterID.Store(&g.ClusterID)
	empty := ""
	n.forming.Store(&empty)
	if len(g.State) == 0 {
		n.log.Info("joining a cluster", "cluster", g.ClusterID)
		return raft.CreateEmpty(w)
	}
	s, err := cluster.DecodeState(g.State)
	if err != nil {
		return err
	}
	voters := make([]uint64, 0, len(s.Members))
	for _, v := range s.Voters() {
		voters = append(voters, uint64(v))
	}
	n.log.Info("forming a cluster", "cluster", g.ClusterID, "founder", string(s.NameOf(s.Founder)))
	return raft.CreateGenesis(w, voters, g.State)
}

// offer is what this node brings, durable before it is sent.
func (n *node) offer(ctx context.Context) (cluster.Offer, error) {
	d, err := n.pg.Disk(ctx)
	if err != nil {
		return cluster.Offer{}, err
	}
	o := cluster.Offer{Name: n.opt.Name, Inc: n.opt.Incarnation, Witness: n.opt.Witness, Priority: n.opt.Priority, Settings: n.opt.Formed}
	switch d.Kind {
	case pgctl.Present:
		o.HasData, o.System = true, d.Control.SystemID
	case pgctl.Foreign:
		return o, fmt.Errorf("look at %s: %s", n.opt.DataDir, d.Why)
	case pgctl.Empty, pgctl.Interrupted:
	}
	return o, n.store.saveOffer(o)
}

// unreached says of peers why they have not been heard. With a link and without an offer a peer lists other peers,
// which it says itself, or has not begun.
func (n *node) unreached() map[cluster.NodeName]string {
	tr := n.tr.Load()
	why := tr.Unreached()
	for _, l := range tr.Links() {
		if l.Dialled {
			why[l.Peer.Name] = "it is there, but has made no offer yet"
		}
	}
	return why
}

// answerOffer tells a node that would form a cluster that there is one already.
func (n *node) answerOffer(to cluster.NodeName, o cluster.Offer) {
	g, err := n.store.genesis()
	if err != nil {
		return
	}
	c := cluster.GenesisCopy{ClusterID: g.ClusterID, State: g.State}.For(o.Inc)
	env := cluster.Envelope{ClusterID: g.ClusterID, From: n.opt.Incarnation, Boot: n.opt.Boot, Genesis: c}
	n.tr.Load().SendName(to, transport.KindAgent, env.Encode())
}

// genesisFile is what makes a node part of a cluster.
type genesisFile struct {
	ClusterID string          `json:"cluster_id"`
	State     json.RawMessage `json:"state,omitempty"`
}
