// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgquorum/pgquorum/api/status"
	"github.com/pgquorum/pgquorum/cluster"
)

// phaseForming is the phase of a node that is not part of a cluster yet.
const phaseForming = "forming"

// Status is the document behind `pgquorum status --json`.
func Status(v View) status.Doc {
	d := status.Doc{
		Node: string(v.Name), Version: v.Version, Phase: phaseForming, Forming: v.Forming,
		Decision: v.Decision, Rule: string(v.Rule), Members: v.members(), History: []status.Event{},
		Durability: status.Durability{Set: []string{}},
	}
	s := v.State
	if s == nil {
		return d
	}
	e := s.Epoch()
	d.Cluster, d.Phase, d.Paused = s.ClusterID, string(s.Phase), s.Paused
	d.Epoch, d.Timeline = uint64(e.Epoch), uint32(e.Timeline)
	if p, age := v.primaryStatus(); p != nil && p.Serving && leaseLeft(p, age) > 0 {
		d.Primary = string(s.NameOf(s.Primary()))
	}
	if v.Leader != 0 {
		d.Leader = string(s.NameOf(v.Leader))
	}
	d.Durability = durability(s, s.D)
	if s.Pending != nil {
		p := durability(s, *s.Pending)
		d.Durability.Pending = &p
	}
	d.Redundant = v.redundant()
	d.History = history(s)
	return d
}

func durability(s *cluster.State, d cluster.Durability) status.Durability {
	out := status.Durability{Mode: string(d.Mode), K: d.K, Set: []string{}}
	for _, inc := range d.Set {
		out.Set = append(out.Set, string(s.NameOf(inc)))
	}
	slices.Sort(out.Set)
	return out
}

func history(s *cluster.State) []status.Event {
	out := make([]status.Event, 0, len(s.History))
	for _, h := range s.History {
		e := status.Event{Index: h.Index, Epoch: uint64(h.Epoch), What: h.What, Rule: string(h.Rule), Detail: h.Detail}
		for _, t := range h.Timings {
			e.Timings = append(e.Timings, status.Timing{Name: t.Name, MS: t.MS})
		}
		out = append(out, e)
	}
	return out
}

// redundant: any one node may be lost now without losing a commit or the service. Every data node votes, is in Set
// and streams; nothing is being changed; nobody waits to join.
func (v *View) redundant() bool {
	s := v.State
	if s == nil || s.Phase != cluster.PhasePromoted || s.Pending != nil || !s.VotersConfirmed() || len(s.D.Set) < 2 {
		return false
	}
	p, age := v.primaryStatus()
	if p == nil || !p.Serving || leaseLeft(p, age) <= 0 {
		return false
	}
	for i := range s.Members {
		m := &s.Members[i]
		if m.Witness {
			continue
		}
		if !s.IsVoter(m.Inc) || !slices.Contains(s.D.Set, m.Inc) || m.Inc != s.Primary() && !v.streaming(m.Inc) {
			return false
		}
	}
	return !slices.ContainsFunc(v.Peers, func(p Peer) bool { return p.Linked && s.Member(p.Inc) == nil })
}

// members lists the members, this node and every other node in sight.
func (v *View) members() []status.Member {
	var out []status.Member
	seen := []cluster.Incarnation{}
	add := func(name cluster.NodeName, inc cluster.Incarnation) {
		if !slices.Contains(seen, inc) {
			seen = append(seen, inc)
			out = append(out, v.member(name, inc))
		}
	}
	if v.State != nil {
		for _, m := range v.State.Members {
			add(m.Name, m.Inc)
		}
	}
	add(v.Name, v.Self)
	for _, p := range v.Peers {
		if p.Inc == 0 {
			out = append(out, v.member(p.Name, 0)) // a listed peer that was never heard
			continue
		}
		add(p.Name, p.Inc)
	}
	slices.SortStableFunc(out, func(a, b status.Member) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Incarnation, b.Incarnation))
	})
	return out
}

func (v *View) member(name cluster.NodeName, inc cluster.Incarnation) status.Member {
	m := status.Member{Name: string(name), Role: v.role(inc), State: v.stateOf(inc), Linked: v.linked(inc)}
	if inc != 0 {
		m.Incarnation = inc.String()
	}
	m.Streaming = v.streaming(inc)
	m.Sync = m.Streaming && v.sync(inc)
	if bytes, known := v.lag(inc); known {
		m.LagBytes = &bytes
	}
	s, age := v.statusOf(inc)
	if s != nil && inc != 0 {
		m.Epoch, m.Timeline, m.Trouble = uint64(s.Epoch), uint32(s.Position.Timeline), s.Trouble
		if s.Position.LSN != 0 {
			m.LSN = s.Position.LSN.String()
		}
		m.Task = strings.TrimSuffix(s.Task+": "+s.TaskNote, ": ")
		if inc == v.primary() {
			m.LeaseMS = leaseLeft(s, age).Milliseconds()
		}
	}
	m.WhyNot = v.whyNot(name, inc, s, m)
	return m
}

