// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"time"
)

// World is a cluster under a writer that never pauses. Whatever does something returns when its effect is proven;
// whatever waits has a limit of its own, and says at the end of it what was missing.
type World interface {
	Asks
	Faults
	Waits
	Checks
	// Mark begins a new count for Rule and Outage: something is about to be done.
	Mark(ctx context.Context) error
}

// Asks are questions about now.
type Asks interface {
	Data() []string // the nodes that have data, by name
	Primary(ctx context.Context) (string, error)
	Elected(ctx context.Context) (string, error) // primary of the newest epoch, whether it serves or not
	Leader(ctx context.Context) (string, error)  // of raft
	Epoch(ctx context.Context) (uint64, error)
	// Outage is the longest time without an acknowledged write since the last mark. On real clocks it is told, not judged.
	Outage(ctx context.Context) (d time.Duration, judge bool, err error)
}

// Faults change something. Where a list of nodes is empty all are meant that are up (for Start: down), at once; a node that
// is named must be so.
type Faults interface {
	Kill(ctx context.Context, part string, nodes ...string) error // part: container, postgres
	Bounce(ctx context.Context, nodes ...string) error            // killed, and started again at once by the restart policy
	Stop(ctx context.Context, nodes ...string) error
	Start(ctx context.Context, nodes ...string) error
	Reboot(ctx context.Context, node string) error
	Freeze(ctx context.Context, part string, node string) error // part: container, postgres, init
	Thaw(ctx context.Context, node string) error
	Cut(ctx context.Context, what, node string, from ...string) error // what: raft, replication, all
	Heal(ctx context.Context) error                                   // ends every cut and freeze
	Wipe(ctx context.Context, node string) error                      // leaves it down, with an empty volume
	Save(ctx context.Context, node string) error                      // a copy of the volume of a node that is down
	Restore(ctx context.Context, node string) error                   // the copy again
	DropWAL(ctx context.Context, node string) error                   // what it does not need itself
	GrowWAL(ctx context.Context, node string) error
	BlockReplay(ctx context.Context, node string) error
	Promote(ctx context.Context, node string) error // pg_promote(), which nobody should call
	Switchover(ctx context.Context, to string) error
	// Strike is a fault of the simulation's plans; primary: it hits the primary if one serves, else the node.
	Strike(ctx context.Context, kind, node string, primary bool, seed uint64) error
	Pass(ctx context.Context, d time.Duration) error
}

// Waits are for conditions.
type Waits interface {
	Redundant(ctx context.Context) error
	// Serves: clients are served, in the newest epoch, by who suits, and a write that began meanwhile is acknowledged.
	Serves(ctx context.Context, suits func(primary string) error) error
	Acked(ctx context.Context, n int) error // more writes, begun from now on
	Ahead(ctx context.Context, node string, bytes uint64) error
	Followed(ctx context.Context, rule, node string) error // since the last mark; node empty: by any
	Rewinding(ctx context.Context, node string) error
	Refused(ctx context.Context, node string) error // the cluster does not let its volume in
}

// Checks look at what is there.
type Checks interface {
	NoLoss(ctx context.Context) error
	OnePrimary(ctx context.Context) error
	NoWrite(ctx context.Context, d time.Duration) error // for so long nothing is acknowledged
	Rule(ctx context.Context, rule, node string) (int, error)
}
