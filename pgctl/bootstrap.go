// SPDX-License-Identifier: Apache-2.0

package pgctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/pgquorum/pgquorum/durable"
	"github.com/pgquorum/pgquorum/pgctl/conf"
	"github.com/pgquorum/pgquorum/pgctl/proc"
	"github.com/pgquorum/pgquorum/pgctl/wal"
)

// Init makes a new data directory with the image's own script, so that everything a derived image does at its
// first start happens. Only the founder does this. A directory whose init by us did not end is moved aside.
func (p *Postgres) Init(ctx context.Context) error {
	p.work.Lock()
	defer p.work.Unlock()
	if err := p.init(ctx); err != nil {
		return fmt.Errorf("initialise data directory: %w", err)
	}
	return nil
}

func (p *Postgres) init(ctx context.Context) error {
	mark, err := p.readInitMark()
	if err != nil {
		return err
	}
	empty, err := isEmpty(p.opt.DataDir)
	if err != nil {
		return err
	}
	if !empty && mark.State != initBegun {
		return fmt.Errorf("%s is not empty", p.opt.DataDir)
	}
	if !empty {
		aside := freeName(p.opt.DataDir, "unfinished")
		p.opt.Log.Warn("unfinished data directory moved aside", "path", aside)
		if err := durable.Rename(p.opt.DataDir, aside); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(p.opt.DataDir, 0o700); err != nil {
		return err
	}
	if err := p.writeInitMark(initMark{State: initBegun}); err != nil {
		return err
	}
	if err := p.runInit(ctx); err != nil {
		return err
	}
	c, err := wal.ReadControl(p.opt.DataDir)
	if err != nil {
		return err
	}
	if c.State != wal.StateShutDown {
		return fmt.Errorf("the init script left the server %s", c.State)
	}
	return p.writeInitMark(initMark{State: initDone, SystemID: c.SystemID})
}

// runInit runs the image's script for exactly this; without it, the functions of its entrypoint; without those,
// a plain initdb.
func (p *Postgres) runInit(ctx context.Context) error {
	var env []string
	for _, kv := range p.opt.Env {
		name, _, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "PGQUORUM_") && name != "PGDATA" && name != "POSTGRES_INITDB_ARGS" {
			env = append(env, kv)
		}
	}
	env = append(env, "PGDATA="+p.opt.DataDir, "POSTGRES_INITDB_ARGS="+p.initArgs())
	args := append([]string{"postgres"}, p.opt.ServerArgs...)
	if path, err := proc.Lookup(p.opt.EnsureInit, env); err == nil {
		_, err = p.tool(ctx, toolSpec{name: path, args: args, env: env, passOn: true})
		return err
	}
	if path, err := proc.Lookup(p.opt.Entrypoint, env); err == nil {
		_, err = p.tool(ctx, toolSpec{
			name: "bash", path: true, args: append([]string{"-c", sourcedInit, "init", path}, args...),
			env: env, passOn: true,
		})
		return err
	}
	_, err := p.tool(ctx, toolSpec{name: "initdb", env: env, passOn: true, args: []string{
		"-D", p.opt.DataDir, "-U", p.opt.Superuser, "--auth-local=trust", "--auth-host=scram-sha-256", "--data-checksums", "--no-instructions",
	}})
	return err
}

// sourcedInit does what docker-ensure-initdb.sh does, for images that do not have it. The script's path is an
// argument and not $0, by which some scripts decide whether they were called.
const sourcedInit = `set -Eeo pipefail; entrypoint="$1"; shift; source "$entrypoint"
docker_setup_env
docker_create_db_directories
[ -z "$DATABASE_ALREADY_EXISTS" ] || exit 0
docker_verify_minimum_env
ls /docker-entrypoint-initdb.d/ > /dev/null
docker_init_database_dir
pg_setup_hba_conf "$@"
export PGPASSWORD="${PGPASSWORD:-$POSTGRES_PASSWORD}"
docker_temp_server_start "$@"
docker_setup_db
docker_process_init_files /docker-entrypoint-initdb.d/*
docker_temp_server_stop`

// initArgs are the user's, with checksums unless they say otherwise.
func (p *Postgres) initArgs() string {
	args := ""
	for _, kv := range p.opt.Env {
		if v, ok := strings.CutPrefix(kv, "POSTGRES_INITDB_ARGS="); ok {
			args = v
		}
	}
	if strings.Contains(args, "data-checksums") {
		return args
	}
	for _, word := range strings.Fields(args) {
		if word == "-k" {
			return args
		}
	}
	return strings.TrimSpace(args + " --data-checksums")
}

