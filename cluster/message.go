// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"fmt"
)

// Envelope carries one message between nodes outside raft (PROTOCOL 2). Exactly one of the pointer fields is set.
// Messages change no replicated state.
type Envelope struct {
	ClusterID string      `json:"cluster"`
	Recovery  uint64      `json:"recovery,omitempty"`
	From      Incarnation `json:"from"`
	Boot      Boot        `json:"boot"`
	Applied   uint64      `json:"applied"`

	Renew    *Renew       `json:"renew,omitempty"`
	Grant    *Grant       `json:"grant,omitempty"`
	Refuse   *Refuse      `json:"refuse,omitempty"`
	Status   *Status      `json:"status,omitempty"`
	Evidence *Evidence    `json:"evidence,omitempty"`
	PgDown   *PgDown      `json:"pg_down,omitempty"`
	Report   *Report      `json:"report,omitempty"`
	CatchUp  *CatchUp     `json:"catch_up,omitempty"`
	Proposed *Proposed    `json:"proposed,omitempty"`
	Attach   *Attach      `json:"attach,omitempty"`
	AttachOK *AttachOK    `json:"attach_ok,omitempty"`
	Diverged *Diverged    `json:"diverged,omitempty"`
	Detach   *Detach      `json:"detach,omitempty"`
	Flushed  *Flushed     `json:"flushed,omitempty"`
	Leaving  *Leaving     `json:"leaving,omitempty"`
	Order    *Request     `json:"order,omitempty"`
	OrderEnd *Response    `json:"order_end,omitempty"`
	Join     *Join        `json:"join,omitempty"`
	Offer    *Offer       `json:"offer,omitempty"`
	Genesis  *GenesisCopy `json:"genesis,omitempty"`
}

// Renew asks a voter to extend the lease of epoch E; T0 is the sender's clock when it was sent.
type Renew struct {
	Epoch   Epoch  `json:"epoch"`
	T0      int64  `json:"t0"` // nanoseconds on the sender's clock
	LeaseMS int64  `json:"lease_ms"`
	Config  uint64 `json:"config"` // VoterConfig.Index of the newest configuration
}

// Grant answers a Renew.
type Grant Renew

// Refuse answers a Renew that the voter will not grant.
type Refuse struct {
	Epoch   Epoch `json:"epoch"`
	Promise Epoch `json:"promise"`
}

// Role is what a node is at the moment (PROTOCOL 1.11).
type Role string

// The roles.
const (
	RoleDown      Role = "down"
	RoleFenced    Role = "fenced"
	RoleFollowing Role = "following"
	RolePromoting Role = "promoting"
	RoleServing   Role = "serving"
)

// Status is what a node tells every other one each 100 ms and at once when something changed.
type Status struct {
	Role        Role      `json:"role"`
	Epoch       Epoch     `json:"epoch"`
	Promise     Epoch     `json:"promise"`
	Position    Position  `json:"position"`
	Known       bool      `json:"known"`
	Streaming   bool      `json:"streaming"`
	GrantAgeMS  int64     `json:"grant_age_ms"` // since the last grant for Epoch; -1: never
	Evidence    *Evidence `json:"evidence,omitempty"`
	Backlog     uint64    `json:"backlog"`
	ReplayLSN   LSN       `json:"replay_lsn"`
	Leaving     bool      `json:"leaving,omitempty"`
	Eligible    bool      `json:"eligible"`
	WhyNot      string    `json:"why_not,omitempty"`
	Serving     bool      `json:"serving"`              // clients are let in
	Checkpoint  bool      `json:"checkpoint"`           // the checkpoint on the new timeline is done (8.3.c)
	LeaseLeftMS int64     `json:"lease_left_ms"`        // as primary
	LeaseMS     int64     `json:"lease_ms,omitempty"`   // the L that its environment asks for
	Task        string    `json:"task,omitempty"`       // what it is doing
	TaskNote    string    `json:"task_note,omitempty"`  // progress
	Trouble     string    `json:"trouble,omitempty"`    // what needs an operator
	Guarded     bool      `json:"guarded,omitempty"`    // a planned stop waits for the others
	Foreign     bool      `json:"foreign,omitempty"`    // its data are another Postgres cluster's: it takes no part
	Senders     []Sender  `json:"senders,omitempty"`    // as primary: who streams from it
	StuckMS     int64     `json:"stuck_ms,omitempty"`   // as primary: commits wait without progress, or Postgres answers nothing
	RaftMatch   uint64    `json:"raft_match,omitempty"` // applied index
	Port        int       `json:"port,omitempty"`       // of its Postgres
	HeldTwice   bool      `json:"held_twice"`
	DiskFree    uint64    `json:"disk_free,omitempty"` // bytes, on the device of the WAL; zero: not known, or none
	Ballast     uint64    `json:"ballast,omitempty"`
}

