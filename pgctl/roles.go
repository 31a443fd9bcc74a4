// SPDX-License-Identifier: Apache-2.0

package pgctl

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/pgctl/conf"
)

// scramIterations is one: the password has 256 bits of its own, so that stretching it would only cost time at
// each connection (measured: accepted by server and libpq of 15 to 18).
const scramIterations = 1

// rewindFunctions are what pg_rewind calls on its source.
var rewindFunctions = []string{
	"pg_ls_dir(text, boolean, boolean)", "pg_stat_file(text, boolean)", "pg_read_binary_file(text)",
	"pg_read_binary_file(text, bigint, bigint, boolean)",
}

// EnsureRole makes the replication role as it must be, and says whether it had to change anything. Only on a
// primary; nothing here waits for standbys, who may be unable to log in just because the role is broken.
func (p *Postgres) EnsureRole(ctx context.Context) (changed bool, err error) {
	s, err := p.keep(ctx, forLooking)
	if err != nil {
		return false, fmt.Errorf("ensure replication role: %w", err)
	}
	if changed, err = p.ensureRole(ctx, s); err != nil {
		return false, fmt.Errorf("ensure replication role: %w", err)
	}
	return changed, nil
}

func (p *Postgres) ensureRole(ctx context.Context, s *session) (bool, error) {
	name, lit := ident(p.opt.ReplUser), literal(p.opt.ReplUser)
	out, err := s.query(ctx, `SELECT coalesce(rolpassword, ''), rolcanlogin AND rolreplication AND NOT rolsuper AND rolconnlimit = -1
		AND (rolvaliduntil IS NULL OR rolvaliduntil = 'infinity') AND NOT rolcreaterole AND NOT rolcreatedb
		AND NOT rolbypassrls
		AND NOT EXISTS (SELECT FROM pg_db_role_setting WHERE setrole = a.oid)
		FROM pg_authid a WHERE rolname = `+lit+`;
		SELECT m.rolname FROM pg_auth_members x JOIN pg_authid m ON m.oid = x.roleid
		JOIN pg_authid a ON a.oid = x.member WHERE a.rolname = `+lit)
	if err != nil {
		return false, err
	}
	var sql []string
	attributes := " LOGIN REPLICATION NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS CONNECTION LIMIT -1 VALID UNTIL 'infinity' PASSWORD "
	switch {
	case len(out[0]) == 0:
		sql = append(sql, "CREATE ROLE "+name+attributes+literal(verifier(p.opt.ReplPassword)))
	case out[0][0][1] != "t" || !verifies(out[0][0][0], p.opt.ReplPassword):
		sql = append(sql, "ALTER ROLE "+name+" RESET ALL", "ALTER ROLE "+name+attributes+literal(verifier(p.opt.ReplPassword)))
	}
	for _, m := range out[1] {
		sql = append(sql, "REVOKE "+ident(m[0])+" FROM "+name)
	}
	if len(out[0]) == 0 {
		sql = append(sql, grants(name)...)
	} else if ok, err := p.hasGrants(ctx, s); err != nil {
		return false, err
	} else if !ok {
		sql = append(sql, grants(name)...)
	}
	if len(sql) == 0 {
		return false, nil
	}
	if _, err = s.query(ctx, "BEGIN; "+strings.Join(sql, "; ")+"; COMMIT"); err != nil {
		_, e := s.query(ctx, "ROLLBACK") // others use this session too
		return false, errors.Join(err, e)
	}
	return true, nil
}

func grants(name string) []string {
	sql := []string{"GRANT CONNECT ON DATABASE postgres TO " + name, "GRANT USAGE ON SCHEMA pg_catalog TO " + name}
	for _, f := range rewindFunctions {
		sql = append(sql, "GRANT EXECUTE ON FUNCTION pg_catalog."+f+" TO "+name)
	}
	return sql
}

