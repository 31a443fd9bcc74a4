// SPDX-License-Identifier: Apache-2.0

package pgctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/pgctl/conf"
	"github.com/pgquorum/pgquorum/pgctl/gate"
	"github.com/pgquorum/pgquorum/pgctl/upstream"
)

// Settings are the managed settings that change while the cluster lives.
type Settings struct {
	SyncNames []string // whom commits wait for; empty only with SyncK 0 (PROTOCOL 3.1.e)
	SyncK     int
	// SyncCommit is synchronous_commit: on (default), or local in async mode.
	SyncCommit string
	// Recovery: Postgres is, or is about to be started, in recovery.
	Recovery bool
	// WALInitZero overrides wal_init_zero; nil leaves the user's value.
	WALInitZero *bool
}

// Nobody are the settings of a node that is not primary: it lists a name that exists nowhere.
func Nobody() Settings {
	return Settings{SyncNames: []string{conf.NobodyName}, SyncK: 1, SyncCommit: "on", Recovery: true}
}

func (s Settings) names() (string, error) { return conf.SyncNames(s.SyncNames, s.SyncK) }

func (s Settings) commit() string {
	if s.SyncCommit == "" {
		return "on"
	}
	return s.SyncCommit
}

// keepAllWAL is the largest wal_keep_size there is, in MB.
const keepAllWAL = "2147483647"

// writeAll writes every generated file for a start.
func (p *Postgres) writeAll(spec StartSpec) error {
	var extra []conf.Setting
	if spec.KeepWAL {
		extra = append(extra, conf.Setting{Name: "wal_keep_size", Value: keepAllWAL},
			conf.Setting{Name: "max_slot_wal_keep_size", Value: "-1"})
	}
	p.mu.Lock()
	p.extra, p.closed, p.closing, p.checked = extra, spec.GateClosed, nil, false
	p.mu.Unlock()
	user := p.userSettings()
	if err := p.writeTLS(user); err != nil {
		return err
	}
	main := conf.Main(conf.MainParams{
		UserFile: p.existing("postgresql.conf"), ManagedFile: p.confFile("managed.conf"), User: user,
		Cert: p.certFile("server.crt"), Key: p.certFile("server.key"), MaxSlotWALKeep: p.opt.MaxSlotWALKeep,
		CommandLine: p.args.Settings, Environment: upstream.Settings(p.opt.Env),
	})
	if _, err := writeChanged(p.confFile("postgresql.conf"), []byte(main), p.save); err != nil {
		return err
	}
	if _, err := p.writeManaged(spec.Settings, true); err != nil {
		return err
	}
	return p.writeGate(spec.GateClosed)
}

// existing is the user's file of that kind, or empty when there is none.
func (p *Postgres) existing(name string) string {
	if f := p.userFile(name); exists(f) {
		return f
	}
	return ""
}

func (p *Postgres) certFile(name string) string {
	if len(p.opt.Cert) == 0 {
		return ""
	}
	return p.confFile(name)
}

// writeTLS writes our certificate and refuses what replication could not work with.
func (p *Postgres) writeTLS(user map[string]string) error {
	if p.opt.ReplTLS {
		if v, set := user["ssl"]; set && !isOn(v) {
			return fmt.Errorf("write settings: ssl is %s, but replication uses TLS: set PGQUORUM_REPLICATION_TLS=off", v)
		}
		if file := user["ssl_cert_file"]; file != "" {
			if err := checkCertificate(p.inData(file)); err != nil {
				return err
			}
		}
	}
	for name, data := range map[string][]byte{"server.crt": p.opt.Cert, "server.key": p.opt.Key, "root.crt": p.opt.Root} {
		if len(data) == 0 {
			continue
		}
		if _, err := writeChanged(p.confFile(name), data, p.save); err != nil {
			return err
		}
	}
	return nil
}

func (p *Postgres) inData(file string) string {
	if strings.HasPrefix(file, "/") {
		return file
	}
	return p.dataFile(file)
}

func isOn(v string) bool {
	switch strings.ToLower(v) {
	case "on", "true", "yes", "1", "t", "y":
		return true
	}
	return false
}

func (p *Postgres) writeManaged(s Settings, durably bool) (changed bool, err error) {
	p.setting.Lock()
	defer p.setting.Unlock()
	return p.write(s, durably)
}

