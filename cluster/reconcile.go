// SPDX-License-Identifier: Apache-2.0

package cluster

import "slices"

// DiskKind says what a node's PGDATA holds.
type DiskKind string

// What PGDATA can hold.
const (
	DiskUnknown     DiskKind = "unknown"     // not looked yet
	DiskEmpty       DiskKind = "empty"       //
	DiskPresent     DiskKind = "present"     // a complete data directory
	DiskInterrupted DiskKind = "interrupted" // an init, rewind or clone was cut off: garbage
)

// Foreign reports whether a data directory belongs to another Postgres cluster than this one's.
func (s *State) Foreign(d DiskKind, system SystemID) bool {
	return d == DiskPresent && system != 0 && s.System != 0 && system != s.System
}

// Rejoin says what may be done to a node's own data directory when it cannot follow as it is. It concerns nobody else,
// so each node has its own. The zero value allows everything.
type Rejoin struct{ NoRewind, NoClone bool }

// NodeView is all that a node may know when it decides what to do with its own Postgres.
type NodeView struct {
	State      *State
	Self       Incarnation
	Registered bool // this boot is the registered one
	Promise    Epoch

	Disk       DiskKind
	DiskSystem SystemID
	DiskTL     Timeline // control file
	HighestTL  Timeline // seen in pg_wal
	Running    bool     // Postgres is up
	ReadWrite  bool     // and out of recovery

	FencedFor     Epoch // nothing of this node helps an epoch below this one
	Position      Position
	PositionKnown bool // and nothing that could change it has happened since
	Initialized   bool // the founder's data is ready and only waits for the log

	ForeignWAL bool // it holds WAL, or a control file, of a newer timeline than it may
	Cloned     bool // a new copy that has not run yet
	Unreadable bool // its end of WAL could not be read from files: it is read once it runs

	Attached   Epoch // the order in force belongs to this epoch; zero: parked
	Broken     bool  // the order has brought no WAL for too long, or its upstream changed
	AttachOK   bool  // the upstream agreed to our present position
	Diverged   bool  // it refused: we have what it does not
	NoRewind   bool  // a rewind was tried and failed
	Rejoin     Rejoin
	Source     bool // a primary whose checkpoint is done can be rewound to
	CloneFrom  bool // that primary, or a standby that follows, can be cloned
	CatchUp    bool // ordered to stream from a donor in this election
	CatchUpOK  bool // and the donor agreed
	CatchingUp bool // and the upstream file is ordered to it: both are fenced, and nothing of the old epoch is helped
	Donor      bool // asked for its WAL by another node, in this election

	LeaseValid    bool
	PromotedHere  bool // our promotion onto the epoch's timeline is done
	PromoteTried  bool // it was begun in this boot
	Serving       bool
	FlushQuorum   bool // k members have flushed what recovery brought back, on this timeline
	MarginOver    bool // 5.7.d
	Settled       bool // what must be settled has been settled by us and only waits for the log
	SameKernel    bool // the host has not rebooted since this node last served
	Spare         bool // the epoch's primary is about to serve, and others than this node are in reach to confirm its commits
	CouldFailover bool // without this node a majority and a covering set are linked
	FreshBoot     bool // Postgres has not run yet since PID 1 started
	GaveUp        bool // PgDown was sent for this epoch
}

// NodeAct is what a node does next to its Postgres.
type NodeAct string

// The acts.
const (
	ActNone          NodeAct = "none"
	ActStop          NodeAct = "stop"
	ActInit          NodeAct = "init"
	ActPrepare       NodeAct = "prepare"
	ActFence         NodeAct = "fence"
	ActPosition      NodeAct = "position"
	ActOrderCatchUp  NodeAct = "order_catch_up"
	ActPromote       NodeAct = "promote"
	ActStartPrimary  NodeAct = "start_primary"
	ActStartRecovery NodeAct = "start_recovery"
	ActAdmit         NodeAct = "admit"
	ActSettle        NodeAct = "settle"
	ActGiveUp        NodeAct = "give_up"
	ActClone         NodeAct = "clone"
	ActRewind        NodeAct = "rewind"
	ActAsk           NodeAct = "ask"
	ActOrder         NodeAct = "order"
)

