// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// keepLease renews the lease while this node is the primary, keeps the watchdog's deadline, and kills Postgres when
// the lease is about to end (PROTOCOL 4).
func (m *Machine) keepLease() {
	if m.mayServe() && (m.renewedAt == 0 || m.now >= m.renewedAt+m.renewEvery()) {
		m.renew()
	}
	// An election, or its end, does not take the deadline away: a stop that is under way may outlast both.
	if !m.mayWrite() || m.st.Primary() != m.opt.Self && !m.plan.stopping {
		m.setDeadline(0)
		return
	}
	m.arm()
	if m.now >= m.deadline && !m.taskIs(TaskKill) {
		m.log(true, "lease lost", "", "no majority of voters renewed it: killing postgres")
		m.kill()
	}
}

// renewEvery is L/5, and much less until there is a lease: voters refuse until they have applied the Elect too.
func (m *Machine) renewEvery() time.Duration {
	every := cluster.RenewEvery(m.st.Lease())
	switch e := m.lease.Ends(m.st.Voters()); {
	case e > m.now:
		return every
	case m.now < m.epochAt+eager:
		return eagerEvery
	}
	return every / 4
}

// A primary asks eagerly in the first moments of its epoch.
const (
	eager      = 300 * time.Millisecond
	eagerEvery = 4 * time.Millisecond
)

// mayServe: nothing but the lease keeps this node from being the primary of the present epoch.
func (m *Machine) mayServe() bool {
	return m.isPrimary() && m.registered() && m.promiseNow <= m.epoch() && m.watchdog && m.node.gaveUp == nil
}

// arm gives the watchdog the lease's deadline. A task that will make Postgres write is started after that, and waits
// for the watchdog's answer (PROTOCOL 4.5.c).
func (m *Machine) arm() { m.setDeadline(m.leaseEnds() - cluster.KillMargin) }

func (m *Machine) setDeadline(at time.Duration) {
	if at != m.deadline {
		m.deadline = at
		m.do(Deadline{At: at})
	}
}

func (m *Machine) renew() {
	m.renewedAt = m.now
	r := cluster.Renew{Epoch: m.epoch(), T0: int64(m.now), LeaseMS: m.st.LeaseMS, Config: newestConfig(m.st)}
	if m.grant(m.opt.Self, r) {
		m.lease.Granted(m.opt.Self, cluster.Grant(r))
	}
	for _, p := range m.peers {
		if m.st.IsVoter(p.inc) {
			m.send(p.inc, cluster.Envelope{Renew: &r})
		}
	}
}

func (m *Machine) renewAsked(p *peer, r cluster.Renew) {
	if !m.grant(p.inc, r) {
		m.send(p.inc, cluster.Envelope{Refuse: &cluster.Refuse{Epoch: r.Epoch, Promise: m.promiseNow}})
		return
	}
	p.saw = nil // 6.4: it lives
	g := cluster.Grant(r)
	m.send(p.inc, cluster.Envelope{Grant: &g})
}

// grant is this node's rule as a voter (PROTOCOL 4.2). It answers by memory alone: a fence stops it before the
// promise is durable.
func (m *Machine) grant(from cluster.Incarnation, r cluster.Renew) bool {
	if !m.registered() || r.Config != newestConfig(m.st) || !cluster.MayGrant(m.st, m.opt.Self, from, m.promiseNow, r) {
		return false
	}
	m.grants.Granted(m.now, r.Epoch, time.Duration(r.LeaseMS)*time.Millisecond)
	return true
}

// leaseEnds is when this node's lease ends: under the newest voters, or under the ones before until the newest are
// confirmed (an election needs both).
func (m *Machine) leaseEnds() time.Duration {
	e := m.lease.Ends(m.st.Voters())
	if !m.st.VotersConfirmed() {
		e = max(e, m.leaseOld)
	}
	return e
}

func (m *Machine) leaseValid() bool {
	e := m.leaseEnds()
	return m.mayServe() && e != 0 && m.now < e-cluster.KillMargin
}

// confirmVoters: a majority of the newest voters renewed the lease (PROTOCOL 4.6.a).
func (m *Machine) confirmVoters() {
	if m.st.VotersConfirmed() || !m.isPrimary() || m.st.Phase != cluster.PhasePromoted ||
		!m.lease.Valid(m.st.Voters(), m.now) {
		return
	}
	m.propose("confirm_voters", cluster.Command{ConfirmVoters: &cluster.ConfirmVoters{
		Epoch: m.epoch(), From: m.opt.Self, Config: newestConfig(m.st),
	}})
}