func (p *Postgres) write(s Settings, durably bool) (changed bool, err error) {
	p.mu.Lock()
	extra := p.extra
	p.mu.Unlock()
	text, err := conf.Managed(conf.ManagedParams{
		Version: p.version, SyncNames: s.SyncNames, SyncK: s.SyncK, SyncCommit: s.commit(), Recovery: s.Recovery,
		WALInitZero: s.WALInitZero, SlotName: SlotName(p.opt.Incarnation), Members: p.opt.Members,
		User: p.userSettings(), Extra: extra,
	})
	if err != nil {
		return false, err
	}
	write := p.replace
	if durably {
		write = p.save
	}
	if changed, err = writeChanged(p.confFile("managed.conf"), []byte(text), write); err != nil {
		return false, err
	}
	p.mu.Lock()
	p.applied, p.checked = s, p.checked && !changed
	p.mu.Unlock()
	return changed, nil
}

// HBAText is pg_hba.conf as it is now to be: our lines, then a closed gate or a copy of the user's file.
func (p *Postgres) HBAText(closed bool) []byte { return p.hbaText(closed, p.userSettings) }

func (p *Postgres) hbaText(closed bool, user func() map[string]string) []byte {
	file := p.userFileBy("pg_hba.conf", user)
	text, _ := os.ReadFile(file)
	return []byte(conf.HBA(conf.HBAParams{
		ReplUser: p.opt.ReplUser, ReplTLS: p.opt.ReplTLS, LocalPassword: p.osUser == "", From: p.opt.ReplFrom,
		Closed: closed, Probe: gate.ProbeLine, User: string(text), UserFile: file,
	}))
}

// RefreshHBA makes pg_hba.conf and pg_ident.conf again when the user's have changed, and says whether it did.
func (p *Postgres) RefreshHBA() (changed bool, err error) {
	before := [2]fileStamp{stamp(p.confFile("pg_hba.conf")), stamp(p.confFile("pg_ident.conf"))}
	if err := p.remakeGate(); err != nil {
		return false, fmt.Errorf("refresh hba: %w", err)
	}
	if before == [2]fileStamp{stamp(p.confFile("pg_hba.conf")), stamp(p.confFile("pg_ident.conf"))} {
		return false, nil
	}
	return true, p.reload()
}

// remakeGate writes the gate's file as it is, open or closed. It never meets a gate that moves: an open file written
// over one that has just been closed would let everybody in.
func (p *Postgres) remakeGate() error {
	p.gate.Lock()
	defer p.gate.Unlock()
	p.mu.Lock()
	running, closed := p.server != nil, p.closed
	p.mu.Unlock()
	if !running { // a start writes everything
		return nil
	}
	return p.writeGate(closed)
}

func (p *Postgres) writeGate(closed bool) error {
	user := sync.OnceValue(p.userSettings) // every second: the user's files are read once
	if _, err := writeChanged(p.confFile("pg_hba.conf"), p.hbaText(closed, user), p.save); err != nil {
		return err
	}
	file := p.userFileBy("pg_ident.conf", user)
	text, _ := os.ReadFile(file)
	_, err := writeChanged(p.confFile("pg_ident.conf"), []byte(conf.Ident(p.osUser, string(text), file)), p.save)
	return err
}

// stripAutoFile takes managed entries out of postgresql.auto.conf of a server that is down.
func (p *Postgres) stripAutoFile() ([]conf.Setting, error) {
	path := p.dataFile("postgresql.auto.conf")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // an adopted directory may have none
	}
	if err != nil {
		return nil, fmt.Errorf("read postgresql.auto.conf: %w", err)
	}
	out, removed := conf.StripManaged(string(text))
	if len(removed) == 0 {
		return nil, nil
	}
	return removed, p.save(path, []byte(out))
}

// Apply writes the managed settings durably and has a running Postgres read them. It returns before any
// session has: see Settle and CheckSettings.
func (p *Postgres) Apply(ctx context.Context, s Settings) error {
	if _, err := p.writeManaged(s, true); err != nil {
		return fmt.Errorf("apply settings: %w", err)
	}
	return p.reload()
}

// QuickWAL sets whether new WAL segments are made without filling them with zeros (PROTOCOL 12.2.b). Postgres learns
// of a begin with its next reload, and of the end at once.
func (p *Postgres) QuickWAL(on bool) error {
	p.setting.Lock()
	defer p.setting.Unlock()
	p.mu.Lock()
	s, checked := p.applied, p.checked
	p.mu.Unlock()
	if on == (s.WALInitZero != nil) {
		return nil
	}
	s.WALInitZero = nil
	if on {
		s.WALInitZero = new(bool)
	}
	if _, err := p.write(s, false); err != nil {
		return fmt.Errorf("set wal_init_zero: %w", err)
	}
	p.mu.Lock()
	p.checked = checked
	p.mu.Unlock()
	if on {
		return nil
	}
	return p.reload()
}

