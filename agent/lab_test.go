// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// lab drives one machine by hand. Nodes a, b and c have the incarnations 1, 2 and 3, and boots 1.1, 1.2 and 1.3.
type lab struct {
	t   *testing.T
	m   *Machine
	now time.Duration
	st  *cluster.State
	idx uint64
	out []Action // of the last step
	all []Action
}

func bootOf(i cluster.Incarnation) cluster.Boot { return cluster.Boot{Number: 1, ID: uint64(i)} }

// healthy is a state of three voters in the Set with k = 1, primary a in epoch 2.
func healthy() *cluster.State {
	set := []cluster.Incarnation{1, 2, 3}
	s := &cluster.State{
		Format: cluster.FormatVersion, ClusterID: "test", System: 7, Founder: 1, Phase: cluster.PhasePromoted, LeaseMS: 2000, HighestTL: 2,
		D:       cluster.Durability{Set: set, K: 1, Mode: cluster.ModeQuorum},
		Configs: []cluster.VoterConfig{{Index: 1, Voters: set}},
		Epochs: []cluster.EpochRecord{
			{Epoch: 1, Primary: 1, Timeline: 1, Index: 5, Promoted: true},
			{Epoch: 2, Primary: 1, Timeline: 2, Elected: cluster.Position{Timeline: 1, LSN: 0x1000}, Switch: 0x1000, Index: 9, Promoted: true},
		},
	}
	for i, n := range []cluster.NodeName{"a", "b", "c"} {
		inc := cluster.Incarnation(i + 1)
		s.Members = append(s.Members, cluster.Member{Inc: inc, Name: n, Voter: true, Boot: bootOf(inc)})
	}
	return s
}

func newLab(t *testing.T, self cluster.Incarnation, st *cluster.State, change func(*Options)) *lab {
	opt := Options{
		Self: self, Name: cluster.NodeName('a' + byte(self) - 1), Boot: bootOf(self), Priority: 100, Port: 5432,
		Promise: st.Epoch().Epoch, Watchdog: true, StopTimeout: time.Second, Start: time.Second,
	}
	if change != nil {
		change(&opt)
	}
	l := &lab{t: t, m: New(opt), now: time.Second, st: st, idx: 100}
	l.step(Applied{Index: l.idx, State: st})
	l.step(RaftChanged{Term: 1, Leader: 1})
	for _, mb := range st.Members {
		if mb.Inc != self {
			l.step(LinkUp{Inc: mb.Inc, Name: mb.Name, Boot: mb.Boot, Out: true, Host: string(mb.Name)})
			l.step(LinkUp{Inc: mb.Inc, Name: mb.Name, Boot: mb.Boot})
		}
	}
	return l
}

// step hands one event over, a millisecond after the one before.
func (l *lab) step(e Event) []Action {
	l.now += time.Millisecond
	l.out = l.m.Step(l.now, e)
	l.all = append(l.all, l.out...)
	return l.out
}

// apply commits a command.
func (l *lab) apply(c cluster.Command) {
	l.t.Helper()
	l.idx++
	s, ev := cluster.Apply(l.st, l.idx, c)
	if ev[0].Kind == "rejected" {
		l.t.Fatalf("%v", ev)
	}
	l.st = s
	l.step(Applied{Index: l.idx, State: s, Events: ev})
}

// from brings a message of a peer.
func (l *lab) from(i cluster.Incarnation, env cluster.Envelope) []Action {
	return l.step(Received{From: i, Boot: bootOf(i), Env: env})
}

// task is the last task of a kind that was started and has not been answered here.
func (l *lab) task(k TaskKind) *Task {
	for i := len(l.all) - 1; i >= 0; i-- {
		if r, ok := l.all[i].(Run); ok && r.Task.Kind == k {
			return &r.Task
		}
	}
	return nil
}

// done ends the task of that kind, which must have been started.
func (l *lab) done(k TaskKind, r Result) []Action {
	l.t.Helper()
	t := l.task(k)
	if t == nil {
		l.t.Fatalf("no task %s was started; rule %s: %s", k, l.m.rule, l.m.decision.Why)
	}
	return l.step(Done{ID: t.ID, Result: r})
}

// sent lists the messages of the last step for which want holds.
func (l *lab) sent(to cluster.Incarnation, want func(cluster.Envelope) bool) []cluster.Envelope {
	var got []cluster.Envelope
	for _, a := range l.out {
		if s, ok := a.(Send); ok && s.To == to && want(s.Env) {
			got = append(got, s.Env)
		}
	}
	return got
}

func (l *lab) elect(c cluster.Cause) {
	l.apply(cluster.Command{BeginElection: &cluster.BeginElection{Epoch: l.st.Epoch().Epoch + 1, Cause: c, Rule: "F350"}})
}
