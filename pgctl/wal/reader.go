// SPDX-License-Identifier: Apache-2.0

package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/pgquorum/pgquorum/cluster"
)

// The physical format of WAL, the same from 13 to 18 but for the magic number.
const (
	pageSize        = 8192 // XLOG_BLCKSZ of every packaged Postgres; ReadControl says when it differs
	shortHeader     = 24
	longHeader      = 40
	recordHeader    = 24
	maxRecord       = 1 << 30
	windowSize      = 16 * pageSize
	flagContRecord  = 0x0001
	flagLongHeader  = 0x0002
	flagAllKnown    = 0x000F
	flagOverwrite   = 0x0008
	infoSwitch      = 0x40
	infoMask        = 0xF0
	rmgrXLOG        = 0
	alignment       = 8
	minSegment      = 1 << 20
	maxSegment      = 1 << 30
	recordHeaderCRC = 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// magics are the page magic numbers of 13 to 18.
var magics = [...]uint16{0xD106, 0xD10D, 0xD110, 0xD113, 0xD116, 0xD118}

// errEnd ends a walk: what stands here is no complete record. It is the normal end of every log.
var errEnd = errors.New("no valid record")

// reader gives pages of the log, each from the newest timeline's segment that a limit allows.
type reader struct {
	dir         string
	chain       chain
	segmentSize uint64
	system      cluster.SystemID
	exact       bool // only the limit's own segments

	file    *os.File
	fileIdx int    // timeline of file
	segment uint64 // number of file
	limit   int    // the limit file was opened under
	at      int64  // offset of window in file
	window  []byte
	head    [recordHeader]byte // of the record being read
	buf     [windowSize]byte
}

func (r *reader) close() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}

// open opens the segment of the newest timeline up to limit that has one.
func (r *reader) open(segment uint64, limit int) error {
	if r.file != nil && r.segment == segment && r.limit == limit {
		return nil
	}
	r.close()
	r.window = nil
	for i := limit; i >= 0 && (!r.exact || i == limit); i-- {
		if uint64(r.chain.begin(i))/r.segmentSize > segment {
			continue
		}
		name := SegmentName(r.chain.timelines[i], cluster.LSN(segment*r.segmentSize), uint32(r.segmentSize))
		f, err := os.Open(filepath.Join(r.dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("open wal segment: %w", err)
		}
		r.file, r.fileIdx, r.segment, r.limit = f, i, segment, limit
		return nil
	}
	return errEnd
}

// page returns the page at lsn, checked, and the size of its header.
func (r *reader) page(lsn cluster.LSN, limit int) ([]byte, int, error) {
	segment := uint64(lsn) / r.segmentSize
	if err := r.open(segment, limit); err != nil {
		return nil, 0, err
	}
	off := int64(uint64(lsn) % r.segmentSize)
	if off < r.at || off+pageSize > r.at+int64(len(r.window)) {
		n, err := r.file.ReadAt(r.buf[:], off)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, 0, fmt.Errorf("read wal segment: %w", err)
		}
		r.at, r.window = off, r.buf[:n]
	}
	if off+pageSize > r.at+int64(len(r.window)) {
		return nil, 0, errEnd
	}
	b := r.window[off-r.at:][:pageSize]
	size, ok := r.checkPage(b, lsn)
	if !ok {
		return nil, 0, errEnd
	}
	return b, size, nil
}

// checkPage says whether a page belongs where it stands: a recycled segment holds old pages of other addresses.
func (r *reader) checkPage(b []byte, lsn cluster.LSN) (int, bool) {
	le := binary.LittleEndian
	magic, info := le.Uint16(b), le.Uint16(b[2:])
	known := false
	for _, m := range magics {
		known = known || m == magic
	}
	if !known || info&^flagAllKnown != 0 || cluster.LSN(le.Uint64(b[8:])) != lsn {
		return 0, false
	}
	i := r.chain.index(cluster.Timeline(le.Uint32(b[4:])))
	if i < 0 || i > r.fileIdx {
		return 0, false
	}
	first := uint64(lsn)%r.segmentSize == 0
	if first != (info&flagLongHeader != 0) {
		return 0, false
	}
	if !first {
		return shortHeader, true
	}
	if r.system != 0 && cluster.SystemID(le.Uint64(b[24:])) != r.system {
		return 0, false
	}
	return longHeader, uint64(le.Uint32(b[32:])) == r.segmentSize && le.Uint32(b[36:]) == pageSize
}

