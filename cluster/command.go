// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"fmt"
	"time"
)

// Command is one entry of the replicated log: exactly one field is set. Who may propose it and its guard are in
// the table of PROTOCOL 2.4; every guard is checked again when the command is applied.
type Command struct {
	Initialized   *Initialized   `json:"initialized,omitempty"`
	Register      *Register      `json:"register,omitempty"`
	BeginElection *BeginElection `json:"begin_election,omitempty"`
	Elect         *Elect         `json:"elect,omitempty"`
	Promoted      *Promoted      `json:"promoted,omitempty"`
	Admitted      *Admitted      `json:"admitted,omitempty"`
	ChangeD       *ChangeD       `json:"change_d,omitempty"`
	RevertD       *RevertD       `json:"revert_d,omitempty"`
	SettleD       *SettleD       `json:"settle_d,omitempty"`
	ConfirmVoters *ConfirmVoters `json:"confirm_voters,omitempty"`
	SetLease      *SetLease      `json:"set_lease,omitempty"`
	Pause         *Pause         `json:"pause,omitempty"`
}

// Initialized opens the first epoch on the founder's data.
type Initialized struct {
	From     Incarnation `json:"from"`
	System   SystemID    `json:"system,string"`
	Timeline Timeline    `json:"timeline"`
	Base     History     `json:"base,omitempty"`
}

// Register records the boot of a node (PROTOCOL 1.13).
type Register struct {
	Inc   Incarnation `json:"inc"`
	Boot  Boot        `json:"boot"`
	Boots []Boot      `json:"boots,omitempty"` // the volume's own since the last one that it knew to be registered
}

// Cause says why an election was opened (PROTOCOL 5.1).
type Cause string

// The causes.
const (
	CauseLeaseLapsed Cause = "lease_lapsed"  // 5.1.a
	CausePgDown      Cause = "postgres_down" // 5.1.b
	CauseEvidence    Cause = "evidence"      // 5.1.c
	CauseOperator    Cause = "operator"      // 5.1.d
	CauseSwitchover  Cause = "switchover"    // 5.1.d
	CauseNoProgress  Cause = "no_progress"   // 5.1.e
	CauseTimeout     Cause = "timeout"       // 5.1.f
)

// ByOperator reports whether a pause does not hold the cause back (PROTOCOL 5.1.g).
func (c Cause) ByOperator() bool { return c == CauseOperator || c == CauseSwitchover }

// BeginElection opens the election of Epoch.
type BeginElection struct {
	Epoch  Epoch       `json:"epoch"`
	Cause  Cause       `json:"cause"`
	Rule   RuleID      `json:"rule"`
	Detail string      `json:"detail,omitempty"`
	Target Incarnation `json:"target,omitempty"`
}

// Wait says which of PROTOCOL 5.3.c ended the old lease.
type Wait string

// The ways a lease of the old epoch is known to be over.
const (
	WaitLease    Wait = "lease"     // waited out
	WaitEvidence Wait = "evidence"  // every reporting voter saw the old primary's PID 1 die
	WaitOwnFence Wait = "own_fence" // the old primary itself reported its fence
	WaitNone     Wait = "none"      // there was no lease: a single voter
)

// Elect names the primary of Epoch.
type Elect struct {
	Epoch     Epoch       `json:"epoch"`
	Election  uint64      `json:"election"` // index of the BeginElection
	Candidate Incarnation `json:"candidate"`
	Reports   []Report    `json:"reports"` // sorted by incarnation
	Wait      Wait        `json:"wait"`
	Rule      RuleID      `json:"rule"`
	Reason    string      `json:"reason,omitempty"`
}

// Promoted says that the primary of Epoch runs on its timeline.
type Promoted struct {
	Epoch    Epoch       `json:"epoch"`
	From     Incarnation `json:"from"`
	Timeline Timeline    `json:"timeline"`
	Switch   LSN         `json:"switch"`
	NextXID  uint64      `json:"next_xid"`
}

// Admitted says that clients were let in; history only.
type Admitted struct {
	Epoch   Epoch           `json:"epoch"`
	From    Incarnation     `json:"from"`
	Timings []NamedDuration `json:"timings,omitempty"`
}

// ChangeD begins a change of durability (PROTOCOL 3.3).
type ChangeD struct {
	Epoch Epoch      `json:"epoch"`
	D     Durability `json:"d"`
	Rule  RuleID     `json:"rule"`
}

