// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// Event is something that happened. Time is given beside it.
type Event interface{ event() }

// The events.
type (
	// Tick comes every few milliseconds.
	Tick struct{}
	// Applied follows each entry, or snapshot, that changed the replicated state.
	Applied struct {
		Index  uint64
		State  *cluster.State
		Events []cluster.Event
	}
	// RaftChanged: another term, leader or role in raft.
	RaftChanged struct {
		Term   uint64
		Leader cluster.Incarnation // zero: none known
	}
	// LinkUp: a connection to a peer is ready. Out: we dialled it.
	LinkUp struct {
		Inc       cluster.Incarnation
		Name      cluster.NodeName
		Boot      cluster.Boot
		Out       bool
		Host      string // the far end's address
		HeldTwice bool
	}
	// LinkDown: it ended. Evidence is set when the end proves that the peer's PID 1 is gone (PROTOCOL 6.2).
	LinkDown struct {
		Inc      cluster.Incarnation
		Boot     cluster.Boot
		Out      bool
		Evidence *cluster.Evidence
	}
	// Received is a message of a peer.
	Received struct {
		From cluster.Incarnation
		Boot cluster.Boot
		Env  cluster.Envelope
	}
	// Observed is what Postgres says of itself, every 100 ms or so while it runs.
	Observed struct{ PG Facts }
	// Unanswered: Postgres accepts what is asked and does not answer.
	Unanswered struct{ For time.Duration }
	// FlushSeen comes from a TaskWatchFlush.
	FlushSeen struct{ Position cluster.Position }
	// Exited: Postgres ended unasked.
	Exited struct {
		Why       string
		Permanent bool // a new start, or a clone, cannot cure it
	}
	// SpaceSeen is what the device of the WAL has left.
	SpaceSeen struct{ Space cluster.Space }
	// Killed: the kill of a TaskKill returned: nothing of Postgres runs any further, though it may take a while to be gone.
	Killed struct{ ID uint64 }
	// PromiseSaved: the promise is durable.
	PromiseSaved struct{ Epoch cluster.Epoch }
	// Done ends a task.
	Done struct {
		ID     uint64
		Err    error
		Result Result
	}
	// Progress of a task, for operators.
	Progress struct {
		ID   uint64
		Note string
	}
	// WatchdogChanged: the watchdog lives or not.
	WatchdogChanged struct{ Alive bool }
	// Requested is an operator's order given on this node.
	Requested struct{ Request cluster.Request }
	// StopAsked: SIGTERM or SIGINT. A second one skips the hand-over.
	StopAsked struct{}
)

func (Tick) event()            {}
func (Applied) event()         {}
func (Killed) event()          {}
func (Unanswered) event()      {}
func (RaftChanged) event()     {}
func (LinkUp) event()          {}
func (LinkDown) event()        {}
func (Received) event()        {}
func (Observed) event()        {}
func (FlushSeen) event()       {}
func (Exited) event()          {}
func (SpaceSeen) event()       {}
func (PromiseSaved) event()    {}
func (Done) event()            {}
func (Progress) event()        {}
func (WatchdogChanged) event() {}
func (Requested) event()       {}
func (StopAsked) event()       {}

// Facts are what is known of the running Postgres.
type Facts struct {
	Running   bool
	ReadWrite bool
	Streaming bool // its WAL receiver streams
	WantsWAL  bool // replay has used up all local WAL, and asks for more
	Position  cluster.Position
	Replay    cluster.LSN
	Backlog   uint64
	Senders   []cluster.Sender
	Stuck     time.Duration // commits wait, without progress, for that long
	Mute      time.Duration // it runs, and has answered nothing for that long
}

// Action is something the shell must do.
type Action interface{ action() }

// The actions.
type (
	// Send gives an envelope to a peer; the shell fills in who we are.
	Send struct {
		To    cluster.Incarnation
		Env   cluster.Envelope
		Later bool // it may wait a tick, to leave together with something else
	}
	// Propose a command to raft.
	Propose struct{ Command cluster.Command }
	// ProposeConf proposes a membership change.
	ProposeConf struct{ Change cluster.MemberChange }
	// Transfer raft leadership.
	Transfer struct{ To cluster.Incarnation }
	// ForgetLeader drops raft's memory of a dead leader; Campaign also stands for election at once.
	ForgetLeader struct{ Campaign bool }
	// SavePromise makes a promise durable; PromiseSaved follows. Failure ends PID 1 (PROTOCOL 4.9).
	SavePromise struct{ Epoch cluster.Epoch }
	// Run starts a task; Done follows.
	Run struct{ Task Task }
	// Cancel ends a task early; its Done still follows.
	Cancel struct{ ID uint64 }
	// Deadline: the watchdog kills Postgres at that time unless it hears a later one. Zero disarms it.
	Deadline struct{ At time.Duration }
	// Answer ends an operator's request that was given on this node.
	Answer struct{ Response cluster.Response }
	// Exit ends PID 1 on purpose, after saying goodbye.
	Exit struct{ Code int }
	// Log says something to the operator.
	Log struct {
		Warn   bool
		Msg    string // constant
		Rule   cluster.RuleID
		Reason string
		Epoch  cluster.Epoch
	}
)

