// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Bounds of the failover table.
const (
	BetterWait      = 50 * time.Millisecond // 5.3.d
	SilentWait      = time.Second           // 5.3.d: the same when commits have made no progress
	TargetWait      = time.Second           // 10.1.f: for the report of a switchover's target
	CoverageWait    = time.Second           // 3.5.b: for coverage in async mode
	AwayAfter       = time.Second           // 5.4.a: whose link has been down so long is gone
	PromoteDeadline = 2 * time.Second       // 5.1.f
	ServeDeadline   = 3 * time.Second       // 5.1.f
	StuckDeadline   = 10 * time.Second      // 5.1.e
	StatusFresh     = time.Second           // an older status says nothing about now
	PrimaryAlone    = 5 * time.Second       // 5.3.b: for reports beside the old primary's
	BackoffFirst    = time.Second           // 5.1.f
	BackoffMax      = 30 * time.Second
)

// LeaderView is all that the leader's tables may know. Durations are ages on the leader's clock.
type LeaderView struct {
	State *State
	Self  Incarnation
	Peers []PeerView // every member and joining node, this one included; sorted by incarnation

	Reports  []TimedReport // for the open election, sorted by incarnation
	EnoughAt time.Duration // how long the reports have been enough; zero: they are not, or only now
	PhaseAge time.Duration // since this leader saw the phase begin, or became leader
	ElectAge time.Duration // since this leader saw the epoch begin, or became leader
	Backoff  time.Duration // how long ElectAge must be before a timeout counts
	Served   bool          // the primary has served in this epoch
	Down     *PgDown       // what the primary said about its Postgres, for the current epoch
	CaughtUp Incarnation   // who was already asked to catch up in this election
	Vain     []Incarnation // from whom somebody was to catch up in it, and got nothing
	CutFor   time.Duration // how long CutOff has held

	LeaderAge   time.Duration
	TransferAge time.Duration // since leadership was last offered to another; zero: it was not
}

// PeerView is what the leader knows of one node.
type PeerView struct {
	Inc       Incarnation
	Linked    bool          // a link is up, or it is this node
	LinkAge   time.Duration // since the link came up or went down
	Status    *Status       // last one heard; nil: none from this boot
	StatusAge time.Duration
	Evidence  *Evidence // the newest it told us, or found itself
	Join      *Member   // it asks to become a member
}

// TimedReport is a report and how long ago it came.
type TimedReport struct {
	Report
	Age time.Duration
}

// LeaderOutcome is what a leader's table wants done: at most one of the fields, or nothing.
type LeaderOutcome struct {
	Command  *Command
	Conf     *MemberChange
	CatchUp  *CatchUp
	To       Incarnation // of CatchUp
	Transfer Incarnation
	Why      string
}

func wait(why string) LeaderOutcome { return LeaderOutcome{Why: why} }

// FailoverTable is the leader's whole failover decision (PROTOCOL 5).
func FailoverTable() []Rule[LeaderView, LeaderOutcome] { return failoverTable }

var failoverTable = slices.Concat(blank(), openElection(), causes())

// blank is what the leader does before there are data.
func blank() []Rule[LeaderView, LeaderOutcome] {
	return []Rule[LeaderView, LeaderOutcome]{
		{
			"F100", "9.3", "a founder that was emptied before it had made the data will never have any",
			(*LeaderView).stillborn,
			func(v *LeaderView) LeaderOutcome {
				return wait(fmt.Sprintf("the volume of %s, which was to make the cluster's data, was emptied before it had: this cluster never began; "+
					"stop all nodes, copy away the data that you brought along, if any, and start them on empty volumes", v.State.NameOf(v.State.Founder)))
			},
		},
		{
			"F110", "9.3", "before the first epoch there is nothing to fail over",
			func(v *LeaderView) bool { return v.State.Phase == PhaseBlank },
			func(v *LeaderView) LeaderOutcome {
				return wait(fmt.Sprintf("waiting for the data of %s, the founder", v.State.NameOf(v.State.Founder)))
			},
		},
	}
}