// Reload makes the generated files again from the user's, and has Postgres read them.
func (p *Postgres) Reload() error {
	if err := p.remakeManaged(); err != nil {
		return fmt.Errorf("reload postgres: %w", err)
	}
	if err := p.remakeGate(); err != nil {
		return fmt.Errorf("reload postgres: %w", err)
	}
	return p.reload()
}

// remakeManaged writes the managed settings as last applied: what they leave to the user may have changed.
func (p *Postgres) remakeManaged() error {
	p.setting.Lock()
	defer p.setting.Unlock()
	p.mu.Lock()
	s, running := p.applied, p.server != nil
	p.mu.Unlock()
	if !running {
		return nil
	}
	_, err := p.write(s, true)
	return err
}

func (p *Postgres) reload() error {
	p.mu.Lock()
	s := p.server
	p.mu.Unlock()
	if s == nil {
		return nil
	}
	return s.child.Signal(syscall.SIGHUP)
}

// UndoOverrides takes back what somebody set by ALTER SYSTEM over a managed setting, and says what it was.
func (p *Postgres) UndoOverrides(ctx context.Context) ([]conf.Setting, error) {
	path := p.dataFile("postgresql.auto.conf")
	seen := stamp(path)
	p.mu.Lock()
	same := seen == p.autoSeen
	p.mu.Unlock()
	if same {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("undo overrides: %w", err)
	}
	_, found := conf.StripManaged(string(text))
	if len(found) == 0 {
		p.mu.Lock()
		p.autoSeen = seen
		p.mu.Unlock()
		return nil, nil
	}
	// By Postgres itself: it holds the lock that keeps another ALTER SYSTEM from losing this change.
	for _, s := range found {
		if _, err := p.run(ctx, "undo", "ALTER SYSTEM RESET "+s.Name); err != nil {
			return found, fmt.Errorf("undo override of %s: %w", s.Name, err)
		}
	}
	return found, p.reload()
}

// CheckSettings says whether a new session shows the managed settings as last applied (PROTOCOL 5.7.e). It does not
// ask again what AwaitSettings has seen.
func (p *Postgres) CheckSettings(ctx context.Context) error {
	p.mu.Lock()
	checked := p.checked
	p.mu.Unlock()
	if checked {
		return nil
	}
	_, err := p.checkSettings(ctx)
	return err
}

// AwaitSettings waits until a new session shows the managed settings as last applied.
func (p *Postgres) AwaitSettings(ctx context.Context) error {
	_, err := p.awaitSettings(ctx)
	return err
}

func (p *Postgres) awaitSettings(ctx context.Context) (loaded string, err error) {
	err = poll(ctx, 5*time.Millisecond, func() (done bool, err error) {
		if loaded, err = p.checkSettings(ctx); err != nil {
			if errors.Is(err, errUnsettled) {
				return false, nil
			}
			return false, err
		}
		return true, nil
	})
	return loaded, err
}

// checkSettings returns when the new session's settings were loaded.
func (p *Postgres) checkSettings(ctx context.Context) (loaded string, err error) {
	p.mu.Lock()
	want := p.applied
	p.mu.Unlock()
	names, err := want.names()
	if err != nil {
		return "", err
	}
	s, err := p.connect(ctx, "check", nil)
	if err != nil {
		return "", err
	}
	defer s.close()
	out, err := s.query(ctx, `SELECT pg_catalog.current_setting('synchronous_standby_names'),
		pg_catalog.current_setting('synchronous_commit'), pg_catalog.current_setting('fsync'),
		pg_catalog.current_setting('full_page_writes'), pg_catalog.current_setting('restart_after_crash'),
		pg_catalog.current_setting('primary_conninfo'), pg_catalog.pg_conf_load_time()::text`)
	if err != nil {
		return "", fmt.Errorf("check settings: %w", err)
	}
	for i, w := range []struct{ name, value string }{
		{"synchronous_standby_names", names},
		{"synchronous_commit", want.commit()},
		{"fsync", "on"},
		{"full_page_writes", "on"},
		{"restart_after_crash", "off"},
		{"primary_conninfo", "service=pgquorum dbname=postgres"},
	} {
		if got := out[0][0][i]; got != w.value {
			return "", fmt.Errorf("check settings: %s is %q, not %q: %w", w.name, got, w.value, errUnsettled)
		}
	}
	p.mu.Lock()
	same := reflect.DeepEqual(p.applied, want)
	p.checked = p.checked || same
	p.mu.Unlock()
	return out[0][0][6], nil
}