const preparedToken = "pgquorum_prepared"

// Prepare makes our local role in a directory whose server is down: a new one, or one that is adopted. A
// directory that was not shut down is recovered on the way.
func (p *Postgres) Prepare(ctx context.Context) error {
	p.work.Lock()
	defer p.work.Unlock()
	if err := p.prepare(ctx); err != nil {
		return fmt.Errorf("prepare data directory: %w", err)
	}
	return nil
}

func (p *Postgres) prepare(ctx context.Context) error {
	if exists(p.dataFile("standby.signal")) || exists(p.dataFile("recovery.signal")) {
		return errors.New("it belongs to a standby: promote it, or take the primary's")
	}
	password := "PASSWORD NULL"
	if p.opt.LocalPassword != "" {
		password = "PASSWORD " + literal(verifier(p.opt.LocalPassword))
	}
	role := conf.LocalRole
	out, err := p.single(ctx, "template1",
		"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '"+role+"') THEN CREATE ROLE "+role+"; END IF; END $$\n"+
			"ALTER ROLE "+role+" LOGIN SUPERUSER REPLICATION CONNECTION LIMIT -1 VALID UNTIL 'infinity' "+password+"\n"+
			"ALTER ROLE "+role+" RESET ALL\n"+
			"SELECT '"+preparedToken+"_' || count(*) FROM pg_catalog.pg_roles WHERE rolname = '"+role+"' AND rolsuper AND rolcanlogin\n")
	if err != nil {
		return err
	}
	if !strings.Contains(out, preparedToken+"_1") {
		return fmt.Errorf("role %s was not made: %s", role, lastLines(out, 3))
	}
	return nil
}

// single runs statements, one a line, in a server without a postmaster. It replays what a crash left. It keeps
// all WAL: a rewind may need what this checkpoint would recycle (E11).
func (p *Postgres) single(ctx context.Context, database, input string) (string, error) {
	if p.Running() {
		return "", errors.New("run a single-user server: postgres is running")
	}
	if err := durable.Remove(p.dataFile("postmaster.pid")); err != nil {
		return "", err
	}
	if _, err := p.stripAutoFile(); err != nil {
		return "", err
	}
	if err := p.writeAll(StartSpec{Settings: Nobody(), GateClosed: true, KeepWAL: true}); err != nil {
		return "", err
	}
	args := append([]string{"--single"}, p.args.Keep...)
	args = append(args, p.fileArgs()...)
	// Nobody would ever acknowledge, and the program to load may need a postmaster.
	args = append(args, "-c", "synchronous_commit=local", "-c", "default_transaction_read_only=off",
		"-c", "wal_keep_size="+keepAllWAL, "-c", "log_min_messages=warning", "-c", "logging_collector=off",
		"-c", "log_destination=stderr", "-c", "log_statement=none", "-c", "log_min_error_statement=panic",
		"-c", "exit_on_error=on", "-c", "search_path=pg_catalog", database)
	return p.tool(ctx, toolSpec{name: "postgres", args: args, input: input})
}

// capture keeps the end of what a program writes.
type capture struct {
	max  int
	also io.Writer
	line func(string)

	mu   sync.Mutex
	kept []byte
	part []byte
}

func (c *capture) Write(b []byte) (int, error) {
	if c.also != nil {
		_, _ = c.also.Write(b) // a full console must not end the program
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = append(c.kept, b...)
	if over := len(c.kept) - c.max; over > 0 {
		c.kept = append(c.kept[:0], c.kept[over:]...)
	}
	if c.line == nil {
		return len(b), nil
	}
	c.part = append(c.part, b...)
	for {
		i := bytes.IndexAny(c.part, "\r\n")
		if i < 0 {
			return len(b), nil
		}
		c.line(string(c.part[:i]))
		c.part = c.part[i+1:]
	}
}

func (c *capture) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.kept)
}

// walDir is where pg_wal really is.
func (p *Postgres) walDir() string {
	if dir, err := filepath.EvalSymlinks(p.dataFile("pg_wal")); err == nil {
		return dir
	}
	return p.dataFile("pg_wal")
}
