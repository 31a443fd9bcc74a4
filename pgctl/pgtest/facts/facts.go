// SPDX-License-Identifier: Apache-2.0

package facts

// All are the facts, in the order of docs/contracts.md.
func All() []Fact {
	return []Fact{
		{"diverged receiver counts", "S0.1, E27", divergedCounts},
		{"conninfo does not end a receiver", "S0.2, E3", conninfoEndsNothing},
		{"timelines collide", "S0.3, E1", timelinesCollide},
		{"stubs plug timelines", "S0.3, E2", stubsPlug},
		{"recovery ends at a gap", "5.5.f", recoveryEndsAtGap},
		{"rewind needs the checkpoint", "S0.4, E46", rewindNeedsCheckpoint},
		{"list armed late", "S0.5, E4", listArmedLate},
		{"list armed before", "S0.5, E4i", listArmedBefore},
		{"waiting commit is invisible", "S0.6, E6", waitingIsInvisible},
		{"stop makes it visible", "S0.6, E6", stopMakesVisible},
		{"wait ends with the standby", "3.1", waitEndsWithStandby},
		{"wait ends with the list", "3.3", waitEndsWithList},
		{"listed name counts", "S0.7, E5", listedNameCounts},
		{"slot admits one", "S0.7, E5", slotAdmitsOne},
		{"received timeline jumps", "S0.8, E3d", receivedJumps},
		{"restarted receiver shows too little", "5.7.c", restartedShowsStart},
		{"sessions outlive the postmaster", "S0.9, E7", sessionsOutlive},
		{"reader blocks promotion", "S0.11, E48", readerBlocks},
		{"ended receiver keeps what it acknowledged", "E49", endedReceiverKeeps},
		{"attach before the promotion", "E50", attachBefore},
		{"no receiver behind a backlog", "E55", noReceiverBehindBacklog},
		{"no receiver behind a pause", "E55", noReceiverBehindPause},
		{"switch record ends a segment", "E55", switchEndsSegment},
		{"promotion takes all WAL", "5.6.c", promotionTakesAll},
		{"crash keeps what was acknowledged", "5.2.f", crashKeeps},
		{"clean stop leaves nothing behind", "E14, 10.1", cleanStop},
	}
}

// divergedCounts: a WAL receiver that has diverged acknowledges commits that it does not hold, so none may reach a
// primary unchecked (5.5.c).
func divergedCounts(s *stage) {
	old := s.Primary("old")
	next := s.follow(old, "next")
	s.write(old) // the two share a part of the segment: a receiver begins at its start
	s.catchUp(old, next)
	next.Park()
	next.EndReceiver()
	var lost Tx
	for range 200 { // more than the next epoch will write
		lost = s.write(old)
	}
	s.promote(next)
	next.List("diverged")
	next.Checkpoint() // until it waits at all: see listArmedLate
	next.Checkpoint()
	old.Kill()
	tx := next.Commit()
	s.waits(tx, "a commit without its standby")
	old.Order(next, "diverged")
	old.StartStandby()
	s.acked(tx, "a commit with a diverged standby")
	s.must(old.Has(lost) && !old.Has(tx), "it has not diverged: the lost commit is there %t, the new one %t", old.Has(lost), old.Has(tx))
}

// conninfoEndsNothing: the setting is looked at when replay wants more WAL, so it is no fence (1.8, 5.2.b).
func conninfoEndsNothing(s *stage) {
	p := s.Primary("p", "b")
	b := s.follow(p, "b")
	s.acked(p.Commit(), "a commit")
	b.PauseReplay()
	b.ClearConninfo()
	s.stays("the receiver lives", func() bool { return p.Sender("b") != "" })
	s.acked(p.Commit(), "a commit by a standby without primary_conninfo")
	b.ResumeReplay()
	s.until("the receiver ends", func() bool { return p.Sender("b") == "" })
	s.waits(p.Commit(), "a commit")
}

// timelinesCollide: two promotions from one parent take the same number, and pg_rewind sees no difference. So the log
// assigns timelines (5.5.a).
func timelinesCollide(s *stage) {
	a, b := s.siblings()
	for _, x := range []Server{a, b} {
		s.promote(x)
		s.write(x)
		x.Checkpoint()
		s.must(x.Position().Timeline == 2, "promoted onto timeline %d", x.Position().Timeline)
	}
	b.Stop()
	s.must(!b.Rewind(a), "pg_rewind tells two timelines 2 apart")
}

// siblings are two standbys that hold the same, and whose upstream is gone.
func (s *stage) siblings() (a, b Server) {
	p := s.Primary("p")
	a, b = s.follow(p, "a"), s.follow(p, "b")
	s.write(p)
	s.catchUp(p, a)
	s.catchUp(p, b)
	p.Kill()
	return a, b
}

