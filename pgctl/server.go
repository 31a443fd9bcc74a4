// SPDX-License-Identifier: Apache-2.0

package pgctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/durable"
	"github.com/pgquorum/pgquorum/pgctl/proc"
	"github.com/pgquorum/pgquorum/pgctl/procfs"
	"github.com/pgquorum/pgquorum/pgctl/wal"
)

// Bounds of a start and a stop.
const (
	startPoll = 2 * time.Millisecond
	stopPoll  = 2 * time.Millisecond

	sendersPoll  = 10 * time.Millisecond // how often a stop looks for WAL senders to end
	leftoverWait = 5 * time.Second       // for the end of a server that a stop did not wait for
)

// StartSpec says how Postgres is to be started.
type StartSpec struct {
	Recovery   bool     // with standby.signal
	Settings   Settings // of the managed file
	GateClosed bool     // only our roles may connect
	KeepWAL    bool     // recycle no WAL: a rewind or a reader needs it
	// Timeline and History are the only ones that this node may have WAL of (PROTOCOL 5.5.f). Zero: not known.
	Timeline cluster.Timeline
	History  cluster.History
}

// StopMode is how Postgres is stopped.
type StopMode int

// The ways to stop.
const (
	Fast      StopMode = iota // SIGINT: sessions end, a checkpoint is written
	Immediate                 // SIGQUIT: recovery at the next start
)

// StopSpec says how Postgres is to be stopped.
type StopSpec struct {
	Mode     StopMode
	KeepSlot string        // the WAL sender of this slot gets the shutdown record, every other is ended; see Stop
	Patience time.Duration // sessions may take so long to end by themselves, or until the context is cancelled
	Timeout  time.Duration // then everything is killed; default 2 s
}

// Stopped is how a stop ended.
type Stopped struct {
	Clean       bool             // the control file says "shut down", and nothing was killed
	ShutdownEnd cluster.LSN      // end of the shutdown record, when clean and on a primary
	Timeline    cluster.Timeline // of that record
}

// Exit is an end of Postgres that nobody asked for.
type Exit struct {
	Pid    int
	Status proc.Exit
	Tail   []string // the last lines it wrote to stderr
}

func (e Exit) Error() string {
	return fmt.Sprintf("postgres ended (%v): %s", e.Status, lastSaid(e.Tail))
}

// ReplicasRefused says that an extension refuses to replay on a standby, which a new clone cannot cure
// (PROTOCOL 8.6).
func (e Exit) ReplicasRefused() bool {
	for _, l := range e.Tail {
		if strings.Contains(l, "replicas are not supported on community") {
			return true
		}
	}
	return false
}

// server is one life of a postmaster.
type server struct {
	child   *proc.Child
	pidFile string
	tail    *tail
	watched chan struct{} // closed when Postgres has forgotten it, after its end
	// Guarded by Postgres.mu: its end was asked for; Start has returned without an error.
	asked, started bool

	mu   sync.Mutex
	dir  string
	port int
}

// Exits delivers every end of Postgres that was not asked for.
func (p *Postgres) Exits() <-chan Exit { return p.exits }

// Running says whether a postmaster of ours lives.
func (p *Postgres) Running() bool { return p.Pid() != 0 }

// Pid is the postmaster's; 0 when there is none.
func (p *Postgres) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server == nil {
		return 0
	}
	return p.server.child.Pid()
}

