// SPDX-License-Identifier: Apache-2.0

package wal

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/pgquorum/pgquorum/cluster"
)

func TestHistory(t *testing.T) {
	h, err := ParseHistory(5, []byte("1\t0/3000148\tno recovery target specified\n\n# x\n2\t0/5000000\tx y\n"))
	want := cluster.History{{Timeline: 1, Switch: 0x3000148}, {Timeline: 2, Switch: 0x5000000}}
	if err != nil || !reflect.DeepEqual(h, want) {
		t.Fatal(h, err)
	}
	again, err := ParseHistory(5, FormatHistory(h, "r"))
	if err != nil || !reflect.DeepEqual(again, want) {
		t.Fatal(again, err)
	}
	for _, bad := range []string{"1\n", "x\t0/1\n", "5\t0/1\n", "2\t0/1\n1\t0/2\n", "1\t01\n"} {
		if _, err := ParseHistory(5, []byte(bad)); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
	for lsn, want := range map[cluster.LSN]cluster.Timeline{1: 1, 0x3000148: 1, 0x3000149: 2, 0x5000000: 2, 0x5000001: 5} {
		if got := TimelineAt(5, h, lsn); got != want {
			t.Errorf("TimelineAt(%s) = %d, want %d", lsn, got, want)
		}
	}
}

func TestStubs(t *testing.T) {
	dir := t.TempDir()
	real := FormatHistory(cluster.History{{Timeline: 1, Switch: 0x100}}, "real")
	if err := os.WriteFile(filepath.Join(dir, HistoryName(3)), real, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteStubs(dir, 1, 6); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "00000004.history"))
	if err != nil || string(b) != "1\t0/1\tpgquorum stub\n" {
		t.Fatalf("%q %v", b, err)
	}
	if top, err := HighestTimelineSeen(dir); err != nil || top != 5 {
		t.Fatal(top, err)
	}
	if newest, err := NewestTimeline(dir, 1, 0x100); err != nil || newest != 3 {
		t.Fatal(newest, err)
	}
	if newest, err := NewestTimeline(dir, 1, 0x101); err != nil || newest != 1 {
		t.Fatal(newest, err)
	}
	check := func(want ...string) {
		t.Helper()
		names, _ := readNames(dir)
		if slices.Sort(names); !slices.Equal(names, want) {
			t.Fatalf("%q instead of %q", names, want)
		}
	}
	if n, err := StripStubs(dir, 2); err != nil || n != 2 {
		t.Fatal(n, err)
	}
	check("00000002.history", "00000003.history")
	if n, err := StripStubs(dir, 1); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	check("00000003.history")
	if err := errors.Join(WriteStubs(dir, 3, 6), SetStubs(dir, 1, 3)); err != nil {
		t.Fatal(err)
	}
	check("00000002.history", "00000003.history")
	if b, _ := os.ReadFile(filepath.Join(dir, "00000003.history")); string(b) != string(real) {
		t.Fatal("a real history was replaced")
	}
}