// NodeOutcome is an act and the reason for it.
type NodeOutcome struct {
	Act     NodeAct
	Why     string
	Trouble bool // an operator is needed
}

func act(a NodeAct, why string) func(*NodeView) NodeOutcome {
	return func(*NodeView) NodeOutcome { return NodeOutcome{Act: a, Why: why} }
}

func trouble(a NodeAct, why string) func(*NodeView) NodeOutcome {
	return func(*NodeView) NodeOutcome { return NodeOutcome{Act: a, Why: why, Trouble: true} }
}

func (v *NodeView) me() *Member        { return v.State.Member(v.Self) }
func (v *NodeView) electing() bool     { return v.State.Phase == PhaseElecting }
func (v *NodeView) primary() bool      { return v.State.Primary() == v.Self && !v.electing() }
func (v *NodeView) promoting() bool    { return v.primary() && v.State.Phase == PhasePromoting }
func (v *NodeView) promoted() bool     { return v.primary() && v.State.Phase == PhasePromoted }
func (v *NodeView) epochNo() Epoch     { return v.State.Epoch().Epoch }
func (v *NodeView) timeline() Timeline { return v.State.Epoch().Timeline }

// catchingUp: an ordered catch-up is fenced (PROTOCOL 1.11).
func (v *NodeView) catchingUp() bool {
	return v.electing() && v.CatchingUp && v.Running && v.Promise >= v.State.Election.Epoch
}

// diverged: by the replicated lineage our WAL has what the current epoch does not (PROTOCOL 8.1).
func (v *NodeView) diverged() bool {
	if v.Diverged {
		return true
	}
	if !v.PositionKnown {
		return false
	}
	fit, _ := v.State.FitsState(v.Position, 0)
	return fit == FitDiverged
}

// NodeTable is what a node does with its own Postgres to match the replicated state.
func NodeTable() []Rule[NodeView, NodeOutcome] { return nodeTable }

// The tables are made once: they are asked after every event.
var nodeTable = slices.Concat(standingRules(), electionRules(), primaryRules(), restartRules(), servingRules(), standbyRules())

func standingRules() []Rule[NodeView, NodeOutcome] {
	return []Rule[NodeView, NodeOutcome]{
		{
			"R010", "1.13", "before its boot is registered a node only carries raft messages",
			func(v *NodeView) bool { return v.me() != nil && !v.Registered && !v.me().Quarantined }, act(ActNone, "waiting for this boot to be registered"),
		},
		{
			"R020", "9.9", "a rolled-back or doubled volume takes no part",
			func(v *NodeView) bool { return v.me() != nil && v.me().Quarantined },
			trouble(ActStop, "this volume was rolled back or copied: a later boot of the same incarnation is registered; give the node an empty volume"),
		},
		{
			"R025", "1.3, 9.7", "an incarnation that was removed never comes back",
			func(v *NodeView) bool { return v.me() == nil && v.State.WasRemoved(v.Self) },
			trouble(ActStop, "this volume's incarnation was removed from the cluster, another took its place: give the node an empty volume"),
		},
		{
			"R030", "9.8", "a node that is not a member waits to be added",
			func(v *NodeView) bool { return v.me() == nil }, act(ActStop, "not a member (yet)"),
		},
		{
			"R035", "5.2", "fence the old epoch, then report: whatever a data directory holds or is, a voter promises",
			func(v *NodeView) bool {
				return v.electing() && v.FencedFor < v.State.Election.Epoch && !v.catchingUp()
			}, act(ActFence, "fencing for an election"),
		},
		{
			"R040", "1.11", "a witness has no Postgres",
			func(v *NodeView) bool { return v.me().Witness }, act(ActNone, "witness"),
		},
		{
			"R050", "", "look at the disk before anything else",
			func(v *NodeView) bool { return v.Disk == DiskUnknown }, act(ActPosition, "reading the data directory"),
		},
		{
			"R110", "9.3", "the founder's data is ready: waiting for the log",
			func(v *NodeView) bool { return v.State.Phase == PhaseBlank && v.Initialized }, act(ActNone, "waiting for the first epoch"),
		},
		{
			"R120", "9.3", "the founder makes the data once",
			func(v *NodeView) bool {
				return v.State.Phase == PhaseBlank && v.State.Founder == v.Self && v.Disk != DiskPresent
			}, act(ActInit, "founding the cluster"),
		},
		{
			"R130", "9.3", "or adopts what it has",
			func(v *NodeView) bool { return v.State.Phase == PhaseBlank && v.State.Founder == v.Self },
			act(ActPrepare, "preparing the founder's data"),
		},
		{
			"R140", "9.2", "everybody else waits for the founder",
			func(v *NodeView) bool { return v.State.Phase == PhaseBlank }, act(ActNone, "waiting for the founder"),
		},
		{
			"R150", "9.11", "data of another cluster is never touched",
			func(v *NodeView) bool { return v.State.Foreign(v.Disk, v.DiskSystem) },
			trouble(ActStop, "PGDATA belongs to another Postgres cluster (system identifier differs); it is left as it is: give this node an empty volume, or take this one to its own cluster"),
		},
	}
}

