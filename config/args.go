// SPDX-License-Identifier: Apache-2.0

package config

import (
	"slices"
	"strings"
)

// Setting is one Postgres setting given on the command line.
type Setting struct{ Name, Value, Form string } // Form: as it was written

// serverOptions are the letters that the server's own parser takes, a colon after those with a value; the union of
// all versions that we support.
const serverOptions = "B:bc:C:D:d:EeFf:h:ijk:lN:nOPp:r:S:sTt:v:W:-:"

// lettersMeaning maps option letters to the settings that they set, where we care.
var lettersMeaning = map[byte]Setting{'F': {Name: "fsync", Value: "off"}}

// managedRule says what the command line may do with a setting that failover needs. A value on the command line
// wins over every file for as long as the server runs, so what changes at run time may not be there at all.
type managedRule struct {
	allow func(value string) bool // nil: refused whatever the value is
	why   string
	fix   string
}

const (
	whyList     = "is managed by pgquorum: which standbys must confirm a commit is decided by the cluster"
	whyUpstream = "is managed by pgquorum: from where a node replicates is decided by the cluster"
	whyRecovery = "is managed by pgquorum: a member of a cluster always recovers to the end of the latest timeline"
	whyNeeded   = "is managed by pgquorum: replication and failover do not work with this value"
	whyPinned   = "is managed by pgquorum, which has to change it while the server runs"
	fixRemove   = "remove it from the command line"
	fixSession  = "remove it from the command line; roles, databases and sessions may still set it for themselves"
	fixRestore  = "remove it from the command line; to restore a backup to a point in time, do so in a container without PGQUORUM_PEERS"
)

// managed is the table (PROTOCOL 12.1, 12.2). A name that ends in * is a prefix.
var managed = map[string]managedRule{
	"synchronous_standby_names":     {why: whyList, fix: "remove it; PGQUORUM_DURABILITY says how durable commits are"},
	"synchronous_commit":            {why: whyPinned, fix: fixSession},
	"primary_conninfo":              {why: whyUpstream, fix: fixRemove},
	"primary_slot_name":             {why: whyUpstream, fix: fixRemove},
	"restore_command":               {why: whyUpstream, fix: fixRemove},
	"promote_trigger_file":          {why: whyUpstream, fix: "remove it; pgquorum switchover changes the primary"},
	"trigger_file":                  {why: whyUpstream, fix: "remove it; pgquorum switchover changes the primary"},
	"standby_mode":                  {why: whyUpstream, fix: fixRemove},
	"recovery_target*":              {why: whyRecovery, fix: fixRestore},
	"recovery_min_apply_delay":      {allow: isZero, why: whyRecovery, fix: fixRemove},
	"restart_after_crash":           {why: whyPinned, fix: fixRemove},
	"wal_retrieve_retry_interval":   {why: whyPinned, fix: "set it in postgresql.conf instead; it applies on a primary"},
	"wal_init_zero":                 {why: whyPinned, fix: "set it in postgresql.conf instead"},
	"hot_standby":                   {allow: isOn, why: whyNeeded, fix: fixRemove},
	"fsync":                         {allow: isOn, why: whyNeeded, fix: "remove it (also -F)"},
	"full_page_writes":              {allow: isOn, why: whyNeeded, fix: fixRemove},
	"wal_log_hints":                 {allow: isOn, why: whyNeeded, fix: fixRemove},
	"wal_level":                     {allow: isReplica, why: whyNeeded, fix: "replica and logical are possible"},
	"max_wal_senders":               {allow: notZero, why: whyNeeded, fix: fixRemove},
	"max_replication_slots":         {allow: notZero, why: whyNeeded, fix: fixRemove},
	"hba_file":                      {allow: nil, why: whyPinned, fix: "put the rules into pg_hba.conf of the data directory"},
	"default_transaction_read_only": {allow: isOff, why: whyNeeded, fix: fixSession},
}

func isOn(v string) bool  { b, err := parseBool(v); return err == nil && b }
func isOff(v string) bool { b, err := parseBool(v); return err == nil && !b }
func isReplica(v string) bool {
	return slices.Contains([]string{"replica", "logical"}, strings.ToLower(v))
}
func isZero(v string) bool  { return strings.Trim(strings.TrimRight(v, "usmhdin "), "0") == "" }
func notZero(v string) bool { return !isZero(v) }

// arguments checks what the server is to be started with.
func (p *parser) arguments(args []string) {
	if len(args) > 0 && args[0] == "postgres" {
		args = args[1:]
	}
	p.cfg.Args = slices.Clone(args)
	if len(args) > 0 && slices.Contains([]string{"--single", "--boot", "--check", "--describe-config"}, args[0]) {
		p.problems = append(p.problems, Problem{
			Variable: "argument " + args[0], Rule: "a member of a cluster cannot run in this mode",
			Fix: "use a container without PGQUORUM_PEERS",
		})
		return
	}
	settings, asks := Settings(args)
	if asks != "" {
		p.problems = append(p.problems, Problem{
			Variable: "argument -C " + asks, Rule: "a member of a cluster does not start only to print a setting",
			Fix: "use docker exec NODE postgres -C " + asks + ", or SHOW " + asks,
		})
	}
	for _, s := range settings {
		rule, ok := lookupManaged(s.Name)
		if ok && (rule.allow == nil || !rule.allow(s.Value)) {
			p.problems = append(p.problems, Problem{
				Variable: "argument " + s.Form, Rule: s.Name + " " + rule.why, Fix: rule.fix,
			})
		}
	}
}

// Managed says whether a setting is ours to decide, with whatever value.
func Managed(name string) bool {
	rule, ok := lookupManaged(strings.ToLower(name))
	return ok && rule.allow == nil
}

func lookupManaged(name string) (managedRule, bool) {
	if rule, ok := managed[name]; ok {
		return rule, true
	}
	for pattern, rule := range managed {
		if prefix, ok := strings.CutSuffix(pattern, "*"); ok && strings.HasPrefix(name, prefix) {
			return rule, true
		}
	}
	return managedRule{}, false
}

// Settings finds the settings in the server's arguments, in every form that its parser takes: -c a=b, -ca=b, --a=b,
// with dashes for underscores, and letters bundled behind one dash. asks is the value of -C, if there is one.
func Settings(args []string) (settings []Setting, asks string) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return settings, asks
		}
		if len(arg) < 2 || arg[0] != '-' {
			continue // not an option: the server will say so itself
		}
		for at := 1; at < len(arg); at++ {
			letter := arg[at]
			if s, ok := lettersMeaning[letter]; ok {
				s.Form = arg
				settings = append(settings, s)
			}
			if !takesValue(letter) {
				continue
			}
			value, form := arg[at+1:], arg
			if value == "" && i+1 < len(args) {
				i++
				value, form = args[i], arg+" "+args[i]
			}
			switch letter {
			case 'c', '-':
				settings = append(settings, setting(value, form))
			case 'C':
				asks = value
			}
			break
		}
	}
	return settings, asks
}

func takesValue(letter byte) bool {
	i := strings.IndexByte(serverOptions, letter)
	return i >= 0 && letter != ':' && i+1 < len(serverOptions) && serverOptions[i+1] == ':'
}

func setting(text, form string) Setting {
	name, value, _ := strings.Cut(text, "=")
	name = strings.ToLower(strings.ReplaceAll(strings.TrimSpace(name), "-", "_"))
	return Setting{Name: name, Value: strings.Trim(strings.TrimSpace(value), "'"), Form: form}
}
