// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// samples has one of each command and membership change, every field set: the wire and log format.
func samples() map[string]interface{ Encode() []byte } {
	d := Durability{Set: incs([]string{"a", "b", "c"}), K: 1, Mode: ModeQuorum}
	report := Report{
		Inc: 2, Boot: boot(2), Election: 50, Promise: 3, Known: true, Position: Position{2, 0x3000}, HighestTL: 2, GrantAgeMS: 500,
		GrantLeaseMS: 2000, Killed: true, Evidence: &Evidence{Inc: 1, Boot: boot(1), HeldTwice: true}, Eligible: true, WhyNot: "why", Priority: 100, Backlog: 8, Running: true, PrimaryEnd: Position{2, 0x4000},
	}
	return map[string]interface{ Encode() []byte }{
		"initialized":    Command{Initialized: &Initialized{From: 1, System: 7, Timeline: 3, Base: History{{1, 0x1000}}}},
		"register":       Command{Register: &Register{Inc: 1, Boot: Boot{2, 99}, Boots: []Boot{{1, 98}, {2, 99}}}},
		"begin_election": Command{BeginElection: &BeginElection{Epoch: 3, Cause: CauseSwitchover, Rule: "F320", Detail: "why", Target: 2}},
		"elect":          Command{Elect: &Elect{Epoch: 3, Election: 50, Candidate: 2, Reports: []Report{report}, Wait: WaitLease, Rule: "F250", Reason: "why"}},
		"promoted":       Command{Promoted: &Promoted{Epoch: 3, From: 2, Timeline: 3, Switch: 0x3000, NextXID: 700}},
		"admitted":       Command{Admitted: &Admitted{Epoch: 3, From: 2, Timings: []NamedDuration{{"gate", 3}}}},
		"change_d":       Command{ChangeD: &ChangeD{Epoch: 3, D: d, Rule: "M320"}},
		"revert_d":       Command{RevertD: &RevertD{Epoch: 3, Rule: "M120"}},
		"settle_d":       Command{SettleD: &SettleD{Epoch: 3, From: 2, X: d, Barrier: 0x4000}},
		"confirm_voters": Command{ConfirmVoters: &ConfirmVoters{Epoch: 3, From: 2, Config: 60}},
		"set_lease":      Command{SetLease: &SetLease{LeaseMS: 3000, Was: 2000, Rule: "M125"}},
		"pause":          Command{Pause: &Pause{Paused: true}},
		"member_change": MemberChange{
			Kind: AddVoter, Epoch: 3, Rule: "M310",
			Member: Member{Inc: 4, Name: "d", Witness: true, Voter: true, Priority: 5, Boot: boot(4), Past: []Boot{{1, 3}}, Quarantined: true},
		},
	}
}

func rewriting() bool {
	f := flag.Lookup("rewrite")
	return f != nil && f.Value.String() == "true"
}

// golden compares with a file, or writes it under -rewrite.
func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if rewriting() {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is stale (run the test with -rewrite if the change is meant):\n%s", path, got)
	}
}

// TestEncodingV1: logs and snapshots outlive a version. A change here breaks clusters that are running; it needs a new
// FormatVersion, not a new golden file.
func TestEncodingV1(t *testing.T) {
	for name, c := range samples() {
		var b bytes.Buffer
		if err := json.Indent(&b, c.Encode(), "", "  "); err != nil {
			t.Fatal(err)
		}
		b.WriteByte('\n')
		path := filepath.Join("testdata", "encoding", "v1", name+".json")
		golden(t, path, b.Bytes())
		var back interface{ Encode() []byte }
		var err error
		if name == "member_change" {
			back, err = DecodeMemberChange(b.Bytes())
		} else {
			back, err = DecodeCommand(b.Bytes())
		}
		if err != nil || !bytes.Equal(back.Encode(), c.Encode()) {
			t.Errorf("%s: %v, decoded as %s", name, err, back.Encode())
		}
	}
	s := baseState()
	s.Pending = &Durability{Set: incs([]string{"a", "b"}), K: 1, Mode: ModeQuorum}
	s.History = []Decided{{Index: 9, Epoch: 2, What: "elect", Rule: "F250", Detail: "why", Timings: []NamedDuration{{"gate", 3}}}}
	var b bytes.Buffer
	if err := json.Indent(&b, s.Encode(), "", "  "); err != nil {
		t.Fatal(err)
	}
	golden(t, filepath.Join("testdata", "encoding", "v1", "state.json"), append(b.Bytes(), '\n'))
}

