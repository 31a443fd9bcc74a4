// SPDX-License-Identifier: Apache-2.0

package model

// Row says of a mutant which rule it breaks, in which world it is looked for and what must break.
type Row struct {
	Mutant Mutant
	Name   string
	Rule   string
	World  World
	Breaks set
}

func broken(vs ...violation) set {
	var s set
	for _, v := range vs {
		s |= id(v).set()
	}
	return s
}

func (mut Mutant) row() Row {
	for _, r := range append(Mutants(), Held()...) {
		if r.Mutant == mut {
			return r
		}
	}
	return Row{}
}

// world is the base of the bounds of mutants.
func world(change func(*World)) World {
	w := World{Name: "three", Nodes: 3, Set: 7, Epochs: 3, Lag: 4, Crashes: 1, Writes: 1}
	change(&w)
	return w
}

func two(w *World)     { w.Epochs = 2 }
func three(*World)     {}
func three2(w *World)  { w.Writes = 2 }
func three22(w *World) { w.Writes, w.Crashes = 2, 2 }
func four(w *World) {
	w.Epochs, w.Crashes, w.Lag = 4, 2, 3
	w.Skip = 1<<doAttach | 1<<doAdmit | 1<<doStart | 1<<doRewind | 1<<doExpire | 1<<doPromoted
}

// alone: commits are on the first primary only; two other data nodes vote.
func alone(w *World) { w.Name, w.Set = "set of one", 1 }

func aloneGrows(w *World) { w.Name, w.Set, w.Epochs, w.Changes = "set of one grows", 1, 2, 1 }

func pairShrinks(w *World) {
	w.Name, w.Set, w.Epochs, w.Changes, w.Reverts = "set of two changes", 3, 2, 1, 1
}

func pairElects(w *World) { w.Name, w.Set, w.Changes = "set of two changes", 3, 1 }

// swaps: the third node is replaced.
func swaps(w *World) {
	w.Name, w.Set, w.Epochs, w.Wipes, w.Conf, w.Crashes, w.Writes = "third node replaced", 3, 2, 1, 1, 0, 0
}

func swapsFar(w *World) { swaps(w); w.Lag = 5 }

// joins: a fourth node becomes a learner.
func joins(w *World) {
	w.Name, w.Nodes, w.Set, w.Outside, w.Epochs, w.Conf, w.Crashes, w.Writes = "fourth node joins", 4, 7, 8, 2, 1, 0, 0
}

func wiped(w *World) { w.Name, w.Epochs, w.Wipes, w.Crashes, w.Writes = "wipe", 2, 1, 0, 0 }

func five(w *World) { w.Name, w.Nodes, w.Epochs, w.Crashes = "five, set of three", 5, 2, 0 }

func proof(w *World) { w.Name, w.Evidence, w.Epochs = "evidence", true, 2 }

func setBack(w *World) { w.Name, w.Rollbacks, w.Crashes, w.Epochs = "volume set back", 1, 2, 2 }