func (p *Postgres) hasGrants(ctx context.Context, s *session) (bool, error) {
	role := literal(p.opt.ReplUser)
	terms := []string{"has_database_privilege(" + role + ", 'postgres', 'CONNECT')"}
	for _, f := range rewindFunctions {
		terms = append(terms, "has_function_privilege("+role+", 'pg_catalog."+f+"', 'EXECUTE')")
	}
	out, err := s.query(ctx, "SELECT "+strings.Join(terms, " AND "))
	return err == nil && out[0][0][0] == "t", err
}

// verifier computes what Postgres stores for a SCRAM password.
func verifier(password Secret) string {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // it never fails
	return verifierWith(password, salt)
}

func verifierWith(password Secret, salt []byte) string {
	mac := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	salted := mac([]byte(password), string(salt)+"\x00\x00\x00\x01") // PBKDF2 with one iteration
	stored := sha256.Sum256(mac(salted, "Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", scramIterations, b64(salt), b64(stored[:]), b64(mac(salted, "Server Key")))
}

// verifies says whether a stored verifier is one of ours for this password.
func verifies(stored string, password Secret) bool {
	rest, ok := strings.CutPrefix(stored, fmt.Sprintf("SCRAM-SHA-256$%d:", scramIterations))
	if !ok {
		return false
	}
	b64, _, _ := strings.Cut(rest, "$")
	salt, err := base64.StdEncoding.DecodeString(b64)
	return err == nil && subtle.ConstantTimeCompare([]byte(verifierWith(password, salt)), []byte(stored)) == 1
}

// withoutDigest are the signatures that have no digest of their own, by their number in a certificate.
var withoutDigest = map[string]string{"1.3.101.112": "Ed25519", "1.3.101.113": "Ed448"}

// checkCertificate refuses a server certificate whose signature has no digest of its own: channel binding
// cannot work with it (PROTOCOL 12.2.c).
func checkCertificate(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil //nolint:nilerr // Postgres says it better when it starts
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil
	}
	var cert struct{ Signed, Algorithm, Signature asn1.RawValue }
	var algorithm pkix.AlgorithmIdentifier
	if _, err := asn1.Unmarshal(block.Bytes, &cert); err != nil {
		return nil //nolint:nilerr // as above
	}
	if _, err := asn1.Unmarshal(cert.Algorithm.FullBytes, &algorithm); err != nil {
		return nil //nolint:nilerr // as above
	}
	if name := withoutDigest[algorithm.Algorithm.String()]; name != "" {
		return fmt.Errorf("use certificate %s: an %s signature cannot carry the channel binding that replication needs", path, name)
	}
	return nil
}

// slotStep is how far a slot may lag before it is advanced: WAL is kept and removed by whole segments.
const slotStep = 16 << 20

// EnsureSlots makes the physical slots of the members, drops those of former ones, and advances inactive ones
// to where their member is, so that WAL is kept for it here too after a failover (PROTOCOL 12.4). Slots of
// users are left alone.
func (p *Postgres) EnsureSlots(ctx context.Context, want []string, advance map[string]cluster.LSN) error {
	s, err := p.keep(ctx, forLooking)
	if err != nil {
		return fmt.Errorf("ensure slots: %w", err)
	}
	out, err := s.query(ctx, `SELECT slot_name, active, restart_lsn, coalesce(wal_status, ''),
		CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END
		FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary AND slot_name LIKE '`+slotPrefix+`%'`)
	if err != nil {
		return fmt.Errorf("ensure slots: %w", err)
	}
	missing := map[string]bool{}
	for _, w := range want {
		if !strings.HasPrefix(w, slotPrefix) {
			return fmt.Errorf("ensure slots: %q is not a name of ours", w)
		}
		missing[w] = true
	}
	var sql []string
	for _, r := range out[0] {
		name, active := r[0], r[1] == "t"
		switch {
		case !active && (!missing[name] || r[3] == "lost"):
			sql = append(sql, "SELECT pg_drop_replication_slot("+literal(name)+")")
			continue // a lost one is made again
		case !active && advance[name] >= lsn(r[2])+slotStep:
			sql = append(sql, fmt.Sprintf("SELECT pg_replication_slot_advance(%s, '%s')",
				literal(name), min(advance[name], lsn(r[4]))))
		}
		delete(missing, name)
	}
	for _, w := range want {
		if missing[w] {
			sql = append(sql, "SELECT pg_create_physical_replication_slot("+literal(w)+", true)")
		}
	}
	for _, q := range sql {
		// 55006: it became active meanwhile, so its member does it itself. 55000: nothing to advance to.
		if _, err := s.query(ctx, q); err != nil && sqlState(err) != "55006" && sqlState(err) != "55000" && sqlState(err) != "22023" {
			return fmt.Errorf("ensure slots: %w", err)
		}
	}
	return nil
}

