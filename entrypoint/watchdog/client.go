// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgquorum/pgquorum/pgctl/proc"
)

// ErrGone means that the watchdog process has ended.
var ErrGone = errors.New("watchdog: not running")

// Bounds of the client's end.
const (
	readyTimeout = 10 * time.Second       // a busy machine may take long to start a process
	writeTimeout = 200 * time.Millisecond // the child does nothing but listen
)

// Options for Start.
type Options struct {
	Children   *proc.Children      // required
	Path       string              // the program; default: our own
	Args       []string            // default: "watchdog"
	Env        []string            // added to what the child gets
	Credential *syscall.Credential // default: ours
	Stderr     *os.File            // default: ours
}

// Client is process 1's end of one watchdog process. It is safe for concurrent use.
type Client struct {
	child *proc.Child
	conn  *net.UnixConn
	whole bool

	confirmed atomic.Int64 // the deadline that the child has confirmed; 0 when disarmed
	fired     atomic.Uint64

	mu      sync.Mutex // also orders the packets
	seq     uint64
	holdID  uint64
	waiting map[uint64]waiter
	gone    bool
}

type waiter struct {
	done     chan bool // nil: nobody waits
	deadline int64
	arms     bool
}

// Start starts a watchdog and waits until it runs.
func Start(ctx context.Context, opt Options) (*Client, error) {
	if opt.Path == "" {
		path, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("start watchdog: %w", err)
		}
		opt.Path = path
	}
	if opt.Args == nil {
		opt.Args = []string{"watchdog"}
	}
	if opt.Stderr == nil {
		opt.Stderr = os.Stderr
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("start watchdog: %w", err)
	}
	defer theirs.Close()
	child, err := opt.Children.Start(proc.Spec{
		Path: opt.Path, Name: "pgquorum", Args: opt.Args,
		Env:    append([]string{"GOMAXPROCS=1", "GOGC=50", "GOMEMLIMIT=8MiB"}, opt.Env...),
		Stderr: opt.Stderr, ExtraFiles: []*os.File{theirs}, Credential: opt.Credential, Setsid: true,
		KeepAfterUs: opt.Children.Scope().Own, // see doc.go
		Aside:       true,
	})
	if err != nil {
		_ = ours.Close()
		return nil, fmt.Errorf("start watchdog: %w", err)
	}
	c := &Client{child: child, conn: ours, waiting: make(map[uint64]waiter)}
	if err := c.awaitReady(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("start watchdog: %w", err)
	}
	go c.read()
	return c, nil
}

func socketPair() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "watchdog")
	file := os.NewFile(uintptr(fds[0]), "watchdog")
	defer file.Close()
	conn, err := net.FileConn(file) // a copy
	if err != nil {
		_ = theirs.Close()
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	return conn.(*net.UnixConn), theirs, nil
}

func (c *Client) awaitReady(ctx context.Context) error {
	deadline := time.Now().Add(readyTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	_ = c.conn.SetReadDeadline(deadline)
	m, err := c.next()
	if err != nil || m.kind != kindReady {
		return fmt.Errorf("hear that it runs: %w", errors.Join(err, ctx.Err()))
	}
	_ = c.conn.SetReadDeadline(time.Time{})
	c.whole = m.arg == 1
	return nil
}

func (c *Client) next() (message, error) {
	buf := make([]byte, messageSize+1)
	n, err := c.conn.Read(buf)
	if err != nil {
		return message{}, err
	}
	return decode(buf[:n])
}

// read delivers the answers. It ends with the child.
func (c *Client) read() {
	for {
		m, err := c.next()
		if err != nil {
			break
		}
		if m.kind == kindFired {
			c.fired.Add(1)
			c.confirmed.Store(0)
			continue
		}
		c.mu.Lock()
		w, ok := c.waiting[m.seq]
		delete(c.waiting, m.seq)
		c.mu.Unlock()
		if ok && w.arms && m.kind == kindAck {
			c.confirmed.Store(w.deadline)
		}
		if w.done != nil {
			w.done <- m.kind == kindAck
		}
	}
	c.confirmed.Store(0)
	c.mu.Lock()
	c.gone = true
	for _, w := range c.waiting {
		if w.done != nil {
			close(w.done)
		}
	}
	clear(c.waiting)
	c.mu.Unlock()
	_ = c.child.Kill() // a child that closed its socket but lives is of no use
}

// send writes one message, with an optional descriptor, and returns where its answer will be.
func (c *Client) send(kind byte, arg uint64, w waiter, fd int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return ErrGone
	}
	c.seq++
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	c.waiting[c.seq] = w
	_ = c.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, _, err := c.conn.WriteMsgUnix(message{kind, c.seq, arg}.encode(), oob, nil); err != nil {
		delete(c.waiting, c.seq)
		return fmt.Errorf("tell the watchdog: %w", err)
	}
	return nil
}