func electionRules() []Rule[NodeView, NodeOutcome] {
	return []Rule[NodeView, NodeOutcome]{
		{
			"R205", "5.4.c", "the last WAL of a donor is on its way: both are fenced",
			(*NodeView).catchingUp, act(ActNone, "catching up before the election"),
		},
		{
			"R215", "5.4.c", "taker and donor need Postgres for it",
			func(v *NodeView) bool {
				return v.electing() && (v.CatchUp || v.Donor) && !v.Running && v.PositionKnown && v.Disk == DiskPresent
			}, act(ActStartRecovery, "starting for a catch-up"),
		},
		{
			"R220", "5.4.c", "take the last WAL from a donor",
			func(v *NodeView) bool { return v.electing() && v.CatchUp && v.CatchUpOK && v.Running }, act(ActOrderCatchUp, "streaming from a donor before the election"),
		},
		{
			"R225", "5.4.c", "ask the donor, until it agrees",
			func(v *NodeView) bool { return v.electing() && v.CatchUp && v.Running && v.PositionKnown }, act(ActAsk, "asking the donor"),
		},
		{
			"R230", "5.2.f", "a node that does not know its position reads it",
			func(v *NodeView) bool {
				return v.electing() && !v.PositionKnown && v.Disk == DiskPresent && !v.ForeignWAL && v.Attached == 0
			}, act(ActPosition, "reading the end of WAL"),
		},
		{
			"R240", "5.3", "wait for the election to end",
			(*NodeView).electing, act(ActNone, "waiting for the election"),
		},
	}
}

func primaryRules() []Rule[NodeView, NodeOutcome] {
	return []Rule[NodeView, NodeOutcome]{
		{
			"R310", "1.9", "after a promise above the epoch there is no way back: an election follows",
			func(v *NodeView) bool { return v.primary() && (v.Promise > v.epochNo() || v.GaveUp) }, act(ActNone, "waiting for the next election"),
		},
		{
			"R315", "8.2, 5.5.h", "without complete data of our own there is nothing to start: others decide",
			func(v *NodeView) bool { return v.primary() && !v.Running && (v.Disk != DiskPresent || v.ForeignWAL) },
			func(v *NodeView) NodeOutcome {
				if v.ForeignWAL {
					return NodeOutcome{Act: ActGiveUp, Why: "somebody promoted this postgres by hand"}
				}
				return NodeOutcome{Act: ActGiveUp, Why: "the data directory is gone or incomplete"}
			},
		},
		{
			"R317", "5.5.h", "a Postgres that leaves recovery unasked is not the one that was elected",
			func(v *NodeView) bool { return v.primary() && v.ReadWrite && !v.PromotedHere }, act(ActGiveUp, "postgres left recovery unasked"),
		},
		{
			"R318", "5.6.e", "the log knows the promotion, and Postgres came up before it: it cannot be had again in this epoch",
			func(v *NodeView) bool { return v.promoted() && v.Running && !v.ReadWrite }, act(ActGiveUp, "the promotion was lost"),
		},
		{
			"R320", "5.6.e", "a promotion that was cut off is repeated in a new epoch",
			func(v *NodeView) bool {
				return v.promoting() && !v.PromotedHere && v.DiskTL != v.timeline() && (v.PromoteTried || v.HighestTL >= v.timeline())
			}, act(ActGiveUp, "the promotion was cut off"),
		},
		{
			"R330", "5.6.a", "no promotion and no read-write start without a lease",
			func(v *NodeView) bool { return v.primary() && !v.LeaseValid && !v.Serving && v.Running && !v.ReadWrite }, act(ActNone, "waiting for the lease"),
		},
		{
			"R335", "5.5.h, 5.6.e", "its Postgres is down: see what it left before it is started, and others follow it",
			func(v *NodeView) bool {
				return v.promoting() && !v.Running && !v.PositionKnown && !v.Unreadable && v.DiskTL != v.timeline()
			}, act(ActPosition, "reading the end of WAL"),
		},
		{
			"R340", "5.6.e", "its Postgres is down: start in recovery, unless the control file already says the new timeline",
			func(v *NodeView) bool { return v.promoting() && !v.Running && v.DiskTL != v.timeline() }, act(ActStartRecovery, "starting before the promotion"),
		},
		{
			"R350", "5.6", "promote",
			func(v *NodeView) bool { return v.promoting() && v.Running && !v.ReadWrite }, act(ActPromote, "promoting"),
		},
	}
}

