// SPDX-License-Identifier: Apache-2.0

package pgctl

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/pgctl/proc"
	"github.com/pgquorum/pgquorum/pgctl/wal"
)

// DiskKind is what a data directory holds.
type DiskKind int

// The kinds.
const (
	Empty       DiskKind = iota
	Present              // a data directory that may be started
	Interrupted          // of an init, rewind or clone that did not end: never started
	Foreign              // files, but no data directory of this version of Postgres; see Disk.Why
)

func (k DiskKind) String() string {
	return [...]string{"empty", "present", "interrupted", "foreign"}[k]
}

// Disk are the facts on disk while Postgres is down.
type Disk struct {
	Kind    DiskKind
	Why     string // for Foreign and Interrupted
	Plan    Plan   // the journaled plan, also while a clone waits for ConfirmStreaming
	Version int    // major version of the data
	Control wal.Control
	Standby bool             // standby.signal is there
	Highest cluster.Timeline // highest timeline seen in pg_wal and pg_control
}

// Disk looks at the data directory. It changes nothing.
func (p *Postgres) Disk(_ context.Context) (Disk, error) {
	plan, err := p.readPlan()
	if err != nil {
		return Disk{}, err
	}
	d := Disk{Plan: plan}
	if plan.Garbage {
		d.Kind, d.Why = Interrupted, "a "+string(plan.Kind)+" did not end"
		return d, nil
	}
	empty, err := isEmpty(p.opt.DataDir)
	if err != nil || empty {
		return d, err
	}
	if m, err := p.readInitMark(); err != nil {
		return d, err
	} else if m.State == initBegun {
		d.Kind, d.Why = Interrupted, "the first initialisation did not end"
		return d, nil
	}
	text, err := os.ReadFile(p.dataFile("PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		d.Kind, d.Why = Foreign, "there are files, but no PG_VERSION"
		return d, nil
	} else if err != nil {
		return d, fmt.Errorf("read data directory: %w", err)
	}
	d.Version, _ = strconv.Atoi(strings.TrimSpace(string(text)))
	if d.Version != p.version {
		d.Kind, d.Why = Foreign, fmt.Sprintf("the data are of Postgres %s, the server is %d", strings.TrimSpace(string(text)), p.version)
		return d, nil
	}
	if d.Control, err = wal.ReadControl(p.opt.DataDir); err != nil {
		if errors.Is(err, fs.ErrNotExist) { // an interrupted pg_basebackup of somebody else
			d.Kind, d.Why = Foreign, "there is no global/pg_control"
			return d, nil
		}
		return d, err
	}
	d.Kind, d.Standby = Present, exists(p.dataFile("standby.signal"))
	if d.Highest, err = wal.HighestTimelineSeen(p.dataFile("pg_wal")); err != nil {
		return d, err
	}
	d.Highest = max(d.Highest, d.Control.Timeline())
	return d, nil
}

// initMark is the content of S/initdone.
type initMark struct {
	State    string           `json:"state"`
	SystemID cluster.SystemID `json:"system_id,omitempty"`
}

const (
	initBegun = "begun"
	initDone  = "done"
)

func (p *Postgres) readInitMark() (m initMark, err error) {
	text, err := os.ReadFile(p.stateFile("initdone"))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil {
		return m, fmt.Errorf("read init marker: %w", err)
	}
	return m, nil
}

func (p *Postgres) writeInitMark(m initMark) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return p.save(p.stateFile("initdone"), text)
}

// binaryVersion asks the server program for its major version.
func (p *Postgres) binaryVersion() (int, error) {
	out, err := p.tool(context.Background(), toolSpec{name: "postgres", args: []string{"--version"}})
	if err != nil {
		return 0, err
	}
	for _, word := range strings.Fields(out) {
		if n, err := strconv.Atoi(strings.TrimRight(strings.SplitN(word, ".", 2)[0], "abcdefghijklmnopqrstuvwxyz0123456789")); err == nil {
			return n, nil
		}
		digits := strings.IndexFunc(word, func(r rune) bool { return r < '0' || r > '9' })
		if digits < 0 {
			digits = len(word)
		}
		if n, err := strconv.Atoi(word[:digits]); err == nil {
			return n, nil
		}
	}
	return 0, fmt.Errorf("ask for the version of postgres: %q", out)
}