// openElection is what the leader does while an election is open.
func openElection() []Rule[LeaderView, LeaderOutcome] {
	return []Rule[LeaderView, LeaderOutcome]{
		{
			"F210", "5.3.a", "an election needs reports from a majority of voters",
			func(v *LeaderView) bool { return v.electing() && !v.State.HasMajority(v.reporters(false)) },
			func(*LeaderView) LeaderOutcome { return wait("waiting for reports from a majority of voters") },
		},
		{
			"F220", "5.3.b", "and from enough of the durability set that every acknowledged commit is among them",
			func(v *LeaderView) bool { return v.electing() && !v.decisive() },
			(*LeaderView).whyNotCovered,
		},
		{
			"F225", "3.5.b", "async mode elects without coverage, but waits a moment for it: transactions may have asked for safety",
			func(v *LeaderView) bool {
				return v.electing() && v.State.Async() && v.PhaseAge < CoverageWait && !v.State.CoveredInFull(v.reporters(true))
			},
			func(*LeaderView) LeaderOutcome { return wait("waiting up to 1 s for coverage") },
		},
		{
			"F230", "5.3.c, 4.4", "no lease of the old epoch may outlive the election",
			func(v *LeaderView) bool { w, left := v.leaseWait(); return v.electing() && w == WaitLease && left > 0 },
			func(v *LeaderView) LeaderOutcome {
				_, left := v.leaseWait()
				return wait(fmt.Sprintf("waiting %d ms for the old primary's lease to end", left.Milliseconds()))
			},
		},
		{
			"F240", "5.3.d", "a better position costs less than a rewind",
			func(v *LeaderView) bool {
				return v.electing() && (v.EnoughAt < v.betterWait() && v.mayImprove() || v.EnoughAt < TargetWait && v.targetSilent())
			},
			func(v *LeaderView) LeaderOutcome {
				return wait(fmt.Sprintf("waiting up to %d ms for reports of linked members", v.betterWait().Milliseconds()))
			},
		},
		{
			"F245", "3.5.b", "async mode loses no more than it was told to",
			func(v *LeaderView) bool {
				return v.electing() && v.State.Async() && v.best() != (Position{}) && v.lost() > v.State.MaxLag
			},
			func(v *LeaderView) LeaderOutcome {
				return wait(fmt.Sprintf("the best position %s is %d bytes behind the last known end of %s, and PGQUORUM_MAX_LAG allows %d: waiting for that node",
					v.best(), v.lost(), v.State.NameOf(v.State.Primary()), v.State.MaxLag))
			},
		},
		{
			"F250", "5.4.a, 5.4.b", "the best position wins",
			func(v *LeaderView) bool { return v.electing() && v.winner() != nil },
			(*LeaderView).electWinner,
		},
		{
			"F260", "5.4.c", "the best must not win: the next one takes its WAL first",
			func(v *LeaderView) bool { return v.electing() && v.taker() != nil },
			(*LeaderView).catchUp,
		},
		{
			"F270", "5.4.d", "nobody may win: say why",
			(*LeaderView).electing, (*LeaderView).whyNobody,
		},
	}
}

