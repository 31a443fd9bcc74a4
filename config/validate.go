// SPDX-License-Identifier: Apache-2.0

package config

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	minSecret = 16
	// dockerGrace is how long Docker, Swarm and Compose wait by default between SIGTERM and SIGKILL.
	dockerGrace = 10 * time.Second
)

// secretFix shows how to make a secret with what every machine has.
const secretFix = "make one with\n    openssl rand -hex 32\n  or\n    head -c 32 /dev/urandom | base64\n" +
	"  and give the same to every node (PGQUORUM_SECRET, or PGQUORUM_SECRET_FILE with the name of a file)"

// layout18 is the data directory of the official images from 18 on: the volume is two levels up.
var layout18 = regexp.MustCompile(`^/var/lib/postgresql/[0-9]+/docker$`)

// roleName bounds the replication role to what needs no quoting anywhere.
var roleName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

func (p *parser) validate() {
	p.secret()
	p.rejoin()
	p.later()
	p.oneOf("PGQUORUM_ROLE", p.cfg.Role, "data", "witness", "learner")
	p.oneOf("PGQUORUM_DURABILITY", p.cfg.Durability, "quorum", "async")
	p.oneOf("PGQUORUM_FAILOVER", p.cfg.Failover, "auto", "manual")
	p.oneOf("PGQUORUM_STOP_MODE", p.cfg.StopMode, "fast", "smart")
	p.oneOf("PGQUORUM_LOG_LEVEL", p.cfg.LogLevel, "debug", "info", "warn", "error")
	p.oneOf("PGQUORUM_LOG_FORMAT", p.cfg.LogFormat, "text", "json")
	p.number("PGQUORUM_RAFT_PORT", p.cfg.RaftPort, 1, 65535)
	p.number("PGQUORUM_API_PORT", p.cfg.APIPort, 0, 65535)
	p.number("PGQUORUM_GATEWAY_PORT", p.cfg.GatewayPort, 0, 65535)
	p.number("PGQUORUM_PRIORITY", p.cfg.Priority, 0, 100)
	p.number("PGQUORUM_REJOIN_KEEP", p.cfg.RejoinKeep, 0, 9)
	p.timings()
	p.paths()
	if !nameRule.MatchString(p.cfg.Cluster) {
		p.fail("PGQUORUM_CLUSTER", "", "%s", nameText)
	}
	if !roleName.MatchString(p.cfg.ReplicationUser) || strings.HasPrefix(p.cfg.ReplicationUser, "pg_") {
		p.fail("PGQUORUM_REPLICATION_USER", "", "must be a lower-case name of letters, digits and _, not beginning with pg_")
	}
	if p.cfg.ReplicationUser == p.cfg.Postgres.User {
		p.fail("PGQUORUM_REPLICATION_USER", "leave it unset", "must not be the superuser")
	}
	p.peers()
	p.ports()
	if p.cfg.HBAReplication == nil {
		p.cfg.HBAReplication = List{"samenet"}
		if p.set["PGQUORUM_ADVERTISE"] != "" {
			p.cfg.HBAReplication = List{"all"}
		}
	}
	if p.cfg.Durability == "async" {
		p.warn("PGQUORUM_DURABILITY=async: a failover may lose the last acknowledged commits")
	}
	if p.cfg.Postgres.Password.Empty() && p.cfg.Postgres.HostAuthMethod != "trust" && !p.cfg.resolved["POSTGRES_PASSWORD"] {
		p.warn("POSTGRES_PASSWORD is not set: without it this node can join a cluster, but not create the database")
	}
}

func (p *parser) secret() {
	const name = "PGQUORUM_SECRET"
	switch n := utf8.RuneCountInString(p.cfg.Secret.Reveal()); {
	case n == 0 && p.set[name] == "" && p.hasProblem(name):
	case n == 0:
		p.fail(name, secretFix, "is missing; the nodes need it to know each other")
	case n < minSecret:
		p.fail(name, secretFix, "is too short: %d characters, at least %d are needed", n, minSecret)
	}
}

// hasProblem says that a variable, or its twin, has been complained about.
func (p *parser) hasProblem(name string) bool {
	return slices.ContainsFunc(p.problems, func(q Problem) bool {
		return q.Variable == name || q.Variable == name+fileSuffix
	})
}

// later refuses what is reserved but not built.
func (p *parser) later() {
	for _, v := range p.vars {
		value := strings.ToLower(strings.TrimSpace(p.set[v.name]))
		if v.later != "" && value != "" && value != v.def && !p.hasProblem(v.name) {
			way := "leave it unset"
			if v.def != "" {
				way += ", or set it to " + v.def
			}
			p.fail(v.name, way, "%s: not available yet", v.later)
		}
	}
}

