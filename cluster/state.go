// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// FormatVersion is the version of the encoded State and commands.
const FormatVersion = 1

// Phase says how far the current epoch is (PROTOCOL 2.3).
type Phase string

// The phases of a cluster.
const (
	PhaseBlank     Phase = "blank"     // formed, no data yet
	PhaseElecting  Phase = "electing"  // an election for the next epoch is open
	PhasePromoting Phase = "promoting" // a primary is named and not promoted yet
	PhasePromoted  Phase = "promoted"  // the primary runs on its timeline
)

// Mode is the durability mode of a cluster (PROTOCOL 3.5).
type Mode string

// The durability modes.
const (
	ModeQuorum Mode = "quorum"
	ModeAsync  Mode = "async"
)

// State is everything that decides who may write. It is replicated by raft and changed only by Apply and
// ApplyConf, which never modify their argument: a State that was handed out never changes.
type State struct {
	Format    int           `json:"format"`
	ClusterID string        `json:"cluster_id"`
	Recovery  uint64        `json:"recovery"`
	System    SystemID      `json:"system,string"`
	Founder   Incarnation   `json:"founder"`
	Members   []Member      `json:"members"`           // sorted by incarnation
	Removed   []Incarnation `json:"removed,omitempty"` // oldest first; none of them is a member again (1.3)
	Configs   []VoterConfig `json:"configs"`           // first: the confirmed voters; then every later configuration (4.6)
	Base      History       `json:"base"`              // ancestry of the first kept epoch's timeline
	Epochs    []EpochRecord `json:"epochs"`            // oldest first; the last is the current epoch
	Phase     Phase         `json:"phase"`             //
	Election  Election      `json:"election"`          // meaningful in PhaseElecting
	D         Durability    `json:"d"`                 // durability in force
	Pending   *Durability   `json:"pending"`           // the change under way (3.3)
	Reverting bool          `json:"reverting"`
	Fresh     bool          `json:"fresh,omitempty"`  // founded on no data: no clients before a second node holds commits (9.4)
	HighestTL Timeline      `json:"highest_timeline"` // ever assigned or reported (5.5.a)
	LeaseMS   int64         `json:"lease_ms"`
	LongestMS int64         `json:"longest_lease_ms,omitempty"` // the largest L ever in force, once it changed (4.2)
	Paused    bool          `json:"paused"`
	FastOff   bool          `json:"fast_off"` // PGQUORUM_FAST_FAILOVER=off
	MaxLag    uint64        `json:"max_lag"`  // bytes; async only
	History   []Decided     `json:"history"`  // bounded
}

// Member is one incarnation of a node.
type Member struct {
	Inc         Incarnation `json:"inc"`
	Name        NodeName    `json:"name"`
	Witness     bool        `json:"witness,omitempty"`
	Voter       bool        `json:"voter"`
	Priority    int         `json:"priority"`
	Boot        Boot        `json:"boot"`
	Past        []Boot      `json:"past,omitempty"` // newest last: boots of this volume that a registered one followed
	Quarantined bool        `json:"quarantined,omitempty"`
}

// Follows reports whether a volume that lists boots was there when m's boot was registered, or no boot of m is yet. One
// that was rolled back or copied before lists other boots (PROTOCOL 1.13).
func (m *Member) Follows(boots []Boot) bool {
	return m.Boot == (Boot{}) || slices.Contains(boots, m.Boot)
}

// outlive registers a boot. What its volume lists before it is over, and so is the boot that was registered: a Register
// of one of them that comes late is of this volume and no sign of a copy, whose boots nobody else can list (PROTOCOL 9.9).
func (m *Member) outlive(c Register) {
	past := slices.Concat(m.Past, []Boot{m.Boot}, c.Boots)
	past = slices.DeleteFunc(past, func(b Boot) bool { return b == c.Boot || b == (Boot{}) })
	slices.SortStableFunc(past, func(a, b Boot) int { return cmp.Compare(a.Number, b.Number) })
	past = slices.Compact(past)
	m.Boot, m.Past = c.Boot, past[max(0, len(past)-pastMax):]
}