// causes are the reasons to open one.
func causes() []Rule[LeaderView, LeaderOutcome] {
	return []Rule[LeaderView, LeaderOutcome]{
		{
			"F310", "5.1.g", "a paused cluster records the cause and waits",
			func(v *LeaderView) bool {
				c, _ := v.cause()
				return c != "" && !c.ByOperator() && v.State.Paused
			},
			func(v *LeaderView) LeaderOutcome { c, d := v.cause(); return wait("paused: " + string(c) + ": " + d) },
		},
		{
			"F320", "5.1.d", "an operator's order or a switchover",
			func(v *LeaderView) bool { c, _ := v.cause(); return c.ByOperator() },
			func(v *LeaderView) LeaderOutcome { return v.begin("F320") },
		},
		{
			"F330", "5.1.b", "the primary's own word that its Postgres is gone",
			func(v *LeaderView) bool { c, _ := v.cause(); return c == CausePgDown },
			func(v *LeaderView) LeaderOutcome { return v.begin("F330") },
		},
		{
			"F340", "5.1.c, 6", "every voter in reach saw the primary's PID 1 die",
			func(v *LeaderView) bool { c, _ := v.cause(); return c == CauseEvidence },
			func(v *LeaderView) LeaderOutcome { return v.begin("F340") },
		},
		{
			"F350", "5.1.a", "a majority of voters granted nothing for a whole lease",
			func(v *LeaderView) bool { c, _ := v.cause(); return c == CauseLeaseLapsed },
			func(v *LeaderView) LeaderOutcome { return v.begin("F350") },
		},
		{
			"F360", "5.1.e", "commits make no progress although others could serve",
			func(v *LeaderView) bool { c, _ := v.cause(); return c == CauseNoProgress },
			func(v *LeaderView) LeaderOutcome { return v.begin("F360") },
		},
		{
			"F370", "5.1.f", "the candidate does not get to serve in time",
			func(v *LeaderView) bool { c, _ := v.cause(); return c == CauseTimeout },
			func(v *LeaderView) LeaderOutcome { return v.begin("F370") },
		},
		{
			"F399", "", "nothing to do", func(*LeaderView) bool { return true },
			func(*LeaderView) LeaderOutcome { return LeaderOutcome{} },
		},
	}
}

func (v *LeaderView) electing() bool { return v.State.Phase == PhaseElecting }

// reporters lists who reported; with known only those whose position counts.
func (v *LeaderView) reporters(known bool) []Incarnation {
	var who []Incarnation
	for i := range v.Reports {
		if r := &v.Reports[i]; v.counts(r) && (!known || v.known(r)) {
			who = append(who, r.Inc)
		}
	}
	return who
}

// counts: Elect would accept the report (PROTOCOL 5.2.g). One that it would refuse must not be in it.
func (v *LeaderView) counts(r *TimedReport) bool {
	m, e := v.State.Member(r.Inc), v.State.Election
	return m != nil && !m.Quarantined && r.Boot == m.Boot && r.Election == e.Index && r.Promise >= e.Epoch &&
		(!r.Known || r.Position.Timeline != 0 && r.Position.LSN != 0)
}

// known: the position of a report that counts is one.
func (v *LeaderView) known(r *TimedReport) bool { return v.holds(r) && !v.leftOut(r.Inc) }

func (v *LeaderView) holds(r *TimedReport) bool {
	return v.counts(r) && r.Known && !v.State.Member(r.Inc).Witness
}

// reaches: a node at pos is at end, or gets there with the WAL that it lacks. One that diverged does not.
func (v *LeaderView) reaches(pos, end Position) bool {
	fit, _ := v.State.FitsTimeline(end, pos)
	return pos == end || fit == FitPrefix
}

// decisive: the reports contain every acknowledged commit. The old primary's alone do too, but nobody would notice a
// disk of its that lied: others get time to report first.
func (v *LeaderView) decisive() bool {
	known := v.reporters(true)
	return v.State.Covered(known) || v.PhaseAge >= PrimaryAlone && v.State.Decisive(known)
}

// Enough reports whether majority, coverage and the end of the lease are there.
func (v *LeaderView) Enough() bool {
	if !v.electing() || !v.State.HasMajority(v.reporters(false)) || !v.decisive() {
		return false
	}
	w, left := v.leaseWait()
	return w != WaitLease || left <= 0
}