// restartRules are those of a primary whose Postgres is down.
func restartRules() []Rule[NodeView, NodeOutcome] {
	return []Rule[NodeView, NodeOutcome]{
		{
			"R370", "5.1.b", "with a covering set connected a crash is always a failover",
			func(v *NodeView) bool { return v.primary() && !v.Running && !v.FreshBoot && v.CouldFailover }, act(ActGiveUp, "postgres is down"),
		},
		{
			"R373", "5.8", "no restart without a lease",
			func(v *NodeView) bool { return v.primary() && !v.Running && !v.LeaseValid }, act(ActNone, "waiting for the lease"),
		},
		{
			"R375", "5.8", "after a reboot of the host flushed WAL may be gone: others decide, if others may hold it",
			func(v *NodeView) bool {
				return v.primary() && !v.Running && !v.SameKernel && (len(v.State.D.Set) > 1 || v.State.Pending != nil)
			}, act(ActGiveUp, "the host was rebooted"),
		},
		{
			"R376", "5.6.e", "look at the control file before a restart",
			func(v *NodeView) bool { return v.primary() && !v.Running && !v.PositionKnown }, act(ActPosition, "reading the end of WAL"),
		},
		{
			"R377", "5.6.e", "a control file of before the promotion cannot be started read-write",
			func(v *NodeView) bool { return v.primary() && !v.Running && v.DiskTL != v.timeline() }, act(ActGiveUp, "the promotion never reached the control file"),
		},
		{
			"R380", "5.8, 10.4", "restart in the same epoch",
			func(v *NodeView) bool { return v.primary() && !v.Running }, act(ActStartPrimary, "restarting in the same epoch"),
		},
	}
}

// servingRules are those of a primary that runs on its timeline.
func servingRules() []Rule[NodeView, NodeOutcome] {
	return []Rule[NodeView, NodeOutcome]{
		{
			"R390", "5.7.b", "the log has to know the promotion first",
			(*NodeView).promoting, act(ActNone, "waiting for the promotion to be committed"),
		},
		{
			"R405", "9.4, 3.3.a", "a fresh cluster grows before it lets clients in",
			func(v *NodeView) bool {
				_, pending := v.State.ListedD()
				return v.promoted() && !v.Serving && v.ReadWrite && v.LeaseValid && v.State.Fresh && pending && !v.Settled
			}, act(ActSettle, "settling a change of durability before clients come"),
		},
		{
			"R408", "9.4", "what the first client commits in a fresh cluster is on two nodes",
			func(v *NodeView) bool { return v.promoted() && !v.Serving && v.State.Fresh },
			act(ActNone, "waiting for a second node to hold every commit: a new cluster admits clients then"),
		},
		{
			"R410", "5.7", "let clients in",
			func(v *NodeView) bool {
				return v.promoted() && !v.Serving && v.ReadWrite && v.LeaseValid && v.FlushQuorum && v.MarginOver
			}, act(ActAdmit, "opening the gate"),
		},
		{
			"R420", "5.7.c", "clients wait until the quorum holds what recovery brought back",
			func(v *NodeView) bool { return v.promoted() && !v.Serving }, act(ActNone, "waiting to admit clients"),
		},
		{
			"R430", "3.3.a", "carry out the pending change of durability",
			func(v *NodeView) bool {
				_, pending := v.State.ListedD()
				return v.promoted() && pending && !v.Settled
			}, act(ActSettle, "settling a change of durability"),
		},
		{"R440", "", "serving", (*NodeView).primary, act(ActNone, "serving")},
	}
}

