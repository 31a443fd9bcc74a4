// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// maxParked bounds the parked connections; one node has one receiver and one slot sync worker at a time.
const maxParked = 32

// Parking is a unix socket that accepts and never answers. A WAL receiver without upstream waits there instead of
// failing a hundred times a second. It is a dead end, not a relay.
type Parking struct {
	l    *net.UnixListener
	done chan struct{}

	mu    sync.Mutex
	held  bool       // false: hang up on whoever comes
	conns []net.Conn // oldest first
}

// SocketPath is where libpq looks for the socket of a port in a directory.
func SocketPath(dir string, port int) string {
	return filepath.Join(dir, ".s.PGSQL."+strconv.Itoa(port))
}

// NewParking listens in dir, which it makes with mode 0700; what an earlier run left there is removed.
func NewParking(dir string, port int) (*Parking, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make parking directory: %w", err)
	}
	path := SocketPath(dir, port)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old parking socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on parking socket: %w", err)
	}
	p := &Parking{l: l, done: make(chan struct{}), held: true}
	go p.accept()
	return p, nil
}

func (p *Parking) accept() {
	defer close(p.done)
	for {
		c, err := p.l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		p.mu.Lock()
		if !p.held {
			_ = c.Close()
			p.mu.Unlock()
			continue
		}
		p.conns = append(p.conns, c)
		if len(p.conns) > maxParked {
			_ = p.conns[0].Close()
			p.conns = p.conns[1:]
		}
		p.mu.Unlock()
		go p.drain(c)
	}
}

// drain reads and drops what the peer says until it hangs up.
func (p *Parking) drain(c net.Conn) {
	_, _ = io.Copy(io.Discard, c)
	_ = c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, x := range p.conns {
		if x == c {
			p.conns = append(p.conns[:i], p.conns[i+1:]...)
			return
		}
	}
}

// Parked is the number of connections that wait.
func (p *Parking) Parked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// Hold keeps whoever comes from now on.
func (p *Parking) Hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = true
}

// Release hangs up on all that wait, so that they read the upstream file again, and on whoever comes until Hold: a
// receiver may have read the parked file just before it was ordered, and would wait here for ever.
func (p *Parking) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = false
	for _, c := range p.conns {
		_ = c.Close()
	}
}

// Close ends the socket and all that wait.
func (p *Parking) Close() error {
	err := p.l.Close()
	<-p.done
	p.Release()
	return err
}