// errUnsettled marks a setting that a new session does not show yet.
var errUnsettled = errors.New("not in force")

// SettleSpec says which change of the quorum is being settled.
type SettleSpec struct {
	FromZero  bool // nobody was waited for before (PROTOCOL 3.3.e)
	FromAsync bool // sessions may still run with synchronous_commit=local (PROTOCOL 3.3.f)
	NoBarrier bool // the target waits for nobody, or the mode is async
}

// maxBarriers bounds the barriers that may hang at once: each is a session that waits, and is never cancelled.
const maxBarriers = 3

// Settle returns when every later commit waits for the settings last applied, and a barrier written after that
// is acknowledged under them (PROTOCOL 3.3.a (2) and (3)). It may be called again after an error.
func (p *Postgres) Settle(ctx context.Context, spec SettleSpec) (cluster.LSN, error) {
	loaded, err := p.awaitSettings(ctx)
	if err != nil {
		return 0, fmt.Errorf("settle: %w", err)
	}
	s, err := p.connect(ctx, "settle", p.ours())
	if err != nil {
		return 0, fmt.Errorf("settle: %w", err)
	}
	defer s.close()
	if err := endOldSenders(ctx, s, loaded); err != nil {
		return 0, fmt.Errorf("settle: %w", err)
	}
	if spec.FromZero {
		if _, err := s.query(ctx, "CHECKPOINT; CHECKPOINT"); err != nil {
			return 0, fmt.Errorf("settle: %w", err)
		}
	}
	if spec.FromAsync {
		if err := awaitStatements(ctx, s, loaded); err != nil {
			return 0, fmt.Errorf("settle: wait for running statements: %w", err)
		}
	}
	return p.barrier(ctx, s, spec)
}

// endOldSenders ends every WAL sender that is older than the reload: each has its own copy of the list. The
// senders of a base backup acknowledge under a name in no list, and stay.
func endOldSenders(ctx context.Context, s *session, loaded string) error {
	return poll(ctx, 2*time.Millisecond, func() (bool, error) {
		out, err := s.query(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_replication
			WHERE backend_start < '`+loaded+`'::timestamptz AND state <> 'backup'
			AND NOT (application_name = 'pg_basebackup' AND sync_priority = 0)`)
		return err == nil && len(out[0]) == 0, err
	})
}

func awaitStatements(ctx context.Context, s *session, loaded string) error {
	return poll(ctx, 20*time.Millisecond, func() (bool, error) {
		out, err := s.query(ctx, `SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'
			AND state IN ('active', 'fastpath function call') AND query_start < '`+loaded+`'::timestamptz
			AND pid <> pg_backend_pid() AND application_name NOT LIKE 'pgquorum\_%'`)
		return err == nil && out[0][0][0] == "0", err
	})
}

// barrier writes a record that a commit has to wait for. A transactional logical message does: it takes a
// transaction id and writes WAL, where an id alone would not wait.
func (p *Postgres) barrier(ctx context.Context, s *session, spec SettleSpec) (cluster.LSN, error) {
	out, err := s.query(ctx, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgquorum_barrier'")
	if err != nil {
		return 0, fmt.Errorf("write barrier: %w", err)
	}
	if n := out[0][0][0]; len(n) > 1 || n > fmt.Sprint(maxBarriers) {
		return 0, fmt.Errorf("write barrier: %s earlier ones still wait for standbys", n)
	}
	params := p.ours()
	params["synchronous_commit"] = "on"
	params["client_min_messages"] = "warning"
	if spec.NoBarrier {
		params["synchronous_commit"] = "local"
	}
	b, err := p.connect(ctx, "barrier", params)
	if err != nil {
		return 0, fmt.Errorf("write barrier: %w", err)
	}
	defer b.close()
	out, err = b.query(ctx, "SELECT pg_logical_emit_message(true, 'pgquorum', 'barrier')")
	if err != nil {
		return 0, fmt.Errorf("write barrier: %w", err)
	}
	// A cancelled wait is a success with a warning: the message is in our log, but nobody acknowledged it.
	if w := b.warning.Load(); w != nil {
		return 0, fmt.Errorf("write barrier: %s", *w)
	}
	return cluster.ParseLSN(out[0][0][0])
}