// MayLink is Follows by a peer that may lag: a list that begins above the boot it knows begins with a later registered one.
func (m *Member) MayLink(boots []Boot) bool {
	return !m.Quarantined && len(boots) > 0 && (m.Follows(boots) || boots[0].Number > m.Boot.Number)
}

// LoggedBoots are the boots that a node's log names, committed or not. A node that was killed has forgotten how much of its
// log was committed; until it has applied that again, its state may not know yet of a boot that it has refused a
// rolled-back volume for (PROTOCOL 1.13). Nobody but the volume that ran a boot can have named it. The zero value knows none.
type LoggedBoots struct {
	last  uint64
	boots map[Incarnation]Boot // of each member the newest
}

// Saw takes note of a command of the log.
func (l *LoggedBoots) Saw(index uint64, command []byte) {
	l.last = index
	c, err := DecodeCommand(command)
	if err != nil || c.Register == nil || c.Register.Boot.Number <= l.boots[c.Register.Inc].Number {
		return
	}
	if l.boots == nil {
		l.boots = map[Incarnation]Boot{}
	}
	l.boots[c.Register.Inc] = c.Register.Boot
}

// Over reports whether the state as of index knows all that the log did.
func (l *LoggedBoots) Over(index uint64) bool { return index >= l.last }

// MayLink reports whether a member may link, or a stranger, by what a state and the node's log know of its volume.
func (s *State) MayLink(inc Incarnation, boots []Boot, log *LoggedBoots) bool {
	m := s.Member(inc)
	if m == nil {
		return true
	}
	logged := Member{}
	if log != nil {
		logged.Boot = log.boots[inc]
	}
	return m.MayLink(boots) && logged.MayLink(boots)
}

// VoterConfig is one raft configuration's voters, sorted, and the index that made it.
type VoterConfig struct {
	Index  uint64        `json:"index"`
	Voters []Incarnation `json:"voters"`
}

// Durability says which nodes must hold a commit before it is acknowledged (PROTOCOL 3.1.a).
type Durability struct {
	Set  []Incarnation `json:"set"` // sorted; includes the primary
	K    int           `json:"k"`   // acknowledgements needed beside the primary
	Mode Mode          `json:"mode"`
}

// Equal reports whether both mean the same.
func (d Durability) Equal(o Durability) bool {
	return d.K == o.K && d.Mode == o.Mode && slices.Equal(d.Set, o.Set)
}

// EpochRecord is one reign (PROTOCOL 1.4).
type EpochRecord struct {
	Epoch    Epoch       `json:"epoch"`
	Primary  Incarnation `json:"primary"`
	Timeline Timeline    `json:"timeline"`
	Elected  Position    `json:"elected"` // where the parent timeline was left; zero for the first epoch
	Index    uint64      `json:"index"`   // of the Elect entry
	Switch   LSN         `json:"switch,omitempty"`
	NextXID  uint64      `json:"next_xid,omitempty"`
	Promoted bool        `json:"promoted,omitempty"`
}

// Election is an open election (PROTOCOL 5).
type Election struct {
	Epoch  Epoch       `json:"epoch"` // the one to elect
	Index  uint64      `json:"index"` // of the BeginElection entry; names the election
	Cause  Cause       `json:"cause"`
	Target Incarnation `json:"target,omitempty"`
}

// Decided is one remembered decision, for operators (I10).
type Decided struct {
	Index   uint64          `json:"index"`
	Epoch   Epoch           `json:"epoch"`
	What    string          `json:"what"`
	Rule    RuleID          `json:"rule,omitempty"`
	Detail  string          `json:"detail,omitempty"`
	Timings []NamedDuration `json:"timings,omitempty"`
}

// NamedDuration is one step's duration in milliseconds.
type NamedDuration struct {
	Name string `json:"name"`
	MS   int64  `json:"ms"`
}

const (
	historyMax = 64
	pastMax    = 16   // no message is under way for longer than a few starts of a container
	removedMax = 1000 // a node that loses its volume at each restart would fill the state
	epochsMax  = 200
)

