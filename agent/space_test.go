// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// volume is one of 10 GB, with a limit of 96 MB.
func volume(freeMB, ballastMB uint64) SpaceSeen {
	return SpaceSeen{cluster.Space{Known: true, Size: 10 << 30, Free: freeMB << 20, Ballast: ballastMB << 20, Segment: 16 << 20}}
}

// reporting is the standby b, which has its data and applies an election.
func reporting(t *testing.T, seen SpaceSeen) (*lab, cluster.Report) {
	t.Helper()
	l := newLab(t, 2, healthy(), func(o *Options) { o.Promise = 3 })
	l.step(seen)
	l.done(TaskLook, Result{
		Disk: cluster.DiskPresent, System: 7, DiskTL: 2, HighestTL: 2, Known: true, Position: cluster.Position{Timeline: 2, LSN: 0x3000},
	})
	l.done(TaskRecovery, Result{})
	l.elect(cluster.CauseLeaseLapsed)
	for i := len(l.all) - 1; i >= 0; i-- {
		if s, ok := l.all[i].(Send); ok && s.Env.Report != nil {
			return l, *s.Env.Report
		}
	}
	t.Fatalf("no report; rule %s: %s", l.m.rule, l.m.decision.Why)
	return nil, cluster.Report{}
}

// promoting is b, elected, as far as its promotion.
func promoting(t *testing.T, seen SpaceSeen) (*lab, *Task) {
	t.Helper()
	l, r := reporting(t, seen)
	other := r
	other.Inc, other.Boot = 3, bootOf(3)
	l.apply(cluster.Command{Elect: &cluster.Elect{
		Epoch: 3, Election: l.st.Election.Index, Candidate: 2, Reports: []cluster.Report{r, other}, Wait: cluster.WaitLease, Rule: "F250",
	}})
	l.grants()
	l.done(TaskCloseGate, Result{})
	p := l.task(TaskPromote)
	if p == nil {
		t.Fatalf("no promotion; rule %s: %s", l.m.rule, l.m.decision.Why)
	}
	return l, p
}

// TestPromotionOnATightDisk: the ballast makes a node with a full disk eligible, and is let go before it promotes, which
// fills its segments with zeros then; nothing of that where there is room (PROTOCOL 5.2.c, 5.6.a, 12.2.b).
func TestPromotionOnATightDisk(t *testing.T) {
	if _, r := reporting(t, volume(50, 0)); r.Eligible || !strings.Contains(r.WhyNot, "50 MB free") {
		t.Errorf("without room and ballast: %+v", r)
	}
	if _, r := reporting(t, volume(50, 128)); !r.Eligible {
		t.Errorf("without room, with a ballast: %+v", r)
	}
	if _, p := promoting(t, volume(50, 128)); !p.LetGo || p.Settings.FastWAL {
		t.Errorf("on a tight disk: %+v", p)
	}
	if _, p := promoting(t, volume(500, 128)); p.LetGo || !p.Settings.FastWAL {
		t.Errorf("on a disk with room: %+v", p)
	}
	if _, p := promoting(t, SpaceSeen{}); p.LetGo || !p.Settings.FastWAL {
		t.Errorf("on a disk of which nothing is known: %+v", p)
	}
}

// TestRestartOnATightDisk: the same before a read-write start in the epoch (PROTOCOL 5.8).
func TestRestartOnATightDisk(t *testing.T) {
	l := newLab(t, 1, healthy(), func(o *Options) { o.LastServed = true })
	l.step(volume(5, 128))
	l.done(TaskLook, Result{
		Disk: cluster.DiskPresent, System: 7, DiskTL: 2, HighestTL: 2, Known: true, Position: cluster.Position{Timeline: 2, LSN: 0x3000},
	})
	l.grants()
	if s := l.task(TaskPrimary); s == nil || !s.LetGo {
		t.Errorf("rule %s: %+v", l.m.rule, s)
	}
}

// TestOrderOnATightDisk: what a standby receives goes into whole segments there (PROTOCOL 12.2.b).
func TestOrderOnATightDisk(t *testing.T) {
	for free, tight := range map[uint64]bool{50: true, 500: false} {
		l := newLab(t, 2, healthy(), nil)
		l.step(volume(free, 0))
		l.done(TaskLook, Result{
			Disk: cluster.DiskPresent, System: 7, DiskTL: 2, HighestTL: 2, Known: true, Position: cluster.Position{Timeline: 2, LSN: 0x3000},
		})
		l.done(TaskRecovery, Result{})
		l.from(1, cluster.Envelope{AttachOK: &cluster.AttachOK{Epoch: 2, Timeline: 2, Port: 5432, App: "b"}})
		if o := l.task(TaskOrder); o == nil || o.Tight != tight {
			t.Fatalf("%d MB free: rule %s, %+v", free, l.m.rule, o)
		}
		l.done(TaskOrder, Result{})
		l.now += 2 * time.Second
		l.step(Tick{})
		if h := l.task(TaskKeepHouse); h == nil || h.Tight != tight || h.Settings.FastWAL {
			t.Errorf("%d MB free: %+v", free, h)
		}
	}
}