// toolSpec is a program that runs and ends.
type toolSpec struct {
	name   string // in BinDir, unless it has a slash or path is set
	path   bool   // looked up in PATH
	args   []string
	env    []string // nil: the server's
	input  string
	stderr func(line string) // each line or \r-ended progress report, as it comes
	passOn bool              // show its output as Postgres' own
}

// tool runs a program and returns what it wrote to stdout. An error holds the end of what it wrote to stderr.
func (p *Postgres) tool(ctx context.Context, t toolSpec) (string, error) {
	path := t.name
	if !t.path && !strings.Contains(path, "/") {
		path = p.bin(path)
	}
	if t.env == nil {
		t.env = p.env
	}
	out, errs := &capture{max: 1 << 20}, &capture{max: 1 << 14, line: t.stderr}
	spec := proc.Spec{Path: path, Args: t.args, Env: t.env, Dir: "/", Stdout: out, Stderr: errs, Setpgid: true}
	if t.input != "" {
		spec.Stdin = strings.NewReader(t.input)
	}
	if t.passOn {
		out.also, errs.also = p.opt.Stdout, p.opt.Stderr
	}
	name := filepath.Base(path)
	child, err := p.opt.Children.Start(spec)
	if err != nil {
		return "", fmt.Errorf("run %s: %w", name, err)
	}
	exit, err := child.Wait(ctx)
	if err != nil {
		_ = child.Kill()
		<-child.Done()
		return out.String(), fmt.Errorf("run %s: %w", name, err)
	}
	if !exit.OK() {
		return out.String(), fmt.Errorf("run %s: %v: %s", name, exit, lastLines(errs.String(), 3))
	}
	return out.String(), nil
}

func lastLines(s string, n int) string {
	l := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(l[max(0, len(l)-n):], "; ")
}

// stoppedState says how the server that is down ended.
func (p *Postgres) stoppedState(asked bool) (Stopped, error) {
	c, err := wal.ReadControl(p.opt.DataDir)
	if err != nil {
		return Stopped{}, fmt.Errorf("look at a stopped server: %w", err)
	}
	s := Stopped{Clean: asked && (c.State == wal.StateShutDown || c.State == wal.StateShutDownInRecovery)}
	if s.Clean && c.State == wal.StateShutDown {
		if s.ShutdownEnd, err = p.recordEnd(c, c.Checkpoint); err != nil {
			return s, fmt.Errorf("look at a stopped server: %w", err)
		}
		s.Timeline = c.CheckpointTimeline
	}
	return s, nil
}

// recordEnd is the end of the record at lsn: its length, rounded up, and the headers of the pages it runs into.
func (p *Postgres) recordEnd(c wal.Control, lsn cluster.LSN) (cluster.LSN, error) {
	f, err := os.Open(filepath.Join(p.walDir(), wal.SegmentName(c.CheckpointTimeline, lsn, c.WALSegmentSize)))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var b [4]byte
	if _, err := f.ReadAt(b[:], int64(uint64(lsn)%uint64(c.WALSegmentSize))); err != nil {
		return 0, err
	}
	const short, long, align = 24, 40, 8 // sizes of the page headers
	page := uint64(c.WALBlockSize)
	at, left := uint64(lsn), (uint64(binary.LittleEndian.Uint32(b[:]))+align-1)&^(align-1)
	for left > page-at%page {
		left -= page - at%page
		at += page - at%page
		if at%uint64(c.WALSegmentSize) == 0 {
			at += long
		} else {
			at += short
		}
	}
	return cluster.LSN(at + left), nil
}
