// SPDX-License-Identifier: Apache-2.0

package facts

import "github.com/pgquorum/pgquorum/cluster"

// listedNameCounts: whoever bears a listed name acknowledges, so names are secret (3.1.b).
func listedNameCounts(s *stage) {
	p := s.Primary("p", "member")
	b := s.follow(p, "other")
	tx := p.Commit()
	s.waits(tx, "a commit by a standby under another name")
	b.Order(p, "member")
	b.EndReceiver()
	s.acked(tx, "a commit by a stranger under a listed name")
}

// slotAdmitsOne: a physical slot has one WAL sender, so a member is not counted twice (3.1.d).
func slotAdmitsOne(s *stage) {
	p := s.Primary("p")
	a := s.follow(p, "a")
	twin := p.Backup("twin", "a")
	twin.Order(p, "twin")
	twin.StartStandby()
	s.stays("the slot's second standby is refused", func() bool { return p.Sender("twin") == "" && p.Sender("a") != "" })
	a.Kill()
	s.streams(p, "twin")
}

// receivedJumps: a receiver that has asked for a timeline shows it, at the start of the segment, before any byte of it has
// come. So a position rests on bytes (5.2.d), and a flush on the pair of timeline and LSN (5.7.c).
func receivedJumps(s *stage) {
	p := s.Primary("p")
	b, next := s.follow(p, "b"), s.follow(p, "next")
	s.write(p)
	s.catchUp(p, b)
	s.catchUp(p, next)
	p.Kill()
	s.promote(next)
	s.write(next)
	b.OrderSilent(next, "b")
	s.until("the receiver shows timeline 2", func() bool { return b.Received().Timeline == 2 })
	at := next.Switched().LSN
	s.must(b.Received().LSN == at/segment*segment && b.Received().LSN < at, "it shows %s, and the switch point is %s", b.Received().LSN, at)
	s.must(b.Position().Timeline == 1, "its files hold timeline %d", b.Position().Timeline)
	b.Park()
	s.promote(b) // the history file has come, and its number is taken
	s.must(b.Position().Timeline == 3, "promoted onto timeline %d", b.Position().Timeline)
}

// restartedShowsStart: so does the first receiver after a start of Postgres, though everything is on its disk, until WAL comes
// that it did not have (5.7.c).
func restartedShowsStart(s *stage) {
	p := s.Primary("p")
	b := s.follow(p, "b")
	s.write(p)
	s.catchUp(p, b)
	b.Stop()
	b.StartStandby()
	s.streams(p, "b")
	end := p.Position()
	s.must(b.Position() == end, "the standby ends at %s, the primary at %s", b.Position(), end)
	s.stays("it shows the segment's start", func() bool { return b.Received().LSN == end.LSN/segment*segment })
	s.write(p)
	s.holds(p, b)
}

// sessionsOutlive: with the postmaster gone a busy session goes on committing. So the fence kills every process (4.5.b).
func sessionsOutlive(s *stage) {
	p := s.Primary("p")
	begin := p.Position()
	work := p.Work()
	s.until("it commits", func() bool { return p.Position().LSN > begin.LSN })
	p.KillPostmaster()
	at := p.Position()
	s.until("it commits without a postmaster", func() bool { return p.Position().LSN > at.LSN })
	s.acked(work, "the work of a session without postmaster")
	p.Kill()
}

// readerBlocks: replay that waits for a reader holds up the promotion; the reader's end helps, a reload does not
// (5.5.g, 5.6.a).
func readerBlocks(s *stage) {
	p := s.Primary("p")
	b := s.follow(p, "b")
	s.catchUp(p, b)
	b.BlockReplay(p)
	s.holds(p, b)
	p.Kill()
	b.Promote()
	b.ImpatientReplay()
	s.stays("the promotion waits for the reader", b.Recovering)
	b.EndReader()
	s.promoted(b)
}

// endedReceiverKeeps: what a receiver acknowledged is on its disk when it has ended, and nothing more is acknowledged
// (5.2.b, I11). It is a fence whether replay runs or not.
func endedReceiverKeeps(s *stage) {
	p := s.Primary("p", "b")
	b := s.follow(p, "b")
	b.PauseReplay()
	for range 20 {
		last := p.Commit()
		s.acked(last, "a commit")
	}
	end := p.Position()
	b.Park()
	b.EndReceiver()
	at := b.Position()
	s.must(at.LSN >= end.LSN, "acknowledged to %s, kept to %s", end.LSN, at.LSN)
	s.waits(p.Commit(), "a commit without its standby")
	s.must(b.Position() == at, "WAL still came: %s, then %s", at, b.Position())
}

