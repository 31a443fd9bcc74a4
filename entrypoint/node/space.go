// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"time"

	"github.com/pgquorum/pgquorum/agent"
)

// watchSpace tells the machine what the device of the WAL has left, as long as the node lives.
func (n *node) watchSpace(ctx context.Context) {
	failed := ""
	for ctx.Err() == nil {
		s, err := n.pg.Space()
		switch {
		case err != nil && err.Error() != failed:
			failed = err.Error()
			n.log.Warn("disk space is not known", "err", err)
		case err == nil:
			failed = ""
		}
		n.loop.Post(agent.SpaceSeen{Space: s}) // without the facts after an error: old ones say nothing
		select {
		case <-ctx.Done():
		case <-time.After(s.LookAgain()):
		}
	}
}

func (s *shell) makeBallast(ctx context.Context) error {
	if err := s.n.pg.MakeBallast(ctx); err != nil {
		return err
	}
	s.n.log.Info("ballast made: a promotion on a full disk deletes it")
	return nil
}

// letGo deletes the ballast of a tight disk before Postgres becomes read-write, or follows a new timeline (PROTOCOL 12.5).
// If it stays, that is tried all the same.
func (s *shell) letGo(t agent.Task) {
	if !t.LetGo {
		return
	}
	if err := s.n.pg.DropBallast(); err != nil {
		s.n.log.Warn("ballast not deleted", "err", err)
		return
	}
	s.n.log.Warn("the disk is tight: ballast deleted")
}

// slowWAL ends what an order or a promotion began: once the first segment of the timeline is there, new ones are
// filled with zeros again; at once on a disk below its limit, where a segment that has not got all its blocks ends Postgres
// when it gets none (PROTOCOL 12.2.b).
func (s *shell) slowWAL(ctx context.Context, t agent.Task) error {
	pg := s.n.pg
	switch {
	case t.Settings.FastWAL:
		return nil
	case !t.Primary && !t.Tight:
		if rec, err := pg.Received(ctx); err != nil || rec.Timeline != t.Timeline || rec.Flushed == 0 {
			return err
		}
	}
	return pg.QuickWAL(false)
}
