// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"slices"
	"strings"

	"github.com/cockroachdb/datadriven"
)

func (l *lang) peer(d *datadriven.TestData) string {
	name := d.CmdArgs[0].Key
	st := &Status{Role: RoleFollowing, Epoch: l.s.Epoch().Epoch, Known: true, Eligible: true, Position: Position{2, 0x3000}, Streaming: true}
	p := PeerView{Inc: inc(name), Linked: true, LinkAge: 60e9, Status: st}
	if p.Inc == l.s.Primary() {
		st.Role, st.Serving = RoleServing, true
	}
	for _, a := range d.CmdArgs[1:] {
		switch a.Key {
		case "linked":
			p.Linked = yes(a)
		case "link_age":
			p.LinkAge = l.dur(a)
		case "status":
			if !yes(a) {
				p.Status = nil
			}
		case "status_age":
			p.StatusAge = l.dur(a)
		case "evidence":
			p.Evidence = l.evidence(a)
		case "join": // under the name of
			p.Join = &Member{Inc: p.Inc, Name: NodeName(one(a)), Boot: boot(p.Inc)}
		case "granted":
			st.GrantAgeMS = -1
			if yes(a) {
				st.GrantAgeMS = l.dur(a).Milliseconds()
			}
		case "epoch":
			st.Epoch = Epoch(l.num(a))
		case "serving":
			st.Serving = yes(a)
		case "streaming":
			st.Streaming = yes(a)
		case "lease":
			st.LeaseMS = l.num(a)
		case "eligible":
			st.Eligible = yes(a)
		case "leaving":
			st.Leaving = true
		case "stuck":
			st.StuckMS = l.dur(a).Milliseconds()
		case "senders": // of these nodes, at their own end
			for _, n := range a.Vals {
				n, lsn, behind := strings.Cut(n, "@")
				s := Sender{App: SyncName(NodeName(n), inc(n), l.s.Epoch().Epoch), State: "streaming", Flush: st.Position.LSN}
				if behind {
					s.Flush, _ = ParseLSN(lsn)
				}
				st.Senders = append(st.Senders, s)
			}
		case "pos":
			st.Position = l.pos(one(a))
		default:
			l.bad(d, a)
		}
	}
	i, found := slices.BinarySearchFunc(l.v.Peers, p.Inc, func(p PeerView, i Incarnation) int { return int(p.Inc) - int(i) })
	if found {
		l.v.Peers[i] = p
	} else {
		l.v.Peers = slices.Insert(l.v.Peers, i, p)
	}
	return ""
}

// evidence=a or evidence=a/2: about boot number 2.
func (l *lang) evidence(a datadriven.CmdArg) *Evidence {
	if one(a) == "no" {
		return nil
	}
	name, n, other := strings.Cut(one(a), "/")
	e := &Evidence{Inc: inc(name), Boot: boot(inc(name)), HeldTwice: true}
	if other {
		e.Boot.Number = uint64(n[0] - '0')
	}
	return e
}

func (l *lang) report(d *datadriven.TestData) string {
	i := inc(d.CmdArgs[0].Key)
	r := TimedReport{Report: Report{
		Inc: i, Boot: boot(i), Election: l.s.Election.Index, Promise: l.s.Election.Epoch, Known: true,
		Position: Position{2, 0x3000}, HighestTL: 2, GrantAgeMS: 500, GrantLeaseMS: l.s.LeaseMS, Eligible: true, Priority: 100, Running: true,
	}}
	for _, a := range d.CmdArgs[1:] {
		switch a.Key {
		case "pos":
			r.Position = l.pos(one(a))
			r.HighestTL = max(r.HighestTL, r.Position.Timeline)
		case "unknown":
			r.Known, r.Position = false, Position{}
		case "granted":
			if r.GrantLeaseMS = 0; yes(a) {
				r.GrantAgeMS, r.GrantLeaseMS = l.dur(a).Milliseconds(), l.s.LeaseMS
			}
		case "lease":
			r.GrantLeaseMS = l.dur(a).Milliseconds()
		case "age":
			r.Age = l.dur(a)
		case "killed":
			r.Killed = true
		case "evidence":
			r.Evidence = l.evidence(a)
		case "ineligible":
			r.Eligible, r.WhyNot = false, strings.ReplaceAll(one(a), "_", " ")
		case "priority":
			r.Priority = int(l.num(a))
		case "backlog":
			r.Backlog = uint64(l.num(a))
		case "stopped":
			r.Running = false
		case "boot":
			r.Boot.Number = uint64(l.num(a))
		case "election":
			r.Election = uint64(l.num(a))
		case "promise":
			r.Promise = Epoch(l.num(a))
		case "end": // of the primary, as it was heard
			r.PrimaryEnd = l.pos(one(a))
		case "highest":
			r.HighestTL = Timeline(l.num(a))
		default:
			l.bad(d, a)
		}
	}
	at, found := slices.BinarySearchFunc(l.v.Reports, i, func(r TimedReport, i Incarnation) int { return int(r.Inc) - int(i) })
	if found {
		l.v.Reports[at] = r
	} else {
		l.v.Reports = slices.Insert(l.v.Reports, at, r)
	}
	return ""
}

