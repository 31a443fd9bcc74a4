// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// Plan is what goes wrong in a run: it is drawn from the seed before the run begins, so that a shorter one can be tried.
type Plan struct {
	Noise  bool          // messages are late, tasks fail
	Early  bool          // things break before the cluster has grown
	Length time.Duration // of the time under faults
	Faults []Fault
}

// Fault is one of them. What it hits and for how long is decided by its own seed when it happens.
type Fault struct {
	At      time.Duration // after the beginning of the time under faults
	Kind    string
	Node    int
	Primary bool // hits the primary if one serves
	Seed    uint64
}

func (f Fault) String() string {
	who := fmt.Sprintf("pg%d", f.Node+1)
	if f.Primary {
		who = "the primary, or " + who
	}
	return fmt.Sprintf("%9.3fs %s %s (%d)", f.At.Seconds(), f.Kind, who, f.Seed)
}

func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "noise %v, before growth %v, %s\n", p.Noise, p.Early, p.Length.Round(time.Millisecond))
	for _, f := range p.Faults {
		fmt.Fprintln(&b, f)
	}
	return b.String()
}

// Draw makes the plan of a seed. Which kinds of faults a run has, and how often, is drawn once: a run with few kinds
// goes deeper than one with all of them.
func Draw(opt Options) Plan {
	m := &nemesis{rng: rand.New(rand.NewPCG(opt.Seed, 0x6e656d65736973))}
	p := Plan{Noise: m.chance(0.7), Early: m.chance(0.2) || opt.Early, Length: m.between(20*time.Second, 90*time.Second)}
	every := m.between(200*time.Millisecond, 8*time.Second)
	share := []float64{0.1, 0.3, 0.5}[m.rng.IntN(3)]
	var kinds []string
	for _, k := range kindsOfFaults() {
		if slices.Contains(opt.With, k.name) || m.chance(share) && !slices.Contains(opt.Without, k.name) {
			kinds = append(kinds, k.name)
		}
	}
	if len(kinds) == 0 {
		kinds = []string{"kill"}
	}
	for at := m.between(0, 2*every); at < p.Length; at += m.between(every/10, 2*every) {
		p.Faults = append(p.Faults, Fault{
			At: at, Kind: kinds[m.rng.IntN(len(kinds))], Node: m.rng.IntN(opt.Data + opt.Witnesses), Primary: m.chance(0.4), Seed: m.rng.Uint64() >> 32,
		})
	}
	return p
}

// nemesis carries out a plan.
type nemesis struct {
	w     *World
	rng   *rand.Rand // of the present fault
	stop  bool
	wiped int
}

func (m *nemesis) chance(p float64) bool { return m.rng.Float64() < p }

func (m *nemesis) between(a, b time.Duration) time.Duration {
	return a + time.Duration(m.rng.Int64N(int64(b-a)))
}

func (m *nemesis) begin(p Plan) {
	for _, f := range p.Faults {
		m.w.after(f.At, func() { m.strike(f) })
	}
}

func (m *nemesis) strike(f Fault) {
	if m.stop {
		return
	}
	n := m.w.nodes[f.Node]
	if p := m.w.serving(); p != nil && f.Primary {
		n = p
	}
	m.rng = rand.New(rand.NewPCG(f.Seed, 1))
	for _, k := range kindsOfFaults() {
		if k.name == f.Kind {
			m.w.note("nemesis", "%s %s", f.Kind, n.name)
			k.do(m, n)
		}
	}
}

func (m *nemesis) soon() time.Duration {
	if m.chance(0.5) {
		return m.between(20*time.Millisecond, time.Second)
	}
	return m.between(time.Second, 10*time.Second)
}

// later undoes a fault, unless everything has been healed meanwhile.
func (m *nemesis) later(fn func()) {
	m.w.after(m.soon(), func() {
		if !m.stop {
			fn()
		}
	})
}

// heal ends every fault.
func (m *nemesis) heal() {
	m.stop = true
	m.w.faults = false
	m.w.note("nemesis", "heals everything")
	m.w.net.heal()
	for _, n := range m.w.nodes {
		n.vol.disk.heal()
		n.thaw()
	}
	m.revive()
}

// revive is the restart policy of the containers, and the operator, who empties a volume that the cluster refuses and
// resumes what was paused.
func (m *nemesis) revive() {
	s := m.w.check.newest
	for _, n := range m.w.nodes {
		if s != nil {
			mb := s.Member(n.vol.inc)
			if mb != nil && (mb.Quarantined || n.life != nil && !mb.Follows(n.life.boots)) {
				n.wipe()
			}
		}
		n.start()
	}
	if s != nil && s.Paused { // by whichever node can: one of a new volume cannot yet
		for _, n := range m.w.nodes {
			m.pause(n, false)
		}
	}
	m.w.after(500*time.Millisecond, m.revive)
}

