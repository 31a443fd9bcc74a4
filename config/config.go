// SPDX-License-Identifier: Apache-2.0

package config

import (
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// Config is everything that a node is told from outside. The tags are the table of variables:
//
//	env, envDefault  name and default
//	type             what a value looks like, for people
//	scope            C: the same on all nodes, seeds the cluster when it is formed; N: of this node
//	doc              one or two sentences
//	later            reserved: only the default is accepted until this is built
type Config struct {
	Peers  List   `env:"PGQUORUM_PEERS" type:"list of host[:port]" scope:"C" doc:"The members, this node included, the same list on every node. Setting it switches cluster mode on. Names, not addresses: they are looked up at every dial."`
	Secret Secret `env:"PGQUORUM_SECRET" type:"secret" scope:"C" doc:"At least 16 characters, the same on every node. Authenticates the nodes to each other; certificates, the replication password and the API token are derived from it."`
	Node   string `env:"PGQUORUM_NODE" type:"name" scope:"N" doc:"This node's name. Default: the hostname, up to its first dot."`

	Cluster        string `env:"PGQUORUM_CLUSTER" envDefault:"pgquorum" type:"name" scope:"C" doc:"The cluster's name: a guard against joining the wrong one."`
	Role           string `env:"PGQUORUM_ROLE" envDefault:"data" type:"data, witness or learner" scope:"N" later:"witnesses and learners" doc:"What this node does: data runs Postgres and votes, witness only votes, learner only replicates."`
	StateDir       string `env:"PGQUORUM_STATE_DIR" type:"path" scope:"N" doc:"Where this node keeps its identity, votes and log: on the volume, beside the data directory, never inside it. Default: /var/lib/postgresql/pgquorum when the data directory is /var/lib/postgresql/MAJOR/docker, otherwise the directory pgquorum beside the data directory if that is on the same volume."`
	AllowEphemeral bool   `env:"PGQUORUM_ALLOW_EPHEMERAL" envDefault:"false" type:"boolean" scope:"N" doc:"Allows a state directory that does not outlive the container. For tests: such a node forgets its votes."`
	Advertise      string `env:"PGQUORUM_ADVERTISE" type:"host" scope:"N" doc:"The name by which others reach this node. Default: its entry in PGQUORUM_PEERS."`
	Listen         string `env:"PGQUORUM_LISTEN" type:"address" scope:"N" doc:"Address on which the cluster port and the HTTP API listen. Default: all, IPv6 and IPv4."`
	RaftPort       int    `env:"PGQUORUM_RAFT_PORT" envDefault:"7432" type:"port" scope:"C" doc:"Port of the links between the nodes, where PGQUORUM_PEERS does not say another."`
	APIPort        int    `env:"PGQUORUM_API_PORT" envDefault:"8008" type:"port, 0 = off" scope:"C" doc:"Port of the HTTP API: health checks with Patroni's paths, metrics."`
	APIToken       Secret `env:"PGQUORUM_API_TOKEN" type:"secret" scope:"C" later:"API calls that change something over the network" doc:"Token for API calls that change something. Default: derived from PGQUORUM_SECRET."`

	Durability      string        `env:"PGQUORUM_DURABILITY" envDefault:"quorum" type:"quorum or async" scope:"C" doc:"quorum: a commit returns when enough members have it on disk that no failover loses it. async: it does not wait, and a failover may lose the last commits."`
	Degrade         string        `env:"PGQUORUM_DEGRADE" envDefault:"never" type:"never or duration" scope:"C" later:"degrading durability" doc:"After how long without enough standbys to go on with fewer."`
	Failover        string        `env:"PGQUORUM_FAILOVER" envDefault:"auto" type:"auto or manual" scope:"C" doc:"manual: a failed primary is replaced only by an operator's command."`
	FastFailover    bool          `env:"PGQUORUM_FAST_FAILOVER" envDefault:"on" type:"boolean" scope:"C" doc:"Do not wait for the lease to end when the old primary's kernel has closed its links, which proves it dead. Off: always wait."`
	Priority        int           `env:"PGQUORUM_PRIORITY" envDefault:"50" type:"0 to 100" scope:"N" doc:"Preference among equally good candidates, higher first. 0: never primary."`
	Lease           time.Duration `env:"PGQUORUM_LEASE" envDefault:"2s" type:"duration, 1s to 60s" scope:"C" doc:"How long a primary may serve without hearing from a majority, and so the longest wait before another takes over. A new value counts once every node was restarted with it."`
	ElectionTimeout time.Duration `env:"PGQUORUM_ELECTION_TIMEOUT" envDefault:"500ms" type:"duration, 200ms to 60s" scope:"C" doc:"How long members wait for the leader of the consensus before they elect another. At least ten heartbeats."`
	Heartbeat       time.Duration `env:"PGQUORUM_HEARTBEAT" envDefault:"50ms" type:"duration" scope:"C" doc:"How often that leader is heard."`
	MaxLag          Size          `env:"PGQUORUM_MAX_LAG" envDefault:"16MB" type:"size" scope:"C" doc:"In async mode: a standby that is further behind the last known end of the primary is no candidate; then the cluster waits for the old primary."`

	StopTimeout      time.Duration `env:"PGQUORUM_STOP_TIMEOUT" envDefault:"8s" type:"duration" scope:"N" doc:"Budget for handing over and stopping. Keep it below the container's stop grace period (Docker: 10s)."`
	StopMode         string        `env:"PGQUORUM_STOP_MODE" envDefault:"fast" type:"fast or smart" scope:"N" doc:"How Postgres is stopped at the end of a planned stop. smart: nobody is let in any more, and sessions may end by themselves within PGQUORUM_STOP_TIMEOUT; then as fast, which ends them. A primary that hands over ends its sessions in any case."`
	StopGuard        time.Duration `env:"PGQUORUM_STOP_GUARD" envDefault:"0" type:"duration, 0 = off" scope:"N" doc:"A planned stop waits at most this long until every other node is in sync, so that an orchestrator that restarts all containers at once stops them one after the other. Meanwhile the node works on. The wait comes before PGQUORUM_STOP_TIMEOUT: the container's stop grace period must be longer than both. A whole stack that is stopped for good waits for all of it."`
	Rejoin           List          `env:"PGQUORUM_REJOIN" envDefault:"rewind,clone" type:"list of rewind, clone; or manual" scope:"N" doc:"What this node may do to its own data directory when that has diverged from the primary's history: rewind it, replace it by a clone (also when a rewind fails), or nothing until an operator decides. An empty directory is always cloned into."`
	RejoinKeep       int           `env:"PGQUORUM_REJOIN_KEEP" envDefault:"1" type:"0 to 9" scope:"N" doc:"How many data directories that clones have replaced are kept beside the new one, as PGDATA.old-N. Each takes the space of a whole copy."`
	BootstrapTimeout time.Duration `env:"PGQUORUM_BOOTSTRAP_TIMEOUT" envDefault:"0" type:"duration, 0 = for ever" scope:"N" doc:"How long to wait for all peers when the cluster is formed. A node that has waited longer ends with code 75, and tries again when it is started again."`

	ReplicationUser     string `env:"PGQUORUM_REPLICATION_USER" envDefault:"pgquorum" type:"role name" scope:"C" doc:"Role of the standbys. It may replicate and nothing else."`
	ReplicationPassword Secret `env:"PGQUORUM_REPLICATION_PASSWORD" type:"secret" scope:"C" doc:"Its password. Default: derived from PGQUORUM_SECRET."`
	HBAReplication      List   `env:"PGQUORUM_HBA_REPLICATION" type:"list of addresses" scope:"C" doc:"From where standbys may connect, as in pg_hba.conf. Default: samenet, or all when PGQUORUM_ADVERTISE is set."`
	ReplicationTLS      bool   `env:"PGQUORUM_REPLICATION_TLS" envDefault:"on" type:"boolean" scope:"C" doc:"Encrypt replication. The links between the nodes are always encrypted."`
	GatewayPort         int    `env:"PGQUORUM_GATEWAY_PORT" envDefault:"0" type:"port, 0 = off" scope:"C" later:"the gateway" doc:"Port of the built-in router to the primary."`

	Entrypoint string `env:"PGQUORUM_ENTRYPOINT" envDefault:"docker-entrypoint.sh" type:"path" scope:"N" doc:"The base image's own entrypoint, which does the first-time initialisation."`
	LogLevel   string `env:"PGQUORUM_LOG_LEVEL" envDefault:"info" type:"debug, info, warn or error" scope:"N" doc:"What pgquorum itself logs. Postgres' own lines pass through."`
	LogFormat  string `env:"PGQUORUM_LOG_FORMAT" envDefault:"text" type:"text or json" scope:"N" doc:"How."`

	Postgres Postgres
	Args     []string        // what Postgres is started with, as given (without the word postgres)
	Self     Peer            // this node
	Members  []Peer          // all, this node included, in the order of PGQUORUM_PEERS
	resolved map[string]bool // variables that came out of a _FILE twin
}

// Postgres are the variables of the base image that we read too. Their meaning is the image's.
type Postgres struct {
	Password       Secret `env:"POSTGRES_PASSWORD" type:"secret" scope:"C" doc:"Password of the superuser, needed when the database is created; the same on every node."`
	User           string `env:"POSTGRES_USER" envDefault:"postgres" type:"role name" scope:"C" doc:"Name of the superuser."`
	DB             string `env:"POSTGRES_DB" type:"name" scope:"C" doc:"Database to create. Default: the superuser's name."`
	InitdbArgs     string `env:"POSTGRES_INITDB_ARGS" type:"arguments" scope:"C" doc:"Arguments for initdb."`
	InitdbWALDir   string `env:"POSTGRES_INITDB_WALDIR" type:"path" scope:"N" file:"no" doc:"Directory for the write-ahead log."`
	HostAuthMethod string `env:"POSTGRES_HOST_AUTH_METHOD" type:"method" scope:"C" file:"no" doc:"Method of the pg_hba.conf line for all hosts."`
	DataDir        string `env:"PGDATA" type:"path" scope:"N" file:"no" doc:"The data directory."`
	Port           int    `env:"PGPORT" type:"port" scope:"N" file:"no" doc:"Postgres' port where neither arguments nor configuration say another. Default: 5432."`
}

// Peer is one entry of PGQUORUM_PEERS.
type Peer struct {
	Name cluster.NodeName
	Host string
	Port int
}
