// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// Options are what a Machine knows of its node at birth.
type Options struct {
	Self        cluster.Incarnation
	Name        cluster.NodeName
	Boot        cluster.Boot
	Boots       []cluster.Boot // the volume's since the last one that it knew to be registered, Boot the last of them
	Witness     bool
	Priority    int
	Port        int // of Postgres
	State       *cluster.State
	Promise     cluster.Epoch
	Floor       cluster.Position
	LastServed  bool  // this node served as primary under the present boot of the host's kernel
	Watchdog    bool  // one is running
	LeaseMS     int64 // the L that the environment asks for; zero: any
	StopTimeout time.Duration
	StopGuard   time.Duration // how long a planned stop waits for the others to be well
	StopSmart   bool          // at the end of a planned stop sessions may end by themselves
	Rejoin      cluster.Rejoin
	Start       time.Duration // the time at birth
}

// Bounds of the machine.
const (
	statusEvery   = 100 * time.Millisecond
	statusEarly   = 5 * time.Millisecond   // or every second tick would come a little too early, and the third be late
	statusToAll   = 400 * time.Millisecond // at rest, to others than the leader
	proposeEvery  = 300 * time.Millisecond // a proposal that has no effect is repeated
	askEvery      = 6 * time.Millisecond
	askLimit      = 400 * time.Millisecond // an answer that takes longer is lost
	askMost       = 500 * time.Millisecond
	houseEvery    = time.Second
	silence       = 300 * time.Millisecond // 5.5.c
	muteTold      = 2 * time.Second        // a Postgres that answers nothing is trouble
	silenceMost   = 10 * time.Second
	retryFirst    = 200 * time.Millisecond // after a failed task
	spareLimit    = 500 * time.Millisecond // how long a start waits for somebody else's promotion
	retryMost     = 10 * time.Second
	defaultLease  = 2 * time.Second
	defaultMargin = 20 * time.Millisecond  // 5.7.d
	largeMargin   = 150 * time.Millisecond // the dead node's link was held once
)

// Machine is one node. Step is its only entrance; it is not safe for use by several goroutines.
type Machine struct {
	opt Options
	now time.Duration
	out []Action

	st         *cluster.State // nil before formation has been applied
	applied    uint64
	term       uint64
	raftLeader cluster.Incarnation
	leaderAt   time.Duration // since when this node leads raft
	epochAt    time.Duration // since when this node knows the epoch
	phaseAt    time.Duration

	promise    cluster.Epoch // durable
	promiseNow cluster.Epoch // in memory: granting stops here first (PROTOCOL 4.3)
	fencedFor  cluster.Epoch
	killed     bool // our own kill returned in the present election
	killSent   bool // the TaskKill that runs has killed, and waits until all is gone
	grants     cluster.GrantMemory
	joined     bool // this boot was registered once: what is granted from then on is remembered exactly
	lease      cluster.Lease
	leaseOld   time.Duration // end of the lease under the voters before (4.6.a)
	renewedAt  time.Duration
	deadline   time.Duration
	watchdog   bool

	space spaceState
	peers []*peer // sorted by incarnation
	pg    Facts
	node  nodeState
	lead  leadState
	plan  planState
	task  *running
	side  []*running
	idSeq uint64
	note  string // progress of the task

	statusAt  time.Duration
	toldAllAt time.Duration // the last status that everybody was sent
	restful   bool          // the last status was of a node at rest
	houseAt   time.Duration
	proposed  map[string]time.Duration
	decision  cluster.NodeOutcome
	rule      cluster.RuleID
	leadRule  cluster.RuleID
	leadWhy   string
}