// Sender is one WAL sender of the primary.
type Sender struct {
	App    string `json:"app"`
	Flush  LSN    `json:"flush"`
	Replay LSN    `json:"replay"`
	State  string `json:"state"`
	Sync   string `json:"sync"`
}

// PgDown says that the primary's Postgres ended unasked or is given up. Killed: the fence is durable and the kill
// has returned.
type PgDown struct {
	Epoch  Epoch       `json:"epoch"`
	Killed bool        `json:"killed"`
	Why    string      `json:"why"`
	Cause  Cause       `json:"cause"`
	Target Incarnation `json:"target,omitempty"`
}

// CatchUp orders a fenced node to stream from another fenced node up to End before the election concludes.
type CatchUp struct {
	Election uint64      `json:"election"`
	Donor    Incarnation `json:"donor"`
	End      Position    `json:"end"`
}

// Proposed tells a candidate that the leader has proposed to elect it: it may close its gate meanwhile.
type Proposed struct {
	Elect Elect `json:"elect"`
}

// Attach asks to follow: the claim is the sender's end of WAL.
type Attach struct {
	Epoch    Epoch    `json:"epoch"`
	Claim    Position `json:"claim"`
	Election uint64   `json:"election,omitempty"` // a catch-up
	Clone    bool     `json:"clone,omitempty"`    // asks for a source to copy from, claims nothing
	Rewind   bool     `json:"rewind,omitempty"`
}

// AttachOK says where the upstream's Postgres listens; the host is the far end of the link itself.
type AttachOK struct {
	Epoch    Epoch    `json:"epoch"`
	Timeline Timeline `json:"timeline"`
	Port     int      `json:"port"`
	App      string   `json:"app"` // application_name to use
	Election uint64   `json:"election,omitempty"`
	Clone    bool     `json:"clone,omitempty"`
	Rewind   bool     `json:"rewind,omitempty"`
}

// Diverged refuses an Attach. Retry: not now, ask again.
type Diverged struct {
	Epoch Epoch  `json:"epoch"`
	Fork  LSN    `json:"fork"`
	Retry bool   `json:"retry,omitempty"`
	Gone  bool   `json:"gone,omitempty"` // a prefix, but the WAL that follows it is not kept any more
	Why   string `json:"why"`
}

// Detach tells attached nodes to park.
type Detach struct {
	Epoch Epoch  `json:"epoch"`
	Why   string `json:"why"`
}

// Flushed says what a member of Set has on disk (PROTOCOL 5.7.c), measured by its own PID 1.
type Flushed struct {
	Epoch    Epoch    `json:"epoch"`
	Timeline Timeline `json:"timeline"`
	LSN      LSN      `json:"lsn"`
}

// Leaving says that the sender has been told to stop.
type Leaving struct {
	Primary bool `json:"primary"`
}

// Request is an operator's order on its way to the node that can carry it out.
type Request struct {
	ID     uint64   `json:"id"`
	Op     string   `json:"op"` // switchover, pause, resume
	Target NodeName `json:"target,omitempty"`
}

// Response ends a Request.
type Response struct {
	ID  uint64 `json:"id"`
	OK  bool   `json:"ok"`
	Msg string `json:"msg"`
}

// Join asks the leader to make the sender a member (PROTOCOL 9.5).
type Join struct {
	Member Member `json:"member"`
}

// GenesisCopy answers an Offer once the cluster exists. State is empty when the asker is not part of the genesis:
// it must join instead (PROTOCOL 9.2).
type GenesisCopy struct {
	ClusterID string `json:"cluster_id"`
	State     []byte `json:"state,omitempty"`
}

// For is what a node that offers itself is told of this genesis.
func (g GenesisCopy) For(asker Incarnation) *GenesisCopy {
	if s, err := DecodeState(g.State); err != nil || s.Member(asker) == nil {
		g.State = nil
	}
	return &g
}

// Encode makes the wire form.
func (e Envelope) Encode() []byte { return mustJSON(e) }

// DecodeEnvelope reads the wire form.
func DecodeEnvelope(b []byte) (Envelope, error) {
	var e Envelope
	if err := json.Unmarshal(b, &e); err != nil {
		return Envelope{}, fmt.Errorf("decode message: %w", err)
	}
	return e, nil
}
