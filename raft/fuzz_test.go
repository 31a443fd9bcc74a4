// SPDX-License-Identifier: Apache-2.0

package raft

import (
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// FuzzReadSnap: a snapshot file is whole and of its name, or refused.
func FuzzReadSnap(f *testing.F) {
	dir := f.TempDir()
	want := snapshotAt(100, "data")
	if err := writeSnap(dir, want); err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(dir, snapIDOf(want).file())
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add([]byte(snapMagic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		at := filepath.Join(t.TempDir(), filepath.Base(path))
		if err := os.WriteFile(at, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := readSnap(filepath.Dir(at), snapIDOf(want))
		if err == nil && snapIDOf(s) != snapIDOf(want) {
			t.Fatalf("read %v", s)
		}
	})
}

// FuzzDecodeConf: a committed change is one that this version makes, or is refused by every member alike.
func FuzzDecodeConf(f *testing.F) {
	for _, c := range []ConfChange{{AddLearner, 1, []byte("x")}, {AddVoter, 1 << 63, nil}, {Remove, 7, []byte{0}}} {
		cc, err := c.encode()
		if err != nil {
			f.Fatal(err)
		}
		b, err := proto.Marshal(cc)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e := &raftpb.Entry{Type: raftpb.EntryConfChange.Enum(), Data: b}
		c, err := decodeConf(e)
		if err != nil {
			return
		}
		if _, err := c.encode(); err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		_ = c.possible(&raftpb.ConfState{Voters: []uint64{1}})
	})
}
