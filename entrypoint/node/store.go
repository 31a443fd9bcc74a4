// SPDX-License-Identifier: Apache-2.0

package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/durable"
)

// store are the small durable files of a node beside raft's log.
type store struct {
	dir        string
	kernelBoot string

	mu         sync.Mutex
	promise    cluster.Epoch
	floor      cluster.Position
	servedHere bool // a primary ran here under this boot of the host's kernel
}

type promiseFile struct {
	Epoch cluster.Epoch `json:"epoch"`
}

type servedFile struct {
	KernelBoot string `json:"kernel_boot"`
}

func openStore(dir, kernelBoot string) (*store, error) {
	s := &store{dir: dir, kernelBoot: kernelBoot}
	var p promiseFile
	var v servedFile
	for name, into := range map[string]any{"promise": &p, "floor.json": &s.floor, "served.json": &v} {
		if err := s.read(name, into); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	s.promise, s.servedHere = p.Epoch, v.KernelBoot == kernelBoot
	return s, nil
}

func (s *store) read(name string, into any) error {
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("read %s: %w", filepath.Join(s.dir, name), err)
	}
	return nil
}

func (s *store) write(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(s.dir, name), b, 0o600)
}

// savePromise raises the promise; it is never lowered (PROTOCOL 1.7).
func (s *store) savePromise(e cluster.Epoch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e <= s.promise {
		return nil
	}
	if err := s.write("promise", promiseFile{Epoch: e}); err != nil {
		return fmt.Errorf("write promise: %w", err)
	}
	s.promise = e
	return nil
}

func (s *store) saveFloor(p cluster.Position) error {
	if p == (cluster.Position{}) {
		return nil
	}
	return s.write("floor.json", p)
}

func (s *store) saveServed() error {
	return s.write("served.json", servedFile{KernelBoot: s.kernelBoot})
}

func (s *store) saveOffer(o cluster.Offer) error { return s.write("offer.json", o) }

func (s *store) saveGenesis(g genesisFile) error { return s.write("genesis.json", g) }

func (s *store) genesis() (genesisFile, error) {
	var g genesisFile
	return g, s.read("genesis.json", &g)
}
