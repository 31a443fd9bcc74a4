// SPDX-License-Identifier: Apache-2.0

package wal

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/pgquorum/pgquorum/cluster"
)

// ErrStart means that the walk's start is not the start of a record of this log, or cannot be shown to be one. The
// position is unknown then: to claim the start itself might claim too little.
var ErrStart = errors.New("no record can be shown to start here")

// ErrInconsistent means that the log ends before the point from which the data are consistent, as after a rewind from a
// busy source. The result still says where it ends: enough to fetch the rest from that source, not to be elected.
var ErrInconsistent = errors.New("the data are not consistent yet")

// EndParams says where to walk.
type EndParams struct {
	Dir         string           // pg_wal
	Timeline    cluster.Timeline // the newest timeline that this node may hold
	History     cluster.History  // its ancestry
	SegmentSize uint32           // from pg_control
	SystemID    cluster.SystemID // 0: any
	Start       cluster.LSN      // the replay position, or the redo point of the control file
	StartIn     cluster.Timeline // the timeline of the byte before Start; 0: by the history
	RedoPoint   bool             // a record is known to start at Start
	Limit       cluster.LSN      // end no later; 0: no limit
}

// EndResult is the end of a log.
type EndResult struct {
	cluster.Position
	LastRecord cluster.LSN // start of the last record walked over; 0: none after Start
	Records    int
}

// End walks from Start to the end of the last complete record, as Postgres would count it, and says which
// timeline that record is on. Segments are taken from the newest timeline that holds the next record; so a segment
// of a new timeline that is not filled up to its fork does not hide what the old one holds.
func End(p EndParams) (EndResult, error) {
	if p.SegmentSize < minSegment || p.SegmentSize > maxSegment || p.SegmentSize&(p.SegmentSize-1) != 0 {
		return EndResult{}, fmt.Errorf("walk wal: segment size %d", p.SegmentSize)
	}
	w := walker{p: p, r: reader{dir: p.Dir, chain: newChain(p.Timeline, p.History), segmentSize: uint64(p.SegmentSize), system: p.SystemID}}
	defer w.r.close()
	c := w.r.chain
	w.current = c.at(p.Start, len(c.timelines))
	if p.StartIn != 0 {
		if w.current = c.index(p.StartIn); w.current < 0 {
			return EndResult{}, fmt.Errorf("walk wal from %s: timeline %d is not in the history of %d", p.Start, p.StartIn, p.Timeline)
		}
	}
	return w.run()
}

type walker struct {
	p       EndParams
	r       reader
	current int // timeline of the last record, index in the chain
}

func (w *walker) run() (EndResult, error) {
	res := EndResult{Position: cluster.Position{Timeline: w.r.chain.timelines[w.current], LSN: w.p.Start}}
	var prev cluster.LSN
	for {
		rec, err := w.next(res.LSN, prev)
		if errors.Is(err, errEnd) || err == nil && w.p.Limit != 0 && rec.next > w.p.Limit {
			if res.Records == 0 && w.p.RedoPoint {
				return res, fmt.Errorf("walk wal from redo point %s: %w", w.p.Start, ErrStart)
			}
			return res, nil
		}
		if err != nil {
			return res, fmt.Errorf("walk wal at %s: %w", res.LSN, err)
		}
		if res.Records == 0 && !w.p.RedoPoint {
			ok, err := w.follows(rec)
			if err != nil {
				return res, fmt.Errorf("walk wal from %s: %w", w.p.Start, err)
			}
			if !ok {
				return res, nil
			}
		}
		prev = rec.start
		w.current = rec.timeline
		res.Records++
		res.LastRecord = rec.start
		res.LSN = rec.next
		res.Timeline = w.r.chain.timelines[rec.timeline]
	}
}

// next reads the record at lsn from the newest timeline that holds it and that the last record can lead to.
func (w *walker) next(lsn, prev cluster.LSN) (record, error) {
	c := w.r.chain
	top := w.current
	if lsn <= c.end(w.current) {
		top = len(c.timelines) - 1
	}
	for limit := top; limit >= w.current; limit-- {
		rec, err := w.r.read(lsn, prev, limit)
		if err == nil {
			return rec, nil
		}
		if !errors.Is(err, errEnd) {
			return record{}, err
		}
	}
	return record{}, errEnd
}