func TestMoveForeignAside(t *testing.T) {
	dir := t.TempDir()
	const seg = 1 << 20
	h := cluster.History{{Timeline: 1, Switch: 3*seg + 500}}
	for name, content := range map[string]string{
		"00000002.history":         "1\t0/1\tstub\n",
		"00000003.history":         "1\t0/300010\tforeign\n",
		"00000004.history":         "1\t0/3001F4\tours\n",
		"00000007.history":         "1\t0/1\tstub\n",
		"000000010000000000000003": "", "000000030000000000000003": "",
		"000000040000000000000002": "", "000000040000000000000003": "", "000000040000000000000004": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	moved, err := MoveForeignAside(dir, filepath.Join(dir, "aside"), 4, h, seg)
	slices.Sort(moved)
	// The last segment of 4 that begins before the fork holds nothing that reaches it: it is foreign too.
	want := []string{"00000003.history", "000000030000000000000003", "000000040000000000000002", "000000040000000000000003"}
	if err != nil || !slices.Equal(moved, want) {
		t.Fatal(moved, err)
	}
}

// log builds segments for unit tests: records of given sizes from the begin of a segment on.
type logBuilder struct {
	dir  string
	seg  cluster.LSN
	tli  cluster.Timeline
	buf  []byte // from base on
	base cluster.LSN
	prev cluster.LSN
}

func (l *logBuilder) at() cluster.LSN { return l.base + cluster.LSN(len(l.buf)) }

func (l *logBuilder) pageHeader(rem int) {
	at := l.at()
	size, info := shortHeader, uint16(0)
	if at%l.seg == 0 {
		size, info = longHeader, flagLongHeader
	}
	if rem > 0 {
		info |= flagContRecord
	}
	b := make([]byte, size)
	le := binary.LittleEndian
	le.PutUint16(b, 0xD110)
	le.PutUint16(b[2:], info)
	le.PutUint32(b[4:], uint32(l.tli))
	le.PutUint64(b[8:], uint64(at))
	le.PutUint32(b[16:], uint32(rem))
	if size == longHeader {
		le.PutUint64(b[24:], 77)
		le.PutUint32(b[32:], uint32(l.seg))
		le.PutUint32(b[36:], pageSize)
	}
	l.buf = append(l.buf, b...)
}

func (l *logBuilder) record(size int, info byte) cluster.LSN {
	if l.at()%pageSize == 0 {
		l.pageHeader(0)
	}
	start := l.at()
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i * size)
	}
	le := binary.LittleEndian
	le.PutUint32(b, uint32(size))
	le.PutUint64(b[8:], uint64(l.prev))
	b[16], b[17] = info, 0
	crc := crc32.Update(crc32.Update(0, castagnoli, b[recordHeader:]), castagnoli, b[:recordHeaderCRC])
	le.PutUint32(b[20:], crc)
	for len(b) > 0 {
		n := min(len(b), int(pageSize-l.at()%pageSize))
		l.buf = append(l.buf, b[:n]...)
		if b = b[n:]; len(b) > 0 {
			l.pageHeader(len(b))
		}
	}
	for l.at()%alignment != 0 {
		l.buf = append(l.buf, 0)
	}
	l.prev = start
	return l.at()
}