// leaseWait says how the old lease ends and how long that still takes (PROTOCOL 5.3.c).
func (v *LeaderView) leaseWait() (Wait, time.Duration) {
	old := v.State.Primary()
	if len(v.State.Voters()) == 1 {
		return WaitNone, 0
	}
	p := v.State.Member(old)
	evidence := p != nil && !v.State.Async() && !v.State.FastOff
	var left time.Duration
	for i := range v.Reports {
		r := &v.Reports[i]
		if !v.counts(r) {
			continue
		}
		if r.Inc == old && r.Killed {
			return WaitOwnFence, 0
		}
		if !v.State.votesSomewhere(r.Inc) {
			continue
		}
		left = max(left, LeaseOver(r.Report)-r.Age)
		evidence = evidence && r.Evidence.About(old, p.Boot)
	}
	if evidence {
		return WaitEvidence, 0
	}
	return WaitLease, left
}

// mayImprove reports whether a linked member of the durability set has still to report. One that says nothing at all
// is frozen or cut off, although its link still stands.
func (v *LeaderView) mayImprove() bool {
	for _, p := range v.Peers {
		if v.leftOut(p.Inc) {
			continue // its position would not count
		}
		if p.Linked && v.State.InSets(p.Inc) && p.fresh() && !slices.Contains(v.reporters(true), p.Inc) {
			return true
		}
	}
	return false
}

// betterWait is how long a better position is waited for. After 5.1.e the report that was lost on its way would be the one
// without which the old primary's own position counts: it is sent again within that second (docs/decisions/0002).
func (v *LeaderView) betterWait() time.Duration {
	if v.State.Election.Cause == CauseNoProgress {
		return SilentWait
	}
	return BetterWait
}

// targetSilent: the node that an operator chose, or that is being handed to, is linked and has still to report.
func (v *LeaderView) targetSilent() bool {
	t := v.State.Election.Target
	p := v.peer(t)
	return t != 0 && p != nil && p.Linked && !slices.Contains(v.reporters(true), t)
}

func (v *LeaderView) best() Position {
	var b Position
	for i := range v.Reports {
		if r := &v.Reports[i]; v.known(r) && r.Position.Compare(b) > 0 {
			b = r.Position
		}
	}
	return b
}

// counted are the reports that Elect would carry.
func (v *LeaderView) counted() []Report {
	reports := make([]Report, 0, len(v.Reports))
	for i := range v.Reports {
		if r := v.Reports[i].Report; v.counts(&v.Reports[i]) {
			r.Known = r.Known && !v.leftOut(r.Inc)
			reports = append(reports, r)
		}
	}
	return reports
}

func (v *LeaderView) lost() uint64 { return Lost(v.counted(), v.best()) }

func (v *LeaderView) mayWin(r *TimedReport) bool {
	return v.known(r) && r.Eligible && v.State.IsVoter(r.Inc) && v.State.InSets(r.Inc)
}

// prefer orders candidates with the same position (PROTOCOL 5.4.b); the operator's target comes first.
func (v *LeaderView) prefer(a, b *TimedReport) int {
	t := v.State.Election.Target
	old := v.State.Primary()
	return cmp.Or(
		boolFirst(a.Inc == t, b.Inc == t),
		cmp.Compare(b.Priority, a.Priority),
		boolFirst(a.Running, b.Running), // a start costs more than a promotion
		boolFirst(a.Inc == old && a.Running && t == 0, b.Inc == old && b.Running && t == 0),
		cmp.Compare(a.Backlog, b.Backlog),
		cmp.Compare(a.Inc, b.Inc))
}

func boolFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func (v *LeaderView) winner() *TimedReport {
	best := v.best()
	return v.pick(func(r *TimedReport) bool { return r.Position.Compare(best) == 0 })
}

func (v *LeaderView) pick(ok func(*TimedReport) bool) *TimedReport {
	var w *TimedReport
	for i := range v.Reports {
		r := &v.Reports[i]
		if v.mayWin(r) && ok(r) && (w == nil || v.prefer(r, w) < 0) {
			w = r
		}
	}
	return w
}

