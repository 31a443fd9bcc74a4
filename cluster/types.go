// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// NodeName is the stable name of a node: its hostname unless the user says otherwise.
type NodeName string

// Incarnation is the random identity of one state directory (PROTOCOL 1.3). It is also the raft id.
// Zero means none.
type Incarnation uint64

func (i Incarnation) String() string { return fmt.Sprintf("%016x", uint64(i)) }

// Epoch counts reigns of a primary (PROTOCOL 1.4). Zero: before the first.
type Epoch uint64

// Timeline is a Postgres timeline id. Zero means unknown.
type Timeline uint32

// LSN is a byte position in the write-ahead log. Zero means unknown.
type LSN uint64

func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// ParseLSN reads the form that Postgres prints, such as 0/16B3748.
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	if !ok {
		return 0, fmt.Errorf("parse lsn %q: no slash", s)
	}
	h, err := strconv.ParseUint(hi, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("parse lsn %q: %w", s, err)
	}
	l, err := strconv.ParseUint(lo, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("parse lsn %q: %w", s, err)
	}
	return LSN(h<<32 | l), nil
}

// SystemID is the system identifier in pg_control: the identity of one Postgres cluster. Zero means none.
type SystemID uint64

// Position is the end of the last complete WAL record on disk and the timeline of that record
// (PROTOCOL 1.5). Positions are compared timeline first; an LSN alone says nothing.
type Position struct {
	Timeline Timeline `json:"timeline"`
	LSN      LSN      `json:"lsn"`
}

func (p Position) String() string { return fmt.Sprintf("%d:%s", p.Timeline, p.LSN) }

// Compare orders positions: negative when p is behind q.
func (p Position) Compare(q Position) int {
	if c := cmp.Compare(p.Timeline, q.Timeline); c != 0 {
		return c
	}
	return cmp.Compare(p.LSN, q.LSN)
}

// Boot names one run of a node's PID 1 (PROTOCOL 1.7): a number that grows by one, fsynced, at each start,
// and a random id.
type Boot struct {
	Number uint64 `json:"number"`
	ID     uint64 `json:"id"`
}

// MaxBoots bounds the list of a volume that is started again and again without being registered.
const MaxBoots = 64

// NextBoots adds a start to the list of a volume: its own boots since, and including, the last one that it knows to be
// registered (PROTOCOL 1.13). A full list keeps that one and the newest.
func NextBoots(boots []Boot, id uint64) []Boot {
	next := Boot{Number: 1, ID: id}
	if n := len(boots); n > 0 {
		next.Number = boots[n-1].Number + 1
	}
	out := append(slices.Clone(boots), next)
	if more := len(out) - MaxBoots; more > 0 {
		out = slices.Delete(out, 1, 1+more)
	}
	return out
}

func (b Boot) String() string { return fmt.Sprintf("%d.%016x", b.Number, b.ID) }

// HistoryEntry is one line of a timeline history: the history left Timeline at Switch.
type HistoryEntry struct {
	Timeline Timeline `json:"timeline"`
	Switch   LSN      `json:"switch"`
}

// History is the ancestry of a timeline, oldest first: the content of its .history file, without the
// timeline itself.
type History []HistoryEntry

// Space is what a node knows of the device that holds its WAL (PROTOCOL 5.2.c). The zero value says nothing.
type Space struct {
	Known   bool
	Size    uint64 // of the file system
	Free    uint64 // what Postgres may still write
	Ballast uint64 // what deleting the ballast gives back; zero: there is none
	Segment uint64 // size of a WAL segment
	Apart   bool   // the state directory is on another device: a file there would be no reserve
}

// Bounds of space.
const (
	BallastSize   = 128 << 20
	ballastShare  = 8        // a volume gets a ballast if it is at least so many times as large
	spaceMargin   = 64 << 20 // beside two segments: history files, a checkpoint, ours
	spaceLook     = time.Second
	spaceLookNear = 100 * time.Millisecond
)

// Limit is what a promotion may need: two segments, the new timeline's first one and the next, and a margin.
func (s Space) Limit() uint64 { return 2*s.Segment + spaceMargin }

// Tight: below the limit a promotion may run out of space, which ends Postgres.
func (s Space) Tight() bool { return s.Known && s.Free < s.Limit() }

// Roomy is the end of a shortage, for who says it: well above the limit.
func (s Space) Roomy() bool { return s.Known && s.Free >= 2*s.Limit() }

// MayPromote: with the ballast let go there is room for a promotion.
func (s Space) MayPromote() bool { return !s.Known || s.Free+s.Ballast >= s.Limit() }

// LetGo: the ballast is deleted before Postgres becomes read-write (PROTOCOL 5.6.a).
func (s Space) LetGo() bool { return s.Tight() && s.Ballast > 0 }

// LetGoToFollow: it is deleted before a standby follows a new timeline for whose first segments there is no room.
func (s Space) LetGoToFollow() bool { return s.LetGo() && s.Free < 2*s.Segment }

// NoBallast says why this node never has one; empty: it may.
func (s Space) NoBallast() string {
	switch {
	case !s.Known:
		return "nothing is known of the device of the WAL"
	case s.Apart:
		return "pg_wal is on another device than the state directory, where a reserve would be no help to it"
	case s.Size < ballastShare*BallastSize:
		return fmt.Sprintf("the volume has %d MB, and one of less than %d MB gives up no %d MB of it",
			s.Size>>20, ballastShare*BallastSize>>20, BallastSize>>20)
	}
	return ""
}

// MakeBallast: there is none, and making it leaves as much free again, so that it never brings a shortage about.
func (s Space) MakeBallast() bool {
	return s.NoBallast() == "" && s.Ballast == 0 && s.Free >= 2*BallastSize+s.Limit()
}

// LookAgain is when the device should be asked again: one that fills up does so quickly.
func (s Space) LookAgain() time.Duration {
	if s.Known && s.Free < 8*s.Limit() {
		return spaceLookNear
	}
	return spaceLook
}

// RuleID is a rule's number: a letter for the table, hundreds for the section. It stands in every log line, event,
// metric label and history record that the rule causes.
type RuleID string

// Rule is one row of a table over views V with outcomes O: the first row whose When holds decides. The last row
// of every table always holds.
type Rule[V, O any] struct {
	ID    RuleID
	Cites string // the PROTOCOL rules it carries out
	Doc   string // why the row exists
	When  func(*V) bool
	Then  func(*V) O
}

// Decision is what a table decided: the rule, one sentence for the operator and the outcome.
type Decision[O any] struct {
	Rule    RuleID
	Outcome O
}

// Decide runs a table.
func Decide[V, O any](table []Rule[V, O], v *V) Decision[O] {
	for i := range table {
		if table[i].When(v) {
			return Decision[O]{Rule: table[i].ID, Outcome: table[i].Then(v)}
		}
	}
	panic("cluster: a rule table without a last row")
}
