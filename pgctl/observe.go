// SPDX-License-Identifier: Apache-2.0

package pgctl

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/pgquorum/pgquorum/cluster"
)

// Status is what a running Postgres says about itself.
type Status struct {
	InRecovery bool
	// Timeline is, on a primary, the one it writes; in recovery the newest of its last restart point and of what
	// its log must reach to be consistent, which may be behind what it replays.
	Timeline cluster.Timeline
	Flush    cluster.LSN // on a primary: pg_current_wal_flush_lsn
	Replay   cluster.LSN
	Receive  cluster.LSN // pg_last_wal_receive_lsn: it has no timeline, see Receiver
	Receiver Receiver
	Paused   bool // replay sits in a pause

	Backlog     uint64 // bytes received and not replayed
	Senders     []Sender
	SyncWaiting int // sessions whose commit waits for standbys
}

// WantsWAL says whether replay has used up all local WAL and asks for a WAL receiver. A paused one asks for none, though it
// may have nothing left to replay (PROTOCOL 5.5.g).
func (s Status) WantsWAL() bool { return s.InRecovery && !s.Paused && s.Replay >= s.Receive }

// Receiver is one row of pg_stat_wal_receiver: the proof of PROTOCOL 5.7.c. Zero when there is none.
type Receiver struct {
	Pid      int
	State    string
	Timeline cluster.Timeline
	Flushed  cluster.LSN
	Sender   string // host and port
	Slot     string
}

// Sender is one row of pg_stat_replication. Nothing about safety may rest on it (PROTOCOL 5.7.c).
type Sender struct {
	Pid                   int
	App, State, SyncState string
	Slot, Addr            string
	Sent, Flush, Replay   cluster.LSN
	BackendStart          string
}

const observeSQL = `SELECT r, CASE WHEN r THEN
		(SELECT greatest(c.timeline_id, v.min_recovery_end_timeline)
			FROM pg_control_checkpoint() c, pg_control_recovery() v)
		ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END,
	CASE WHEN NOT r THEN pg_current_wal_flush_lsn() END, pg_last_wal_replay_lsn(), pg_last_wal_receive_lsn(),
	CASE WHEN NOT r THEN (SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE wait_event = 'SyncRep') END,
	r AND EXISTS (SELECT FROM pg_stat_get_activity(NULL) WHERE wait_event = 'RecoveryPause')
	FROM (SELECT CASE WHEN pg_is_in_recovery() THEN true ELSE false END AS r) x;
SELECT pid, status, received_tli, flushed_lsn, sender_host || ':' || sender_port, slot_name FROM pg_stat_wal_receiver;
SELECT r.pid, r.application_name, r.state, r.sync_state, s.slot_name, r.client_addr, r.sent_lsn, r.flush_lsn,
	r.replay_lsn, r.backend_start FROM pg_stat_replication r LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid`

// Observe asks a running Postgres everything in one round trip, over a connection that is kept: it works when
// no other connection can be made any more.
func (p *Postgres) Observe(ctx context.Context) (Status, error) {
	out, err := p.ask(ctx, forLooking, observeSQL)
	if err != nil {
		return Status{}, fmt.Errorf("observe postgres: %w", err)
	}
	if len(out) != 3 || len(out[0]) != 1 {
		return Status{}, fmt.Errorf("observe postgres: %d results", len(out))
	}
	return readStatus(out), nil
}

func readStatus(out [][]row) Status {
	f := out[0][0]
	s := Status{
		InRecovery: f[0] == "t", Timeline: timeline(f[1]), Flush: lsn(f[2]), Replay: lsn(f[3]), Receive: lsn(f[4]),
		SyncWaiting: int(number(f[5])), Paused: f[6] == "t",
	}
	if s.InRecovery && s.Receive > s.Replay {
		s.Backlog = uint64(s.Receive - s.Replay)
	}
	for _, r := range out[1] {
		s.Receiver = readReceiver(r)
	}
	for _, r := range out[2] {
		s.Senders = append(s.Senders, Sender{
			Pid: int(number(r[0])), App: r[1], State: r[2], SyncState: r[3], Slot: r[4], Addr: r[5],
			Sent: lsn(r[6]), Flush: lsn(r[7]), Replay: lsn(r[8]), BackendStart: r[9],
		})
	}
	return s
}

func readReceiver(r row) Receiver {
	return Receiver{Pid: int(number(r[0])), State: r[1], Timeline: timeline(r[2]), Flushed: lsn(r[3]), Sender: r[4], Slot: r[5]}
}

// Received reads the one row that admission rests on (PROTOCOL 5.7.c), and nothing else: it is polled every
// 2 ms. Timeline and LSN are of one snapshot of the receiver.
func (p *Postgres) Received(ctx context.Context) (Receiver, error) {
	out, err := p.ask(ctx, forActing, "SELECT pid, status, received_tli, flushed_lsn, '', slot_name FROM pg_stat_wal_receiver")
	if err != nil {
		return Receiver{}, fmt.Errorf("observe wal receiver: %w", err)
	}
	if len(out[0]) == 0 {
		return Receiver{}, nil
	}
	return readReceiver(out[0][0]), nil
}

func lsn(s string) cluster.LSN {
	l, err := cluster.ParseLSN(s)
	if err != nil {
		return 0 // NULL
	}
	return l
}

func number(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0
	}
	return n
}

func timeline(s string) cluster.Timeline { return cluster.Timeline(number(s)) }

// How much of what Postgres said last is kept.
const (
	tailLines    = 20
	tailLineSize = 2048
)

// tail passes Postgres' stderr on untouched and keeps its last lines.
type tail struct {
	out io.Writer

	mu   sync.Mutex
	kept []string
	part []byte
}

func (t *tail) Write(b []byte) (int, error) {
	n, err := t.out.Write(b)
	t.mu.Lock()
	defer t.mu.Unlock()
	for rest := b; len(rest) > 0; {
		line, after, whole := bytes.Cut(rest, []byte{'\n'})
		if room := tailLineSize - len(t.part); room > 0 {
			t.part = append(t.part, line[:min(room, len(line))]...)
		}
		rest = after
		if !whole {
			break
		}
		t.kept = append(t.kept, string(t.part))
		t.part = t.part[:0]
		if len(t.kept) > tailLines {
			t.kept = t.kept[1:]
		}
	}
	return n, err
}

func (t *tail) lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string{}, t.kept...)
}

// lastSaid is the line that most likely says why Postgres ended.
func lastSaid(lines []string) string {
	for i := len(lines) - 1; i >= 0; i-- {
		if strings.Contains(lines[i], "FATAL:") || strings.Contains(lines[i], "PANIC:") {
			return lines[i]
		}
	}
	if len(lines) == 0 {
		return "no output"
	}
	return lines[len(lines)-1]
}