// record is what the walk needs to know about one record.
type record struct {
	start    cluster.LSN
	next     cluster.LSN // where Postgres counts its end, and the next one starts
	prev     cluster.LSN
	timeline int // index in the chain
}

// read reads the record at lsn with segments of timelines up to limit. prev is the start of the record before, 0
// when unknown. It allocates nothing.
func (r *reader) read(lsn, prev cluster.LSN, limit int) (record, error) {
restart:
	pageAt := lsn - lsn%pageSize
	page, header, err := r.page(pageAt, limit)
	if err != nil {
		return record{}, err
	}
	off := int(lsn % pageSize)
	if off == 0 {
		off = header
	}
	info := binary.LittleEndian.Uint16(page[2:])
	if off < header || off%alignment != 0 || off == header && info&flagContRecord != 0 {
		return record{}, errEnd
	}
	rec := record{start: pageAt + cluster.LSN(off)}
	total := int(binary.LittleEndian.Uint32(page[off:]))
	if total < recordHeader || total > maxRecord {
		return record{}, errEnd
	}
	head := &r.head
	got, crc := 0, uint32(0)
	for {
		part := page[off:min(pageSize, off+total-got)]
		crc = take(head, got, part, crc)
		before := got
		got += len(part)
		if before < recordHeader && got >= recordHeader && !plausible(head, rec.start, prev) {
			return record{}, errEnd
		}
		if got == total {
			rec.next = pageAt + cluster.LSN(off+len(part))
			break
		}
		pageAt += pageSize
		if page, header, err = r.page(pageAt, limit); err != nil {
			return record{}, err
		}
		flags := binary.LittleEndian.Uint16(page[2:])
		if flags&flagOverwrite != 0 {
			// A crash tore the record here; recovery left it and went on at this page.
			lsn = pageAt
			goto restart
		}
		if flags&flagContRecord == 0 || int64(binary.LittleEndian.Uint32(page[16:])) != int64(total-got) {
			return record{}, errEnd
		}
		off = header
	}
	if crc32.Update(crc, castagnoli, head[:recordHeaderCRC]) != binary.LittleEndian.Uint32(head[recordHeaderCRC:]) {
		return record{}, errEnd
	}
	rec.prev = cluster.LSN(binary.LittleEndian.Uint64(head[8:]))
	rec.next = (rec.next + alignment - 1) &^ (alignment - 1)
	if head[17] == rmgrXLOG && head[16]&infoMask == infoSwitch {
		size := cluster.LSN(r.segmentSize)
		rec.next = (rec.next + size - 1) / size * size
	}
	rec.timeline = r.chain.at(rec.next, r.fileIdx+1)
	return rec, nil
}

// take adds one part of a record: its first 24 bytes are the header, the rest is what the checksum begins with.
func take(head *[recordHeader]byte, got int, part []byte, crc uint32) uint32 {
	if got < recordHeader {
		n := copy(head[got:], part)
		part = part[n:]
	}
	return crc32.Update(crc, castagnoli, part)
}

// plausible checks the link to the record before. It is what tells a record from the remains of an older one: in
// a recycled segment those are whole, with a right checksum.
func plausible(head *[recordHeader]byte, start, prev cluster.LSN) bool {
	link := cluster.LSN(binary.LittleEndian.Uint64(head[8:]))
	if prev != 0 {
		return link == prev
	}
	return link < start
}

// firstBoundary is where the first record begins that starts in the segment at lsn.
func (r *reader) firstBoundary(lsn cluster.LSN, limit int) (cluster.LSN, error) {
	page, header, err := r.page(lsn, limit)
	if err != nil {
		return 0, err
	}
	if binary.LittleEndian.Uint16(page[2:])&flagContRecord == 0 {
		return lsn + cluster.LSN(header), nil
	}
	return skipRest(lsn, cluster.LSN(header), cluster.LSN(binary.LittleEndian.Uint32(page[16:])), cluster.LSN(r.segmentSize)), nil
}

// skipRest is where the rest of a record that began in the segment before ends.
func skipRest(lsn, header, rest, segmentSize cluster.LSN) cluster.LSN {
	for {
		room := pageSize - header
		if rest <= room {
			return (lsn + header + rest + alignment - 1) &^ (alignment - 1)
		}
		rest -= room
		lsn += pageSize
		if header = shortHeader; lsn%segmentSize == 0 {
			header = longHeader
		}
	}
}