// taker is who would catch up with the best position: the furthest of those that may win, are linked and did not
// diverge from it, if a donor is linked.
func (v *LeaderView) taker() *TimedReport {
	if v.donor() == 0 {
		return nil
	}
	best := v.best()
	able := func(r *TimedReport) bool { return v.mayWin(r) && v.linked(r.Inc) && v.reaches(r.Position, best) }
	var top Position
	for i := range v.Reports {
		if r := &v.Reports[i]; able(r) && r.Position.Compare(top) > 0 {
			top = r.Position
		}
	}
	return v.pick(func(r *TimedReport) bool { return able(r) && r.Position.Compare(top) == 0 })
}

// donor is a linked node that holds the best position; zero: none.
func (v *LeaderView) donor() Incarnation {
	best := v.best()
	for i := range v.Reports {
		if r := &v.Reports[i]; v.known(r) && v.linked(r.Inc) && r.Position.Compare(best) == 0 {
			return r.Inc
		}
	}
	return 0
}

func (v *LeaderView) linked(inc Incarnation) bool {
	p := v.peer(inc)
	return p != nil && p.Linked
}

func (v *LeaderView) catchUp() LeaderOutcome {
	t, best := v.taker(), v.best()
	if v.CaughtUp == t.Inc {
		return wait(fmt.Sprintf("waiting for %s to catch up to %s", v.State.NameOf(t.Inc), best))
	}
	d := v.donor()
	return LeaderOutcome{
		To: t.Inc, CatchUp: &CatchUp{Election: v.State.Election.Index, Donor: d, End: best},
		Why: fmt.Sprintf("%s takes the last WAL from %s", v.State.NameOf(t.Inc), v.State.NameOf(d)),
	}
}

func (v *LeaderView) electWinner() LeaderOutcome {
	w := v.winner()
	how, _ := v.leaseWait()
	reports := v.counted()
	why := fmt.Sprintf("%s has the best position %s of %d reports", v.State.NameOf(w.Inc), w.Position, len(reports))
	return LeaderOutcome{Why: why, Command: &Command{Elect: &Elect{
		Epoch: v.State.Election.Epoch, Election: v.State.Election.Index, Candidate: w.Inc,
		Reports: reports, Wait: how, Rule: "F250", Reason: why,
	}}}
}

func (v *LeaderView) whyNotCovered() LeaderOutcome {
	var missing []NodeName
	known := v.reporters(true)
	for _, m := range v.State.Members {
		if v.State.InSets(m.Inc) && !slices.Contains(known, m.Inc) {
			missing = append(missing, m.Name)
		}
	}
	return wait(fmt.Sprintf("waiting for positions: %v may hold acknowledged commits that nobody else has", missing))
}

func (v *LeaderView) whyNobody() LeaderOutcome {
	text := "nobody may win:"
	for _, r := range v.Reports {
		why := r.WhyNot
		switch {
		case why != "":
		case !r.Known:
			why = "position unknown"
		case !v.State.InSets(r.Inc):
			why = "not in the durability set"
		case !v.reaches(r.Position, v.best()):
			why = "has WAL that the best position has not"
		default:
			why = "would have to catch up, and who has the last WAL is not linked"
		}
		text += fmt.Sprintf(" %s at %s (%s)", v.State.NameOf(r.Inc), r.Position, why)
	}
	return wait(text)
}

func (v *LeaderView) begin(rule RuleID) LeaderOutcome {
	c, detail := v.cause()
	b := &BeginElection{Epoch: v.State.Epoch().Epoch + 1, Cause: c, Rule: rule, Detail: detail}
	if c.ByOperator() {
		b.Target = v.Down.Target
		if b.Target != 0 && (v.State.Member(b.Target) == nil || !v.State.InSets(b.Target)) {
			b.Target = 0
		}
	}
	return LeaderOutcome{Command: &Command{BeginElection: b}, Why: string(c) + ": " + detail}
}
