// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"testing"

	"github.com/pgquorum/pgquorum/cluster"
)

// TestCloneOfAStandby: an empty node clones a standby that follows and is close, before the primary's checkpoint is
// done too; after a failure it is the primary's turn (PROTOCOL 8.5, 1.11).
func TestCloneOfAStandby(t *testing.T) {
	at := cluster.Position{Timeline: 2, LSN: 0x3000000}
	primary := cluster.Status{Role: cluster.RoleServing, Epoch: 2, Known: true, Position: at, Port: 5432, Serving: true, Checkpoint: true}
	standby := cluster.Status{Role: cluster.RoleFollowing, Epoch: 2, Known: true, Streaming: true, Position: at, Port: 5433}
	empty := func(s cluster.Status) *lab {
		l := newLab(t, 2, healthy(), nil)
		l.from(1, cluster.Envelope{Status: &primary})
		l.from(3, cluster.Envelope{Status: &s})
		l.done(TaskLook, Result{Disk: cluster.DiskEmpty})
		return l
	}
	l := empty(standby)
	c := l.task(TaskClone)
	if c == nil || c.Host != "c" || c.Port != 5433 {
		t.Fatalf("rule %s, clone %+v", l.m.rule, c)
	}
	l.step(Done{ID: c.ID, Err: errors.New("the standby was promoted during online backup")})
	l.now += retryMost
	l.from(1, cluster.Envelope{Status: &primary})
	l.from(3, cluster.Envelope{Status: &standby})
	l.step(Tick{})
	l.done(TaskLook, Result{Disk: cluster.DiskEmpty})
	l.now += retryMost
	l.from(1, cluster.Envelope{Status: &primary})
	l.from(3, cluster.Envelope{Status: &standby})
	if again := l.task(TaskClone); again.ID == c.ID || again.Host != "a" {
		t.Fatalf("after a failure: rule %s, %+v", l.m.rule, again)
	}
	for what, change := range map[string]func(*cluster.Status){
		"far behind":       func(s *cluster.Status) { s.Position.LSN = at.LSN - cluster.SegmentBytes - 1 },
		"not streaming":    func(s *cluster.Status) { s.Streaming = false },
		"fenced":           func(s *cluster.Status) { s.Role = cluster.RoleFenced },
		"of another epoch": func(s *cluster.Status) { s.Epoch = 1 },
		"position unknown": func(s *cluster.Status) { s.Known = false },
		"slow to replay":   func(s *cluster.Status) { s.Backlog = 1 << 30 },
		"stopping":         func(s *cluster.Status) { s.Leaving = true },
	} {
		s := standby
		change(&s)
		if c := empty(s).task(TaskClone); c == nil || c.Host != "a" {
			t.Errorf("a standby that is %s: %+v", what, c)
		}
	}
}