// follows says whether the first record after an arbitrary start really continues the log: the record it links to
// must end at the start. Otherwise it is a remnant of a recycled segment, and the log ends at the start.
func (w *walker) follows(rec record) (bool, error) {
	for limit := len(w.r.chain.timelines) - 1; limit >= 0; limit-- {
		before, err := w.r.read(rec.prev, 0, limit)
		if err == nil {
			if w.place(before.next) == w.place(w.p.Start) {
				return true, nil
			}
			continue
		}
		if !errors.Is(err, errEnd) {
			return false, err
		}
	}
	// The record before starts in the same segment, unless the start is the first boundary of its segment.
	size := cluster.LSN(w.r.segmentSize)
	segment := w.p.Start - w.p.Start%size
	if rec.prev >= segment {
		return false, nil
	}
	first, err := w.r.firstBoundary(segment, len(w.r.chain.timelines)-1)
	if errors.Is(err, errEnd) || err == nil && first != w.place(w.p.Start) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := w.r.open(uint64(rec.prev/size), len(w.r.chain.timelines)-1); errors.Is(err, errEnd) {
		return false, fmt.Errorf("record before it at %s is not on disk: %w", rec.prev, ErrStart)
	}
	return false, nil
}

// place maps a page boundary and the first byte after the page's header to one value.
func (w *walker) place(lsn cluster.LSN) cluster.LSN {
	if lsn%pageSize != 0 {
		return lsn
	}
	if uint64(lsn)%w.r.segmentSize == 0 {
		return lsn + longHeader
	}
	return lsn + shortHeader
}

// EndOfDirectory reads the position of a data directory that no server uses: it walks from the control file's redo
// point. newest is the newest timeline that the node may hold (5.5.h); 0 takes the newest that pg_wal leads to from
// the control file's. The caller syncs the files first and knows that no process of that server is left (5.2.f).
func EndOfDirectory(pgdata string, newest cluster.Timeline) (EndResult, Control, error) {
	c, err := ReadControl(pgdata)
	if err != nil {
		return EndResult{}, c, err
	}
	if c.WALBlockSize != pageSize {
		return EndResult{}, c, fmt.Errorf("walk wal: block size %d is not supported", c.WALBlockSize)
	}
	dir := filepath.Join(pgdata, "pg_wal")
	if newest == 0 {
		if newest, err = c.NewestTimeline(dir); err != nil {
			return EndResult{}, c, err
		}
	}
	h, err := ReadHistory(dir, newest)
	if err != nil {
		return EndResult{}, c, err
	}
	res, err := End(EndParams{Dir: dir, Timeline: newest, History: h, SegmentSize: c.WALSegmentSize, SystemID: c.SystemID, Start: c.Redo, RedoPoint: true})
	if err != nil {
		return res, c, err
	}
	if res.LSN <= c.Checkpoint {
		return res, c, fmt.Errorf("walk wal: log ends at %s, before checkpoint %s: %w", res.LSN, c.Checkpoint, ErrStart)
	}
	if res.LSN < c.MinRecoveryPoint {
		return res, c, fmt.Errorf("walk wal: log ends at %s, before the minimum recovery point %s: %w", res.LSN, c.MinRecoveryPoint, ErrInconsistent)
	}
	return res, c, nil
}

// NewestTimeline is the newest timeline that pg_wal leads to from the control file's.
func (c Control) NewestTimeline(dir string) (cluster.Timeline, error) {
	return NewestTimeline(dir, c.Timeline(), max(c.MinRecoveryPoint, c.Checkpoint))
}

// NewestTimeline is the newest timeline that pg_wal has a history file for and that descends from own at or after
// lsn: what recovery_target_timeline=latest would follow. Stubs and foreign ones are passed over.
func NewestTimeline(dir string, own cluster.Timeline, lsn cluster.LSN) (cluster.Timeline, error) {
	names, err := readNames(dir)
	if err != nil {
		return 0, err
	}
	best := own
	for _, n := range names {
		f, ok := parseName(n)
		if !ok || !f.history || f.timeline <= best {
			continue
		}
		h, err := ReadHistory(dir, f.timeline)
		if err != nil || IsStub(h) {
			continue
		}
		for _, e := range h {
			if e.Timeline == own && e.Switch >= lsn {
				best = f.timeline
			}
		}
	}
	return best, nil
}
