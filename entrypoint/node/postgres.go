// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/pgctl"
	"github.com/pgquorum/pgquorum/pgctl/conf"
	"github.com/pgquorum/pgquorum/pgctl/promote"
)

// postgres is what a node needs of its Postgres: *pgctl.Postgres, which says what each of them does. The order in which a
// task calls them is this package's, and tests look at it.
type postgres interface {
	Init(ctx context.Context) error
	Prepare(ctx context.Context) error
	Recover(ctx context.Context) error
	Disk(ctx context.Context) (pgctl.Disk, error)
	Space() (cluster.Space, error)

	Start(ctx context.Context, spec pgctl.StartSpec) error
	Stop(ctx context.Context, spec pgctl.StopSpec) (pgctl.Stopped, error)
	Kill() error
	Gone(ctx context.Context) error
	Running() bool
	Exits() <-chan pgctl.Exit

	Fence(ctx context.Context) (pgctl.Fenced, error)
	Position(ctx context.Context) pgctl.Fenced
	HighestTimeline() (cluster.Timeline, error)
	OldestWAL() (cluster.LSN, error)
	MoveForeign(t cluster.Timeline, h cluster.History) (int, error)
	Plug(own, next cluster.Timeline) error
	Order(ctx context.Context, o pgctl.Order) error
	EndSender(ctx context.Context, slot string) (flush cluster.LSN, err error)
	ResumeReplay(ctx context.Context) (ended int, err error)
	Received(ctx context.Context) (pgctl.Receiver, error)

	CloseGateFor(ctx context.Context, s pgctl.Settings) error
	OpenGateFor(ctx context.Context, s pgctl.Settings) error
	GateGone(ctx context.Context) error
	OpenGate(ctx context.Context) error
	Promote(ctx context.Context, t cluster.Timeline, elected cluster.Position) (promote.Result, error)

	Reload() error
	Apply(ctx context.Context, s pgctl.Settings) error
	Settle(ctx context.Context, spec pgctl.SettleSpec) (cluster.LSN, error)
	AwaitSettings(ctx context.Context) error
	CheckSettings(ctx context.Context) error
	QuickWAL(on bool) error
	RefreshHBA() (changed bool, err error)
	UndoOverrides(ctx context.Context) ([]conf.Setting, error)

	Observe(ctx context.Context) (pgctl.Status, error)
	EnsureRole(ctx context.Context) (changed bool, err error)
	EnsureSlots(ctx context.Context, want []string, advance map[string]cluster.LSN) error
	Checkpoint(ctx context.Context) error

	Rewind(ctx context.Context, src pgctl.Source, want pgctl.Expect) error
	Clone(ctx context.Context, src pgctl.Source, id cluster.SystemID, progress func(done, total int64)) error
	ConfirmStreaming() error
	MakeBallast(ctx context.Context) error
	DropBallast() error
}