// Mutants lists those that must yield a story.
func Mutants() []Row {
	i1, i2, i5, all := broken(brokenI1), broken(brokenI2), broken(brokenI5), set(0)
	lost, mixed := broken(brokenI1, brokenI5), broken(brokenI1, brokenI12)
	return []Row{
		{ByLSNAlone, "candidate by LSN alone", "1.5", world(three2), i1},
		{CoverageOffByOne, "coverage off by one", "3.2.a", world(five), i1},
		{UnknownCounts, "unknown position counts for coverage", "3.2.a, 5.2.f", world(three22), i1},
		{ReportBeforeFence, "report before the fence", "5.2.b", world(two), i1},
		{PromiseLostUnregistered, "promise not durable and boot not registered", "1.7, 1.13", world(two), i2},
		{OldReports, "report of an older election accepted", "5.2.g", world(three), i1},
		{GuardsNotRechecked, "guards not checked again at apply", "2.4", world(two), i2},
		{WinnerOutsideSet, "winner outside the set", "2.4", world(alone), lost},
		{VoidDiscounted, "void timeline discounted in the choice", "5.5.e", world(four), i1},
		{VoidAttached, "void timeline allowed to attach", "5.5.e", world(three2), mixed},
		{PositionByReceived, "position by received_tli", "5.2.d", world(three), i1},
		{TimelineParentPlusOne, "timeline = parent + 1", "5.5.a", world(three), mixed},
		{DivergedAttached, "diverged WAL receiver attached", "5.5.c", world(three2), i1},
		{RecoveringUnchecked, "attach to a recovering primary unchecked", "5.5.c", world(three2), i1},
		{PromotionWithoutLease, "promotion without a lease", "5.6.a", world(three), i2},
		{AdmittedUnflushed, "admission without the flush of the current timeline", "5.7.c", world(three), i5},
		{SendersAndUnchecked, "pg_stat_replication as proof, and a diverged receiver", "5.7.c", world(three2), i5},
		{RestartUnadmitted, "restart in place without admission", "5.7", world(two), i5},
		{RestartWithoutLease, "restart in place without a lease", "5.8", world(two), i2},
		{NoLeaseWait, "no lease wait", "5.3.c", world(two), i2},
		{LeaderOnlyLease, "lease from one voter", "4.1", world(five), i2},
		{RestartForgetsGrant, "restarted voter forgets its grant", "4.2", world(two), i2},
		{GrantAfterFence, "grant after the fence", "4.3", world(two), i2},
		{GrantsOfOldVoters, "grants of the old voters kept", "4.6.a", world(swaps), i2},
		{JointSwap, "joint swap, and a majority of the new voters alone", "4.6.b, 9.7", world(swaps), i2},
		{VotersConfirmedAtOnce, "second step before the barrier", "4.6.a, 9.8", world(swapsFar), i2},
		{LearnerCounted, "learner counted", "4.6.c", world(joins), i2},
		{NoKill, "no kill at the end of the lease", "4.5", world(two), i2},
		{OwnFenceBeforeKill, "own fence reported before the kill", "5.2.a", world(two), all},
		{TimeoutIsEvidence, "a time-out is evidence", "6.3", world(proof), i2},
		{EvidenceOutlivesGrant, "evidence of another boot counts, and outlives a grant", "6.4", world(proof), i2},
		{NoBarrier, "no barrier", "3.3.a", world(aloneGrows), i1},
		{NoBarrierBack, "take-back without barrier", "3.3.d", world(pairShrinks), i1},
		{PendingForSet, "pending set replaces the set for coverage", "3.3.a", world(aloneGrows), i1},
		{PendingIgnored, "pending set ignored by coverage", "3.3.a", world(pairShrinks), i1},
		{PendingDropped, "pending dropped by a new epoch", "3.3.b", world(pairElects), i1},
		{ListsOldD, "a new or restarted primary lists the old set", "3.3.b", world(aloneGrows), i1},
		{SettledUnlisted, "settled without listing it", "3.3.a", world(aloneGrows), i1},
		{PrimaryOutsideSet, "primary outside the new set", "3.3.c", world(pairShrinks), i1},
		{EmptyListAtStart, "empty list at start", "3.1.e", world(three), lost},
		{IncarnationReused, "incarnation reused to grant", "1.3", world(wiped), i2},
		{OldBootAccepted, "older boot number accepted", "1.13", world(setBack), lost},
		{FloorForgotten, "floor forgotten", "8.4", world(three22), i1},
	}
}

