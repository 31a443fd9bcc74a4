// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/config"
	"github.com/pgquorum/pgquorum/durable"
	"github.com/pgquorum/pgquorum/pgctl/proc"
)

// errEnvironment marks what is wrong with the container, not with what it was told: exit 78, nothing touched.
var errEnvironment = errors.New("the container cannot be a cluster member")

// member is what is prepared, mostly as root, before the node runs.
type member struct {
	cfg config.Config
	in  invocation
	log *slog.Logger

	lock     volumeLock
	user     osUser
	id       identity
	dataDir  string
	binDir   string
	runDir   string
	stateDir string
}

const (
	runtimeDir = "/run/pgquorum"
	socketDir  = "/var/run/postgresql" // the base image's
)

// prepare does what only root may do, and little else. It ends as Postgres' user.
func (m *member) prepare(ctx context.Context) error {
	var err error
	if m.user, err = findUser(os.ReadFile); err != nil {
		return err
	}
	m.dataDir = m.cfg.Postgres.DataDir
	if m.binDir, err = binDir(m.in.env); err != nil {
		return err
	}
	var warning string
	if m.stateDir, warning, err = stateDir(m.cfg, m.dataDir); err != nil {
		return fmt.Errorf("%w: %w", errEnvironment, err)
	}
	if warning != "" {
		m.log.Warn("configuration", "reason", warning)
	}
	if err := m.takeVolume(ctx); err != nil {
		return err
	}
	if err := m.directories(); err != nil {
		return err
	}
	if err := m.user.drop(); err != nil {
		return err
	}
	m.id, err = takeIdentity(m.stateDir)
	return err
}

// takeVolume makes the state directory and keeps a second container off this volume, for life (PROTOCOL 9.11): by a
// file in the state directory other members, by the data directory a container in single mode.
func (m *member) takeVolume(ctx context.Context) error {
	if err := durable.Mkdir(m.stateDir, 0o700); err != nil {
		return fmt.Errorf("%w: %w (as user id %d, for which the volume has to be writable)", errEnvironment, err, os.Geteuid())
	}
	if err := m.user.own(m.stateDir); err != nil {
		return fmt.Errorf("give %s to user %s: %w", m.stateDir, m.user.Name, err)
	}
	info, err := os.Stat(m.stateDir)
	if err != nil {
		return err
	}
	if owner := int(info.Sys().(*syscall.Stat_t).Uid); owner != m.user.UID {
		return fmt.Errorf("%w: the state directory %s belongs to user id %d, but this container runs as %d",
			errEnvironment, m.stateDir, owner, m.user.UID)
	}
	lock := m.path(lockFile)
	f, err := os.OpenFile(lock, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("make the volume's lock: %w", err)
	}
	if err := errors.Join(f.Close(), m.user.own(lock), os.Chmod(m.stateDir, 0o700)); err != nil {
		return fmt.Errorf("make the volume's lock: %w", err)
	}
	for _, path := range []string{lock, m.dataDir} {
		err := m.lock.add(ctx, path, lockWait, func() {
			m.log.Warn("volume is in use by another container, waiting for it to stop", "path", path, "wait", lockWait.String())
		})
		switch {
		case path == m.dataDir && errors.Is(err, os.ErrNotExist):
		case errors.Is(err, errLocked):
			return fmt.Errorf("%w: %s", errLocked, lockText(path))
		case unlockable(err):
			m.log.Warn("no protection against a second container: the volume's file system has no locks", "path", path, "err", err)
		case err != nil:
			return err
		}
	}
	return nil
}

// unlockable says that the file system has no locks (some network file systems).
func unlockable(err error) bool {
	return errors.Is(err, syscall.ENOLCK) || errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS)
}

// directories makes what must be there and gives it to Postgres' user. What is on the volume already is only
// touched where it belongs to somebody else.
func (m *member) directories() error {
	parent := filepath.Dir(m.dataDir)
	if err := durable.Mkdir(parent, 0o755); err != nil {
		return err
	}
	if err := m.user.own(parent); err != nil { // clones are made beside the data directory
		return fmt.Errorf("give %s to user %s: %w", parent, m.user.Name, err)
	}
	if err := durable.Mkdir(m.dataDir, 0o700); err != nil {
		return err
	}
	for _, root := range []string{m.dataDir, m.cfg.Postgres.InitdbWALDir} {
		if err := m.user.ownTree(root); err != nil {
			return err
		}
	}
	if os.Geteuid() == 0 { // as the base image does; what goes wrong here Postgres will say better
		_ = os.Chmod(m.dataDir, 0o700)
		_ = os.MkdirAll(socketDir, 0o755)
		_ = m.user.own(socketDir)
		_ = os.Chmod(socketDir, 0o775|os.ModeSetgid|os.ModeSticky)
	}
	m.runDir = runtimeDir
	if os.MkdirAll(m.runDir, 0o700) != nil || m.user.own(m.runDir) != nil || !writable(m.runDir) {
		m.runDir = m.path("run")
		if err := durable.Mkdir(m.runDir, 0o700); err != nil {
			return err
		}
	}
	return m.user.ownTree(m.stateDir)
}

// writable says whether files can be made in a directory.
func writable(dir string) bool {
	f, err := os.CreateTemp(dir, ".probe-")
	if err != nil {
		return false
	}
	_ = f.Close()
	return os.Remove(f.Name()) == nil
}

func (m *member) path(name string) string { return filepath.Join(m.stateDir, name) }

func (m *member) serverEnv() []string {
	env := m.cfg.InitEnv(m.in.env, m.user.Home)
	if config.Lookup(env, "PG_OOM_ADJUST_FILE") == "" && config.Lookup(env, "PG_OOM_ADJUST_VALUE") == "" {
		env = append(env, "PG_OOM_ADJUST_FILE=/proc/self/oom_score_adj", "PG_OOM_ADJUST_VALUE=200")
	}
	return env
}

// port is where Postgres listens: the last word of the command line, else the environment, else the default. A port
// in postgresql.conf is found by pgctl, which asks the server's own files.
func (m *member) port() int {
	settings, _ := config.Settings(m.cfg.Args)
	for _, s := range slices.Backward(settings) {
		if n, err := strconv.Atoi(s.Value); s.Name == "port" && err == nil {
			return n
		}
	}
	if m.cfg.Postgres.Port != 0 {
		return m.cfg.Postgres.Port
	}
	return 5432
}

// binDir is where the image's postgres and its tools are. Distributions put wrappers on the path before them.
func binDir(env []string) (string, error) {
	var found []string
	if major := config.Lookup(env, "PG_MAJOR"); major != "" {
		found = append(found, filepath.Join("/usr/lib/postgresql", major, "bin", "postgres"))
	}
	if path, err := proc.Lookup("postgres", env); err == nil {
		found = append(found, path)
	}
	for _, path := range found {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(real), nil
		}
	}
	return "", fmt.Errorf("%w: there is no postgres on the PATH of this image", errEnvironment)
}

func sorted(names []cluster.NodeName) []cluster.NodeName {
	names = slices.Clone(names)
	slices.Sort(names)
	return names
}