// Outcome is what a run of a seed was like.
type Outcome struct {
	Virtual    time.Duration
	Hash       uint64
	Acked      int
	Admissions int
	Err        error
}

// RunSeed is one run: form, break, heal. Its error is a violation or a cluster that does not get well.
func RunSeed(opt Options) (*World, Outcome) { return RunPlan(opt, Draw(opt)) }

// RunPlan is RunSeed with another plan.
func RunPlan(opt Options, p Plan) (*World, Outcome) {
	w := New(opt)
	err := w.survive(p)
	if err != nil {
		w.note("CHECK", "%v", err)
	}
	return w, Outcome{Virtual: w.now, Hash: w.hash, Acked: len(w.check.acks), Admissions: w.check.admissions, Err: err}
}

// survive is live; a panic of the code under test is a violation.
func (w *World) survive(p Plan) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &Violation{"panic", fmt.Sprint(r)}
			if w.opt.Mutant == MutantNone {
				err = &Violation{"panic", fmt.Sprintf("%v\n%s", r, debug.Stack())}
			}
		}
	}()
	return w.live(p)
}

const healIn = 60 * time.Second

func (w *World) live(p Plan) error {
	for _, n := range w.nodes {
		w.after(w.between(0, 500*time.Millisecond), n.start)
	}
	w.faults = p.Noise
	if !p.Early { // most runs begin to break things when the cluster has grown
		if err := w.wellIn(healIn); err != nil {
			return err
		}
	} else if w.opt.Founded {
		if _, err := w.Until(healIn, func() bool { s := w.check.newest; return s != nil && s.Phase == cluster.PhasePromoted }); err != nil {
			return err
		}
	}
	m := &nemesis{w: w}
	m.begin(p)
	if err := w.Run(p.Length); err != nil {
		return err
	}
	m.heal()
	if err := w.Run(11 * time.Second); err != nil { // whoever was told to stop has stopped by then
		return err
	}
	return w.wellIn(healIn)
}

// wellIn: within d everything is as it should be, clients are served, and it stays so for a while.
func (w *World) wellIn(d time.Duration) error {
	ok, err := w.Until(d, func() bool { return w.Healthy() == "" })
	if err != nil {
		return err
	}
	if !ok {
		w.describe()
		return &Violation{"liveness", "after " + d.String() + ": " + w.Healthy()}
	}
	at := w.now
	if err := w.Run(5 * time.Second); err != nil {
		return err
	}
	if w.check.lastAck <= at {
		return &Violation{"liveness", "healthy, but nothing is acknowledged"}
	}
	if why := w.Healthy(); why != "" {
		return &Violation{"liveness", "does not stay healthy: " + why}
	}
	return nil
}

// describe traces what every node is about.
func (w *World) describe() {
	if s := w.check.newest; s != nil {
		if text, err := json.Marshal(s); err == nil {
			w.note("state", "at the end: %s", text)
		}
	}
	for _, n := range w.nodes {
		if n.life == nil {
			w.note(string(n.name), "at the end: down")
			continue
		}
		if f := n.life.forming; f != nil {
			if f.f != nil {
				w.note(string(n.name), "at the end: %s", f.f.Why(nil))
			}
			continue
		}
		s := n.life.m.Snapshot()
		w.note(string(n.name), "at the end: %s %s; %s task %q epoch %d promise %d position %s known %v streaming %v trouble %q why not %q",
			s.Rule, s.Decision, s.Local.Role, s.Local.Task, s.Local.Epoch, s.Local.Promise, s.Local.Position, s.Local.Known, s.Local.Streaming, s.Local.Trouble, s.Local.WhyNot)
	}
}

// Shrink looks for a shorter plan that fails in the same way. run runs one; at most most are tried.
func Shrink(p Plan, rule string, most int, run func(Plan) error) (Plan, int) {
	tried := 0
	fails := func(q Plan) bool {
		if tried >= most {
			return false
		}
		tried++
		return RuleOf(run(q)) == rule
	}
	for size := (len(p.Faults) + 1) / 2; size >= 1; {
		cut := false
		for at := 0; at < len(p.Faults); {
			q := p
			q.Faults = slices.Delete(slices.Clone(p.Faults), at, min(at+size, len(p.Faults)))
			if fails(q) {
				p, cut = q, true
			} else {
				at += size
			}
		}
		if size == 1 && !cut {
			break
		}
		size = max(1, size/2)
	}
	if p.Noise {
		q := p
		q.Noise = false
		if fails(q) {
			p = q
		}
	}
	return p, tried
}
