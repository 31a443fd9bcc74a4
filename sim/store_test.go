// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"math/rand/v2"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/pgquorum/pgquorum/e2e/seed"
	"github.com/pgquorum/pgquorum/raft"
	"github.com/pgquorum/pgquorum/raft/storetest"
)

// storeDisk is a simulated disk with a log on it.
type storeDisk struct {
	*simStore
	crashed func(*simStore, bool) error
}

func (d storeDisk) Open() (raft.LogStore, error) { return d.simStore, nil }
func (d storeDisk) Crash(saving bool) error      { return d.crashed(d.simStore, saving) }

// TestStore: what raft/storetest says of every log store is true of the simulated one: its unsynced commit index may be
// lost at a crash, and the write under way torn.
func TestStore(t *testing.T) {
	first := seed.First()
	t.Logf("seed %d", first)
	if err := runStore(t, first, (*simStore).crash); err != nil {
		t.Error(err)
	}
}

// TestStoreControl: and a store that breaks it is found.
func TestStoreControl(t *testing.T) {
	for name, crash := range map[string]func(*simStore, bool) error{
		"torn though it was synced": func(s *simStore, _ bool) error { return s.crash(true) },
		"vote forgotten": func(s *simStore, saving bool) error {
			s.durable = &raftpb.HardState{Term: s.durable.Term, Commit: s.durable.Commit}
			return s.crash(saving)
		},
		"last entry lost": func(s *simStore, saving bool) error {
			snap, err := s.Snapshot()
			if err != nil {
				return err
			}
			if high, _ := s.LastIndex(); high > snap.GetMetadata().GetIndex() {
				s.last = save{state: s.durable}
				if s.last.ents, err = s.Entries(high, high+1, 1<<30); err == nil {
					_, err = s.tear(snap, 0)
				}
				if err != nil {
					return err
				}
			}
			return s.crash(saving)
		},
	} {
		if err := runStore(t, 1, crash); err == nil {
			t.Errorf("%s: not found", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

func runStore(t *testing.T, first uint64, crash func(*simStore, bool) error) error {
	t.Helper()
	w := newWorld(t, Options{Seed: first})
	return storetest.Run(rand.New(rand.NewPCG(first, 1)), 40, func() (storetest.Disk, error) {
		m, err := raft.NewMemStore(storetest.Voters(), []byte(storetest.Genesis))
		if err != nil {
			return nil, err
		}
		return storeDisk{newStore(m, &disk{w: w}), crash}, nil
	})
}
