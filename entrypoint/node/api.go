// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"time"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/api"
	"github.com/pgquorum/pgquorum/cluster"
)

// serveAPI opens the local socket and, unless it is off, the network side. The function it returns waits until both
// have ended, which ctx makes them.
func (n *node) serveAPI(ctx context.Context) (func(), error) {
	ctx, cancel := context.WithCancel(ctx)
	o := api.Options{Node: apiNode{n}, Log: n.log, Port: n.opt.APIPort, Counters: n.counters}
	done := make(chan error, 2)
	running := 1
	sock, err := api.ListenSocket(n.opt.RunDir, -1, -1)
	if err != nil {
		cancel()
		return nil, err
	}
	go func() { done <- api.ServeLocal(ctx, sock, api.NewLocal(o), n.log) }()
	if n.opt.APIPort != 0 {
		ln, err := api.Listen(ctx, n.opt.APIPort)
		if err != nil {
			cancel()
			return nil, err
		}
		running++
		go func() { done <- api.Serve(ctx, ln, api.NewHTTP(o), n.log) }()
	}
	return func() {
		cancel()
		for range running {
			if err := <-done; err != nil {
				n.log.Warn("api ended", "err", err)
			}
		}
	}, nil
}

// apiNode shows a node to package api.
type apiNode struct{ n *node }

// View is the node as operators see it.
func (a apiNode) View() api.View {
	n := a.n
	v := api.View{Name: n.opt.Name, Self: n.opt.Incarnation, Version: n.opt.Version, Forming: *n.forming.Load(), Now: Now()}
	l := n.links.loop()
	if l == nil {
		return v
	}
	var s agent.Snapshot
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := l.Ask(ctx, func(m *agent.Machine) { s = m.Snapshot() }); err != nil {
		v.Now = 0 // the loop stands still
		return v
	}
	v.State, v.Local, v.Leader, v.Term, v.Applied = s.State, s.Local, s.Leader, s.Term, s.Applied
	v.Registered, v.Decision, v.Rule, v.Now = s.Registered, s.Decision, s.Rule, s.Now
	switch s.Local.Role {
	case cluster.RoleServing, cluster.RoleFollowing, cluster.RoleFenced:
		v.ReadOnlyOK = true
	case cluster.RoleDown, cluster.RolePromoting:
	}
	v.Unreached = n.tr.Load().Unreached()
	for _, p := range s.Peers {
		v.Peers = append(v.Peers, api.Peer{
			Name: p.Name, Inc: p.Inc, Host: string(p.Name), Linked: p.Linked,
			LinkAge: p.LinkAge, Status: p.Status, StatusAge: p.StatusAge,
		})
	}
	v.Host = string(n.opt.Name)
	return v
}

// Request carries out an operator's order.
func (a apiNode) Request(ctx context.Context, r cluster.Request) (cluster.Response, error) {
	return a.n.shell.request(ctx, r)
}