// stubsPlug: history files of the numbers below make a promotion take a number that was assigned (5.6.b).
func stubsPlug(s *stage) {
	a, b := s.siblings()
	a.Plug(3)
	b.Plug(5)
	s.promote(a)
	s.promote(b)
	s.must(a.Position().Timeline == 3 && b.Position().Timeline == 5, "promoted onto timelines %d and %d", a.Position().Timeline, b.Position().Timeline)
	b.Stop()
	a.Checkpoint()
	s.must(b.Rewind(a), "pg_rewind does not tell timelines 3 and 5 apart")
}

// recoveryEndsAtGap: recovery finds its newest timeline by counting up from the control file's, so a standby that is
// started without the stubs that its upstream had leaves out WAL that it holds (5.5.f).
func recoveryEndsAtGap(s *stage) {
	a, b := s.siblings()
	a.Plug(3)
	s.promote(a)
	b.Order(a, "b")
	s.write(a)
	s.streams(a, "b")
	s.catchUp(a, b)
	b.Kill()
	end := b.Position()
	s.must(end == a.Position() && end.Timeline == 3, "it holds %s, its upstream %s", end, a.Position())
	b.Park()
	b.Unplug()
	b.StartStandby()
	s.stays("recovery ends before its WAL does", func() bool { return b.Replayed() < end.LSN })
	b.Kill()
	b.Plug(3)
	b.StartStandby()
	s.until("recovery goes on", func() bool { return b.Replayed() >= end.LSN })
}

// rewindNeedsCheckpoint: until the source's first checkpoint on its timeline pg_rewind of 15 finds no difference (8.3.c).
func rewindNeedsCheckpoint(s *stage) {
	p := s.Primary("p")
	b := s.follow(p, "b")
	s.catchUp(p, b)
	b.HoldCheckpointer()
	s.promote(b)
	lost := s.write(p)
	p.Stop()
	if s.Version() == 15 {
		s.must(!p.Rewind(b), "15 rewinds before the checkpoint now: 8.3.c may rest")
	}
	b.FreeCheckpointer()
	b.Checkpoint()
	s.must(p.Rewind(b), "not rewound after the checkpoint")
	p.Order(b, "p")
	p.StartStandby()
	s.streams(b, "p")
	s.catchUp(b, p)
	s.must(!p.Has(lost), "what was lost is still there after the rewind")
}

// listArmedLate: whether a commit waits at all is a flag of the checkpointer's (3.1.e, 3.3.e).
func listArmedLate(s *stage) {
	p := s.Primary("p")
	p.HoldCheckpointer()
	p.List("nobody")
	s.acked(p.Commit(), "a commit under a list that the checkpointer has not seen")
	p.FreeCheckpointer()
	p.Checkpoint()
	p.Checkpoint()
	s.waits(p.Commit(), "a commit after the checkpoints")
}

// listArmedBefore: a list that a standby shows before its promotion holds its first commit (3.1.e).
func listArmedBefore(s *stage) {
	p := s.Primary("p")
	b := s.follow(p, "b", "nobody")
	s.catchUp(p, b)
	p.Kill()
	s.promote(b)
	s.waits(b.Commit(), "the first commit after the promotion")
}

// waitingIsInvisible: a crash makes a waiting commit visible and nobody was told, so a primary serves only what the
// quorum has (5.7.c).
func waitingIsInvisible(s *stage) {
	p := s.Primary("p", "nobody")
	tx := p.Commit()
	s.waits(tx, "a commit without its standby")
	s.must(!p.Has(tx), "a waiting commit is visible")
	p.Kill()
	s.until("its client is told", tx.Failed)
	p.Start()
	s.until("it is visible after the crash", func() bool { return p.Has(tx) })
	s.must(!tx.Acked(), "acknowledged although nobody has it")
}

// stopMakesVisible: so does a clean stop (5.7, 10.1).
func stopMakesVisible(s *stage) {
	p := s.Primary("p", "nobody")
	tx := p.Commit()
	s.waits(tx, "a commit without its standby")
	p.Stop()
	s.until("its client is told", tx.Failed)
	p.Start()
	s.until("it is visible after the stop", func() bool { return p.Has(tx) })
}

// waitEndsWithStandby: a commit waits while its standby is away, and not longer (3.1.a).
func waitEndsWithStandby(s *stage) {
	p := s.Primary("p", "b")
	b := s.follow(p, "b")
	s.acked(p.Commit(), "a commit")
	b.Park()
	b.EndReceiver()
	tx := p.Commit()
	s.waits(tx, "a commit without its standby")
	b.Order(p, "b")
	s.acked(tx, "a commit whose standby is back")
	s.must(p.Has(tx), "an acknowledged commit is not visible")
}

// waitEndsWithList: a list that the standbys of now satisfy ends the wait of commits from before it (3.3), at the next
// reply of a standby: until then a changed list alone ends nothing.
func waitEndsWithList(s *stage) {
	p := s.Primary("p", "nobody")
	s.follow(p, "b")
	tx := p.Commit()
	s.waits(tx, "a commit whose standby is not listed")
	p.List("b")
	s.acked(p.Commit(), "a commit whose standby is listed")
	s.acked(tx, "a commit from before the list")
}