func standbyRules() []Rule[NodeView, NodeOutcome] {
	return []Rule[NodeView, NodeOutcome]{
		{
			"R510", "1.11, 5.5.h", "whoever is not the primary does not run read-write",
			func(v *NodeView) bool { return v.Running && v.ReadWrite }, act(ActFence, "not the primary any more"),
		},
		{
			"R515", "8.1, 8.5", "data that only a clone could replace, and no clone is allowed: an operator decides", (*NodeView).barred,
			trouble(ActNone, "this node's data directory has diverged from the primary's history or was left incomplete, and PGQUORUM_REJOIN does not allow "+
				"to replace it: allow clone there and start the node again, or give it an empty volume"),
		},
		{
			"R517", "5.5.h", "WAL of a timeline that nobody assigned: neither attached nor rewound, but cloned over",
			func(v *NodeView) bool { return v.ForeignWAL && v.CloneFrom }, act(ActClone, "cloning: somebody promoted this standby by hand"),
		},
		{
			"R520", "8.5", "no usable data: clone",
			func(v *NodeView) bool { return v.needsClone() && v.CloneFrom }, act(ActClone, "cloning"),
		},
		{
			"R530", "8.5", "no usable data and nobody to clone from",
			(*NodeView).needsClone, act(ActAsk, "waiting for a source to clone from"),
		},
		{
			"R540", "5.2.f", "the position comes first",
			func(v *NodeView) bool { return !v.Running && !v.PositionKnown && (!v.Cloned || !v.Unreadable) }, act(ActPosition, "reading the end of WAL"),
		},
		{
			"R550", "8.3", "diverged: rewind",
			func(v *NodeView) bool { return v.diverged() && v.Source }, act(ActRewind, "rewinding to the primary's history"),
		},
		{
			"R560", "8.3.c", "diverged, and the source is not ready",
			(*NodeView).diverged, act(ActAsk, "diverged: waiting for the primary's checkpoint"),
		},
		{
			"R565", "8.4, 5.5.c", "a rewound directory may need the source's WAL to become consistent: it is started with its upstream file ordered",
			func(v *NodeView) bool { return v.Cloned && v.PositionKnown && !v.AttachOK && !v.Running }, act(ActAsk, "asking the primary before the first start of the copy"),
		},
		{
			"R568", "5.5.b", "the others suffice for the promotion: a start now would only take disk and processor from it, where they share them",
			func(v *NodeView) bool { return !v.Running && v.Spare }, act(ActNone, "waiting for the promotion before starting"),
		},
		{
			"R570", "1.12", "start in recovery",
			func(v *NodeView) bool { return !v.Running }, act(ActStartRecovery, "starting as a standby"),
		},
		{
			"R580", "5.5.c", "the order is of another epoch or brings nothing: park and look again",
			func(v *NodeView) bool { return !v.PositionKnown && (v.Attached != v.epochNo() || v.Broken) }, act(ActFence, "parking the upstream file"),
		},
		{
			"R590", "5.5.c", "both sides agree: order the upstream file",
			func(v *NodeView) bool { return v.AttachOK && v.Attached != v.epochNo() && v.Promise <= v.epochNo() }, act(ActOrder, "following the primary"),
		},
		{
			"R600", "5.5.b", "ask the primary",
			func(v *NodeView) bool { return v.Attached != v.epochNo() }, act(ActAsk, "asking the primary to attach"),
		},
		{"R699", "", "following", func(*NodeView) bool { return true }, act(ActNone, "following")},
	}
}

func (v *NodeView) needsClone() bool {
	return v.Disk == DiskEmpty || v.Disk == DiskInterrupted || v.ForeignWAL || (v.NoRewind || v.Rejoin.NoRewind) && v.diverged()
}

// barred: a directory with data in it needs a clone, which is not allowed.
func (v *NodeView) barred() bool { return v.Rejoin.NoClone && v.Disk != DiskEmpty && v.needsClone() }
