// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"strings"
	"testing"
	"time"
)

const mb = 1 << 20

// roomy is a volume of 10 GB with segments of 16 MB: its limit is 96 MB.
func roomy(free, ballast uint64) Space {
	return Space{Known: true, Size: 10 << 30, Free: free, Ballast: ballast, Segment: 16 * mb}
}

// TestSpace: what a node may and does at each amount of free space (PROTOCOL 5.2.c, 5.6.a).
func TestSpace(t *testing.T) {
	for _, c := range []struct {
		name                             string
		s                                Space
		tight, roomy, may, letGo, doMake bool
	}{
		{"nothing is known", Space{}, false, false, true, false, false},
		{"room for everything", roomy(5<<30, 0), false, true, true, false, true},
		{"and it is made", roomy(5<<30, 128*mb), false, true, true, false, false},
		{"just enough to make it", roomy(352*mb, 0), false, true, true, false, true},
		{"it would leave too little", roomy(352*mb-1, 0), false, true, true, false, false},
		{"a shortage is not over yet", roomy(192*mb-1, 0), false, false, true, false, false},
		{"at the limit", roomy(96*mb, 128*mb), false, false, true, false, false},
		{"below it, with a ballast", roomy(96*mb-1, 128*mb), true, false, true, true, false},
		{"full, with a ballast", roomy(0, 128*mb), true, false, true, true, false},
		{"full, with half a ballast", roomy(0, 64*mb), true, false, false, true, false},
		{"below it, without", roomy(96*mb-1, 0), true, false, false, false, false},
		{"large segments", Space{Known: true, Size: 1 << 40, Free: 500 * mb, Ballast: 128 * mb, Segment: 1 << 30}, true, false, false, true, false},
	} {
		got := []bool{c.s.Tight(), c.s.Roomy(), c.s.MayPromote(), c.s.LetGo(), c.s.MakeBallast()}
		for i, want := range []bool{c.tight, c.roomy, c.may, c.letGo, c.doMake} {
			if got[i] != want {
				t.Errorf("%s: %s is %v", c.name, []string{"Tight", "Roomy", "MayPromote", "LetGo", "MakeBallast"}[i], got[i])
			}
		}
		if c.s.MakeBallast() && (Space{Known: true, Size: c.s.Size, Free: c.s.Free - BallastSize, Ballast: BallastSize, Segment: c.s.Segment}).Tight() {
			t.Errorf("%s: making the ballast brings the shortage about", c.name)
		}
	}
}

// TestLetGoToFollow: only where the new timeline's first segment and the next have no room.
func TestLetGoToFollow(t *testing.T) {
	for free, want := range map[uint64]bool{0: true, 32*mb - 1: true, 32 * mb: false, 95 * mb: false} {
		if got := roomy(free, 128*mb).LetGoToFollow(); got != want {
			t.Errorf("%d bytes free: %v", free, got)
		}
	}
	if roomy(0, 0).LetGoToFollow() || (Space{}).LetGoToFollow() {
		t.Error("there is nothing to let go")
	}
}

// TestNoBallast: a tiny volume is not surprised by a large file, and a reserve on another device is none.
func TestNoBallast(t *testing.T) {
	apart, tiny, least := roomy(5<<30, 0), roomy(900*mb, 0), roomy(900*mb, 0)
	apart.Apart, tiny.Size, least.Size = true, 1<<30-1, 1<<30
	for want, s := range map[string]Space{"nothing is known": {}, "another device": apart, "less than 1024 MB": tiny, "": least} {
		why := s.NoBallast()
		if !strings.Contains(why, want) || want == "" && why != "" {
			t.Errorf("%+v: %q, want %q", s, why, want)
		}
		if s.MakeBallast() != (want == "") {
			t.Errorf("%+v: %v", s, s.MakeBallast())
		}
	}
	if near, far := roomy(700*mb, 0).LookAgain(), roomy(5<<30, 0).LookAgain(); near >= far || far > time.Second {
		t.Errorf("looks every %s when it fills up, every %s before", near, far)
	}
}
