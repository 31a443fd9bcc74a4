// SPDX-License-Identifier: Apache-2.0

package sim

// Mutant is a broken build that the checkers must catch.
type Mutant string

// The mutants, with the rule of PROTOCOL that each breaks.
const (
	MutantNone Mutant = ""

	MutantLSN      Mutant = "candidate by lsn alone"                    // 1.5
	MutantCoverage Mutant = "coverage off by one"                       // 3.2.a
	MutantUnknown  Mutant = "unknown position counted for coverage"     // 3.2.a, 5.2.f
	MutantReport   Mutant = "report before fence"                       // 5.2.b
	MutantEarly    Mutant = "position read before the receiver is gone" // 5.2.b
	MutantConninfo Mutant = "fence by primary_conninfo"                 // 5.2.b
	MutantPark     Mutant = "receiver ended before the file is parked"  // 5.2.b
	MutantUntitled Mutant = "untitled child ignored"                    // 5.2.b
	MutantFiles    Mutant = "position from files while a process lives" // 5.2.f
	MutantPromise  Mutant = "promise is not durable"                    // 1.7
	MutantView     Mutant = "position by received_tli"                  // 5.2.d
	MutantStale    Mutant = "report of an older election accepted"      // 5.2.g
	MutantGuards   Mutant = "guards not rechecked at apply"             // 2.4
	MutantOutside  Mutant = "winner outside the set"                    // 2.4
	MutantTwo      Mutant = "two open elections"                        // 2.3
	MutantVoid     Mutant = "void timeline discounted in the choice"    // 5.5.e

	MutantAttach    Mutant = "diverged node attaches"                        // 5.5.c, 5.5.e
	MutantTimeline  Mutant = "timeline is the parent's plus one"             // 5.5.a
	MutantCutOff    Mutant = "read-write start after a crash in promotion"   // 5.6.e
	MutantFlushed   Mutant = "flushed is a lie"                              // 5.7.c
	MutantFlushedTL Mutant = "flushed without timeline"                      // 5.7.c
	MutantGap       Mutant = "stub below the newest timeline stripped"       // 5.5.f
	MutantReader    Mutant = "reader left in the way of the re-attach"       // 5.5.g
	MutantReboot    Mutant = "restart in place after a reboot of the kernel" // 5.8
	MutantAlone     Mutant = "served without a majority of grants"           // 4.1, 5.6.a

	MutantClock    Mutant = "clocks drift without bound"        // 4.4
	MutantNoWait   Mutant = "no lease wait"                     // 5.3.c
	MutantLeader   Mutant = "leader-only lease"                 // 4.1
	MutantReceipt  Mutant = "expiry from the receipt"           // 4.1
	MutantForgets  Mutant = "restarted voter forgets its grant" // 4.2
	MutantGrants   Mutant = "grant after the fence"             // 4.3
	MutantNoKill   Mutant = "neither pid 1 nor watchdog kills"  // 4.5
	MutantPostm    Mutant = "kill of the postmaster alone"      // 4.5.b
	MutantWatchdog Mutant = "watchdog absent"                   // 4.5.c
	MutantShorter  Mutant = "smaller lease at once"             // 4.7
	MutantFsync    Mutant = "promise fsync error survived"      // 4.9

	MutantEvidence Mutant = "a time-out counts as evidence"          // 6.3
	MutantOwnClose Mutant = "our own close counts as evidence"       // 6.3
	MutantAsync    Mutant = "async skips the lease wait on evidence" // 3.5.c
	MutantGoodbye  Mutant = "goodbye before postgres has ended"      // 6.1

	MutantBarrier  Mutant = "no barrier"                                // 3.3.a
	MutantReplaces Mutant = "pending set replaces the set for coverage" // 3.3.a
	MutantEmpty    Mutant = "empty list at start"                       // 3.1.e
	MutantArmed    Mutant = "k 0 to 1 without the checkpoints"          // 3.3.e
	MutantName     Mutant = "name without epoch"                        // 3.1.b

	MutantSameInc Mutant = "incarnation of a wiped volume reused"  // 1.3
	MutantOldBoot Mutant = "older boot number accepted"            // 1.13
	MutantMarker  Mutant = "no marker on a half-rewound directory" // 8.2
	MutantRewind  Mutant = "rewind before the source's checkpoint" // 8.3.c
)

// fencesLate: the position is read before the receiver is gone.
func (m Mutant) fencesLate() bool { return m == MutantReport || m == MutantEarly }