// senderOf is the pid of the WAL sender that holds a slot; 0 when there is none, or it cannot be asked.
func (p *Postgres) senderOf(ctx context.Context, slot string) int {
	out, err := p.ask(ctx, forActing, "SELECT active_pid FROM pg_replication_slots WHERE slot_name = "+literal(slot))
	if err != nil || len(out[0]) == 0 {
		return 0
	}
	return int(number(out[0][0][0]))
}

// EndSender ends the WAL sender that holds a slot, and returns when it is gone (PROTOCOL 3.1.d), with the end of WAL
// on disk read after that; zero in recovery.
func (p *Postgres) EndSender(ctx context.Context, slot string) (flush cluster.LSN, err error) {
	err = poll(ctx, 2*time.Millisecond, func() (bool, error) {
		out, err := p.ask(ctx, forActing, `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
			WHERE active_pid IS NOT NULL AND slot_name = `+literal(slot)+`;
			SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn() END`)
		if err != nil {
			return false, err
		}
		flush = lsn(out[1][0][0])
		return len(out[0]) == 0, nil
	})
	if err != nil {
		return 0, fmt.Errorf("end wal sender of %s: %w", slot, err)
	}
	return flush, nil
}

// Checkpoint runs a CHECKPOINT, which on a standby is a restart point.
func (p *Postgres) Checkpoint(ctx context.Context) error {
	if _, err := p.run(ctx, "checkpoint", "CHECKPOINT"); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// ResumeReplay resumes a paused replay and ends the sessions that replay waits for: Postgres starts a WAL
// receiver only when it has replayed all it has (PROTOCOL 5.5.g). It returns how many it ended. pg_blocking_pids knows no
// startup process; what that waits for is the lock of a relation, and whoever holds one of it is in its way.
func (p *Postgres) ResumeReplay(ctx context.Context) (ended int, err error) {
	rows, err := p.run(ctx, "replay", `SELECT CASE WHEN pg_is_in_recovery() AND pg_is_wal_replay_paused() THEN pg_wal_replay_resume()::text END;
		WITH startup AS (SELECT pid, wait_event_type AS t, wait_event AS e FROM pg_stat_activity WHERE backend_type = 'startup'
			AND (wait_event_type IN ('Lock', 'BufferPin') OR wait_event LIKE 'RecoveryConflict%'))
		SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a, startup
		WHERE a.backend_type IN ('client backend', 'parallel worker') AND a.pid <> pg_backend_pid() AND a.usename <> '`+conf.LocalRole+`'
		AND CASE WHEN t = 'Lock' THEN a.backend_xmin IS NOT NULL OR EXISTS (SELECT FROM pg_locks w JOIN pg_locks h
				ON h.database = w.database AND h.relation = w.relation AND h.granted
				WHERE w.pid = startup.pid AND NOT w.granted AND h.pid = a.pid)
			ELSE a.backend_xmin IS NOT NULL OR a.state <> 'idle' END`)
	if err != nil {
		return 0, fmt.Errorf("resume replay: %w", err)
	}
	return len(rows), nil
}

func ident(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

func literal(s string) string {
	if strings.Contains(s, `\`) {
		return "E'" + strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), "'", "''") + "'"
	}
	return "'" + strings.ReplaceAll(s, "'", "''") + "'"
}
