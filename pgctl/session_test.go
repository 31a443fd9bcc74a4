// SPDX-License-Identifier: Apache-2.0

package pgctl

import (
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// A Postgres that ends closes the kept sessions, also while one asks something: that is an error for who asks, and no end
// of PID 1.
func TestSessionClosedWhileItAsks(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
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
	s := &session{conn: conn}
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
