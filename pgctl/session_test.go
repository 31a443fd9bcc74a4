// SPDX-License-Identifier: Apache-2.0

package pgctl

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// talk is a session with a server that the test plays, and its end of the wire.
func talk(t *testing.T) (*session, net.Conn) {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _ = theirs.Close() })
	cfg, err := pgconn.ParseConfig("host=/nowhere user=x sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgconn.Construct(&pgconn.HijackedConn{
		Conn: ours, Config: cfg, TxStatus: 'I', Frontend: pgproto3.NewFrontend(ours, ours),
	})
	if err != nil {
		t.Fatal(err)
	}
	return &session{conn: conn}, theirs
}

// A Postgres that ends closes the kept sessions, also while one asks something: that is an error for who asks, and no end
// of PID 1.
func TestSessionClosedWhileItAsks(t *testing.T) {
	s, theirs := talk(t)
	asked := make(chan error, 1)
	go func() {
		_, err := s.query(t.Context(), "select 1")
		asked <- err
	}()
	first := make([]byte, 1)
	if _, err := theirs.Read(first); err != nil { // the rest of the question is being written now, and nobody reads it
		t.Fatal(err)
	}
	s.close()
	select {
	case err := <-asked:
		if err == nil {
			t.Error("it was answered")
		}
	case <-time.After(10 * time.Second):
		t.Error("it still waits for an answer")
	}
	s.close() // once more is no harm
}

// TestReceivedIsTimelineAndFlush: admission rests on one row with what is flushed and its timeline. The conninfo beside it is
// not asked for: older minors overwrite it when the timeline changes on one connection (PROTOCOL 5.7.c, E55).
func TestReceivedIsTimelineAndFlush(t *testing.T) {
	s, theirs := talk(t)
	p := &Postgres{}
	p.kept[forActing] = s
	asked := make(chan string, 1)
	go func() {
		server := pgproto3.NewBackend(theirs, theirs)
		m, err := server.Receive()
		q, ok := m.(*pgproto3.Query)
		if err != nil || !ok {
			asked <- fmt.Sprintf("%T %v", m, err)
			return
		}
		asked <- q.String
		var fields []pgproto3.FieldDescription
		var row [][]byte
		for _, v := range []string{"17", "streaming", "4", "0/3000148", "", "pgq_2"} {
			fields = append(fields, pgproto3.FieldDescription{Name: []byte("x"), DataTypeOID: 25})
			row = append(row, []byte(v))
		}
		server.Send(&pgproto3.RowDescription{Fields: fields})
		server.Send(&pgproto3.DataRow{Values: row})
		server.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
		server.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		_ = server.Flush()
	}()
	r, err := p.Received(t.Context())
	if err != nil || r.Timeline != 4 || r.Flushed != 0x3000148 || r.State != "streaming" || r.Slot != "pgq_2" {
		t.Errorf("%+v, %v", r, err)
	}
	if sql := <-asked; !strings.Contains(sql, "received_tli, flushed_lsn") || strings.Contains(sql, "conninfo") || strings.Contains(sql, "WHERE") {
		t.Errorf("asked %q", sql)
	}
}