// Start writes every file, starts Postgres and returns when our role can connect: in recovery that is when it
// is consistent. An error that holds an Exit means that it ended, which Exits does not repeat. After any other
// error it may still be starting: Stop or Kill is up to the caller. A Start whose context has ended before a Kill begins
// starts nothing after it: what the killer says of this node must stay true.
func (p *Postgres) Start(ctx context.Context, spec StartSpec) error {
	kills := p.kills.Load() // before the context is looked at: whoever kills cancels first
	p.work.Lock()
	defer p.work.Unlock()
	if err := p.leftover(ctx); err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	if p.Running() {
		return errors.New("start postgres: it runs already")
	}
	if plan, err := p.readPlan(); err != nil || plan.Garbage {
		return errors.Join(err, fmt.Errorf("start postgres: %s holds an interrupted %s", p.opt.DataDir, plan.Kind))
	}
	if err := p.prepareStart(spec); err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	if p.kills.Load() != kills {
		return fmt.Errorf("start postgres: %w", proc.ErrKilled)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	s := &server{watched: make(chan struct{}), pidFile: p.dataFile("postmaster.pid"), tail: &tail{out: p.opt.Stderr}}
	args := append(append([]string{}, p.args.Keep...), p.fileArgs()...)
	child, err := p.opt.Children.Start(proc.Spec{
		Path: p.bin("postgres"), Name: "postgres", Args: args, Env: p.env, Dir: "/",
		Stdout: p.opt.Stdout, Stderr: s.tail, Setpgid: true,
	})
	if err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	s.child = child
	p.mu.Lock()
	p.server = s
	s.asked = p.kills.Load() != kills
	late := s.asked
	p.mu.Unlock()
	go p.watch(s)
	if late { // the kill came too early for it
		return fmt.Errorf("start postgres: %w", errors.Join(proc.ErrKilled, child.Kill()))
	}
	if err := p.awaitReady(ctx, s); err != nil {
		if _, ended := errors.AsType[Exit](err); ended {
			<-s.watched // whoever sees this error sees no server any more
		}
		return fmt.Errorf("start postgres: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server != s {
		return fmt.Errorf("start postgres: %w", s.exit())
	}
	s.started = true
	return nil
}

// exit is how the server ended, once it has.
func (s *server) exit() Exit {
	return Exit{Pid: s.child.Pid(), Status: s.child.Exit(), Tail: s.tail.lines()}
}

// fileArgs are the file locations: the only settings of ours on the command line, because they never change.
func (p *Postgres) fileArgs() []string {
	return []string{
		"-D", p.opt.DataDir, "-c", "config_file=" + p.confFile("postgresql.conf"),
		"-c", "hba_file=" + p.confFile("pg_hba.conf"), "-c", "ident_file=" + p.confFile("pg_ident.conf"),
	}
}

// socketFiles are the sockets that Postgres will make, and their lock files.
func (p *Postgres) socketFiles() []string {
	dirs := "/var/run/postgresql"
	user := p.userSettings()
	if d := user["unix_socket_directories"]; d != "" {
		dirs = d
	}
	var files []string
	for dir := range strings.SplitSeq(dirs, ",") {
		name := filepath.Join(strings.TrimSpace(dir), ".s.PGSQL."+strconv.Itoa(p.port(user)))
		files = append(files, name, name+".lock")
	}
	return files
}

// port is where Postgres will listen.
func (p *Postgres) port(user map[string]string) int {
	if n, err := strconv.Atoi(user["port"]); err == nil {
		return n
	}
	if n, err := strconv.Atoi(variable(p.opt.Env, "PGPORT")); err == nil {
		return n
	}
	return 5432
}

func (p *Postgres) prepareStart(spec StartSpec) error {
	// No other postmaster can own this directory: the volume is locked by us. The pid in a stale file may belong
	// to anybody by now.
	stale := []string{p.dataFile("postmaster.pid"), p.dataFile("recovery.signal"), p.dataFile("promote")}
	if !spec.Recovery {
		stale = append(stale, p.dataFile("standby.signal"))
	}
	// A socket's lock file names a pid too, and lives on in the container's own layer, where a later life of the
	// container finds it and takes some other process of ours for a server.
	stale = append(stale, p.socketFiles()...)
	if err := durable.Remove(stale...); err != nil {
		return err
	}
	if spec.Recovery && !exists(p.dataFile("standby.signal")) {
		if err := p.save(p.dataFile("standby.signal"), nil); err != nil {
			return err
		}
	}
	if _, err := p.stripAutoFile(); err != nil {
		return err
	}
	if err := p.writeAll(spec); err != nil {
		return err
	}
	if err := p.Park(); err != nil {
		return err
	}
	if spec.Timeline != 0 {
		if _, err := p.MoveForeign(spec.Timeline, spec.History); err != nil {
			return err
		}
	}
	return p.setStubs()
}

func (p *Postgres) awaitReady(ctx context.Context, s *server) error {
	return poll(ctx, startPoll, func() (bool, error) {
		select {
		case <-s.child.Done():
			return false, s.exit()
		default:
		}
		if !s.ready() {
			return false, nil
		}
		_, err := p.keep(ctx, forActing) // before it is needed in a hurry
		if err == nil {
			return true, nil
		}
		if ctx.Err() != nil {
			return false, err
		}
		// 57P03: still starting. Anything else that Postgres says will not change by itself.
		if code := sqlState(err); code != "" && code != "57P03" && code != "53300" {
			return false, err
		}
		return false, nil
	})
}

func (p *Postgres) watch(s *server) {
	// Not Done: the backends of a crashed postmaster hold its output, and the next primary must not wait for them.
	<-s.child.Ended()
	p.mu.Lock()
	quiet, kept := s.asked || !s.started, p.kept
	if p.server == s {
		p.server, p.kept = nil, [keptCount]*session{}
	}
	p.mu.Unlock()
	close(s.watched)
	if !quiet {
		select {
		case p.exits <- s.exit():
		default:
			p.opt.Log.Error("exit of postgres lost: nobody reads exits", "pid", s.child.Pid())
		}
	}
	closeKept(kept)
}

// ready reads the postmaster's own word in its pid file, which is cheaper than connecting, and learns the
// address of its socket from it.
func (s *server) ready() bool {
	text, err := os.ReadFile(s.pidFile)
	if err != nil {
		return false
	}
	l := strings.Split(string(text), "\n")
	if len(l) < 8 || strings.TrimSpace(l[0]) != strconv.Itoa(s.child.Pid()) {
		return false
	}
	if st := strings.TrimSpace(l[7]); st != "ready" && st != "standby" {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dir = l[4]
	s.port, _ = strconv.Atoi(l[3])
	return true
}

func (s *server) address() (dir string, port int, err error) {
	s.mu.Lock()
	dir, port = s.dir, s.port
	s.mu.Unlock()
	if port == 0 && s.ready() {
		return s.address()
	}
	if port == 0 {
		return "", 0, fmt.Errorf("connect to postgres: it is still starting")
	}
	if dir == "" {
		return "", 0, errors.New("connect to postgres: unix_socket_directories is empty, but pgquorum needs a socket")
	}
	return dir, port, nil
}

// Stop stops Postgres. When it does not end in time everything is killed, and Clean is false. With a KeepSlot it returns as
// soon as the control file says "shut down" and that WAL sender has ended, which it does when its standby has the shutdown
// record: sessions ended before that record was written, and nothing is written after it. The postmaster may still be on its
// way out then, and counts as running until it is gone.
func (p *Postgres) Stop(ctx context.Context, spec StopSpec) (Stopped, error) {
	p.work.Lock()
	defer p.work.Unlock()
	if spec.Timeout == 0 {
		spec.Timeout = 2 * time.Second
	}
	p.mu.Lock()
	s := p.server
	if s != nil {
		s.asked = true
	}
	p.mu.Unlock()
	if s == nil {
		return p.stoppedState(true)
	}
	if spec.Patience > 0 {
		if err := p.await(ctx, s, spec.Patience); err != nil {
			return Stopped{}, fmt.Errorf("stop postgres: %w", err)
		}
		ctx = context.WithoutCancel(ctx)
	}
	keep := 0
	if spec.KeepSlot != "" {
		keep = p.senderOf(ctx, spec.KeepSlot)
	}
	sig := syscall.SIGINT
	if spec.Mode == Immediate {
		sig = syscall.SIGQUIT
	}
	if err := s.child.Signal(sig); err != nil {
		return Stopped{}, fmt.Errorf("stop postgres: %w", err)
	}
	limit, cancel := context.WithTimeout(ctx, spec.Timeout)
	defer cancel()
	processes := procfs.NewReader()
	var looked time.Time
	err := poll(limit, stopPoll, func() (bool, error) {
		select {
		case <-s.child.Ended():
			return true, nil
		default:
		}
		if spec.KeepSlot != "" && p.handedOver(keep) {
			return true, nil
		}
		if time.Since(looked) < sendersPoll {
			return false, nil
		}
		// A hung standby would hold the stop for wal_sender_timeout.
		err := endSenders(processes, s.child.Pid(), keep)
		looked = time.Now()
		return false, err
	})
	if err != nil {
		if kerr := p.Kill(); kerr != nil {
			return Stopped{}, fmt.Errorf("stop postgres: %w", kerr)
		}
		if gerr := p.Gone(ctx); gerr != nil {
			return Stopped{}, fmt.Errorf("stop postgres: %w", gerr)
		}
		return p.stoppedState(false)
	}
	return p.stoppedState(true)
}

// handedOver: the last record is written, and the WAL sender that was to send it is done.
func (p *Postgres) handedOver(sender int) bool {
	c, err := wal.ReadControl(p.opt.DataDir)
	if err != nil || c.State != wal.StateShutDown {
		return false
	}
	return sender == 0 || syscall.Kill(sender, 0) == syscall.ESRCH
}

// leftover waits for the end of a server that was asked to stop and is not waited for.
func (p *Postgres) leftover(ctx context.Context) error {
	p.mu.Lock()
	s := p.server
	asked := s != nil && s.asked
	p.mu.Unlock()
	if !asked {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, leftoverWait)
	defer cancel()
	select {
	case <-s.watched:
		return nil
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("the server that was stopped before has not ended: %w", ctx.Err()), p.Kill())
	}
}

// await begins a smart stop, which lets nobody in any more and waits for sessions to end by themselves. Our own must
// go first: Postgres would wait for them too.
func (p *Postgres) await(ctx context.Context, s *server, patience time.Duration) error {
	if err := s.child.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	p.mu.Lock()
	kept := p.kept
	p.kept = [keptCount]*session{}
	p.mu.Unlock()
	closeKept(kept)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-s.child.Done():
	case <-ctx.Done():
	}
	return nil
}

// endSenders ends every WAL sender of the postmaster but one. Their titles are the only way to know them now:
// no session can be opened during a shutdown.
func endSenders(r *procfs.Reader, postmaster, keep int) error {
	children, err := r.Children(nil, postmaster)
	if err != nil {
		return fmt.Errorf("end wal senders: %w", err)
	}
	for _, c := range children {
		if c.PID != keep && !c.Dead() && procfs.Classify(c.Title) == procfs.KindSender {
			_ = r.Signal(c, syscall.SIGTERM)
		}
	}
	return nil
}

// Kill ends every process of Postgres at once. It waits for nobody: see Gone.
func (p *Postgres) Kill() error {
	p.kills.Add(1)
	p.mu.Lock()
	if p.server != nil {
		p.server.asked = true
	}
	p.mu.Unlock()
	return p.opt.Children.KillAll()
}

// Gone waits until no process of Postgres is left.
func (p *Postgres) Gone(ctx context.Context) error {
	p.mu.Lock()
	s := p.server
	p.mu.Unlock()
	if err := p.opt.Children.Gone(ctx); err != nil {
		return err
	}
	if s == nil {
		return nil
	}
	if _, err := s.child.Wait(ctx); err != nil {
		return err
	}
	return poll(ctx, time.Millisecond, func() (bool, error) { // until watch has seen it too
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.server != s, nil
	})
}
