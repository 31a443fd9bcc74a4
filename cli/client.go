// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/pgquorum/pgquorum/api/status"
)

// Exit codes.
const (
	exitOK        = 0
	exitFailure   = 1
	exitNoPrimary = 2
	exitUsage     = 2
)

const (
	runtimeDir      = "/run/pgquorum"
	defaultStateDir = "/var/lib/postgresql/pgquorum"
	answerBytesMax  = 4 << 20
	statusTimeout   = 5 * time.Second
)

// Call is what a command may use of the outside world.
type Call struct {
	Args           []string            // after the command's name
	Getenv         func(string) string // as os.Getenv
	Stdout, Stderr io.Writer
}

func (c Call) fail(err error) int {
	fmt.Fprintf(c.Stderr, "pgquorum: %v\n", err)
	return exitFailure
}

// SocketPath is where the node of this container listens for its operators.
func SocketPath(getenv func(string) string) string {
	return socketPath(runtimeDir, getenv)
}

func socketPath(runtime string, getenv func(string) string) string {
	if st, err := os.Stat(runtime); err == nil && st.IsDir() && reachable(runtime) {
		return filepath.Join(runtime, status.SocketName)
	}
	state := getenv("PGQUORUM_STATE_DIR")
	if state == "" {
		state = defaultStateDir
	}
	return filepath.Join(state, "run", status.SocketName)
}

// reachable reports whether this process may look inside dir. A directory without a socket counts.
func reachable(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, status.SocketName))
	return err == nil || errors.Is(err, fs.ErrNotExist)
}

// client talks to the node.
type client struct {
	path string
	http *http.Client
}

func newClient(path string) *client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	return &client{path: path, http: &http.Client{Transport: &http.Transport{DialContext: dial, MaxIdleConns: 1}}}
}

// do asks and decodes the answer into out, whatever the code.
func (c *client) do(ctx context.Context, method, path string, in, out any) (code int, err error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return 0, fmt.Errorf("encode the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://node"+path, body)
	if err != nil {
		return 0, fmt.Errorf("ask the node: %w", err)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return 0, c.explain(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, answerBytesMax))
	if err != nil {
		return res.StatusCode, c.explain(err)
	}
	if err := json.Unmarshal(b, out); err != nil {
		return res.StatusCode, fmt.Errorf("read the node's answer (%s): %w", res.Status, err)
	}
	return res.StatusCode, nil
}

// explain says what a failed connection means here.
func (c *client) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no socket %s: no cluster node runs in this container (is PGQUORUM_PEERS set?), or it is starting", c.path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s may be used by root and by the postgres user only", c.path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nobody listens on %s: the node is starting or stopping", c.path)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the node does not answer on %s in time", c.path)
	}
	return fmt.Errorf("ask the node on %s: %w", c.path, err)
}

func (c *client) status(ctx context.Context) (status.Doc, error) {
	var d status.Doc
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	code, err := c.do(ctx, http.MethodGet, status.PathStatus, nil, &d)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("ask the node: code %d", code)
	}
	return d, err
}
