// SPDX-License-Identifier: Apache-2.0

package status

// Doc is the cluster as one node sees it.
type Doc struct {
	Cluster    string     `json:"cluster"` // empty before formation
	Node       string     `json:"node"`    // who answers
	Version    string     `json:"version"`
	Primary    string     `json:"primary"` // who serves clients; empty: nobody, as far as this node knows
	Epoch      uint64     `json:"epoch"`
	Phase      string     `json:"phase"` // forming, blank, electing, promoting, promoted
	Timeline   uint32     `json:"timeline"`
	Leader     string     `json:"leader"` // of raft; empty: none known
	Paused     bool       `json:"paused"`
	Redundant  bool       `json:"redundant"` // every data node streams and may win, and nothing is being changed
	Durability Durability `json:"durability"`
	Members    []Member   `json:"members"` // sorted by name
	History    []Event    `json:"history"` // oldest first
	Forming    string     `json:"forming,omitempty"`
	Decision   string     `json:"decision"`
	Rule       string     `json:"rule"`
}

// Durability says which nodes must hold a commit before it is acknowledged.
type Durability struct {
	Mode    string      `json:"mode"`
	Set     []string    `json:"set"`     // includes the primary
	K       int         `json:"k"`       // acknowledgements needed beside the primary
	Pending *Durability `json:"pending"` // the change under way
}

// Member is one node. A node that was replaced and its successor share a name and differ in incarnation.
type Member struct {
	Name        string  `json:"name"`
	Incarnation string  `json:"incarnation"`
	Role        string  `json:"role"`
	State       string  `json:"state"`
	Timeline    uint32  `json:"timeline"`  // 0: unknown
	LSN         string  `json:"lsn"`       // on disk; empty: unknown
	LagBytes    *uint64 `json:"lag_bytes"` // behind the primary; null: unknown, or the primary itself
	Streaming   bool    `json:"streaming"`
	Sync        bool    `json:"sync"`     // its acknowledgement counts
	LeaseMS     int64   `json:"lease_ms"` // left, as primary
	Epoch       uint64  `json:"epoch"`
	Linked      bool    `json:"linked"`
	Task        string  `json:"task,omitempty"` // what it is doing, with progress
	WhyNot      string  `json:"why_not,omitempty"`
	Trouble     string  `json:"trouble,omitempty"` // what needs an operator
}

// The roles of a member.
const (
	RolePrimary = "primary"
	RoleStandby = "standby"
	RoleLearner = "learner"
	RoleWitness = "witness"
	RoleUnknown = "unknown"
	RoleNone    = "none" // a member whose data are another cluster's
)

// The states of a member.
const (
	StateServing     = "serving"     // primary, lets clients in
	StateAdmitting   = "admitting"   // promoted, waits to let clients in
	StatePromoting   = "promoting"   //
	StateStreaming   = "streaming"   //
	StateCatchingUp  = "catching up" // follows, is not level yet
	StateCloning     = "cloning"     //
	StateRewinding   = "rewinding"   //
	StateFounding    = "founding"    // makes the first data
	StateStarting    = "starting"    //
	StateFenced      = "fenced"      // runs, follows nobody
	StateStopping    = "stopping"    //
	StateDown        = "down"        // its Postgres does not run
	StateWaiting     = "waiting"     // for formation, or to be let in
	StateVoting      = "voting"      // a witness in its place
	StateUnreachable = "unreachable" // no link, or nothing heard
)

// Event is one decision that was made.
type Event struct {
	Index   uint64   `json:"index"`
	Epoch   uint64   `json:"epoch"`
	What    string   `json:"what"`
	Rule    string   `json:"rule,omitempty"`
	Detail  string   `json:"detail,omitempty"`
	Timings []Timing `json:"timings,omitempty"`
}

// Timing is how long one step took.
type Timing struct {
	Name string `json:"name"`
	MS   int64  `json:"ms"`
}

// Order is what an operator wants done.
type Order struct {
	Op     string `json:"op"`               // switchover, pause, resume
	Target string `json:"target,omitempty"` // a node's name
}

// Outcome ends an Order.
type Outcome struct {
	OK         bool   `json:"ok"`
	Message    string `json:"message"`
	DurationMS int64  `json:"duration_ms"`
}

// The paths on the local socket, and the socket's name in its directory.
const (
	SocketName  = "api.sock"
	PathStatus  = "/v1/status"
	PathRequest = "/v1/request"
	PathHealth  = "/v1/health" // ?ready=1
)