// attachBefore: a standby that attached to another before its promotion is counted on the same connection (3.1.c, 5.5.b).
func attachBefore(s *stage) {
	p := s.Primary("p")
	c, b := s.follow(p, "c", "b_next"), s.follow(p, "b")
	s.write(p)
	s.catchUp(p, c)
	s.catchUp(p, b)
	p.Kill()
	b.Order(c, "b_next")
	s.streams(c, "b_next")
	before := c.Sender("b_next")
	s.promote(c)
	tx := c.Commit()
	s.acked(tx, "the first commit after the promotion")
	s.must(c.Sender("b_next") == before, "it is another WAL sender: %s, before %s", c.Sender("b_next"), before)
	s.must(b.Position().Timeline == 2, "acknowledged on timeline %d", b.Position().Timeline)
}

// noReceiverBehindBacklog: replay asks for a receiver when it has used up all local WAL (5.5.g).
func noReceiverBehindBacklog(s *stage) {
	p := s.Primary("p")
	b := s.follow(p, "b")
	s.catchUp(p, b)
	b.BlockReplay(p)
	s.holds(p, b)
	b.EndReceiver()
	s.stays("no receiver behind a reader", noReceiver(b))
	b.EndReader()
	s.streams(p, "b")
	s.catchUp(p, b)
	b.PauseReplay()
	s.write(p)
	s.holds(p, b)
	b.EndReceiver()
	s.stays("no receiver behind a paused replay", noReceiver(b))
	b.ResumeReplay()
	s.streams(p, "b")
}

// noReceiverBehindPause: nor does a replay that is paused ask for one when it has nothing left to replay.
func noReceiverBehindPause(s *stage) {
	p := s.Primary("p")
	b := s.follow(p, "b")
	s.catchUp(p, b)
	b.PauseReplay()
	s.must(b.Replayed() >= b.Received().LSN, "there is something left to replay")
	b.EndReceiver()
	s.stays("no receiver behind a pause", noReceiver(b))
	b.ResumeReplay()
	s.streams(p, "b")
}

func noReceiver(b Server) func() bool {
	return func() bool { return b.Received() == cluster.Position{} }
}

const segment = 16 << 20

// switchEndsSegment: Postgres counts a switch record's end as the next segment's start, on both sides (5.2.d).
func switchEndsSegment(s *stage) {
	p := s.Primary("p")
	b := s.follow(p, "b")
	s.write(p)
	p.Switch()
	end := p.Position()
	s.must(end.LSN%segment == 0, "the primary has flushed %s after a switch", end.LSN)
	s.holds(p, b)
	b.Park()
	b.EndReceiver()
	s.must(b.Position() == end, "the standby ends at %s, the primary at %s", b.Position(), end)
}

// promotionTakesAll: the new timeline begins where the files end, replayed or not (5.6.c).
func promotionTakesAll(s *stage) {
	p := s.Primary("p")
	b := s.follow(p, "b")
	b.PauseReplay()
	tx := s.write(p)
	s.holds(p, b)
	p.Kill()
	b.Park()
	s.until("the receiver ends", noReceiver(b))
	end := b.Position()
	s.promote(b)
	s.must(b.Switched() == end, "switched at %s, its files ended at %s", b.Switched(), end)
	s.must(b.Has(tx), "what was not replayed is lost")
}

// crashKeeps: what was acknowledged is in the files of a crashed primary, and what waited is after them when it starts
// again: its position says how much it may have acknowledged (5.2.f).
func crashKeeps(s *stage) {
	p := s.Primary("p", "b")
	b := s.follow(p, "b")
	tx := p.Commit()
	s.acked(tx, "a commit")
	acked := p.Position()
	b.Park()
	b.EndReceiver()
	lone := p.Commit()
	s.waits(lone, "a commit without its standby")
	p.Kill()
	end := p.Position()
	s.must(end.LSN > acked.LSN && end.LSN > b.Position().LSN, "acknowledged to %s, the standby has %s, the files end at %s", acked.LSN, b.Position().LSN, end.LSN)
	s.must(p.Position() == end, "the end of a stopped server moved from %s to %s", end, p.Position())
	p.Start()
	s.until("both are there", func() bool { return p.Has(tx) && p.Has(lone) })
}

// cleanStop: a primary that stops waits until its standby has flushed all of its WAL, the last record too, so the old
// primary follows without a rewind (10.1).
func cleanStop(s *stage) {
	p := s.Primary("p")
	b := s.follow(p, "b")
	for range 20 {
		s.write(p)
	}
	tx := s.write(p)
	p.Stop()
	end := p.Position()
	s.must(b.Position() == end, "the stopped primary ends at %s, its standby at %s", end, b.Position())
	s.promote(b)
	s.must(b.Switched() == end, "switched at %s, the old primary ends at %s", b.Switched(), end)
	after := s.write(b)
	p.Order(b, "p")
	p.StartStandby()
	s.streams(b, "p")
	s.catchUp(b, p)
	s.until("the old primary has both", func() bool { return p.Has(tx) && p.Has(after) })
}