func (c *Client) ask(ctx context.Context, kind byte, arg uint64, w waiter, fd int) error {
	w.done = make(chan bool, 1)
	if err := c.send(kind, arg, w, fd); err != nil {
		return err
	}
	select {
	case ok, open := <-w.done:
		switch {
		case !open:
			return ErrGone
		case !ok:
			return errors.New("watchdog: refused")
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("hear from the watchdog: %w", ctx.Err())
	}
}

// Armed waits until the watchdog has answered everything that it was told, and says whether it holds a deadline that
// is still to come. Ask it before Postgres first writes under a lease; Extend is enough afterwards.
func (c *Client) Armed(ctx context.Context) error {
	if err := c.ask(ctx, kindPing, 0, waiter{}, -1); err != nil { // answers come in order
		return err
	}
	if d := c.Confirmed(); d <= Now() {
		return errors.New("the watchdog holds no deadline")
	}
	return nil
}

// Extend sets or moves the deadline, a time of Now's clock, without waiting: once armed, when the word does not
// arrive, the watchdog kills earlier, never later.
func (c *Client) Extend(deadline time.Duration) error {
	return c.send(kindDeadline, uint64(deadline), waiter{deadline: int64(deadline), arms: true}, -1)
}

// Disarm takes the deadline away: Postgres is stopped, or in recovery.
func (c *Client) Disarm() error { return c.send(kindDisarm, 0, waiter{arms: true}, -1) }

// Confirmed is the deadline that the watchdog has confirmed last, 0 when there is none.
func (c *Client) Confirmed() time.Duration { return time.Duration(c.confirmed.Load()) }

// Fired says how often the watchdog had to kill.
func (c *Client) Fired() uint64 { return c.fired.Load() }

// Hold gives the watchdog a copy of a connection's socket and returns when it has confirmed that it holds it.
// Release takes the copy back; it does not wait and may be called more than once. A hold ends with the watchdog.
func (c *Client) Hold(ctx context.Context, conn syscall.Conn) (release func(), err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("give the watchdog a link: %w", err)
	}
	c.mu.Lock()
	c.holdID++
	id := c.holdID
	c.mu.Unlock()
	var inner error
	err = raw.Control(func(fd uintptr) { inner = c.ask(ctx, kindHold, id, waiter{}, int(fd)) })
	release = sync.OnceFunc(func() { _ = c.send(kindRelease, id, waiter{}, -1) })
	if err := errors.Join(err, inner); err != nil {
		release() // it may have arrived
		return nil, fmt.Errorf("give the watchdog a link: %w", err)
	}
	return release, nil
}

// Whole says that the watchdog kills the whole container, which evidence of death (PROTOCOL 6.2) needs.
func (c *Client) Whole() bool { return c.whole }

// Alive says that the watchdog runs.
func (c *Client) Alive() bool {
	select {
	case <-c.child.Done():
		return false
	default:
		c.mu.Lock()
		defer c.mu.Unlock()
		return !c.gone
	}
}

// Done is closed when the watchdog process has ended.
func (c *Client) Done() <-chan struct{} { return c.child.Done() }

// Pid is the watchdog's process id, to be named to proc.Children.Gone.
func (c *Client) Pid() int { return c.child.Pid() }

// Close ends the watchdog and waits for that. Links that it held close with it.
func (c *Client) Close() {
	_ = c.send(kindQuit, 0, waiter{}, -1)
	select {
	case <-c.child.Done():
	case <-time.After(writeTimeout):
		_ = c.child.Kill()
		<-c.child.Done()
	}
	_ = c.conn.Close()
}

// Restart paces of Keep.
const (
	restartFirst = 10 * time.Millisecond
	restartMost  = 2 * time.Second
)

// Keep keeps a watchdog running until ctx ends. It calls changed with each new client, and with nil when that one
// has ended, always in this order and never at the same time: a node without a running watchdog takes no lease.
func Keep(ctx context.Context, opt Options, changed func(*Client, error)) {
	pause := restartFirst
	for ctx.Err() == nil {
		started := time.Now()
		c, err := Start(ctx, opt)
		if err == nil {
			changed(c, nil)
			select {
			case <-c.Done():
				err = fmt.Errorf("%w: %s", ErrGone, c.child.Exit())
			case <-ctx.Done():
				err = ctx.Err()
			}
			c.Close()
		}
		changed(nil, err)
		if time.Since(started) > restartMost {
			pause = restartFirst
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, restartMost)
	}
}