func (p *parser) oneOf(name, value string, allowed ...string) {
	if !slices.Contains(allowed, value) && !p.hasProblem(name) {
		p.fail(name, "", "must be one of: %s", strings.Join(allowed, ", "))
	}
}

func (p *parser) number(name string, value, low, high int) {
	if (value < low || value > high) && !p.hasProblem(name) {
		p.fail(name, "", "must be between %d and %d", low, high)
	}
}

func (p *parser) between(name string, value, low, high time.Duration) {
	if (value < low || value > high) && !p.hasProblem(name) {
		p.fail(name, "", "must be between %s and %s", low, high)
	}
}

func (p *parser) timings() {
	p.between("PGQUORUM_LEASE", p.cfg.Lease, time.Second, time.Minute)
	p.between("PGQUORUM_ELECTION_TIMEOUT", p.cfg.ElectionTimeout, 200*time.Millisecond, time.Minute)
	p.between("PGQUORUM_HEARTBEAT", p.cfg.Heartbeat, 10*time.Millisecond, 6*time.Second)
	p.between("PGQUORUM_STOP_TIMEOUT", p.cfg.StopTimeout, time.Second, time.Hour)
	p.between("PGQUORUM_STOP_GUARD", p.cfg.StopGuard, 0, time.Hour)
	if budget := p.cfg.StopTimeout + p.cfg.StopGuard; budget > dockerGrace {
		p.warn("PGQUORUM_STOP_TIMEOUT and PGQUORUM_STOP_GUARD allow a planned stop %s: the container's stop grace period has to be longer (Docker's default: 10s)", budget)
	}
	bad := p.hasProblem("PGQUORUM_ELECTION_TIMEOUT") || p.hasProblem("PGQUORUM_HEARTBEAT")
	if !bad && p.cfg.ElectionTimeout < 10*p.cfg.Heartbeat {
		p.fail("PGQUORUM_ELECTION_TIMEOUT", "raise it, or lower PGQUORUM_HEARTBEAT",
			"must be at least ten times PGQUORUM_HEARTBEAT (%s)", p.cfg.Heartbeat)
	}
}

func (p *parser) rejoin() {
	const name = "PGQUORUM_REJOIN"
	for i, word := range p.cfg.Rejoin {
		known := word == "rewind" || word == "clone" || (word == "manual" && len(p.cfg.Rejoin) == 1)
		if !known || slices.Contains(p.cfg.Rejoin[:i], word) {
			p.fail(name, "", "must be rewind, clone or both with a comma between; or manual alone")
			return
		}
	}
	if len(p.cfg.Rejoin) == 0 {
		p.fail(name, "", "must not be an empty list")
	}
}

func (p *parser) paths() {
	data := p.cfg.Postgres.DataDir
	switch {
	case data == "":
		p.fail("PGDATA", "the base images set it; use one, or set it", "is not set")
	case !filepath.IsAbs(data):
		p.fail("PGDATA", "", "must be an absolute path")
	}
	p.cfg.Postgres.DataDir = filepath.Clean(data)
	state := p.cfg.StateDir
	switch {
	case state == "" && layout18.MatchString(p.cfg.Postgres.DataDir):
		p.cfg.StateDir = "/var/lib/postgresql/pgquorum"
	case state == "":
		// Whether the directory beside PGDATA is on its volume is known to who can see the mounts: Boot.
	case !filepath.IsAbs(state):
		p.fail("PGQUORUM_STATE_DIR", "", "must be an absolute path")
	default:
		p.cfg.StateDir = filepath.Clean(state)
		for _, dir := range []string{p.cfg.Postgres.DataDir, p.cfg.Postgres.InitdbWALDir} {
			if dir != "" && Inside(p.cfg.StateDir, dir) {
				p.fail("PGQUORUM_STATE_DIR", "use a directory beside it on the same volume",
					"must not be inside %s: initdb, clones and rewinds replace what is there", dir)
			}
		}
	}
}

// Inside says that path is dir or below it. Both are clean.
func Inside(path, dir string) bool {
	rel, err := filepath.Rel(filepath.Clean(dir), filepath.Clean(path))
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

func (p *parser) ports() {
	pg := p.cfg.Postgres.Port
	if pg == 0 {
		pg = 5432
	}
	raft := p.cfg.RaftPort
	if raft == p.cfg.APIPort {
		p.fail("PGQUORUM_API_PORT", "", "is PGQUORUM_RAFT_PORT's number too")
	}
	if raft == pg {
		p.fail("PGQUORUM_RAFT_PORT", "", "is Postgres' port")
	}
	if p.cfg.APIPort == pg {
		p.fail("PGQUORUM_API_PORT", "", "is Postgres' port")
	}
}