func (Send) action()         {}
func (Propose) action()      {}
func (ProposeConf) action()  {}
func (Transfer) action()     {}
func (ForgetLeader) action() {}
func (SavePromise) action()  {}
func (Run) action()          {}
func (Cancel) action()       {}
func (Deadline) action()     {}
func (Answer) action()       {}
func (Exit) action()         {}
func (Log) action()          {}

// TaskKind is what a task does.
type TaskKind string

// The tasks. Those of the second group run beside others and change nothing that another task depends on.
const (
	TaskKill         TaskKind = "kill"          // PROTOCOL 4.5.b; done when no process is left
	TaskStop         TaskKind = "stop"          // clean stop
	TaskFence        TaskKind = "fence"         // 5.2.b; result: position
	TaskLook         TaskKind = "look"          // disk and, when Postgres is down, position
	TaskInit         TaskKind = "init"          //
	TaskPrepare      TaskKind = "prepare"       // result: system, timeline, base
	TaskRecovery     TaskKind = "start_standby" //
	TaskPrimary      TaskKind = "start_primary" // gate closed; result: flush
	TaskPromote      TaskKind = "promote"       // result: switch, next xid, flush
	TaskAdmit        TaskKind = "admit"         //
	TaskSettle       TaskKind = "settle"        // result: barrier
	TaskOrder        TaskKind = "order"         //
	TaskClone        TaskKind = "clone"         //
	TaskRewind       TaskKind = "rewind"        //
	TaskHandover     TaskKind = "handover"      // 10.1.c to e; result: shutdown end
	TaskPreparePlan  TaskKind = "checkpoint"    // 10.1.a
	TaskVet          TaskKind = "vet"           // end the slot's older sender, read the flushed end
	TaskWatchFlush   TaskKind = "watch_flush"   // FlushSeen events
	TaskKeepHouse    TaskKind = "keep_house"    // slots, role, overrides
	TaskFirstChkpt   TaskKind = "first_checkpoint"
	TaskConfirmClone TaskKind = "confirm_clone"
	TaskResume       TaskKind = "resume_replay" // and end what it waits for (5.5.g)
	TaskCloseGate    TaskKind = "close_gate"    // early, when the election of this node is proposed
	TaskOpenGate     TaskKind = "open_gate"     // again, when another one was elected
	TaskMakeBallast  TaskKind = "make_ballast"  // the reserve file of PROTOCOL 5.6.a
)

// beside reports whether the task runs beside others.
func (k TaskKind) beside() bool {
	switch k {
	case TaskVet, TaskWatchFlush, TaskKeepHouse, TaskFirstChkpt, TaskConfirmClone, TaskResume, TaskCloseGate, TaskOpenGate, TaskMakeBallast:
		return true
	default:
		return false
	}
}

// Settings are what the primary's Postgres must be told.
type Settings struct {
	Names   []string
	K       int
	Async   bool
	FastWAL bool // wal_init_zero=off (PROTOCOL 12.2.b)
}

// Task is one piece of work on Postgres.
type Task struct {
	ID        uint64
	Kind      TaskKind
	Limit     time.Duration
	Epoch     cluster.Epoch
	Timeline  cluster.Timeline
	Parent    cluster.Timeline // of a node that is to promote: the numbers from there to Timeline are plugged (5.6.b)
	Elected   cluster.Position
	Settings  Settings
	FromZero  bool   // TaskSettle: k was 0
	FromAsync bool   // TaskSettle: sessions may still run in async mode (3.3.f)
	Host      string // upstream or source
	Port      int
	App       string
	Slot      string   // whose sender to keep or end
	Slots     []string // that must exist
	// Advance: TaskKeepHouse of a standby moves a member's slot up to where that member is (PROTOCOL 12.4).
	Advance  map[string]cluster.LSN
	System   cluster.SystemID
	Lineage  cluster.History
	Floor    cluster.Position
	Peer     cluster.Incarnation // TaskVet: for whom
	Flush    cluster.LSN
	Primary  bool          // TaskKeepHouse: this is the primary
	Patience time.Duration // TaskStop: how long sessions may take to end by themselves
	LetGo    bool          // TaskPromote, TaskPrimary, TaskOrder: delete the ballast first (12.5)
	Tight    bool          // TaskOrder, TaskKeepHouse: the disk is below its limit (12.2.b)
}

// Result is what a task found. Facts about the disk are filled by every task that looks.
type Result struct {
	Disk      cluster.DiskKind
	System    cluster.SystemID
	DiskTL    cluster.Timeline
	HighestTL cluster.Timeline
	Base      cluster.History
	History   cluster.History // of the newest timeline in the data; nil: not read
	Known     bool
	Claim     bool // Position is the end of WAL, but the data are not consistent: good for an attach, not for an election
	Position  cluster.Position
	Backlog   uint64
	Flush     cluster.LSN
	Oldest    cluster.LSN // of a vet: where the WAL begins that is still there
	Switch    cluster.LSN
	NextXID   uint64
	Barrier   cluster.LSN
	Clean     bool
	Timings   []cluster.NamedDuration
}
