// SPDX-License-Identifier: Apache-2.0

//go:build contract

package pgtest_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/pgctl/pgtest"
)

// TestContractReceivedTimelineJumps is E3d: a WAL receiver that has asked for a new timeline shows it, at the start of the
// segment, before any byte of it has come. So a position rests on the bytes (5.2.d), and a flush on the pair of timeline
// and LSN (5.7.c).
func TestContractReceivedTimelineJumps(t *testing.T) {
	pgtest.Each(t, func(t *testing.T, l *pgtest.Lab) {
		p := l.Init("p", "")
		p.Start()
		p.One("create table t(i int); select 1")
		s, next := follows(p, "s", ""), follows(p, "next", "")
		p.One("insert into t select generate_series(1, 1000); select 1")
		catchesUp(p, s)
		catchesUp(p, next)
		p.Kill()
		promoted(next)
		fork, err := os.ReadFile(filepath.Join(next.Data, "pg_wal", "00000002.history"))
		if err != nil {
			t.Fatal(err)
		}
		at := strings.Fields(string(fork))[1]
		port := silent(t, filepath.Join(l.Dir, fmt.Sprintf(".s.PGSQL.%d", next.Port)))
		set(s, fmt.Sprintf("primary_conninfo='host=127.0.0.1 port=%d user=%s sslmode=disable gssencmode=disable application_name=s'", port, pgtest.User))
		pgtest.Wait(t, "the receiver has asked for timeline 2", 20*time.Second, func() bool {
			return s.One("select received_tli from pg_stat_wal_receiver where status = 'streaming'") == "2"
		})
		if got := s.One("select flushed_lsn < '" + at + "' and flushed_lsn = pg_walfile_start from pg_stat_wal_receiver, " +
			"lateral (select ('0/' || to_hex((('" + at + "'::pg_lsn - '0/0') / (16 * 1024 * 1024))::bigint * 16 * 1024 * 1024))::pg_lsn as pg_walfile_start) x"); got != "t" {
			t.Errorf("received_tli is 2, and flushed is %s, the fork %s", s.One("select flushed_lsn from pg_stat_wal_receiver"), at)
		}
	})
}

// silent forwards to a server until that begins to stream its second timeline, and then holds its bytes back.
func silent(t *testing.T, socket string) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			down, err := ln.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("unix", socket)
			if err != nil {
				down.Close()
				continue
			}
			t.Cleanup(func() { up.Close(); down.Close() })
			go func() { _, _ = io.Copy(up, down); up.Close() }()
			go untilStream(down, up)
		}
	}()
	return ln.Addr().(*net.TCPAddr).Port
}

// untilStream copies whole messages of the server up to its second CopyBothResponse: the first is of the timeline that
// the receiver is on, and ends at once.
func untilStream(down io.Writer, up io.Reader) {
	for streams := 0; streams < 2; {
		head := make([]byte, 5)
		if _, err := io.ReadFull(up, head); err != nil {
			return
		}
		body := make([]byte, max(4, int(binary.BigEndian.Uint32(head[1:])))-4)
		if _, err := io.ReadFull(up, body); err != nil {
			return
		}
		if _, err := down.Write(append(head, body...)); err != nil {
			return
		}
		if head[0] == 'W' {
			streams++
		}
	}
}
