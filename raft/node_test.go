// SPDX-License-Identifier: Apache-2.0

package raft

import (
	"errors"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

type deafSender struct{}

func (deafSender) Send(uint64, *raftpb.Message) bool { return false }

func startNode(t *testing.T, s LogStore, f FSM) *Node {
	t.Helper()
	n, err := Start(NodeOptions{
		Core:   Options{ID: 1, Store: s, FSM: f, Logger: quiet()},
		Sender: deafSender{}, Tick: time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

func TestNodeReportsFatalStoreError(t *testing.T) {
	s, err := NewMemStore([]uint64{1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := startNode(t, brokenStore{s}, &listFSM{})
	select {
	case err := <-n.Fatal():
		if !errors.Is(err, errDisk) {
			t.Fatalf("fatal: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no fatal error within 10 s")
	}
	<-n.done
	if err := n.Propose([]byte("x")); !errors.Is(err, ErrClosed) {
		t.Fatalf("propose after the end: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
}

type signalFSM struct {
	listFSM
	applied chan string
}

func (f *signalFSM) Apply(index, term uint64, data []byte) {
	f.listFSM.Apply(index, term, data)
	if data != nil {
		f.applied <- string(data)
	}
}

func TestNodeAloneCommitsWithoutWaitingForATick(t *testing.T) {
	s, err := NewMemStore([]uint64{1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	f := &signalFSM{applied: make(chan string, 10)}
	roles := make(chan RoleChanged, 16)
	n, err := Start(NodeOptions{
		Core:   Options{ID: 1, Store: s, FSM: f, Logger: quiet()},
		Sender: deafSender{}, Tick: time.Hour, OnRole: func(r RoleChanged) { roles <- r },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	if err := n.Campaign(); err != nil {
		t.Fatal(err)
	}
	for r := range roles {
		if r.Self == Leader {
			break
		}
	}
	if err := n.Propose([]byte("now")); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-f.applied:
		if got != "now" {
			t.Fatalf("applied %q", got)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("not applied within 10 s")
	}
	if err := n.Propose(make([]byte, MaxProposal+1)); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("a proposal that is too large: %v", err)
	}
	if err := n.ProposeConf(ConfChange{Type: AddVoter}); err == nil {
		t.Fatal("a change without member was taken")
	}
}
