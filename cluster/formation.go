// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Offer is what a node brings to a first formation (PROTOCOL 9.2). It is durable before it is sent.
type Offer struct {
	Name     NodeName    `json:"name"`
	Inc      Incarnation `json:"inc"`
	Witness  bool        `json:"witness,omitempty"`
	Priority int         `json:"priority"`
	HasData  bool        `json:"has_data"`
	System   SystemID    `json:"system,string"`
	Settings Formed      `json:"settings"`

	Seen []Incarnation `json:"seen,omitempty"` // whose offers the sender holds, ascending; not a part of the genesis
}

// Formed are the settings that must be the same on every node when the cluster is formed.
type Formed struct {
	Cluster string     `json:"cluster"`
	Peers   []NodeName `json:"peers"` // sorted
	LeaseMS int64      `json:"lease_ms"`
	Mode    Mode       `json:"mode"`
	FastOff bool       `json:"fast_off,omitempty"`
	MaxLag  uint64     `json:"max_lag"`
	Paused  bool       `json:"paused,omitempty"` // PGQUORUM_FAILOVER=manual
}

// Setting is one of them by the name and in the words of the environment.
type Setting struct{ Variable, Value string }

// Settings lists them all, always in the same order.
func (f Formed) Settings() []Setting {
	return []Setting{
		{"PGQUORUM_PEERS", JoinNames(f.Peers, ",")},
		{"PGQUORUM_CLUSTER", f.Cluster},
		{"PGQUORUM_DURABILITY", string(f.Mode)},
		{"PGQUORUM_LEASE", (time.Duration(f.LeaseMS) * time.Millisecond).String()},
		{"PGQUORUM_FAST_FAILOVER", word(f.FastOff, "off", "on")},
		{"PGQUORUM_FAILOVER", word(f.Paused, "manual", "auto")},
		{"PGQUORUM_MAX_LAG", sizeText(f.MaxLag)},
	}
}

// sizeText writes bytes in the largest of Postgres' units that needs no fraction.
func sizeText(n uint64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	i := 0
	for n != 0 && n%1024 == 0 && i < len(units)-1 {
		n, i = n/1024, i+1
	}
	return strconv.FormatUint(n, 10) + units[i]
}

func word(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

// JoinNames writes names one after the other.
func JoinNames(names []NodeName, sep string) string {
	words := make([]string, len(names))
	for i, n := range names {
		words[i] = string(n)
	}
	return strings.Join(words, sep)
}

// difference says in words how two nodes' settings differ; empty: not at all.
func difference(a, b Offer) string {
	var parts []string
	theirs := b.Settings.Settings()
	for i, s := range a.Settings.Settings() {
		if s != theirs[i] {
			parts = append(parts, fmt.Sprintf("%s is %s on %s and %s on %s", s.Variable, s.Value, a.Name, theirs[i].Value, b.Name))
		}
	}
	return strings.Join(parts, "; ")
}

// Missing lists the peers whose offer is not among offers.
func (f Formed) Missing(offers []Offer) []NodeName {
	var missing []NodeName
	for _, n := range f.Peers {
		if !slices.ContainsFunc(offers, func(o Offer) bool { return o.Name == n }) {
			missing = append(missing, n)
		}
	}
	return missing
}

// WaitingError means that nothing is wrong but that listed peers have not offered themselves.
type WaitingError struct{ For []NodeName }

func (e *WaitingError) Error() string { return e.Because(nil) }

// Because is Error with, for each peer, why it is not there, as far as that is known.
func (e *WaitingError) Because(why map[NodeName]string) string {
	parts := make([]string, len(e.For))
	for i, n := range e.For {
		parts[i] = string(n)
		if why[n] != "" {
			parts[i] += " (" + why[n] + ")"
		}
	}
	return "form a cluster: waiting for " + strings.Join(parts, ", ")
}

// Genesis computes the first state from the offers of every listed peer. Every node computes the same one.
func Genesis(offers []Offer) (*State, error) {
	offers = slices.Clone(offers)
	slices.SortFunc(offers, func(a, b Offer) int { return cmp.Compare(a.Name, b.Name) })
	if len(offers) == 0 {
		return nil, fmt.Errorf("form a cluster: no offers")
	}
	f := offers[0].Settings
	var founder *Offer
	for i := range offers {
		o := &offers[i]
		if d := difference(offers[0], *o); d != "" {
			return nil, fmt.Errorf("form a cluster: %s: make it the same on every node", d)
		}
		if i > 0 && o.Name == offers[i-1].Name {
			return nil, fmt.Errorf("form a cluster: two nodes are called %s: give each container its own hostname (or PGQUORUM_NODE)", o.Name)
		}
		if slices.ContainsFunc(offers[:i], func(p Offer) bool { return p.Inc == o.Inc }) || o.Inc == 0 {
			return nil, fmt.Errorf("form a cluster: %s has incarnation %s, which is no other node's; its volume was copied: empty it", o.Name, o.Inc)
		}
		if !o.HasData {
			continue
		}
		if o.Witness { // I7: nothing is founded beside data that may be a cluster's
			return nil, fmt.Errorf("form a cluster: %s is a witness and has data (system identifier %d); run it as a data node or empty its volume", o.Name, o.System)
		}
		if founder != nil {
			return nil, fmt.Errorf("form a cluster: %s (system identifier %d) and %s (%d) both have data; keep the volume of one and empty the others",
				founder.Name, founder.System, o.Name, o.System)
		}
		founder = o
	}
	if m := f.Missing(offers); len(m) > 0 || len(offers) != len(f.Peers) {
		return nil, &WaitingError{For: m}
	}
	if founder == nil { // nobody has data: the lowest name that runs Postgres
		i := slices.IndexFunc(offers, func(o Offer) bool { return !o.Witness })
		if i < 0 {
			return nil, fmt.Errorf("form a cluster: every node is a witness")
		}
		founder = &offers[i]
	}
	return genesisState(offers, founder, f), nil
}

func genesisState(offers []Offer, founder *Offer, f Formed) *State {
	sum := sha256.Sum256(mustJSON(offers))
	s := &State{
		Format: FormatVersion, ClusterID: hex.EncodeToString(sum[:16]), Founder: founder.Inc, Phase: PhaseBlank,
		D:       Durability{Set: []Incarnation{founder.Inc}, K: 0, Mode: f.Mode},
		LeaseMS: f.LeaseMS, FastOff: f.FastOff, MaxLag: f.MaxLag, Paused: f.Paused,
	}
	var voters []Incarnation
	data := 0
	for _, o := range offers {
		if !o.Witness {
			data++
		}
		s.Members = append(s.Members, Member{Inc: o.Inc, Name: o.Name, Witness: o.Witness, Voter: true, Priority: o.Priority})
		voters = append(voters, o.Inc)
	}
	slices.SortFunc(s.Members, func(a, b Member) int { return cmp.Compare(a.Inc, b.Inc) })
	slices.Sort(voters)
	s.Fresh = !founder.HasData && data > 1 // adopted data was served before, and is at once
	s.Configs = []VoterConfig{{Index: 1, Voters: voters}}
	return s
}