// nodeState is what the machine knows of its own Postgres and its place in the epoch.
type nodeState struct {
	disk        cluster.DiskKind
	system      cluster.SystemID
	diskTL      cluster.Timeline
	highestTL   cluster.Timeline
	base        cluster.History
	primaryEnd  cluster.Position // the furthest that a primary was heard to be
	foreignWAL  bool             // what it holds is of a timeline that no election assigned
	pos         cluster.Position
	known       bool
	fresh       bool // Postgres has not run since PID 1 started
	cloned      bool // a new copy that has not run yet
	unreadable  bool // the last look at its files did not find the end of WAL
	claim       bool // pos is good for an attach of this copy, not for an election
	confirmed   bool // the copy streams: the old directory may go
	initialized bool
	floor       cluster.Position

	attached    cluster.Epoch
	attachHost  string
	attachBoot  cluster.Boot // of the upstream's PID 1
	attachAt    time.Duration
	silentAt    time.Duration // since when replay wants WAL and nothing streams
	vain        int           // orders in a row that brought nothing
	broken      bool
	ok          *cluster.AttachOK
	okHost      string
	diverged    bool
	noRewind    bool
	walGone     bool // the primary of the epoch keeps no WAL that would lead on from here
	cloneFailed bool // the last clone: another source is tried
	asks        int
	askedAt     time.Duration
	asking      bool // a question is on its way

	gate         gateState
	gateTask     uint64       // the task that moves the gate
	held         []heldAttach // who asked to attach before the gate was closed
	promotedHere bool
	promoteTried bool
	promoted     Result
	serving      bool
	gaveUp       *cluster.PgDown
	gaveUpAt     time.Duration
	flush        cluster.LSN // R of PROTOCOL 5.7.c
	flushed      []flushedBy
	seen         cluster.Position // what this standby has flushed on the epoch's timeline, as told last
	checkpoint   bool
	settledX     *cluster.SettleD
	trouble      string
	failed       string // the last task that failed, until one succeeds
	failures     int
	retryAt      time.Duration
	catchUp      *cluster.CatchUp
	catching     bool   // and its order was given
	donate       uint64 // the election in which somebody asked for our WAL
	timings      []cluster.NamedDuration
}

// gateState is the gate of a standby: it closes for a promotion.
type gateState uint8

const (
	gateOpen gateState = iota
	gateClosing
	gateClosed
	gateOpening
)

type heldAttach struct {
	from cluster.Incarnation
	cluster.Attach
}

type flushedBy struct {
	inc cluster.Incarnation
	pos cluster.Position
}

type running struct {
	Task
	began time.Duration
}

// New makes the machine of a node.
func New(opt Options) *Machine {
	m := &Machine{
		opt: opt, now: opt.Start, promise: opt.Promise, promiseNow: opt.Promise, watchdog: opt.Watchdog,
		proposed: map[string]time.Duration{},
	}
	m.node = nodeState{disk: cluster.DiskUnknown, fresh: true, floor: opt.Floor}
	if opt.State != nil {
		m.setState(opt.State, 0)
	}
	return m
}

// Step takes one event and says what to do about it.
func (m *Machine) Step(now time.Duration, e Event) []Action {
	m.now = max(m.now, now)
	m.out = nil
	m.handle(e)
	m.settle()
	out := m.out
	m.out = nil
	return out
}

func (m *Machine) handle(e Event) {
	switch e := e.(type) {
	case Tick:
	case Applied:
		m.applied = e.Index
		m.setState(e.State, e.Index)
		m.logEvents(e.Events)
	case RaftChanged:
		m.raftChanged(e)
	case LinkUp:
		m.linkUp(e)
	case LinkDown:
		m.linkDown(e)
	case Received:
		m.received(e)
	case Observed:
		m.observed(e.PG)
	case Unanswered:
		if m.pg.Running {
			m.pg.Mute = e.For
		}
	case FlushSeen:
		m.flushSeen(e.Position)
	case SpaceSeen:
		m.spaceSeen(e.Space)
	case Exited:
		m.exited(e)
	case Killed:
		m.killSent = m.taskIs(TaskKill) && m.task.ID == e.ID
	case PromiseSaved:
		m.promise = max(m.promise, e.Epoch)
	case Done:
		m.taskDone(e)
	case Progress:
		m.note = e.Note
	case WatchdogChanged:
		m.watchdog = e.Alive
		if e.Alive && m.deadline != 0 { // it is another process, which has heard nothing yet
			m.do(Deadline{At: m.deadline})
		}
	case Requested:
		m.request(m.opt.Self, e.Request)
	case StopAsked:
		m.stopAsked()
	}
}