// RevertD takes a pending change back (PROTOCOL 3.3.d).
type RevertD struct {
	Epoch Epoch  `json:"epoch"`
	Rule  RuleID `json:"rule"`
}

// SettleD ends a change: every commit up to Barrier is held as X demands.
type SettleD struct {
	Epoch   Epoch       `json:"epoch"`
	From    Incarnation `json:"from"`
	X       Durability  `json:"x"`
	Barrier LSN         `json:"barrier"`
}

// ConfirmVoters forgets older voter configurations (PROTOCOL 4.6.a).
type ConfirmVoters struct {
	Epoch  Epoch       `json:"epoch"`
	From   Incarnation `json:"from"`
	Config uint64      `json:"config"` // VoterConfig.Index
}

// SetLease changes L. Was is L as it was read; zero: whatever it is.
type SetLease struct {
	LeaseMS int64  `json:"lease_ms"`
	Was     int64  `json:"was,omitempty"`
	Rule    RuleID `json:"rule,omitempty"`
}

// Pause stops or resumes automatic elections.
type Pause struct {
	Paused bool `json:"paused"`
}

// ChangeKind is what a membership change does. Each is one raft configuration change; joint swaps are never used.
type ChangeKind string

// The membership changes.
const (
	AddLearner ChangeKind = "add_learner"
	AddVoter   ChangeKind = "add_voter"
	Remove     ChangeKind = "remove"
)

// MemberChange travels as the context of a raft configuration change.
type MemberChange struct {
	Kind   ChangeKind `json:"kind"`
	Member Member     `json:"member"`
	Epoch  Epoch      `json:"epoch"`
	Rule   RuleID     `json:"rule"`
}

// Encode makes the log form of a command.
func (c Command) Encode() []byte { return mustJSON(c) }

// Encode makes the log form of a membership change.
func (c MemberChange) Encode() []byte { return mustJSON(c) }

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err)) // only plain values: cannot happen
	}
	return b
}

// DecodeCommand reads a log entry.
func DecodeCommand(b []byte) (Command, error) {
	var c Command
	if err := json.Unmarshal(b, &c); err != nil {
		return Command{}, fmt.Errorf("decode command: %w", err)
	}
	return c, nil
}

// DecodeMemberChange reads the context of a configuration change.
func DecodeMemberChange(b []byte) (MemberChange, error) {
	var c MemberChange
	if err := json.Unmarshal(b, &c); err != nil {
		return MemberChange{}, fmt.Errorf("decode member change: %w", err)
	}
	return c, nil
}

// Report is what a fenced node says for an election (PROTOCOL 5.2.c).
type Report struct {
	Inc       Incarnation `json:"inc"`
	Boot      Boot        `json:"boot"`
	Election  uint64      `json:"election"`
	Promise   Epoch       `json:"promise"`
	Known     bool        `json:"known"` // position is known
	Position  Position    `json:"position"`
	HighestTL Timeline    `json:"highest_timeline"`

	// PrimaryEnd is the furthest that the old epoch's primary was heard to be: async mode's measure of loss (3.5.b).
	PrimaryEnd Position `json:"primary_end,omitzero"`

	GrantAgeMS   int64     `json:"grant_age_ms"`   // age of the grant that ends latest, at the time of the report
	GrantLeaseMS int64     `json:"grant_lease_ms"` // its L; zero: never granted
	Killed       bool      `json:"killed"`         // the old primary's own "fence durable, kill returned"
	Evidence     *Evidence `json:"evidence,omitempty"`

	Eligible bool   `json:"eligible"`
	WhyNot   string `json:"why_not,omitempty"`
	Priority int    `json:"priority"`
	Backlog  uint64 `json:"backlog"` // bytes of WAL not replayed yet
	Running  bool   `json:"running"` // its Postgres is up
}

// Evidence is one node's proof that a PID 1 is gone (PROTOCOL 6.2).
type Evidence struct {
	Inc       Incarnation `json:"inc"`  // who died
	Boot      Boot        `json:"boot"` // which run of it
	HeldTwice bool        `json:"held_twice"`
}

// About reports whether e proves the end of that run of that node.
func (e *Evidence) About(inc Incarnation, b Boot) bool {
	return e != nil && e.Inc == inc && e.Boot == b
}

// Lease is the grant's length.
func (r Report) Lease() time.Duration { return time.Duration(r.GrantLeaseMS) * time.Millisecond }

// GrantAge is how long ago the grant was given when the report was made.
func (r Report) GrantAge() time.Duration { return time.Duration(r.GrantAgeMS) * time.Millisecond }
