// SPDX-License-Identifier: Apache-2.0

//go:build contract

package facts_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/pgquorum/pgquorum/pgctl/pgtest"
	"github.com/pgquorum/pgquorum/pgctl/pgtest/facts"
)

// tx is a transaction on a connection of its own.
type tx struct {
	id    int
	state atomic.Int32 // 1: acknowledged, 2: failed
}

func (x *tx) Acked() bool  { return x.state.Load() == 1 }
func (x *tx) Failed() bool { return x.state.Load() == 2 }

func (s *server) begin(sql string) facts.Tx {
	s.r.ids++
	x, c := &tx{id: s.r.ids}, s.Conn()
	go func() {
		_, err := pgtest.TryQuery(c, fmt.Sprintf(sql, x.id))
		c.Conn().Close()
		if err != nil {
			x.state.Store(2)
			return
		}
		x.state.Store(1)
	}()
	return x
}

// Commit implements facts.Server.
func (s *server) Commit() facts.Tx { return s.begin("insert into t values (%d, repeat('x', 1000))") }

// Work implements facts.Server.
func (s *server) Work() facts.Tx {
	return s.begin("do $$ declare ends timestamptz := clock_timestamp() + interval '2 s'; begin " +
		"while clock_timestamp() < ends loop insert into t values (%d); commit; end loop; end $$")
}

// Has implements facts.Server.
func (s *server) Has(x facts.Tx) bool {
	return s.do("select count(*) from t where id = "+strconv.Itoa(x.(*tx).id)) != "0"
}

// silent forwards to a server until that begins to stream its second timeline, and then holds its bytes back.
func silent(t testing.TB, socket string) int {
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
