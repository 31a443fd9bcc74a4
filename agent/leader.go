// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"slices"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// leadState is what this node remembers as raft's leader. It is lost with leadership: a new leader collects afresh.
type leadState struct {
	reports    []timedReport // sorted by incarnation
	enoughAt   time.Duration // since when they are enough
	caughtUp   cluster.Incarnation
	caughtUpAt time.Duration
	donor      cluster.Incarnation   // from whom
	vain       []cluster.Incarnation // donors that brought their taker nothing
	electAt    time.Duration         // when Elect was proposed last
	down       *cluster.PgDown
	attempts   int // epochs in a row that did not get to serve
	hasServed  bool
	transfer   time.Duration // when leadership was last offered to another
	cutAt      time.Duration // since when the primary has been cut off
}

type timedReport struct {
	cluster.Report
	at time.Duration
}

func (l *leadState) lead(time.Duration) {
	*l = leadState{attempts: l.attempts, hasServed: l.hasServed}
}

func (l *leadState) newEpoch(time.Duration) { l.attempts, l.hasServed = l.attempts+1, false }
func (l *leadState) served()                { l.attempts, l.hasServed = 0, true }

func (l *leadState) report(now time.Duration, r cluster.Report) {
	i, ok := slices.BinarySearchFunc(l.reports, r.Inc, func(t timedReport, i cluster.Incarnation) int { return cmp.Compare(t.Inc, i) })
	switch {
	case !ok:
		l.reports = slices.Insert(l.reports, i, timedReport{r, now})
	default:
		if l.caughtUp == r.Inc && r.Position.Compare(l.reports[i].Position) > 0 {
			l.caughtUp = 0
		}
		l.reports[i] = timedReport{r, now}
	}
}

// electOnItsWay is how long an Elect that was proposed may still be committed: longer than a write of raft's log takes.
const electOnItsWay = time.Second

func (m *Machine) reportOf(p *peer, r cluster.Report) {
	mb := m.st.Member(p.inc)
	if m.leading() && m.electing() && mb != nil && r.Inc == p.inc && r.Boot == mb.Boot && r.Election == m.st.Election.Index {
		m.lead.report(m.now, r)
	}
}

func (m *Machine) leaderView() *cluster.LeaderView {
	since := func(at time.Duration) time.Duration { return m.now - max(at, m.leaderAt) }
	v := &cluster.LeaderView{
		State: m.st, Self: m.opt.Self, PhaseAge: since(m.phaseAt), ElectAge: since(m.epochAt),
		Backoff: cluster.NextBackoff(m.lead.attempts - 1), Served: m.lead.hasServed, LeaderAge: m.now - m.leaderAt,
	}
	if m.now < m.lead.caughtUpAt+catchUpLimit+time.Second { // one that came to nothing is ordered again
		v.CaughtUp = m.lead.caughtUp
	}
	v.Vain = m.lead.vain
	if m.lead.transfer != 0 {
		v.TransferAge = m.now - m.lead.transfer
	}
	if d := m.lead.down; d != nil && d.Epoch == m.epoch() {
		v.Down = d
	}
	for _, r := range m.lead.reports {
		v.Reports = append(v.Reports, cluster.TimedReport{Report: r.Report, Age: m.now - r.at})
	}
	self := m.Status()
	v.Peers = make([]cluster.PeerView, 0, len(m.peers)+1)
	for _, p := range m.peers {
		q := cluster.PeerView{
			Inc: p.inc, Linked: p.linked(), LinkAge: m.now - p.changedAt, Status: p.status,
			StatusAge: m.now - p.statusAt, Evidence: p.told, Join: p.join,
		}
		v.Peers = append(v.Peers, q)
	}
	me := cluster.PeerView{Inc: m.opt.Self, Linked: true, LinkAge: m.now - m.opt.Start, Status: &self, Evidence: m.evidence()}
	i, _ := slices.BinarySearchFunc(v.Peers, m.opt.Self, func(p cluster.PeerView, i cluster.Incarnation) int { return cmp.Compare(p.Inc, i) })
	v.Peers = slices.Insert(v.Peers, i, me)
	v.EnoughAt = m.lasts(&m.lead.enoughAt, v.Enough())
	v.CutFor = m.lasts(&m.lead.cutAt, v.CutOff())
	return v
}

// lasts is how long something has been so; since remembers.
func (m *Machine) lasts(since *time.Duration, so bool) time.Duration {
	switch {
	case !so:
		*since = 0
		return 0
	case *since == 0:
		*since = m.now
	}
	return m.now - *since
}

// foretell tells the candidate that its election is proposed.
func (m *Machine) foretell(e *cluster.Elect) {
	if e == nil || !m.due("foretell", proposeEvery) {
		return
	}
	p := cluster.Proposed{Elect: *e}
	if e.Candidate == m.opt.Self {
		m.electionProposed(p)
	}
	m.send(e.Candidate, cluster.Envelope{Proposed: &p})
}

// decideLeader asks the leader's tables and carries out what they say.
func (m *Machine) decideLeader() {
	if !m.leading() {
		m.leadRule = ""
		return
	}
	v := m.leaderView()
	d := cluster.Decide(cluster.FailoverTable(), v)
	if d.Rule == "F399" && m.due("membership", statusEvery) {
		if mem := cluster.Decide(cluster.MembershipTable(), v); mem.Rule != "M999" {
			d = mem
		}
	}
	if d.Rule != m.leadRule && d.Outcome.Why != "" {
		m.log(false, "leader", d.Rule, d.Outcome.Why)
	}
	m.leadRule, m.leadWhy = d.Rule, d.Outcome.Why
	o := d.Outcome
	switch {
	case o.Command != nil:
		m.propose("lead "+string(d.Rule), *o.Command)
		if o.Command.Elect != nil {
			m.lead.electAt = m.now
		}
		m.foretell(o.Command.Elect)
	case o.Conf != nil:
		if m.due("conf", time.Second) {
			m.do(ProposeConf{Change: *o.Conf})
		}
	case o.CatchUp != nil:
		if m.lead.electAt != 0 && m.now < m.lead.electAt+electOnItsWay { // it holds the report that this would outdate (5.2.g)
			return
		}
		if d := o.CatchUp.Donor; m.lead.caughtUp == o.To && m.lead.donor == d && !slices.Contains(m.lead.vain, d) {
			m.lead.vain = append(m.lead.vain, d) // it may not have that WAL any more: the others go on without it, if they may
			return
		}
		m.lead.caughtUp, m.lead.caughtUpAt, m.lead.donor = o.To, m.now, o.CatchUp.Donor
		if o.To == m.opt.Self {
			m.catchUpAsked(*o.CatchUp)
		}
		m.send(o.To, cluster.Envelope{CatchUp: o.CatchUp})
	case o.Transfer != 0:
		m.lead.transfer = m.now
		m.do(Transfer{To: o.Transfer})
	}
}
