// SPDX-License-Identifier: Apache-2.0

package conf

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

const header = "# Written by pgquorum. Changes here are lost.\n"

// MainParams is what the generated postgresql.conf depends on.
type MainParams struct {
	UserFile    string // the user's postgresql.conf; empty: none
	ManagedFile string
	Cert, Key   string            // our server certificate; empty: TLS is left alone
	User        map[string]string // what the user's files, command line and ALTER SYSTEM set
	// MaxSlotWALKeep bounds what a slot may hold back, in MB; 0: Postgres' own default.
	MaxSlotWALKeep int
	// Environment are settings that the server would have taken from variables that it is not given.
	Environment map[string]string
	// CommandLine are the settings of the server's arguments. They win anyway; said again at the end they keep every
	// reload from complaining that the files differ from what runs.
	CommandLine []Setting
}

// Main renders the generated postgresql.conf: our defaults, then the user's file, then the managed one.
func Main(p MainParams) string {
	var b strings.Builder
	b.WriteString(header)
	b.WriteString("\n# Defaults. Any of them may be set in the file included next, by -c or by ALTER SYSTEM.\n")
	for _, s := range [][2]string{
		{"listen_addresses", "*"},
		{"wal_receiver_timeout", "5s"},
		{"wal_sender_timeout", "5s"},
		{"wal_receiver_status_interval", "1s"},
		{"wal_keep_size", "512MB"},
		{"tcp_user_timeout", "10s"},
	} {
		b.WriteString(Line(s[0], s[1]))
	}
	for _, n := range slices.Sorted(maps.Keys(p.Environment)) {
		b.WriteString(Line(n, p.Environment[n]))
	}
	if p.MaxSlotWALKeep > 0 {
		b.WriteString(Line("max_slot_wal_keep_size", strconv.Itoa(p.MaxSlotWALKeep)+"MB"))
	}
	b.WriteString(tlsLines(p))
	if p.UserFile != "" {
		b.WriteString("\n# Yours.\ninclude " + Quote(p.UserFile) + "\n")
	}
	b.WriteString("\n# What failover depends on.\ninclude " + Quote(p.ManagedFile) + "\n")
	if len(p.CommandLine) > 0 {
		b.WriteString("\n# As on the command line.\n")
	}
	for _, s := range p.CommandLine {
		b.WriteString(Line(s.Name, s.Value))
	}
	return b.String()
}

// tlsLines turns TLS on unless the user decided about it (PROTOCOL 12.2.c). A user who names a certificate
// but not `ssl` wants that certificate.
func tlsLines(p MainParams) string {
	if _, set := p.User["ssl"]; set || p.Cert == "" {
		return ""
	}
	_, cert := p.User["ssl_cert_file"]
	_, key := p.User["ssl_key_file"]
	if cert || key {
		return Line("ssl", "on")
	}
	return Line("ssl", "on") + Line("ssl_cert_file", p.Cert) + Line("ssl_key_file", p.Key)
}

// ManagedParams is what the managed file depends on.
type ManagedParams struct {
	Version     int // major version of Postgres
	SyncNames   []string
	SyncK       int
	SyncCommit  string // on, or local in async mode
	Recovery    bool   // Postgres runs or starts in recovery
	WALInitZero *bool  // nil: the user's value (PROTOCOL 12.2.b)
	SlotName    string
	Members     int // size of the cluster, for the limits
	User        map[string]string
	Extra       []Setting // further managed settings, such as a large wal_keep_size during recovery
}

// Managed renders the managed file.
func Managed(p ManagedParams) (string, error) {
	names, err := SyncNames(p.SyncNames, p.SyncK)
	if err != nil {
		return "", err
	}
	if p.SyncCommit != "on" && p.SyncCommit != "local" && p.SyncCommit != "remote_apply" {
		return "", fmt.Errorf("render managed settings: synchronous_commit %q", p.SyncCommit)
	}
	var b strings.Builder
	b.WriteString(header)
	lines := [][2]string{
		{"synchronous_standby_names", names},
		{"synchronous_commit", p.SyncCommit},
		{"restart_after_crash", "off"},
		{"hot_standby", "on"},
		{"wal_log_hints", "on"},
		{"fsync", "on"},
		{"full_page_writes", "on"},
		{"recovery_target_timeline", "latest"},
		{"recovery_target", ""},
		{"recovery_target_name", ""},
		{"recovery_target_time", ""},
		{"recovery_target_xid", ""},
		{"recovery_target_lsn", ""},
		{"restore_command", ""},
		{"recovery_end_command", ""},
		{"recovery_min_apply_delay", "0"},
		{"primary_conninfo", "service=pgquorum dbname=postgres"},
		{"primary_slot_name", p.SlotName},
	}
	for _, l := range append(lines, conditional(p)...) {
		b.WriteString(Line(l[0], l[1]))
	}
	for _, s := range p.Extra {
		b.WriteString(Line(s.Name, s.Value))
	}
	return b.String(), nil
}

func conditional(p ManagedParams) (lines [][2]string) {
	if p.Version > 0 && p.Version < 16 {
		lines = append(lines, [2]string{"promote_trigger_file", ""})
	}
	if strings.EqualFold(p.User["wal_level"], "minimal") {
		lines = append(lines, [2]string{"wal_level", "replica"})
	}
	for _, n := range floorNames {
		need, have := 2*p.Members+8, 10 // 10 is Postgres' default of both
		if v, err := strconv.Atoi(strings.TrimSpace(p.User[n])); err == nil {
			have = v
		}
		if have < need {
			lines = append(lines, [2]string{n, strconv.Itoa(need)})
		}
	}
	if p.Recovery {
		// It also paces logical apply workers, so a primary keeps the user's value.
		lines = append(lines, [2]string{"wal_retrieve_retry_interval", "10ms"})
	}
	if p.WALInitZero != nil {
		v := "off"
		if *p.WALInitZero {
			v = "on"
		}
		lines = append(lines, [2]string{"wal_init_zero", v})
	}
	return lines
}