// Epoch is the record of the current epoch; the zero record before the first.
func (s *State) Epoch() EpochRecord {
	if len(s.Epochs) == 0 {
		return EpochRecord{}
	}
	return s.Epochs[len(s.Epochs)-1]
}

// Member returns the member with that incarnation, or nil.
func (s *State) Member(inc Incarnation) *Member {
	for i := range s.Members { // few, and large: a search that takes them by value costs more
		if s.Members[i].Inc == inc {
			return &s.Members[i]
		}
	}
	return nil
}

// MemberNamed returns the member with that name, or nil.
func (s *State) MemberNamed(name NodeName) *Member {
	for i := range s.Members {
		if s.Members[i].Name == name {
			return &s.Members[i]
		}
	}
	return nil
}

// WasRemoved reports whether inc was a member once and is none any more: its volume is of before (PROTOCOL 1.3, 9.7).
func (s *State) WasRemoved(inc Incarnation) bool { return slices.Contains(s.Removed, inc) }

// NameOf names an incarnation for people.
func (s *State) NameOf(inc Incarnation) NodeName {
	if m := s.Member(inc); m != nil {
		return m.Name
	}
	if inc == 0 {
		return "nobody"
	}
	return NodeName("former-" + inc.String())
}

// Primary is the incarnation of the current epoch's primary; zero before the first epoch.
func (s *State) Primary() Incarnation { return s.Epoch().Primary }

// Lease is L (PROTOCOL 4.1).
func (s *State) Lease() time.Duration { return time.Duration(s.LeaseMS) * time.Millisecond }

// Longest is the largest L ever in force. A grant of before a node's start was given under no larger one: the entry
// that raised L is older in the log than the node's present Register (PROTOCOL 4.2).
func (s *State) Longest() time.Duration {
	return time.Duration(max(s.LeaseMS, s.LongestMS)) * time.Millisecond
}

// Voters are the voters of the newest configuration.
func (s *State) Voters() []Incarnation {
	if len(s.Configs) == 0 {
		return nil
	}
	return s.Configs[len(s.Configs)-1].Voters
}

// IsVoter reports whether inc votes in the newest configuration.
func (s *State) IsVoter(inc Incarnation) bool { return slices.Contains(s.Voters(), inc) }

// VotersConfirmed reports whether the newest configuration is the only one that counts (4.6).
func (s *State) VotersConfirmed() bool { return len(s.Configs) == 1 }

// ListedD is the durability whose names the primary of the current epoch must list (PROTOCOL 3.3.b), and
// whether it is a pending target that still has to be settled.
func (s *State) ListedD() (d Durability, pending bool) {
	if s.Pending == nil {
		return s.D, false
	}
	if s.Reverting || !slices.Contains(s.Pending.Set, s.Primary()) {
		return s.D, true
	}
	return *s.Pending, true
}

// Clone copies everything that Apply may change.
func (s *State) Clone() *State {
	c := *s
	c.Members = slices.Clone(s.Members)
	c.Removed = slices.Clone(s.Removed)
	c.Configs = slices.Clone(s.Configs)
	c.Epochs = slices.Clone(s.Epochs)
	c.History = slices.Clone(s.History)
	if s.Pending != nil {
		p := *s.Pending
		c.Pending = &p
	}
	return &c
}

// Encode makes the snapshot form.
func (s *State) Encode() []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("encode state: %v", err)) // only plain values: cannot happen
	}
	return b
}

// DecodeState reads a snapshot.
func DecodeState(b []byte) (*State, error) {
	var s State
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("decode state: %w", err)
	}
	if s.Format != FormatVersion {
		return nil, fmt.Errorf("decode state: format %d, this version reads %d", s.Format, FormatVersion)
	}
	return &s, nil
}

func (s *State) remember(d Decided) {
	s.History = append(s.History, d)
	if n := len(s.History) - historyMax; n > 0 {
		s.History = slices.Delete(s.History, 0, n)
	}
}
