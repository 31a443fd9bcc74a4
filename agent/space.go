// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// spaceState is what the device of the WAL has left, and what was said about it.
type spaceState struct {
	cluster.Space
	said  bool          // whether this node has a ballast at all
	short bool          // that it is tight
	tried time.Duration // when the ballast was begun last
}

// Bounds of the ballast.
const (
	ballastEvery = time.Minute
	ballastLimit = 10 * time.Minute // where there is no fallocate, 128 MB are written
)

func (s *spaceState) shortage() string {
	return fmt.Sprintf("disk: %d MB free for WAL, a promotion may need %d", s.Free>>20, s.Limit()>>20)
}

// spaceSeen takes what was read. Both ends of a shortage are said, and once why a node never has a ballast.
func (m *Machine) spaceSeen(seen cluster.Space) {
	s := &m.space
	s.Space = seen
	if why := s.NoBallast(); s.Known && !s.said {
		s.said = true
		if why != "" {
			m.log(false, "no ballast", "", why)
		}
	}
	switch {
	case s.Tight() && !s.short:
		s.short = true
		why := s.shortage() + ": free some, or give the volume more"
		if s.Ballast == 0 {
			why += "; this node cannot become the primary"
		}
		m.log(true, "disk is tight", "", why)
	case s.Roomy() && s.short:
		s.short = false
		m.log(false, "disk has room again", "", fmt.Sprintf("%d MB free for WAL", s.Free>>20))
	}
}

// makeBallast makes the reserve once this node is up and has nothing else to do (PROTOCOL 5.6.a).
func (m *Machine) makeBallast() {
	s, n := &m.space, &m.node
	up := n.serving || n.attached == m.epoch() && m.pg.Streaming
	if up && m.task == nil && s.MakeBallast() && !m.sideIs(TaskMakeBallast) && (s.tried == 0 || m.now >= s.tried+ballastEvery) {
		s.tried = m.now
		m.run(Task{Kind: TaskMakeBallast, Limit: ballastLimit})
	}
}

// letGo says whether a read-write start or a promotion deletes the ballast first. One that is being made is given up:
// the disk has better to do.
func (m *Machine) letGo() bool {
	for _, r := range m.side {
		if r.Kind == TaskMakeBallast {
			m.do(Cancel{ID: r.ID})
		}
	}
	return m.space.LetGo()
}

// letGoToFollow: without room for the new timeline's first segment a member of Set acknowledges nothing, and who was
// elected may wait for it before anybody is admitted (PROTOCOL 5.7.c).
func (m *Machine) letGoToFollow(t cluster.Timeline) bool {
	return m.space.LetGoToFollow() && m.node.pos.Timeline < t && m.st.InSets(m.opt.Self)
}
