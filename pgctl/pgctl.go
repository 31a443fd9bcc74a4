// SPDX-License-Identifier: Apache-2.0

package pgctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/pgctl/conf"
	"github.com/pgquorum/pgquorum/pgctl/gate"
	"github.com/pgquorum/pgquorum/pgctl/proc"
	"github.com/pgquorum/pgquorum/pgctl/upstream"
)

// Secret is a string that is never printed.
type Secret string

// String hides the secret from everything that formats it.
func (Secret) String() string { return "***" }

// GoString hides the secret from %#v.
func (Secret) GoString() string { return "***" }

// LogValue hides the secret from logs.
func (Secret) LogValue() slog.Value { return slog.StringValue("***") }

// MarshalText hides the secret from encoders.
func (Secret) MarshalText() ([]byte, error) { return []byte("***"), nil }

// Children starts and ends processes; proc.Children is the real one.
type Children interface {
	Start(proc.Spec) (*proc.Child, error)
	// KillAll ends every process of Postgres at once (PROTOCOL 4.5.b).
	KillAll() error
	// Gone waits until none is left.
	Gone(ctx context.Context) error
}

// Options is what New needs. Children, DataDir, StateDir, BinDir, Incarnation, ReplUser and ReplPassword are
// required.
type Options struct {
	DataDir    string   // PGDATA
	StateDir   string   // ours, beside PGDATA
	RunDir     string   // runtime directory for our sockets; default StateDir/run
	BinDir     string   // where postgres and its tools are
	ServerArgs []string // the user's arguments after "postgres"
	Env        []string // the user's environment; it is filtered before Postgres sees it

	Children     Children
	Node         cluster.NodeName
	Incarnation  cluster.Incarnation
	Members      int // size of the cluster, for max_wal_senders; default 3
	ReplUser     string
	ReplPassword Secret
	ReplTLS      bool
	ReplFrom     []string // addresses the replication role may come from; default all
	// LocalPassword is used instead of peer when our OS user has no name (docker run --user 1234). The same on
	// every node of the cluster.
	LocalPassword Secret
	Cert, Key     []byte // PEM; empty: TLS is left to the user
	Root          []byte // PEM of the authority that signed Cert

	Superuser      string // for a plain initdb; default postgres
	EnsureInit     string // default docker-ensure-initdb.sh
	Entrypoint     string // default docker-entrypoint.sh
	MaxSlotWALKeep int    // MB; 0: Postgres' default
	KeepOld        int    // how many data directories that clones replaced are kept
	Log            *slog.Logger
	Stdout, Stderr io.Writer // of Postgres; default ours
}

// Postgres is the database server of this node. Its methods may be called from any goroutine; those that
// change files or the process (Init, Prepare, Start, Stop, Rewind, Clone, Recover) exclude one another.
type Postgres struct {
	opt     Options
	args    conf.Args
	env     []string // of the postmaster
	osUser  string   // empty: our uid has no name
	version int      // major
	exits   chan Exit
	file    *upstream.File
	parking *upstream.Parking

	work     sync.Mutex // held by the methods that exclude one another
	gate     sync.Mutex // held while the gate moves
	setting  sync.Mutex // held while the managed file changes
	files    sync.Mutex // held while a file is written
	plugging sync.Mutex // held while timeline numbers are plugged, or used
	ballast  sync.Mutex // held while the ballast is made or deleted

	kills    atomic.Uint64 // +1 by each Kill: a Start that began before one starts nothing after it
	mu       sync.Mutex
	server   *server  // nil: not running
	applied  Settings // what the managed file says
	extra    []conf.Setting
	closed   bool          // the gate, as last written
	closing  *gate.Closing // how it was closed; nil: open, or closed from the start
	checked  bool          // a new session has shown the settings last applied
	kept     [keptCount]*session
	autoSeen fileStamp
}

// New checks the options and returns a Postgres that is not running.
func New(opt Options) (*Postgres, error) {
	if opt.Children == nil || opt.DataDir == "" || opt.StateDir == "" || opt.BinDir == "" ||
		opt.Incarnation == 0 || opt.ReplUser == "" || opt.ReplPassword == "" {
		return nil, errors.New("make postgres: a required option is missing")
	}
	args, err := conf.ParseArgs(opt.ServerArgs)
	if err != nil {
		return nil, err
	}
	if opt.ReplUser == conf.LocalRole || strings.HasPrefix(opt.ReplUser, "/") {
		return nil, fmt.Errorf("make postgres: replication user %q cannot be used", opt.ReplUser)
	}
	setDefaults(&opt)
	p := &Postgres{opt: opt, args: args, exits: make(chan Exit, 16)}
	if args.DataDir != "" && args.ConfigFile == "" {
		// As Supabase does: -D names where the configuration is; the data are where it says.
		p.args.ConfigFile = filepath.Join(args.DataDir, "postgresql.conf")
	}
	user, home := passwdEntry(os.Geteuid())
	p.osUser = user
	if user == "" && opt.LocalPassword == "" {
		return nil, fmt.Errorf("make postgres: uid %d has no name in /etc/passwd", os.Geteuid())
	}
	if p.version, err = p.binaryVersion(); err != nil {
		return nil, err
	}
	p.env = serverEnv(opt.Env, home, p.serviceFile())
	for _, dir := range []string{opt.StateDir, p.confDir(), opt.RunDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make postgres: %w", err)
		}
	}
	if err := p.openUpstream(); err != nil {
		return nil, fmt.Errorf("make postgres: %w", err)
	}
	return p, nil
}

