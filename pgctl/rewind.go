// SPDX-License-Identifier: Apache-2.0

package pgctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/durable"
	"github.com/pgquorum/pgquorum/pgctl/wal"
)

// Source is the node to copy from.
type Source struct {
	Host string // a name, for messages and TLS; may be an address
	Addr string // its IP address
	Port int
}

// Expect is what a rewind must lead to.
type Expect struct {
	SystemID cluster.SystemID
	Timeline cluster.Timeline // the source's
	Fork     cluster.LSN      // where the histories part, to save what is lost; 0: save nothing
}

// ErrNothingToRewind means that the directory has not diverged: it can follow as it is.
var ErrNothingToRewind = errors.New("nothing to rewind")

// maxSaved bounds the diverged WAL that is saved, in segments.
const maxSaved = 16

const sourceService = "pgquorum_source"

// Rewind takes back what this node wrote after the histories parted (PROTOCOL 8.3). The source must be a primary
// whose checkpoint on its timeline is done; otherwise pg_rewind finds nothing to do. After any error but
// ErrNothingToRewind, ask Disk: it says Interrupted when only Clone is left.
func (p *Postgres) Rewind(ctx context.Context, src Source, want Expect) error {
	p.work.Lock()
	defer p.work.Unlock()
	if err := p.rewind(ctx, src, want); err != nil {
		return fmt.Errorf("rewind from %s: %w", src.Host, err)
	}
	return nil
}

func (p *Postgres) rewind(ctx context.Context, src Source, want Expect) error {
	c, err := p.mayReplace(want.SystemID)
	if err != nil {
		return err
	}
	if err := p.writePlan(Plan{Kind: PlanRewind, Step: StepRecover}); err != nil {
		return err
	}
	if c.State != wal.StateShutDown && c.State != wal.StateShutDownInRecovery {
		// In single-user mode there is no standby; it ends on a checkpoint of the timeline that is to be rewound.
		if err := durable.Remove(p.dataFile("standby.signal"), p.dataFile("recovery.signal")); err != nil {
			return err
		}
		if _, err := p.single(ctx, "template1", ""); err != nil {
			return fmt.Errorf("recover before it: %w", err)
		}
	}
	if err := p.saveDiverged(c, want.Fork); err != nil {
		return err
	}
	env, err := p.sourceEnv(src, "pgq_rewind_"+p.opt.Incarnation.String())
	if err != nil {
		return err
	}
	if err := p.writePlan(Plan{Kind: PlanRewind, Step: StepRewind, Garbage: true}); err != nil {
		return err
	}
	var said strings.Builder
	_, err = p.tool(ctx, toolSpec{name: "pg_rewind", env: env, stderr: func(l string) { said.WriteString(l + "\n") }, args: []string{
		"--target-pgdata=" + p.opt.DataDir, "--no-ensure-shutdown",
		"--source-server=service=" + sourceService + " dbname=postgres",
	}})
	if err != nil {
		// It says this before it touches the first file. Most failures are a source that cannot be reached, and must
		// not cost a clone.
		if ctx.Err() == nil && !strings.Contains(said.String(), "rewinding from last common checkpoint") {
			err = errors.Join(err, p.writePlan(Plan{}))
		}
		return err
	}
	return p.verifyRewind(want, said.String())
}

// mayReplace checks that the directory is of that system, and that nothing runs on it.
func (p *Postgres) mayReplace(id cluster.SystemID) (wal.Control, error) {
	if p.Running() {
		return wal.Control{}, errors.New("postgres is running")
	}
	plan, err := p.readPlan()
	if err != nil {
		return wal.Control{}, err
	}
	if plan.Garbage {
		return wal.Control{}, fmt.Errorf("the directory holds an interrupted %s", plan.Kind)
	}
	if plan.Step == StepSwapped {
		return wal.Control{}, errors.New("the last clone has not streamed yet: clone again instead")
	}
	c, err := wal.ReadControl(p.opt.DataDir)
	if err != nil {
		return c, err
	}
	if c.SystemID != id {
		return c, fmt.Errorf("the directory is of system %d, not %d", c.SystemID, id)
	}
	return c, nil
}

