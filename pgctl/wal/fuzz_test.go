// SPDX-License-Identifier: Apache-2.0

package wal

import (
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/pgquorum/pgquorum/cluster"
)

// FuzzControlFields: bytes with a right checksum are read without a panic, and what is read can be worked with.
func FuzzControlFields(f *testing.F) {
	whole := make([]byte, 512)
	binary.LittleEndian.PutUint32(whole[228:], 16<<20)
	for v := range uint8(4) {
		f.Add(whole, v)
		f.Add([]byte{}, v)
	}
	f.Fuzz(func(t *testing.T, b []byte, version uint8) {
		b = append(b, make([]byte, max(0, 8192-len(b)))...)
		v := []uint32{1300, 1700, 1800, 1900}[version%4]
		binary.LittleEndian.PutUint32(b[8:], v)
		at := controlCRC1300
		if v == 1800 {
			at = controlCRC1800
		}
		binary.LittleEndian.PutUint32(b[at:], crc32.Checksum(b[:at], castagnoli))
		c, err := ParseControl(b)
		if err != nil {
			return
		}
		name := SegmentName(c.Timeline(), c.Checkpoint, c.WALSegmentSize)
		if f, ok := parseName(name); !ok || f.timeline != c.Timeline() || f.number(c.WALSegmentSize) != uint64(c.Checkpoint)/uint64(c.WALSegmentSize) {
			t.Fatalf("segment %s of %+v", name, c)
		}
		_ = c.State.String()
	})
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{"00000001000000000000000A", "00000002.history", "00000001000000000000000A.partial", "00000001000000000000000A.00000028.backup", "xlogtemp.1", "", "+0000001.history"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		w, ok := parseName(s)
		if !ok {
			return
		}
		const size = 16 << 20
		if !w.history && w.segment&0xFFFFFFFF < (1<<32)/size {
			lsn := cluster.LSN(w.number(size) * size)
			if again, ok := parseName(SegmentName(w.timeline, lsn, size)); !ok || again != w {
				t.Fatalf("%q: %+v, then %+v", s, w, again)
			}
		}
	})
}