func setDefaults(o *Options) {
	if o.RunDir == "" {
		o.RunDir = filepath.Join(o.StateDir, "run")
	}
	if o.Members == 0 {
		o.Members = 3
	}
	if o.Superuser == "" {
		o.Superuser = "postgres"
	}
	if o.EnsureInit == "" {
		o.EnsureInit = "docker-ensure-initdb.sh"
	}
	if o.Entrypoint == "" {
		o.Entrypoint = "docker-entrypoint.sh"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Stdout == nil {
		o.Stdout = os.Stdout
	}
	if o.Stderr == nil {
		o.Stderr = os.Stderr
	}
}

func (p *Postgres) confDir() string              { return filepath.Join(p.opt.StateDir, "pg") }
func (p *Postgres) confFile(name string) string  { return filepath.Join(p.confDir(), name) }
func (p *Postgres) stateFile(name string) string { return filepath.Join(p.opt.StateDir, name) }
func (p *Postgres) dataFile(name string) string  { return filepath.Join(p.opt.DataDir, name) }
func (p *Postgres) serviceFile() string          { return p.confFile("service.conf") }
func (p *Postgres) bin(name string) string       { return filepath.Join(p.opt.BinDir, name) }

// SlotName is the physical slot that the member with this incarnation uses on its upstream.
func SlotName(i cluster.Incarnation) string { return cluster.SlotName(i) }

const slotPrefix = "pgq_"

// userFile is where the user's file of that kind is.
func (p *Postgres) userFile(name string) string { return p.userFileBy(name, p.userSettings) }

// userFileBy is userFile for a caller that has the user's settings already.
func (p *Postgres) userFileBy(name string, user func() map[string]string) string {
	switch name {
	case "postgresql.conf":
		if p.args.ConfigFile != "" {
			return p.args.ConfigFile
		}
	case "pg_hba.conf":
		if p.args.HBAFile != "" {
			return p.args.HBAFile
		}
		if f := user()["hba_file"]; f != "" {
			return f
		}
	case "pg_ident.conf":
		if p.args.IdentFile != "" {
			return p.args.IdentFile
		}
		if f := user()["ident_file"]; f != "" {
			return f
		}
	}
	return p.dataFile(name)
}

// userSettings is what the user's files, ALTER SYSTEM and command line set. A file that cannot be read sets
// nothing: Postgres will say so when it starts.
func (p *Postgres) userSettings() map[string]string {
	out, err := conf.Load(diskSource{}, p.userFile("postgresql.conf"))
	if err != nil {
		out = map[string]string{}
	}
	if auto, err := conf.Load(diskSource{}, p.dataFile("postgresql.auto.conf")); err == nil {
		for k, v := range auto {
			out[k] = v
		}
	}
	for _, s := range p.args.Settings {
		out[s.Name] = s.Value
	}
	return out
}

type diskSource struct{}

func (diskSource) ReadFile(path string) ([]byte, error) { return os.ReadFile(path) }

func (diskSource) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(entries))
	for i, e := range entries {
		out[i] = e.Name()
	}
	return out, nil
}

// passwdEntry looks a uid up in /etc/passwd. os/user is not used: without cgo it may ask the environment.
func passwdEntry(uid int) (name, home string) {
	text, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return "", "/"
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) >= 6 && f[2] == strconv.Itoa(uid) {
			return f[0], f[5]
		}
	}
	return "", "/"
}

// serverEnv filters the environment for the postmaster: libpq inside the WAL receiver obeys variables (PROTOCOL
// 1.8), and backends show theirs to every superuser.
func serverEnv(env []string, home, serviceFile string) []string {
	var out []string
	for _, kv := range env {
		if !strings.HasPrefix(kv, "POSTGRES_PASSWORD") && !strings.HasPrefix(kv, "PGQUORUM_") {
			out = append(out, kv)
		}
	}
	return upstream.Env(out, serviceFile, home)
}
