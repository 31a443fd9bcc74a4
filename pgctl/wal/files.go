// SPDX-License-Identifier: Apache-2.0

package wal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/durable"
)

// walFile is what a name in pg_wal says.
type walFile struct {
	timeline cluster.Timeline
	history  bool
	segment  uint64 // raw: high and low half as in the name
}

// parseName knows history files, segments, partial segments and backup labels.
func parseName(name string) (walFile, bool) {
	if len(name) < 8 {
		return walFile{}, false
	}
	t, err := strconv.ParseUint(name[:8], 16, 32)
	if err != nil {
		return walFile{}, false
	}
	f := walFile{timeline: cluster.Timeline(t)}
	rest := name[8:]
	if rest == ".history" {
		f.history = true
		return f, true
	}
	if len(rest) < 16 {
		return walFile{}, false
	}
	seg, err := strconv.ParseUint(rest[:16], 16, 64)
	if err != nil {
		return walFile{}, false
	}
	f.segment = seg
	rest = rest[16:]
	return f, rest == "" || rest == ".partial" || strings.HasPrefix(rest, ".") && strings.HasSuffix(rest, ".backup")
}

// SegmentName is the name of the segment that holds the byte at lsn.
func SegmentName(t cluster.Timeline, lsn cluster.LSN, segmentSize uint32) string {
	n := uint64(lsn) / uint64(segmentSize)
	per := uint64(1<<32) / uint64(segmentSize)
	return fmt.Sprintf("%08X%08X%08X", uint32(t), uint32(n/per), uint32(n%per))
}

// Oldest is where the first segment in a directory begins; zero when there is none.
func Oldest(dir string, segmentSize uint32) (cluster.LSN, error) {
	names, err := readNames(dir)
	if err != nil {
		return 0, err
	}
	var oldest cluster.LSN
	for _, n := range names {
		f, ok := parseName(n)
		if !ok || f.history || len(n) != len("000000010000000000000001") {
			continue
		}
		if at := cluster.LSN(f.number(segmentSize) * uint64(segmentSize)); oldest == 0 || at < oldest {
			oldest = at
		}
	}
	return oldest, nil
}

func readNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("read wal directory: %w", err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("read wal directory: %w", err)
	}
	return names, nil
}

// MoveForeignAside moves history and segment files of timelines outside the lineage (own and its ancestors) from
// pg_wal into the directory aside, and returns their names (5.5.f). Stubs stay: members may need them. A segment
// of a timeline of the lineage that lies wholly before the timeline's begin is foreign too. Nothing is deleted.
func MoveForeignAside(dir, aside string, own cluster.Timeline, h cluster.History, segmentSize uint32) ([]string, error) {
	names, err := readNames(dir)
	if err != nil {
		return nil, err
	}
	var moved []string
	for _, n := range names {
		f, ok := parseName(n)
		if !ok {
			continue
		}
		foreign, err := isForeign(dir, n, f, own, h, segmentSize)
		if err != nil {
			return moved, err
		}
		if !foreign {
			continue
		}
		if len(moved) == 0 {
			if err := os.MkdirAll(aside, 0o700); err != nil {
				return nil, fmt.Errorf("make directory for foreign wal: %w", err)
			}
		}
		if err := moveFile(filepath.Join(dir, n), filepath.Join(aside, n)); err != nil {
			return moved, fmt.Errorf("move foreign wal aside: %w", err)
		}
		moved = append(moved, n)
	}
	if len(moved) == 0 {
		return nil, nil
	}
	if err := durable.SyncDir(aside); err != nil {
		return moved, fmt.Errorf("sync foreign wal: %w", err)
	}
	return moved, durable.SyncDir(dir)
}

func isForeign(dir, name string, f walFile, own cluster.Timeline, h cluster.History, segmentSize uint32) (bool, error) {
	c := newChain(own, h)
	i := c.index(f.timeline)
	if f.history {
		if i >= 0 {
			return false, nil
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return false, fmt.Errorf("read history file: %w", err)
		}
		parsed, err := ParseHistory(f.timeline, b)
		return err != nil || !IsStub(parsed), nil //nolint:nilerr // what cannot be parsed is no file of ours
	}
	if i < 0 {
		return true, nil
	}
	fork := c.begin(i)
	segment := f.number(segmentSize)
	if (segment+1)*uint64(segmentSize) <= uint64(fork) {
		return true, nil
	}
	if segment != uint64(fork)/uint64(segmentSize) || uint64(fork)%uint64(segmentSize) == 0 {
		return false, nil
	}
	info, err := os.Stat(filepath.Join(dir, name))
	if err != nil {
		return false, fmt.Errorf("look at segment: %w", err)
	}
	key := reachKey{dir, name, fork, info.Size(), info.ModTime()}
	if reached.has(key) {
		return false, nil
	}
	reaches, err := reachesFork(dir, c, i, segmentSize)
	if reaches {
		reached.add(key)
	}
	return !reaches, err
}

// reachKey names a segment as it was when it was read. Each timeline leaves one, and an order, which is on the way of a
// failover, looks at all of them: after fifty failovers that took 0.3 s.
type reachKey struct {
	dir, name string
	fork      cluster.LSN
	size      int64
	modified  time.Time
}

// reachMost bounds what is remembered.
const reachMost = 4096

type reachMemory struct {
	mu   sync.Mutex
	seen map[reachKey]bool
}

var reached = reachMemory{seen: map[reachKey]bool{}}

func (m *reachMemory) has(k reachKey) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen[k]
}

func (m *reachMemory) add(k reachKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.seen) >= reachMost {
		clear(m.seen)
	}
	m.seen[k] = true
}

// reachesFork says whether the segment of timeline i in which it begins holds records up to that point. A WAL
// receiver that asked for the timeline and got less leaves one that does not, and Postgres would prefer it to the
// old timeline's, which holds more.
func reachesFork(dir string, c chain, i int, segmentSize uint32) (bool, error) {
	fork := c.begin(i)
	r := reader{dir: dir, chain: c, segmentSize: uint64(segmentSize)}
	defer r.close()
	r.exact = true
	lsn := fork - fork%cluster.LSN(segmentSize)
	first, err := r.firstBoundary(lsn, i)
	if errors.Is(err, errEnd) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var prev cluster.LSN
	for first < fork {
		rec, err := r.read(first, prev, i)
		if errors.Is(err, errEnd) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		first, prev = rec.next, rec.start
	}
	return true, nil
}

// number is the segment's number, counted from LSN 0.
func (f walFile) number(segmentSize uint32) uint64 {
	return (f.segment>>32)*(uint64(1<<32)/uint64(segmentSize)) + f.segment&0xFFFFFFFF
}

// moveFile never replaces: an older file of that name gets to stay.
func moveFile(from, to string) error {
	target := to
	for i := 1; ; i++ {
		if _, err := os.Lstat(target); os.IsNotExist(err) {
			return os.Rename(from, target)
		} else if err != nil {
			return err
		}
		target = to + "." + strconv.Itoa(i)
	}
}