// Held lists guards that may be missing alone: another one holds what they hold, in every state within the bounds of
// their world. The name says which.
func Held() []Row {
	safe := broken(brokenI1, brokenI2, brokenI5, brokenI12)
	return []Row{
		{PromiseNotDurable, "promise not durable: a boot is registered before it acts (1.13)", "1.7", world(two), safe},
		{AdmittedEarly, "admission before Promoted: the lease and the flush quorum are there", "5.7.b", world(three), safe},
		{SendersAsProof, "pg_stat_replication as proof: only prefixes are attached (5.5.c)", "5.7.c", world(three), safe},
		{NewVotersAlone, "majority of the new voters alone: one voter per change (4.6.b)", "4.6.b", world(swaps), safe},
		{EvidenceOfOtherBoot, "evidence of another boot counts: a grant voids it (6.4)", "6.4", world(proof), safe},
		{EvidenceKept, "evidence outlives a grant: it is of another boot (6.4)", "6.4", world(proof), safe},
		{TwoMembersPerStep, "two members per step: elections need both sets (3.3.a)", "3.3.b", world(aloneGrows), safe},
		{ChangeDuringElection, "change during an election: Elect is checked again (2.4)", "3.3.c", world(aloneGrows), safe},
		{NameWithoutEpoch, "name without epoch: with k = 1 no follower diverges", "3.1.b", world(two), safe},
	}
}

// Worlds are the bounds of `make test`.
func Worlds() []World {
	return []World{
		{Name: "three", Nodes: 3, Set: 7, Epochs: 3, Lag: 4, Crashes: 1, Writes: 1},
		{Name: "set of two", Nodes: 3, Set: 3, Epochs: 3, Lag: 4, Crashes: 1, Writes: 1},
		{Name: "evidence", Nodes: 3, Set: 7, Epochs: 2, Lag: 4, Crashes: 1, Writes: 1, Evidence: true},
		{Name: "set of one grows", Nodes: 3, Set: 1, Epochs: 2, Lag: 4, Crashes: 1, Writes: 1, Changes: 1},
		{Name: "set of two changes", Nodes: 3, Set: 3, Epochs: 2, Lag: 3, Crashes: 0, Writes: 1, Changes: 1, Reverts: 1},
		{Name: "set of two changes, and a crash", Nodes: 3, Set: 3, Epochs: 2, Lag: 3, Crashes: 1, Writes: 1, Changes: 1},
		{Name: "two and a witness", Nodes: 3, Set: 3, Witness: 4, Epochs: 2, Lag: 3, Crashes: 1, Writes: 1, Changes: 1, Reverts: 1},
		{Name: "third node replaced", Nodes: 3, Set: 3, Epochs: 2, Lag: 3, Crashes: 0, Writes: 1, Wipes: 1, Conf: 1},
		{Name: "volume set back", Nodes: 3, Set: 7, Epochs: 2, Lag: 3, Crashes: 2, Writes: 1, Rollbacks: 1},
		{Name: "five", Nodes: 5, Set: 31, Epochs: 2, Lag: 3, Crashes: 0, Writes: 1},
		{Name: "five, set of three", Nodes: 5, Set: 7, Epochs: 2, Lag: 2, Crashes: 0, Writes: 1},
	}
}

// LargeWorlds are those of `make model-large`.
func LargeWorlds() []World {
	return []World{
		{Name: "three, two writes", Nodes: 3, Set: 7, Epochs: 3, Lag: 4, Crashes: 1, Writes: 2},
		{Name: "three, two crashes", Nodes: 3, Set: 7, Epochs: 3, Lag: 4, Crashes: 2, Writes: 1},
		{Name: "set of two", Nodes: 3, Set: 3, Epochs: 3, Lag: 4, Crashes: 2, Writes: 2},
		{Name: "set of two changes", Nodes: 3, Set: 3, Epochs: 2, Lag: 4, Crashes: 1, Writes: 1, Changes: 2, Reverts: 1},
		{Name: "two and a witness", Nodes: 3, Set: 3, Witness: 4, Epochs: 3, Lag: 4, Crashes: 1, Writes: 1, Changes: 1, Reverts: 1},
		{Name: "third node replaced", Nodes: 3, Set: 3, Epochs: 2, Lag: 4, Crashes: 1, Writes: 1, Wipes: 1, Conf: 1, Changes: 1},
		{Name: "five, set of three", Nodes: 5, Set: 7, Epochs: 2, Lag: 3, Crashes: 1, Writes: 1},
	}
}