func nodeFlags(n *NodeView) map[string]*bool {
	return map[string]*bool{
		"registered": &n.Registered, "running": &n.Running, "rw": &n.ReadWrite, "known": &n.PositionKnown, "initialized": &n.Initialized,
		"broken": &n.Broken, "attach_ok": &n.AttachOK, "cloned": &n.Cloned, "foreign": &n.ForeignWAL, "unreadable": &n.Unreadable, "diverged": &n.Diverged, "no_rewind": &n.NoRewind, "source": &n.Source, "clone_from": &n.CloneFrom,
		"catch_up": &n.CatchUp, "donor": &n.Donor, "catch_up_ok": &n.CatchUpOK, "catching_up": &n.CatchingUp, "lease": &n.LeaseValid, "promoted_here": &n.PromotedHere,
		"tried": &n.PromoteTried, "serving": &n.Serving, "flushed": &n.FlushQuorum, "margin": &n.MarginOver, "settled": &n.Settled,
		"same_kernel": &n.SameKernel, "could_failover": &n.CouldFailover, "spare": &n.Spare, "fresh": &n.FreshBoot, "gave_up": &n.GaveUp,
		"bar_rewind": &n.Rejoin.NoRewind, "bar_clone": &n.Rejoin.NoClone,
	}
}

// node starts from defaults: a registered node with complete data of this cluster, down, position unknown.
func (l *lang) node(d *datadriven.TestData) string {
	l.n = NodeView{
		State: l.s, Self: inc(d.CmdArgs[0].Key), Registered: true, Disk: DiskPresent, DiskSystem: l.s.System,
		DiskTL: 2, HighestTL: 2, SameKernel: true, Promise: l.s.Epoch().Epoch, FencedFor: l.s.Epoch().Epoch,
	}
	flags := nodeFlags(&l.n)
	for _, a := range d.CmdArgs[1:] {
		if f := flags[a.Key]; f != nil {
			*f = yes(a)
			continue
		}
		switch a.Key {
		case "disk":
			l.n.Disk = DiskKind(one(a))
		case "system":
			l.n.DiskSystem = SystemID(l.num(a))
		case "disk_tl":
			l.n.DiskTL = Timeline(l.num(a))
		case "highest":
			l.n.HighestTL = Timeline(l.num(a))
		case "promise":
			l.n.Promise = Epoch(l.num(a))
		case "fenced":
			l.n.FencedFor = Epoch(l.num(a))
		case "attached":
			l.n.Attached = Epoch(l.num(a))
		case "pos":
			l.n.Position, l.n.PositionKnown = l.pos(one(a)), true
		default:
			l.bad(d, a)
		}
	}
	return l.reconcile(d)
}

func (l *lang) reconcile(*datadriven.TestData) string {
	l.n.State = l.s
	dec := Decide(NodeTable(), &l.n)
	l.hit[dec.Rule] = true
	l.did(dec.Rule, string(dec.Outcome.Act))
	text := string(dec.Rule) + " " + string(dec.Outcome.Act) + ": " + dec.Outcome.Why + "\n"
	if dec.Outcome.Trouble {
		text += "-> an operator is needed\n"
	}
	return text
}