func (l *logBuilder) write(t testing.TB) {
	for off := 0; off < len(l.buf); off += int(l.seg) {
		b := make([]byte, l.seg)
		copy(b, l.buf[off:min(len(l.buf), off+int(l.seg))])
		name := SegmentName(l.tli, l.base+cluster.LSN(off), uint32(l.seg))
		if err := os.WriteFile(filepath.Join(l.dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func newLog(t testing.TB) *logBuilder {
	return &logBuilder{dir: t.TempDir(), seg: 1 << 20, tli: 1, base: 3 << 20}
}

func (l *logBuilder) params(start cluster.LSN) EndParams {
	return EndParams{Dir: l.dir, Timeline: l.tli, SegmentSize: uint32(l.seg), SystemID: 77, Start: start}
}

func TestEndAtEverySize(t *testing.T) {
	l := newLog(t)
	first := l.base + longHeader
	var ends []cluster.LSN
	for size := recordHeader; len(l.buf) < 5<<19; size += 37 {
		ends = append(ends, l.record(size, 0x10))
	}
	l.write(t)
	p := l.params(first)
	p.RedoPoint = true
	res, err := End(p)
	if err != nil || res.LSN != l.at() || res.Records != len(ends) || res.LastRecord != l.prev {
		t.Fatal(res, err, l.at(), len(ends))
	}
	for i := 0; i < len(ends); i += 11 {
		res, err := End(l.params(ends[i]))
		if err != nil || res.LSN != l.at() || res.Records != len(ends)-1-i {
			t.Fatal(i, res, err)
		}
		p := l.params(ends[i/2])
		p.Limit = ends[i]
		if res, err := End(p); err != nil || res.LSN != ends[i] {
			t.Fatal(i, res, err)
		}
	}
	p.Start += 8
	if _, err := End(p); !errors.Is(err, ErrStart) {
		t.Fatal("walked from inside a record", err)
	}
}

func TestEndTorn(t *testing.T) {
	l := newLog(t)
	start := l.record(100, 0)
	good := l.record(200, 0)
	l.record(30000, 0)
	whole := len(l.buf)
	for _, cut := range []int{whole - 1, whole - 29000, whole - 8000, int(good-l.base) + 8} {
		c := *l
		c.buf = slices.Clone(l.buf[:cut])
		c.write(t)
		if res, err := End(c.params(start)); err != nil || res.LSN != good {
			t.Fatal(cut, res, err)
		}
	}
}

// A recycled segment holds whole records with right checksums; only the link to the record before gives them away.
func TestEndRecycled(t *testing.T) {
	l := newLog(t)
	l.record(100, 0)
	end := l.record(200, 0)
	stale := *l
	stale.buf = slices.Clone(l.buf)
	stale.prev = 0x123450
	stale.record(300, 0)
	stale.write(t)
	for _, start := range []cluster.LSN{end, l.base + longHeader + 104} {
		if res, err := End(l.params(start)); err != nil || res.LSN != end {
			t.Fatal(start, res, err)
		}
	}
	// At the first boundary of a segment the record before may really be gone: unknown, not a guess.
	stale = *newLog(t)
	stale.prev = 0x123450
	stale.record(300, 0)
	stale.write(t)
	if _, err := End(stale.params(stale.base)); !errors.Is(err, ErrStart) {
		t.Fatal(err)
	}
}

func TestEndSwitch(t *testing.T) {
	l := newLog(t)
	start := l.record(100, 0)
	l.record(recordHeader, infoSwitch)
	l.write(t)
	if res, err := End(l.params(start)); err != nil || res.LSN != l.base+l.seg {
		t.Fatal(res, err)
	}
}

// A new timeline's segment that is not filled up to its fork must not hide what the old one holds; one that is must
// win; and what the old one holds beyond the fork is on the old one.
func TestEndTimelines(t *testing.T) {
	old := newLog(t)
	start := old.record(100, 0)
	fork := old.record(5000, 0)
	young := *old
	young.buf = slices.Clone(old.buf)
	young.tli = 4
	beyond := old.record(9000, 0)
	old.write(t)
	p := old.params(start)
	p.Timeline, p.History = 4, cluster.History{{Timeline: 1, Switch: fork}}
	expect := func(name string, tli cluster.Timeline, lsn cluster.LSN) {
		t.Helper()
		if res, err := End(p); err != nil || res.Timeline != tli || res.LSN != lsn {
			t.Fatalf("%s: %v, %v; want %d:%s", name, res, err, tli, lsn)
		}
	}
	expect("old only", 1, beyond)
	short := young
	short.buf = young.buf[:start-young.base]
	short.write(t)
	expect("young not filled to its fork", 1, beyond)
	young.write(t)
	expect("young filled to its fork", 1, beyond)
	next := young.record(64, 0)
	young.write(t)
	expect("young with a record of its own", 4, next)
	p.Start, p.StartIn = beyond, 1
	expect("start beyond the fork", 1, beyond)
}

func TestControlRefuses(t *testing.T) {
	b := make([]byte, 8192)
	if _, err := ParseControl(b); err == nil {
		t.Error("accepted zeros")
	}
	binary.LittleEndian.PutUint32(b[8:], 1300)
	if _, err := ParseControl(b); !errors.Is(err, ErrControlChecksum) {
		t.Error(err)
	}
	if _, err := ParseControl(b[:100]); err == nil {
		t.Error("accepted a short file")
	}
}

func FuzzEnd(f *testing.F) {
	l := newLog(f)
	start := l.record(100, 0)
	l.record(9000, 0)
	l.record(50, 0)
	f.Add(l.buf, uint64(start))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte, start uint64) {
		path := filepath.Join(dir, SegmentName(1, l.base, 1<<20))
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		p := l.params(cluster.LSN(start))
		p.Dir = dir
		p.RedoPoint = start%2 == 0
		if res, err := End(p); err == nil && res.LSN < cluster.LSN(start) {
			t.Fatal(res)
		}
	})
}

func FuzzHistory(f *testing.F) {
	f.Add([]byte("1\t0/3000148\tx\n2\t0/5000000\ty\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHistory(9, b)
		if err != nil {
			return
		}
		if again, err := ParseHistory(9, FormatHistory(h, "x")); err != nil || !reflect.DeepEqual(again, h) {
			t.Fatal(h, again, err)
		}
	})
}

func FuzzControl(f *testing.F) {
	f.Add(make([]byte, 8192))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = ParseControl(b) })
}

func BenchmarkEnd(b *testing.B) {
	l := newLog(b)
	for len(l.buf) < 1<<20-4096 {
		l.record(120, 0)
	}
	l.write(b)
	p := l.params(l.base + longHeader)
	p.RedoPoint = true
	b.SetBytes(int64(len(l.buf)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := End(p); err != nil {
			b.Fatal(err)
		}
	}
}

func TestOldest(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"00000002.history", "000000010000000000000003.partial", "000000010000000000000002.00000028.backup", "archive_status"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if at, err := Oldest(dir, 16<<20); err != nil || at != 0 {
		t.Errorf("without segments: %s, %v", at, err)
	}
	for _, name := range []string{"000000020000000100000004", "0000000200000001000000FF", "000000030000000200000000"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if at, err := Oldest(dir, 16<<20); err != nil || at != 0x1_04000000 {
		t.Errorf("oldest: %s, %v", at, err)
	}
}