func (p *Postgres) verifyRewind(want Expect, said string) error {
	c, err := wal.ReadControl(p.opt.DataDir)
	if err != nil {
		return err
	}
	if strings.Contains(said, "no rewind required") {
		if err := p.writePlan(Plan{}); err != nil { // it changed nothing
			return err
		}
		return ErrNothingToRewind
	}
	if c.SystemID != want.SystemID || c.CheckpointTimeline != want.Timeline {
		return fmt.Errorf("verify: system %d timeline %d, not %d and %d", c.SystemID, c.CheckpointTimeline, want.SystemID, want.Timeline)
	}
	// pg_rewind takes away what the source does not have.
	if err := p.save(p.dataFile("standby.signal"), nil); err != nil {
		return err
	}
	return p.writePlan(Plan{})
}

// saveDiverged copies the segments that the rewind takes away, for a person who wants to look at what was lost.
func (p *Postgres) saveDiverged(c wal.Control, fork cluster.LSN) error {
	if fork == 0 || c.WALSegmentSize == 0 {
		return nil
	}
	names, err := os.ReadDir(p.walDir())
	if err != nil {
		return fmt.Errorf("save diverged wal: %w", err)
	}
	first := wal.SegmentName(c.Timeline(), fork, c.WALSegmentSize)
	var save []string
	for _, n := range names {
		if len(n.Name()) == 24 && n.Name()[:8] == first[:8] && n.Name() >= first {
			save = append(save, n.Name())
		}
	}
	sort.Strings(save)
	dir := filepath.Join(p.opt.StateDir, "diverged", fmt.Sprintf("%d-%X", c.Timeline(), uint64(fork)))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("save diverged wal: %w", err)
	}
	kept := save[:min(len(save), maxSaved)]
	for _, n := range kept {
		if err := copyFile(filepath.Join(p.walDir(), n), filepath.Join(dir, n)); err != nil {
			return fmt.Errorf("save diverged wal: %w", err)
		}
	}
	p.opt.Log.Warn("diverged wal saved", "path", dir, "segments", len(kept), "left_out", len(save)-len(kept))
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if e := out.Close(); err == nil {
		err = e
	}
	return err
}

// sourceEnv writes a service file for a tool and returns the environment that names it: a password on a command
// line could be read by everybody.
func (p *Postgres) sourceEnv(src Source, app string) ([]string, error) {
	mode, binding := "require", "require"
	if !p.opt.ReplTLS {
		mode, binding = "prefer", "prefer"
	}
	none := p.confFile("none") // an empty name would mean the home directory's
	addr := src.Addr
	if addr == "" {
		addr = src.Host
	}
	text := "[" + sourceService + "]\n"
	for _, kv := range [][2]string{
		{"host", src.Host},
		{"hostaddr", addr},
		{"port", strconv.Itoa(src.Port)},
		{"user", p.opt.ReplUser},
		{"password", string(p.opt.ReplPassword)},
		{"passfile", none},
		{"application_name", app},
		{"sslmode", mode},
		{"channel_binding", binding},
		{"gssencmode", "disable"},
		{"sslrootcert", none},
		{"sslcert", none},
		{"sslkey", none},
		{"sslcrl", none},
		{"target_session_attrs", "any"},
		{"connect_timeout", "5"},
	} {
		text += kv[0] + "=" + kv[1] + "\n"
	}
	if err := p.save(p.confFile("source.conf"), []byte(text)); err != nil {
		return nil, err
	}
	var env []string
	for _, kv := range p.env {
		if !strings.HasPrefix(kv, "PGSERVICEFILE=") && !strings.HasPrefix(kv, "LC_") && !strings.HasPrefix(kv, "LANG") {
			env = append(env, kv)
		}
	}
	return append(env, "PGSERVICEFILE="+p.confFile("source.conf"), "LC_ALL=C"), nil
}
