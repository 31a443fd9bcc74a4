// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/pgquorum/pgquorum/api/status"
)

// Bounds of a server. Whoever asks sends one small request and takes the answer at once.
const (
	headerTimeout   = 2 * time.Second
	readTimeout     = 5 * time.Second
	writeTimeout    = 10 * time.Second
	idleTimeout     = 30 * time.Second
	headerBytesMax  = 8 << 10
	connectionsMax  = 128
	shutdownTimeout = time.Second
	socketPathMax   = 100 // the kernel's limit is 107 bytes; the temporary name needs some
)

// Listen opens the network side on every address.
func Listen(ctx context.Context, port int) (net.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", net.JoinHostPort("", strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("listen for health checks: %w", err)
	}
	return ln, nil
}

// ListenSocket opens the local socket in dir, for its owner only; uid and gid say who that is, -1 this process' own.
// A socket that an earlier run left behind is replaced.
func ListenSocket(dir string, uid, gid int) (net.Listener, error) {
	path := filepath.Join(dir, status.SocketName)
	if len(path) > socketPathMax {
		return nil, fmt.Errorf("listen on %s: a socket's path may have %d bytes", path, socketPathMax)
	}
	// Made under another name, so that nobody meets it before its mode is right.
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("clear the socket's name: %w", err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on the local socket: %w", err)
	}
	ln.SetUnlinkOnClose(false) // its name has changed by then
	err = errors.Join(os.Chmod(tmp, 0o600), os.Chown(tmp, uid, gid))
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("prepare the local socket: %w", err)
	}
	return ln, nil
}

// Serve answers on the network side until ctx ends, and closes ln.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger) error {
	return serve(ctx, ln, h, orDiscard(log), readTimeout, writeTimeout)
}

// ServeLocal answers on the local socket until ctx ends, and closes ln. An answer may take as long as an order does.
func ServeLocal(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger) error {
	// No limit on reading: net/http's would end a request that is still being carried out.
	return serve(ctx, ln, h, orDiscard(log), 0, orderMax+writeTimeout)
}

func serve(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger, read, write time.Duration) error {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, ReadTimeout: read, WriteTimeout: write,
		IdleTimeout: idleTimeout, MaxHeaderBytes: headerBytesMax,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), // broken clients are no news
	}
	stop := context.AfterFunc(ctx, func() {
		short, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		if s.Shutdown(short) != nil {
			_ = s.Close()
		}
	})
	defer stop()
	if err := s.Serve(&bounded{Listener: ln, slots: make(chan struct{}, connectionsMax)}); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the api: %w", err)
	}
	return nil
}

// bounded is a listener with a limit: whoever comes above it waits in the kernel's queue.
type bounded struct {
	net.Listener
	slots chan struct{}
}

func (b *bounded) Accept() (net.Conn, error) {
	b.slots <- struct{}{}
	c, err := b.Listener.Accept()
	if err != nil {
		<-b.slots
		return nil, err
	}
	return &boundedConn{Conn: c, free: sync.OnceFunc(func() { <-b.slots })}, nil
}

type boundedConn struct {
	net.Conn
	free func()
}

func (c *boundedConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}
