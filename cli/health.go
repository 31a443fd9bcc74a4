// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/pgquorum/pgquorum/api/status"
)

// healthTimeout is short: a container's health check has a limit of its own, and its message would say less.
const healthTimeout = 2 * time.Second

// Health is the container's health check. It is green while the node waits, clones or elects: a container without
// health has no name in some networks, and its peers could then never find it. With --ready the node has to serve or
// stream. In an ordinary single server, which has no socket, it asks Postgres itself.
func Health(ctx context.Context, c Call) int {
	var ready bool
	_, code, done := c.parse("health [--ready]", 0, func(f *flag.FlagSet) {
		f.BoolVar(&ready, "ready", false, "only healthy while the node serves or streams")
	})
	if done {
		return code
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	path := SocketPath(c.Getenv)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) && !clustered(c.Getenv) {
		return c.single(ctx, ready)
	}
	url := status.PathHealth
	if ready {
		url += "?ready=1"
	}
	var out status.Outcome
	code, err := newClient(path).do(ctx, http.MethodGet, url, nil, &out)
	switch {
	case err != nil:
		return c.fail(err)
	case code != http.StatusOK:
		return c.fail(errors.New(cmp.Or(out.Message, fmt.Sprintf("code %d", code))))
	}
	fmt.Fprintln(c.Stdout, cmp.Or(out.Message, "ok"))
	return exitOK
}

// clustered reports whether this container is meant to be a member of a cluster.
func clustered(getenv func(string) string) bool {
	return getenv("PGQUORUM_PEERS") != "" || getenv("PGQUORUM_PEERS_FILE") != ""
}

// single checks an ordinary server. While the image's scripts set it up it listens on the unix socket only: that is
// healthy, and not ready.
func (c Call) single(ctx context.Context, ready bool) int {
	port := cmp.Or(c.Getenv("PGPORT"), "5432")
	dir := cmp.Or(strings.Split(c.Getenv("PGHOST"), ",")[0], "/var/run/postgresql")
	if !strings.HasPrefix(dir, "/") {
		dir = "/var/run/postgresql"
	}
	user := cmp.Or(c.Getenv("POSTGRES_USER"), "postgres")
	err := accepts(ctx, "tcp", net.JoinHostPort("127.0.0.1", port), user)
	if err != nil && !ready {
		if accepts(ctx, "unix", dir+"/.s.PGSQL."+port, user) == nil {
			err = nil
		}
	}
	if err != nil {
		return c.fail(err)
	}
	fmt.Fprintln(c.Stdout, "postgres accepts connections")
	return exitOK
}

// The parts of Postgres' protocol that a check needs.
const (
	protocol3      = 3 << 16
	cannotConnect  = "57P03" // starting up, shutting down, in recovery without hot standby
	messageMax     = 16 << 10
	messageHeader  = 5
	typeError      = 'E'
	typeAuth       = 'R'
	typeReady      = 'Z'
	fieldCode      = 'C'
	terminateBytes = "X\x00\x00\x00\x04"
)

// accepts begins a session as a client would and judges the first answer: a demand for a password is as good as a
// welcome, and so is every refusal but "not now".
func accepts(ctx context.Context, network, address, user string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return fmt.Errorf("connect to postgres: %w", err)
	}
	defer conn.Close()
	if t, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(t) // a connection that takes no deadline fails right after
	}
	if _, err := conn.Write(startup(user)); err != nil {
		return fmt.Errorf("greet postgres on %s: %w", address, err)
	}
	kind, body, err := message(conn)
	for err == nil && welcome(kind, body) {
		kind, body, err = message(conn) // leaving in the middle of a welcome would show in the server's log
	}
	switch {
	case err != nil:
		return fmt.Errorf("hear postgres on %s: %w", address, err)
	case kind == typeError && sqlState(body) == cannotConnect:
		return fmt.Errorf("postgres on %s does not accept connections yet", address)
	case kind == typeError || kind == typeAuth:
		return nil
	case kind != typeReady:
		return fmt.Errorf("hear postgres on %s: unexpected message %q", address, kind)
	}
	_, _ = io.WriteString(conn, terminateBytes) // politeness only
	return nil
}

// welcome reports whether a message belongs to a session that was let in without a password and is not ready yet.
func welcome(kind byte, body []byte) bool {
	switch kind {
	case typeAuth:
		return bytes.Equal(body, []byte{0, 0, 0, 0})
	case 'S', 'K', 'N', 'v':
		return true
	}
	return false
}

func startup(user string) []byte {
	b := make([]byte, 8, 64)
	binary.BigEndian.PutUint32(b[4:], protocol3)
	for _, s := range []string{"user", user, "database", "postgres", "application_name", "pgquorum health", ""} {
		b = append(append(b, s...), 0)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	return b
}

func message(r io.Reader) (kind byte, body []byte, err error) {
	var head [messageHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n < 4 || n > messageMax {
		return 0, nil, fmt.Errorf("a message of %d bytes", n)
	}
	body = make([]byte, n-4)
	_, err = io.ReadFull(r, body)
	return head[0], body, err
}

// sqlState finds the code among an error's fields: each is a type byte and a text that ends with a zero.
func sqlState(body []byte) string {
	for field := range strings.SplitSeq(string(body), "\x00") {
		if len(field) > 1 && field[0] == fieldCode {
			return field[1:]
		}
	}
	return ""
}
