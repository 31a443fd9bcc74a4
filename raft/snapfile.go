// SPDX-License-Identifier: Apache-2.0

package raft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// A snapshot file is: 8 bytes of magic, CRC-32C of the rest, the marshalled raftpb.Snapshot.
const (
	snapMagic  = "PGQSNAP1"
	snapHeader = len(snapMagic) + 4
	snapSuffix = ".snap"
	tmpSuffix  = ".tmp"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type snapID struct{ term, index uint64 }

func (s snapID) file() string { return fmt.Sprintf("%016x-%016x%s", s.index, s.term, snapSuffix) }

func snapIDOf(s *raftpb.Snapshot) snapID {
	return snapID{term: s.GetMetadata().GetTerm(), index: s.GetMetadata().GetIndex()}
}

// writeSnap makes a snapshot file durable under its name: a crash leaves either none or a whole one.
func writeSnap(dir string, s *raftpb.Snapshot) error {
	body, err := proto.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode snapshot: %w", err)
	}
	b := make([]byte, 0, snapHeader+len(body))
	b = append(b, snapMagic...)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(body, castagnoli))
	b = append(b, body...)
	path := filepath.Join(dir, snapIDOf(s).file())
	if err := writeSynced(path+tmpSuffix, b); err != nil {
		return err
	}
	if err := os.Rename(path+tmpSuffix, path); err != nil {
		return fmt.Errorf("rename snapshot: %w", err)
	}
	return syncDir(dir)
}

func readSnap(dir string, id snapID) (*raftpb.Snapshot, error) {
	b, err := os.ReadFile(filepath.Join(dir, id.file()))
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	if len(b) < snapHeader || string(b[:len(snapMagic)]) != snapMagic {
		return nil, fmt.Errorf("read snapshot %s: not a snapshot file", id.file())
	}
	body := b[snapHeader:]
	if binary.BigEndian.Uint32(b[len(snapMagic):]) != crc32.Checksum(body, castagnoli) {
		return nil, fmt.Errorf("read snapshot %s: checksum mismatch", id.file())
	}
	s := &raftpb.Snapshot{}
	if err := proto.Unmarshal(body, s); err != nil {
		return nil, fmt.Errorf("read snapshot %s: %w", id.file(), err)
	}
	if snapIDOf(s) != id {
		return nil, fmt.Errorf("read snapshot %s: is of another index or term", id.file())
	}
	return s, nil
}

// listSnaps returns the snapshots in dir, newest first, and removes what a crash left half written.
func listSnaps(dir string) ([]snapID, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var ids []snapID
	for _, e := range entries {
		var id snapID
		if strings.HasSuffix(e.Name(), tmpSuffix) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return nil, fmt.Errorf("remove unfinished snapshot: %w", err)
			}
			continue
		}
		if _, err := fmt.Sscanf(e.Name(), "%016x-%016x.snap", &id.index, &id.term); err == nil {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b snapID) int {
		if a.index != b.index {
			if a.index > b.index {
				return -1
			}
			return 1
		}
		if a.term > b.term {
			return -1
		}
		return 1
	})
	return ids, nil
}

func writeSynced(path string, b []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("create file: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(b); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync file: %w", err)
	}
	return nil
}

func syncDir(path string) (err error) {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