func (v *View) linked(inc cluster.Incarnation) bool {
	p := v.peer(inc)
	return inc == v.Self || p != nil && p.Linked
}

func (v *View) role(inc cluster.Incarnation) string {
	if v.State == nil {
		return status.RoleUnknown
	}
	m := v.State.Member(inc)
	switch {
	case m == nil:
		return status.RoleUnknown
	case m.Witness:
		return status.RoleWitness
	case v.foreign(inc):
		return status.RoleNone
	case inc == v.primary():
		return status.RolePrimary
	case !v.State.IsVoter(inc):
		return status.RoleLearner
	}
	return status.RoleStandby
}

// working maps the tasks that an operator wants to see as the node's state.
func working(task string) string {
	switch task {
	case "clone":
		return status.StateCloning
	case "rewind":
		return status.StateRewinding
	case "init", "prepare":
		return status.StateFounding
	case "start_standby", "start_primary":
		return status.StateStarting
	}
	return ""
}

// foreign: the node is up with the data of another cluster, whatever the state says of it.
func (v *View) foreign(inc cluster.Incarnation) bool {
	s, _ := v.statusOf(inc)
	return s != nil && s.Foreign
}

func (v *View) stateOf(inc cluster.Incarnation) string {
	s, _ := v.statusOf(inc)
	switch {
	case inc == 0 || s == nil || !v.linked(inc):
		return status.StateUnreachable
	case s.Leaving:
		return status.StateStopping
	case v.role(inc) == status.RoleWitness:
		return status.StateVoting
	case working(s.Task) != "":
		return working(s.Task)
	case v.State == nil || v.State.Member(inc) == nil:
		return status.StateWaiting
	case s.Serving:
		return status.StateServing
	case s.Role == cluster.RolePromoting && v.State.Phase == cluster.PhasePromoted:
		return status.StateAdmitting
	case s.Role == cluster.RolePromoting:
		return status.StatePromoting
	case s.Role == cluster.RoleFollowing && v.streaming(inc):
		return status.StateStreaming
	case s.Role == cluster.RoleFollowing:
		return status.StateCatchingUp
	case s.Role == cluster.RoleFenced:
		return status.StateFenced
	}
	return status.StateDown
}

// whyNot says why a node could not take over, or does not stream.
func (v *View) whyNot(name cluster.NodeName, inc cluster.Incarnation, s *cluster.Status, m status.Member) string {
	if inc == 0 {
		return strings.TrimSuffix("never heard of: "+v.Unreached[name], ": ")
	}
	if s == nil || !v.linked(inc) {
		return v.silence(name, inc)
	}
	if m.Role == status.RolePrimary || m.Role == status.RoleWitness || m.Role == status.RoleNone || v.State == nil {
		return "" // of the last kind says its trouble
	}
	mb := v.State.Member(inc)
	if mb == nil {
		return strings.Trim("not a member yet; "+s.TaskNote, "; ")
	}
	var why []string
	say := func(when bool, text string) {
		if when {
			why = append(why, text)
		}
	}
	say(mb.Quarantined, "quarantined")
	say(!s.Eligible, cmp.Or(s.WhyNot, "not eligible"))
	say(!v.State.IsVoter(inc), "does not vote yet")
	say(!v.State.InSets(inc), "not in the durability set")
	if p := v.primary(); p != 0 && !m.Streaming {
		say(true, cmp.Or(s.TaskNote, m.Task, "not streaming"))
	}
	return strings.Join(slices.Compact(why), "; ")
}

func (v *View) silence(name cluster.NodeName, inc cluster.Incarnation) string {
	switch p := v.peer(inc); {
	case p != nil && p.Linked && p.Status == nil:
		return "linked, nothing heard yet"
	case p != nil && p.Linked:
		return fmt.Sprintf("linked, silent for %s", roughly(p.StatusAge))
	case p != nil && p.LinkAge > 0:
		return strings.TrimSuffix(fmt.Sprintf("no link for %s: %s", roughly(p.LinkAge), v.Unreached[name]), ": ")
	}
	return strings.TrimSuffix("no link: "+v.Unreached[name], ": ")
}

// roughly rounds a duration for people.
func roughly(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	}
	return d.Round(time.Minute).String()
}