// Mutants lists all.
func Mutants() []Mutant {
	var all []Mutant
	for _, x := range mutants {
		all = append(all, x.name)
	}
	return all
}

// mutantSpec is what a run of a mutant needs beside what the seed draws.
type mutantSpec struct {
	name     Mutant
	most     int      // seeds within which it must be caught
	with     []string // faults that it takes
	liveness bool     // it breaks no more than liveness
	draft    bool     // not caught yet, or not tried enough: said, and no failure
	opt      func(*Options)
}

func five(o *Options)    { o.Data, o.Witnesses = 5, 0 }
func async(o *Options)   { o.Mode = "async" }
func growing(o *Options) { o.Early, o.Founded = true, true }

var mutants = []mutantSpec{
	{name: MutantCoverage, most: 40},
	{name: MutantUnknown, most: 100, with: []string{"kill all"}},
	{name: MutantReport, most: 200, with: []string{"forge resets"}},
	{name: MutantEarly, most: 200, with: []string{"forge resets"}},
	{name: MutantConninfo, most: 200, with: []string{"forge resets", "block replay"}},
	{name: MutantPark, most: 200, with: []string{"forge resets"}},
	{name: MutantUntitled, most: 400, draft: true, with: []string{"forge resets", "cut replication"}},
	{name: MutantFiles, most: 100, with: []string{"kill postgres"}},
	{name: MutantPromise, most: 80},
	{name: MutantView, most: 100, draft: true, with: []string{"kill"}},
	{name: MutantStale, most: 100, with: []string{"kill"}},
	{name: MutantGuards, most: 100},
	{name: MutantOutside, most: 200, draft: true, with: []string{"wipe", "kill"}, opt: growing},
	{name: MutantTwo, most: 400},
	{name: MutantVoid, most: 400, with: []string{"kill", "isolate", "forge resets"}},
	{name: MutantAttach, most: 80},
	{name: MutantTimeline, most: 100, with: []string{"kill"}},
	{name: MutantCutOff, most: 200, draft: true, with: []string{"kill", "kill and restart at once"}},
	{name: MutantFlushed, most: 80},
	{name: MutantFlushedTL, most: 200, draft: true, with: []string{"kill"}},
	{name: MutantGap, most: 200, with: []string{"kill all", "kill"}, liveness: true},
	{name: MutantReader, most: 100, with: []string{"block replay", "kill"}, liveness: true},
	{name: MutantReboot, most: 100, with: []string{"reboot"}},
	{name: MutantAlone, most: 100, with: []string{"isolate"}},
	{name: MutantClock, most: 80},
	{name: MutantNoWait, most: 400, with: []string{"hung disk", "cut replication", "cut one way"}},
	{name: MutantLeader, most: 1000, with: []string{"split"}, opt: five},
	{name: MutantReceipt, most: 200, with: []string{"slow link", "isolate"}},
	{name: MutantForgets, most: 1000, with: []string{"kill", "kill and restart at once", "cut one way"}},
	{name: MutantGrants, most: 200, with: []string{"hung disk", "cut one way"}},
	{name: MutantNoKill, most: 80},
	{name: MutantPostm, most: 100},
	{name: MutantWatchdog, most: 100, with: []string{"stop pid 1"}},
	{name: MutantShorter, most: 400, with: []string{"set lease", "isolate", "cut one way"}},
	{name: MutantFsync, most: 200, with: []string{"full disk", "kill"}},
	{name: MutantEvidence, most: 80},
	{name: MutantOwnClose, most: 200, with: []string{"close a link"}},
	{name: MutantAsync, most: 200, with: []string{"forge resets"}, opt: async},
	{name: MutantGoodbye, most: 40, with: []string{"stop"}},
	{name: MutantBarrier, most: 200, with: []string{"kill", "cut replication"}, opt: growing},
	{name: MutantReplaces, most: 400, draft: true, with: []string{"kill", "cut replication"}, opt: growing},
	{name: MutantEmpty, most: 100, with: []string{"kill", "cut replication"}},
	{name: MutantArmed, most: 400, with: []string{"kill", "cut replication"}, opt: growing},
	{name: MutantName, most: 400, draft: true, with: []string{"cut links only", "switchover"}, opt: five},
	{name: MutantSameInc, most: 100, with: []string{"wipe"}},
	{name: MutantOldBoot, most: 200, with: []string{"roll back"}},
	{name: MutantMarker, most: 100, with: []string{"forge resets", "kill", "kill and restart at once"}},
	{name: MutantRewind, most: 300, with: []string{"forge resets", "isolate"}},
}
