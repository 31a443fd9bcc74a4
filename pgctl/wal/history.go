// SPDX-License-Identifier: Apache-2.0

package wal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/durable"
)

// StubSwitch is the switch point in a stub history file. No real timeline leaves another there, so a stub is
// recognised by it, and a server that adopts one refuses to start instead of following it.
const StubSwitch cluster.LSN = 1

// HistoryName is the name of the history file of a timeline.
func HistoryName(t cluster.Timeline) string { return fmt.Sprintf("%08X.history", uint32(t)) }

// ParseHistory reads the content of a history file of timeline t, as Postgres reads it: a number, a switch
// point, a reason; '#' starts a comment.
func ParseHistory(t cluster.Timeline, b []byte) (cluster.History, error) {
	var h cluster.History
	for line := range bytes.Lines(b) {
		words := strings.Fields(string(line))
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if len(words) < 2 {
			return nil, fmt.Errorf("parse history of timeline %d: no switch point in %q", t, line)
		}
		n, err := strconv.ParseUint(words[0], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("parse history of timeline %d: %w", t, err)
		}
		at, err := cluster.ParseLSN(words[1])
		if err != nil {
			return nil, fmt.Errorf("parse history of timeline %d: %w", t, err)
		}
		e := cluster.HistoryEntry{Timeline: cluster.Timeline(n), Switch: at}
		if len(h) > 0 && h[len(h)-1].Timeline >= e.Timeline {
			return nil, fmt.Errorf("parse history of timeline %d: timeline %d after %d", t, n, h[len(h)-1].Timeline)
		}
		h = append(h, e)
	}
	if len(h) > 0 && h[len(h)-1].Timeline >= t {
		return nil, fmt.Errorf("parse history of timeline %d: it names timeline %d", t, h[len(h)-1].Timeline)
	}
	return h, nil
}

// FormatHistory writes a history as Postgres does.
func FormatHistory(h cluster.History, reason string) []byte {
	var b bytes.Buffer
	for _, e := range h {
		fmt.Fprintf(&b, "%d\t%s\t%s\n", uint32(e.Timeline), e.Switch, reason)
	}
	return b.Bytes()
}

// ReadHistory reads the ancestry of a timeline from pg_wal. Timeline 1 has none and needs no file.
func ReadHistory(dir string, t cluster.Timeline) (cluster.History, error) {
	if t <= 1 {
		return nil, nil
	}
	b, err := os.ReadFile(filepath.Join(dir, HistoryName(t)))
	if err != nil {
		return nil, fmt.Errorf("read timeline history: %w", err)
	}
	return ParseHistory(t, b)
}

// IsStub says whether a history is that of a plugged timeline number.
func IsStub(h cluster.History) bool { return len(h) > 0 && h[len(h)-1].Switch == StubSwitch }

// HighestTimelineSeen is the highest timeline that any history or segment file in pg_wal names, stubs and foreign
// ones too: a number that was ever seen is never assigned again (5.5.a).
func HighestTimelineSeen(dir string) (cluster.Timeline, error) {
	names, err := readNames(dir)
	if err != nil {
		return 0, err
	}
	var top cluster.Timeline
	for _, n := range names {
		if f, ok := parseName(n); ok {
			top = max(top, f.timeline)
		}
	}
	return top, nil
}

// WriteStubs plugs the timeline numbers between own and next, both excluded, so that a promotion takes next. A
// number that has a history file keeps it. Files and directory are on disk when it returns.
func WriteStubs(dir string, own, next cluster.Timeline) error {
	content := FormatHistory(cluster.History{{Timeline: own, Switch: StubSwitch}}, "pgquorum stub")
	wrote := false
	for t := own + 1; t < next; t++ {
		path := filepath.Join(dir, HistoryName(t))
		if _, err := os.Lstat(path); err == nil {
			continue
		}
		if err := writeSynced(path, content); err != nil {
			return fmt.Errorf("write stub of timeline %d: %w", t, err)
		}
		wrote = true
	}
	if !wrote {
		return nil
	}
	return durable.SyncDir(dir)
}

// SetStubs leaves the stubs that a start needs, and no other. Recovery finds its newest timeline by counting up from the
// control file's, and ends at the first number without a history file: those below newest get one. Above newest there may
// be none: a node that crashed between stubs and promotion would refuse to start with them.
func SetStubs(dir string, control, newest cluster.Timeline) error {
	if err := WriteStubs(dir, control, newest); err != nil {
		return err
	}
	_, err := StripStubs(dir, newest)
	return err
}

// StripStubs removes the stubs above a timeline and returns how many.
func StripStubs(dir string, above cluster.Timeline) (int, error) {
	names, err := readNames(dir)
	if err != nil {
		return 0, err
	}
	removed := 0
	for _, n := range names {
		f, ok := parseName(n)
		if !ok || !f.history || f.timeline <= above {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, n))
		if err != nil {
			return removed, fmt.Errorf("read stub: %w", err)
		}
		h, err := ParseHistory(f.timeline, b)
		if (err != nil || !IsStub(h)) && len(b) > 0 { // an empty one is a stub cut short by a crash
			continue
		}
		if err := os.Remove(filepath.Join(dir, n)); err != nil {
			return removed, fmt.Errorf("remove stub: %w", err)
		}
		removed++
	}
	if removed == 0 {
		return 0, nil
	}
	return removed, durable.SyncDir(dir)
}

// writeSynced writes a whole file under a temporary name, syncs and renames it.
func writeSynced(path string, b []byte) error {
	tmp := path + ".pgq"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