// settle does what is due after any event: the lease first, because it is the only thing with a deadline.
func (m *Machine) settle() {
	if m.st == nil {
		m.askToJoin()
		return
	}
	m.keepLease()
	m.registerBoot()
	m.decideNode()
	m.decideLeader()
	m.report()
	m.status(false)
}

func (m *Machine) do(a Action) { m.out = append(m.out, a) }

func (m *Machine) send(to cluster.Incarnation, env cluster.Envelope) {
	if to != 0 && to != m.opt.Self {
		m.do(Send{To: to, Env: env})
	}
}

// due says whether something that is repeated until it has an effect is due again.
func (m *Machine) due(what string, every time.Duration) bool {
	if at, ok := m.proposed[what]; ok && m.now < at+every {
		return false
	}
	m.proposed[what] = m.now
	return true
}

func (m *Machine) propose(what string, c cluster.Command) {
	if m.due(what, proposeEvery) {
		m.do(Propose{Command: c})
	}
}

func (m *Machine) log(warn bool, msg string, rule cluster.RuleID, reason string) {
	m.do(Log{Warn: warn, Msg: msg, Rule: rule, Reason: reason, Epoch: m.epoch()})
}

func (m *Machine) logEvents(events []cluster.Event) {
	for _, e := range events {
		if e.Kind != "register" || e.Detail != "known boot" {
			m.log(e.Kind == "rejected", "state changed", e.Rule, e.Kind+": "+e.Detail)
		}
	}
}

func (m *Machine) epoch() cluster.Epoch {
	if m.st == nil {
		return 0
	}
	return m.st.Epoch().Epoch
}

func (m *Machine) electing() bool  { return m.st.Phase == cluster.PhaseElecting }
func (m *Machine) isPrimary() bool { return m.st.Primary() == m.opt.Self && !m.electing() }
func (m *Machine) leading() bool   { return m.raftLeader == m.opt.Self }

func (m *Machine) registered() bool {
	me := m.st.Member(m.opt.Self)
	return me != nil && me.Boot == m.opt.Boot
}

func (m *Machine) registerBoot() {
	if me := m.st.Member(m.opt.Self); me != nil && !me.Quarantined && me.Boot != m.opt.Boot && m.raftLeader != 0 {
		m.propose("register", cluster.Command{Register: &cluster.Register{Inc: m.opt.Self, Boot: m.opt.Boot, Boots: m.opt.Boots}})
	}
}

// setState takes a new replicated state and forgets what belonged to the one before.
func (m *Machine) setState(s *cluster.State, _ uint64) {
	old := m.st
	m.st = s
	if old == nil { // this node has just started (PROTOCOL 4.2)
		m.grants = cluster.Restarted(m.now, defaultLease)
	}
	if !m.joined { // the log up to our Register says under which L we may have granted before we started
		m.grants.Raise(s.Longest())
		m.joined = m.registered()
	}
	if old == nil || old.Phase != s.Phase || old.Election.Index != s.Election.Index {
		m.phaseAt = m.now
		m.lead.reports, m.lead.enoughAt, m.lead.caughtUp, m.lead.vain = nil, 0, 0, nil
		m.node.catchUp, m.node.catching, m.node.ok = nil, false, nil
		clear(m.proposed)
	}
	if old == nil || old.Epoch().Epoch != s.Epoch().Epoch {
		m.newEpoch()
	}
	if old != nil && old.Fresh && !s.Fresh { // its primary may serve from now on: 5.1.f counts from here
		m.epochAt = m.now
	}
	if old != nil && m.isPrimary() && newestConfig(old) != newestConfig(s) {
		m.leaseOld = max(m.leaseOld, m.lease.Ends(old.Voters()))
		m.lease.Reset(m.epoch(), newestConfig(s))
		m.renewedAt = 0
	}
	if x := m.node.settledX; x != nil {
		if d, pending := s.ListedD(); !pending || !x.X.Equal(d) { // what was settled may have been taken back meanwhile
			m.node.settledX = nil
		}
	}
	if p := s.Member(s.Primary()); p != nil {
		m.dropEvidence(p.Inc, p.Boot)
	}
}