// fuzzStates are the states that any bytes must be safe to apply to: one of each phase, and some under way.
func fuzzStates() []*State {
	electing := baseState()
	electing.Phase, electing.Election = PhaseElecting, Election{Epoch: 3, Index: 50}
	promoting := baseState()
	promoting.Phase, promoting.Epochs[1].Promoted = PhasePromoting, false
	pending := baseState()
	pending.Pending = &Durability{Set: incs([]string{"a", "b"}), K: 1, Mode: ModeAsync}
	stepping := baseState()
	stepping.Configs = append(stepping.Configs, VoterConfig{Index: 60, Voters: incs([]string{"a", "b"})})
	blank := baseState()
	blank.Phase, blank.Epochs = PhaseBlank, nil
	return []*State{baseState(), electing, promoting, pending, stepping, blank, {}}
}

func FuzzDecodeCommand(f *testing.F) {
	for _, c := range samples() {
		f.Add(c.Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, cerr := DecodeCommand(b)
		m, merr := DecodeMemberChange(b)
		for _, s := range fuzzStates() {
			frozen := s.Encode()
			var next []*State
			if cerr == nil {
				n, ev := Apply(s, 100, c)
				if next = append(next, n); len(ev) != 1 || (ev[0].Kind == "rejected") != (n == s) {
					t.Fatalf("events %v", ev)
				}
			}
			if merr == nil {
				n, ev, ok := ApplyConf(s, 100, m)
				if next = append(next, n); len(ev) != 1 || ok == (n == s) {
					t.Fatalf("events %v, ok %t", ev, ok)
				}
			}
			if !bytes.Equal(frozen, s.Encode()) {
				t.Fatal("apply changed its argument")
			}
			for _, n := range next {
				if n.Format == FormatVersion {
					roundTrip(t, n.Encode())
				}
				_, _ = n.ListedD()
				_ = n.Lineage()
				_ = n.SyncNames(n.D)
			}
		}
	})
}

func roundTrip(t *testing.T, b []byte) {
	s, err := DecodeState(b)
	if err != nil {
		t.Fatal(err)
	}
	if again := s.Encode(); !bytes.Equal(again, b) {
		t.Fatalf("encoded twice:\n%s\n%s", b, again)
	}
}

func FuzzDecodeState(f *testing.F) {
	for _, s := range fuzzStates() {
		f.Add(s.Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := DecodeState(b); err == nil {
			roundTrip(t, s.Encode())
		}
	})
}

func FuzzParseLSN(f *testing.F) {
	for _, s := range []string{"0/16B3748", "FFFFFFFF/FFFFFFFF", "", "/", "1", "0/g", "g/0", "+1/0", "0/100000000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLSN(s)
		if err != nil {
			return
		}
		if again, err := ParseLSN(l.String()); err != nil || again != l {
			t.Fatalf("%q: %s, then %s, %v", s, l, again, err)
		}
		if strings.ContainsAny(s, "+-_ ") {
			t.Fatalf("%q is no lsn of Postgres", s)
		}
	})
}

func FuzzDecodeEnvelope(f *testing.F) {
	f.Add(Envelope{ClusterID: "c", From: 1, Boot: boot(1), Renew: &Renew{Epoch: 2, T0: 1, LeaseMS: 2000, Config: 1}}.Encode())
	f.Add(Envelope{Status: &Status{Role: RoleServing, Senders: []Sender{{App: "x"}}}}.Encode())
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeEnvelope(b)
		if err != nil {
			return
		}
		again, err := DecodeEnvelope(e.Encode())
		if err != nil || !bytes.Equal(again.Encode(), e.Encode()) {
			t.Fatalf("%s: %v", e.Encode(), err)
		}
	})
}
