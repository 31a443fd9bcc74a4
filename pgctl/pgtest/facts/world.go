// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"

	"github.com/pgquorum/pgquorum/cluster"
)

// World is where statements are tried.
type World interface {
	// Version is the major of its Postgres.
	Version() int
	// Primary makes a server, with a list of synchronous standbys (ANY 1) or none, and starts it.
	Primary(name string, list ...string) Server
	// Until waits until ok holds, and fails with what was waited for when it does not in good time.
	Until(ok func() bool) bool
	// Stays watches for some time that ok holds.
	Stays(ok func() bool) bool
}

// Server is a Postgres: its data directory, and its processes while they run.
type Server interface {
	// Backup copies a server that runs. The copy is to be a standby of the given slot and list; it does not run yet.
	Backup(name, slot string, list ...string) Server

	Start()          // read-write
	StartStandby()   // in recovery, with the upstream that was ordered
	Stop()           // a fast shutdown; it returns when everything has ended
	Kill()           // every process at once
	KillPostmaster() // it alone

	Order(up Server, app string)       // where the next WAL receiver connects, and its application_name
	OrderSilent(up Server, app string) // Order, and from there no WAL of a second timeline comes
	Park()                             // the next WAL receiver finds nobody
	ClearConninfo()                    // primary_conninfo = '' and a reload
	EndReceiver()                      // SIGTERM to the WAL receiver; it returns when that has ended

	PauseReplay()
	ResumeReplay()
	BlockReplay(up Server) // a reader, and WAL of its upstream that must wait for it
	ImpatientReplay()      // max_standby_streaming_delay = 0 and a reload
	EndReader()

	List(names ...string) // another list and a reload; it returns when sessions show it
	HoldCheckpointer()    // it is in a long checkpoint
	FreeCheckpointer()
	Checkpoint() // CHECKPOINT

	Plug(t cluster.Timeline) // stub history files for the numbers below
	Unplug()                 // no stubs
	Promote()                // asks for it
	Rewind(from Server) bool // whether pg_rewind found something to do; the server is stopped

	Commit() Tx
	Work() Tx // commits one after the other for some time, in one session, which ends when it is acknowledged
	Switch()  // pg_switch_wal
	Has(Tx) bool

	Recovering() bool
	Position() cluster.Position // the end of its WAL: of a primary what it has flushed, else what its files hold
	Replayed() cluster.LSN
	Received() cluster.Position // pg_stat_wal_receiver; zero: there is none
	Switched() cluster.Position // where its timeline left the one before
	Sender(app string) string   // the process that streams to a name; empty: none
}

// Tx is a transaction that was begun.
type Tx interface {
	Acked() bool // its client was told that it is done
	Failed() bool
}

// Fact is a statement about Postgres.
type Fact struct {
	Name    string
	Finding string
	state   func(*stage)
}

// Try tries a fact in a world.
func (f Fact) Try(w World) (err error) {
	defer func() {
		if p := recover(); p != nil {
			e, ours := p.(falsified)
			if !ours {
				panic(p)
			}
			err = e
		}
	}()
	f.state(&stage{w})
	return nil
}

// falsified is how a statement that does not hold ends.
type falsified struct{ text string }

func (e falsified) Error() string { return e.text }

// stage has what most statements begin with.
type stage struct{ World }

func (s *stage) fail(format string, args ...any) {
	panic(falsified{fmt.Sprintf(format, args...)})
}

func (s *stage) until(what string, ok func() bool) {
	if !s.Until(ok) {
		s.fail("waited in vain: %s", what)
	}
}

func (s *stage) stays(what string, ok func() bool) {
	if !s.Stays(ok) {
		s.fail("no longer so: %s", what)
	}
}

func (s *stage) must(ok bool, format string, args ...any) {
	if !ok {
		s.fail(format, args...)
	}
}

// follow makes a standby of a server that streams under its name.
func (s *stage) follow(up Server, name string, list ...string) Server {
	b := up.Backup(name, name, list...)
	b.Order(up, name)
	b.StartStandby()
	s.streams(up, name)
	return b
}

func (s *stage) streams(up Server, app string) {
	s.until(app+" streams", func() bool { return up.Sender(app) != "" })
}

// catchUp waits until a standby holds and has replayed all WAL of its upstream.
func (s *stage) catchUp(up, b Server) {
	end := up.Position()
	s.until("the standby has everything", func() bool { return b.Replayed() >= end.LSN })
}

// holds waits until a standby holds all WAL of its upstream on disk, replayed or not.
func (s *stage) holds(up, b Server) {
	end := up.Position()
	s.until("the standby holds everything", func() bool { return b.Received().LSN >= end.LSN })
}

func (s *stage) promote(b Server) {
	b.Promote()
	s.promoted(b)
}

func (s *stage) promoted(b Server) {
	s.until("the promotion ends", func() bool { return !b.Recovering() })
}

func (s *stage) acked(tx Tx, what string) {
	s.until(what+" is acknowledged", tx.Acked)
}

func (s *stage) waits(tx Tx, what string) {
	s.stays(what+" waits", func() bool { return !tx.Acked() && !tx.Failed() })
}

// write commits something that waits for nobody.
func (s *stage) write(p Server) Tx {
	tx := p.Commit()
	s.acked(tx, "a commit")
	return tx
}
