// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"strconv"
	"strings"
)

// Kind is what a child of the postmaster is.
type Kind int

const (
	// KindUntitled has the postmaster's own title still, or none any more: it may be or become anything.
	KindUntitled Kind = iota
	// KindAuxiliary is a process of Postgres itself: startup, checkpointer, autovacuum launcher, io worker …
	KindAuxiliary
	// KindReceiver is a WAL receiver.
	KindReceiver
	// KindSlotSync is the slot sync worker of 17 and later; it uses the upstream file too.
	KindSlotSync
	// KindParallel is a parallel worker; it ends with its leader.
	KindParallel
	// KindSender is a WAL sender.
	KindSender
	// KindClient is a session.
	KindClient
	// KindWorker is a background worker of an extension or of logical replication.
	KindWorker
)

// auxiliary lists titles of Postgres' own processes with the first words that may follow. Sessions end in a host
// (see hasHost), so none of these can be a session of a role with such a name.
var auxiliary = []struct {
	name string
	next []string // nil: nothing may follow; "*": anything
}{
	{"startup", []string{"*"}},
	{"checkpointer", []string{"*"}},
	{"background writer", nil},
	{"walwriter", nil},
	{"logger", nil},
	{"archiver", []string{"*"}},
	{"autovacuum launcher", nil},
	{"autovacuum worker", []string{"*"}},
	{"logical replication launcher", nil},
	{"io worker", []string{"*"}},
	{"walsummarizer", nil},
	{"wal writer", nil},
	{"datachecksums", []string{"*"}},
}

// Classify says what a child with this title is. It needs no cluster_name: whatever stands before the last ": "
// of an auxiliary process is prefix.
func Classify(title string) Kind {
	rest, ok := strings.CutPrefix(title, "postgres: ")
	if !ok {
		return KindUntitled
	}
	if hasHost(rest) {
		if isSender(rest) {
			return KindSender
		}
		return KindClient
	}
	tail := tail(rest)
	switch {
	case isReceiver(tail):
		return KindReceiver
	case tail == "slotsync worker" || strings.HasPrefix(tail, "slotsync worker "):
		return KindSlotSync
	case strings.HasPrefix(tail, "parallel worker for PID "):
		return KindParallel
	}
	for _, a := range auxiliary {
		if tail == a.name || a.next != nil && strings.HasPrefix(tail, a.name+" ") {
			return KindAuxiliary
		}
	}
	return KindWorker
}

// tail is the title without "postgres: " and cluster name.
func tail(rest string) string {
	if i := strings.LastIndex(rest, ": "); i >= 0 {
		return rest[i+2:]
	}
	return rest
}

// isReceiver knows the four titles of a WAL receiver.
func isReceiver(s string) bool {
	if s == "walreceiver" || s == "walreceiver idle" {
		return true
	}
	s, ok := strings.CutPrefix(s, "walreceiver ")
	if !ok {
		return false
	}
	if at, ok := strings.CutPrefix(s, "restarting at "); ok {
		return isLSN(at)
	}
	at, ok := strings.CutPrefix(s, "streaming ")
	return ok && isLSN(at)
}

func isLSN(s string) bool {
	hi, lo, ok := strings.Cut(s, "/")
	if !ok {
		return false
	}
	_, e1 := strconv.ParseUint(hi, 16, 32)
	_, e2 := strconv.ParseUint(lo, 16, 32)
	return e1 == nil && e2 == nil
}

// hasHost says whether a title names a peer, as that of every session and WAL sender does and no other: "[local]"
// or "host(port)". The peer comes after role and database, so no choice of names can hide it.
func hasHost(s string) bool {
	for word := range strings.FieldsSeq(s) {
		if word == "[local]" {
			return true
		}
		open := strings.LastIndexByte(word, '(')
		if open <= 0 || word[len(word)-1] != ')' {
			continue
		}
		if _, err := strconv.ParseUint(word[open+1:len(word)-1], 10, 16); err == nil {
			return true
		}
	}
	return false
}

// isSender needs no certainty: a role named walsender only makes its own session look like one.
func isSender(rest string) bool {
	return strings.HasPrefix(rest, "walsender ") || strings.Contains(rest, ": walsender ")
}

// SessionOf says whether a title is a session over the unix socket of exactly this role. Role must hold no space.
func SessionOf(title, role, clusterName string) bool {
	s, ok := cutCluster(title, clusterName)
	if !ok {
		return false
	}
	words := strings.Fields(s)
	return len(words) >= 3 && words[0] == role && words[2] == "[local]"
}

// SenderOf says whether a title is a physical WAL sender of exactly this role, or one for a database. A role
// named "walsender" with a database named as role looks the same: Postgres' titles cannot tell them apart.
func SenderOf(title, role, clusterName string) bool {
	s, ok := cutCluster(title, clusterName)
	if !ok {
		return false
	}
	words := strings.Fields(s)
	if len(words) < 3 || words[0] != "walsender" || words[1] != role {
		return false
	}
	return hasHost(words[2]) || len(words) > 3 && hasHost(words[3])
}

func cutCluster(title, clusterName string) (string, bool) {
	s, ok := strings.CutPrefix(title, "postgres: ")
	if ok && clusterName != "" {
		s, ok = strings.CutPrefix(s, clusterName+": ")
	}
	return s, ok
}

// RecoveringSegment reads the WAL file that the startup process has open from its title, such as
// 000000010000000000000003.
func RecoveringSegment(title string) (string, bool) {
	rest, ok := strings.CutPrefix(title, "postgres: ")
	if !ok || hasHost(rest) {
		return "", false
	}
	s, ok := strings.CutPrefix(tail(rest), "startup ")
	if !ok {
		return "", false
	}
	words := strings.Fields(s)
	if len(words) >= 2 && words[0] == "recovering" && len(words[1]) == 24 {
		return words[1], true
	}
	return "", false
}
