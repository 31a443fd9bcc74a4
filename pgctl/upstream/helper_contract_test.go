// SPDX-License-Identifier: Apache-2.0

//go:build contract

package upstream_test

import (
	"errors"
	"net"
	"testing"

	"github.com/pgquorum/pgquorum/pgctl/pgtest"
	"github.com/pgquorum/pgquorum/pgctl/upstream"
)

func dialSilent(t *testing.T, s *pgtest.Server) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", upstream.SocketPath(s.Lab.Dir, s.Port))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func isNotGone(err error) bool { return errors.Is(err, upstream.ErrNotGone) }