func newestConfig(s *cluster.State) uint64 { return s.Configs[len(s.Configs)-1].Index }

func (m *Machine) newEpoch() {
	n := &m.node
	m.epochAt = m.now
	m.killed = false
	m.lease.Reset(m.epoch(), newestConfig(m.st))
	m.leaseOld, m.renewedAt = 0, 0
	n.held = nil
	n.promotedHere, n.promoteTried, n.serving, n.checkpoint = false, false, false, false
	n.promoted, n.gaveUp, n.flush, n.flushed, n.settledX = Result{}, nil, 0, nil, nil
	n.ok, n.diverged, n.asks, n.askedAt, n.broken, n.vain, n.asking = nil, false, 0, 0, false, 0, false
	n.walGone = false
	n.noRewind, n.cloneFailed, n.failures, n.retryAt, n.timings = false, false, 0, 0, nil
	n.seen = cluster.Position{}
	m.endWatch() // it watches the timeline before, and would keep the next one from being watched
	m.lead.down = nil
	m.grants.Last = m.now // the lease of an epoch that has just begun has not lapsed
	m.grants.Epoch = m.epoch()
	m.lead.newEpoch(m.now)
	if n.attached != 0 && n.attached != m.epoch() && !m.isPrimary() {
		n.known = n.known && m.fencedFor >= m.epoch()
	}
	if m.st.Member(m.opt.Self) != nil && m.opt.Self == m.st.Primary() && m.epoch() == 1 {
		n.checkpoint = true
	}
}

func (m *Machine) raftChanged(e RaftChanged) {
	if e.Leader == m.opt.Self && m.raftLeader != m.opt.Self {
		m.leaderAt = m.now
		m.lead.lead(m.now)
	}
	m.term, m.raftLeader = e.Term, e.Leader
	m.statusAt = 0 // the new leader should hear from us at once
	delete(m.proposed, "register")
}

// role is what this node is (PROTOCOL 1.11).
func (m *Machine) role() cluster.Role {
	switch {
	case m.st == nil || !m.pg.Running && !m.isPrimary():
		return cluster.RoleDown
	case m.isPrimary() && m.node.serving:
		return cluster.RoleServing
	case m.isPrimary() && m.promise <= m.epoch() && m.pg.Running:
		return cluster.RolePromoting
	case !m.pg.Running:
		return cluster.RoleDown
	case m.node.attached == m.epoch() && !m.electing():
		return cluster.RoleFollowing
	}
	return cluster.RoleFenced
}

func (m *Machine) linkedData() []cluster.Incarnation {
	var who []cluster.Incarnation
	for _, p := range m.peers {
		if p.linked() {
			who = append(who, p.inc)
		}
	}
	return who
}

// couldFailover: without this node, a majority of voters and a covering set are linked (PROTOCOL 5.1.b).
func (m *Machine) couldFailover() bool {
	var data []cluster.Incarnation
	for _, p := range m.peers {
		if p.linked() && p.status != nil && m.now-p.statusAt < cluster.StatusFresh && p.status.Known && p.status.Eligible {
			data = append(data, p.inc)
		}
	}
	who := append(m.linkedData(), m.opt.Self)
	return m.st.HasMajority(who) && m.st.Covered(data) &&
		slices.ContainsFunc(data, func(i cluster.Incarnation) bool { return m.st.InSets(i) })
}
