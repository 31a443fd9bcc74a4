// SPDX-License-Identifier: Apache-2.0

package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// DBState is the state field of pg_control.
type DBState uint32

// The states, as Postgres numbers them.
const (
	StateStartup DBState = iota
	StateShutDown
	StateShutDownInRecovery
	StateShuttingDown
	StateInCrashRecovery
	StateInArchiveRecovery
	StateInProduction
)

func (s DBState) String() string {
	names := [...]string{
		"starting up", "shut down", "shut down in recovery", "shutting down",
		"in crash recovery", "in archive recovery", "in production",
	}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("state %d", uint32(s))
}

// Level is wal_level as pg_control holds it.
type Level int32

// The levels.
const (
	LevelMinimal Level = iota
	LevelReplica
	LevelLogical
)

// Control is the content of global/pg_control.
type Control struct {
	SystemID       cluster.SystemID
	Version        uint32 // pg_control_version: 1300 for 13 to 16, 1700 for 17, 1800 for 18
	CatalogVersion uint32
	State          DBState

	Checkpoint         cluster.LSN // where the last checkpoint record is
	Redo               cluster.LSN // where recovery from it starts
	CheckpointTimeline cluster.Timeline
	PrevTimeline       cluster.Timeline // differs from CheckpointTimeline in an end-of-recovery checkpoint
	NextXID            uint64           // with its 32 bits of epoch

	MinRecoveryPoint    cluster.LSN
	MinRecoveryTimeline cluster.Timeline
	BackupStart         cluster.LSN
	BackupEnd           cluster.LSN
	BackupEndRequired   bool

	WALLevel              Level
	WALLogHints           bool
	MaxConnections        int32
	MaxWorkerProcesses    int32
	MaxWALSenders         int32
	MaxPreparedXacts      int32
	MaxLocksPerXact       int32
	TrackCommitTimestamp  bool
	BlockSize             uint32
	WALBlockSize          uint32
	WALSegmentSize        uint32
	DataChecksumVersion   uint32
	DefaultCharSignedness bool // 18 and later
}

// Timeline is the newest timeline the control file speaks of.
func (c Control) Timeline() cluster.Timeline { return max(c.CheckpointTimeline, c.MinRecoveryTimeline) }

// ErrControlChecksum means that pg_control does not match its own checksum.
var ErrControlChecksum = errors.New("pg_control does not match its checksum")

// Where the checksum of pg_control stands. 13 to 17 share one layout; 18 added a byte before the nonce.
const (
	controlCRC1300 = 288
	controlCRC1800 = 292
	controlReads   = 20 // a running server rewrites the file, so a read may be torn
)

// ReadControl reads and checks pg_control of a data directory. It may run beside a server.
func ReadControl(pgdata string) (Control, error) {
	path := filepath.Join(pgdata, "global", "pg_control")
	for try := 1; ; try++ {
		b, err := os.ReadFile(path)
		if err != nil {
			return Control{}, fmt.Errorf("read control file: %w", err)
		}
		c, err := ParseControl(b)
		if err == nil || !errors.Is(err, ErrControlChecksum) || try == controlReads {
			return c, err
		}
		time.Sleep(time.Millisecond)
	}
}

// ParseControl parses the bytes of pg_control.
func ParseControl(b []byte) (Control, error) {
	if len(b) < controlCRC1800+4 {
		return Control{}, fmt.Errorf("parse control file: %d bytes are too few", len(b))
	}
	le := binary.LittleEndian
	c := Control{SystemID: cluster.SystemID(le.Uint64(b)), Version: le.Uint32(b[8:]), CatalogVersion: le.Uint32(b[12:])}
	var at int
	switch c.Version {
	case 1300, 1700:
		at = controlCRC1300
	case 1800:
		at = controlCRC1800
		c.DefaultCharSignedness = b[256] != 0
	default:
		return Control{}, fmt.Errorf("parse control file: unknown version %d", c.Version)
	}
	if crc32.Checksum(b[:at], castagnoli) != le.Uint32(b[at:]) {
		return Control{}, fmt.Errorf("parse control file: %w", ErrControlChecksum)
	}
	c.State = DBState(le.Uint32(b[16:]))
	c.Checkpoint = cluster.LSN(le.Uint64(b[32:]))
	c.Redo = cluster.LSN(le.Uint64(b[40:]))
	c.CheckpointTimeline = cluster.Timeline(le.Uint32(b[48:]))
	c.PrevTimeline = cluster.Timeline(le.Uint32(b[52:]))
	c.NextXID = le.Uint64(b[64:])
	c.MinRecoveryPoint = cluster.LSN(le.Uint64(b[136:]))
	c.MinRecoveryTimeline = cluster.Timeline(le.Uint32(b[144:]))
	c.BackupStart = cluster.LSN(le.Uint64(b[152:]))
	c.BackupEnd = cluster.LSN(le.Uint64(b[160:]))
	c.BackupEndRequired = b[168] != 0
	c.WALLevel = Level(le.Uint32(b[172:]))
	c.WALLogHints = b[176] != 0
	c.MaxConnections = int32(le.Uint32(b[180:]))
	c.MaxWorkerProcesses = int32(le.Uint32(b[184:]))
	c.MaxWALSenders = int32(le.Uint32(b[188:]))
	c.MaxPreparedXacts = int32(le.Uint32(b[192:]))
	c.MaxLocksPerXact = int32(le.Uint32(b[196:]))
	c.TrackCommitTimestamp = b[200] != 0
	c.BlockSize = le.Uint32(b[216:])
	c.WALBlockSize = le.Uint32(b[224:])
	c.WALSegmentSize = le.Uint32(b[228:])
	c.DataChecksumVersion = le.Uint32(b[252:])
	if n := c.WALSegmentSize; n < 1<<20 || n > 1<<30 || n&(n-1) != 0 {
		return Control{}, fmt.Errorf("parse control file: wal segments of %d bytes", n)
	}
	return c, nil
}