// TestFollowOnAFullDisk: a member of Set without room for the first segment of a new timeline lets its ballast go for it,
// and nobody else does (PROTOCOL 12.5).
func TestFollowOnAFullDisk(t *testing.T) {
	for _, c := range []struct {
		name string
		free uint64
		at   cluster.Position
		set  []cluster.Incarnation
		want bool
	}{
		{"full", 3, cluster.Position{Timeline: 1, LSN: 0x1000}, []cluster.Incarnation{1, 2, 3}, true},
		{"room for it", 50, cluster.Position{Timeline: 1, LSN: 0x1000}, []cluster.Incarnation{1, 2, 3}, false},
		{"it is there", 3, cluster.Position{Timeline: 2, LSN: 0x3000}, []cluster.Incarnation{1, 2, 3}, false},
		{"nobody waits for it", 3, cluster.Position{Timeline: 1, LSN: 0x1000}, []cluster.Incarnation{1, 3}, false},
	} {
		st := healthy()
		st.D.Set = c.set
		l := newLab(t, 2, st, nil)
		l.step(volume(c.free, 128))
		l.done(TaskLook, Result{Disk: cluster.DiskPresent, System: 7, DiskTL: c.at.Timeline, HighestTL: 2, Known: true, Position: c.at})
		l.done(TaskRecovery, Result{})
		l.from(1, cluster.Envelope{AttachOK: &cluster.AttachOK{Epoch: 2, Timeline: 2, Port: 5432, App: "b"}})
		if o := l.task(TaskOrder); o == nil || o.LetGo != c.want {
			t.Errorf("%s: rule %s, %+v", c.name, l.m.rule, o)
		}
	}
}

// TestMakeBallast: once, when the node is up and has nothing else to do, and again when there is room again.
func TestMakeBallast(t *testing.T) {
	l := serving(t)
	l.step(volume(300, 0))
	if l.task(TaskMakeBallast) != nil {
		t.Fatal("made where it leaves too little")
	}
	l.step(volume(5000, 0))
	first := l.task(TaskMakeBallast)
	if first == nil {
		t.Fatal("not made")
	}
	l.done(TaskMakeBallast, Result{})
	l.step(volume(4872, 128))
	l.step(volume(60, 128))
	if b := l.task(TaskMakeBallast); b.ID != first.ID {
		t.Fatalf("made again: %+v", b)
	}
	l.step(volume(4900, 0)) // it was let go, and somebody made room
	if b := l.task(TaskMakeBallast); b.ID != first.ID {
		t.Fatalf("made again too soon: %+v", b)
	}
	l.m.space.tried -= ballastEvery
	l.step(Tick{})
	if b := l.task(TaskMakeBallast); b.ID == first.ID {
		t.Fatal("not made again")
	}

	f := newLab(t, 2, healthy(), nil)
	f.step(volume(5000, 0))
	f.done(TaskLook, Result{
		Disk: cluster.DiskPresent, System: 7, DiskTL: 2, HighestTL: 2, Known: true, Position: cluster.Position{Timeline: 2, LSN: 0x3000},
	})
	f.done(TaskRecovery, Result{})
	if f.task(TaskMakeBallast) != nil {
		t.Error("made before the node is up")
	}
}

// TestBallastGivesWay: one that is being made is given up for a promotion.
func TestBallastGivesWay(t *testing.T) {
	l := serving(t)
	l.step(volume(5000, 0))
	b := l.task(TaskMakeBallast)
	l.out, l.m.out = nil, nil
	if l.m.letGo() {
		t.Error("there is nothing to let go")
	}
	if c, ok := l.m.out[0].(Cancel); !ok || c.ID != b.ID {
		t.Errorf("%+v", l.m.out)
	}
}

// TestSpaceIsSaid: each end of a shortage, and why there is no ballast, once.
func TestSpaceIsSaid(t *testing.T) {
	l := newLab(t, 2, healthy(), nil)
	said := func(what string, e SpaceSeen, msg string) {
		t.Helper()
		var got []string
		for _, a := range l.step(e) {
			if x, ok := a.(Log); ok {
				got = append(got, x.Msg)
			}
		}
		if strings.Join(got, ", ") != msg {
			t.Errorf("%s: %q", what, got)
		}
	}
	small := volume(200, 0)
	small.Space.Size = 500 << 20
	said("nothing known yet", SpaceSeen{}, "")
	said("a small volume", small, "no ballast")
	said("again", small, "")
	said("tight", volume(95, 0), "disk is tight")
	said("at the limit", volume(97, 0), "")
	said("tight again", volume(90, 0), "")
	said("room", volume(192, 0), "disk has room again")
}
