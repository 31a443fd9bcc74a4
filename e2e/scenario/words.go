// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"fmt"
)

// word is one kind of step. Its pattern has literals, a choice (a|b), values in capitals, and brackets around what may
// be left out at the end.
type word struct {
	pattern string
	means   string
	acts    bool   // it does something: rules and outages are counted from it
	only    string // the one world that has it
	why     string // only there
	call    func(context.Context, *play, Step) error
}

const (
	noTime    = "a container's clock is real: wait for a condition"
	noKernel  = "the kernel under the containers is that of the test"
	noGlance  = "on containers it is over before it is seen"
	noPlan    = "the faults of a seed's plan are the simulator's"
	threeOnly = "the shipped stack has three nodes with data"
)

// words is the whole vocabulary.
var words = []word{
	{pattern: "let NAME = NODE", means: "names a node for the rest of the scenario", call: func(ctx context.Context, p *play, s Step) error {
		n, err := p.node(ctx, s.Node)
		p.names[s.Name] = n
		return err
	}},
	{pattern: "write NUMBER", means: "waits until so many more writes are acknowledged", call: func(ctx context.Context, p *play, s Step) error {
		return p.w.Acked(ctx, int(s.Number))
	}},

	{pattern: "kill NODES container|postgres", acts: true, means: "SIGKILL, to all of it or to the postmaster; a container stays down. With all: of those that are up", call: func(ctx context.Context, p *play, s Step) error {
		return p.each(ctx, s.Node, func(ns ...string) error { return p.w.Kill(ctx, s.Word, ns...) })
	}},
	{pattern: "bounce NODES", acts: true, means: "process 1 killed; the restart policy starts the container again", call: func(ctx context.Context, p *play, s Step) error {
		return p.each(ctx, s.Node, func(ns ...string) error { return p.w.Bounce(ctx, ns...) })
	}},
	{pattern: "stop NODES", acts: true, means: "SIGTERM, and waits for the end. With all: of those that are up", call: func(ctx context.Context, p *play, s Step) error {
		return p.each(ctx, s.Node, func(ns ...string) error { return p.w.Stop(ctx, ns...) })
	}},
	{pattern: "start NODES", acts: true, means: "starts what is down", call: func(ctx context.Context, p *play, s Step) error {
		return p.each(ctx, s.Node, func(ns ...string) error { return p.w.Start(ctx, ns...) })
	}},
	{pattern: "reboot NODE", acts: true, only: Sim, why: noKernel, means: "its host crashes: WAL that was flushed may be gone", call: func(ctx context.Context, p *play, s Step) error {
		return p.one(ctx, s.Node, func(n string) error { return p.w.Reboot(ctx, n) })
	}},
	{pattern: "freeze NODE container|postgres|init", acts: true, means: "stops it without its knowing: all of it, its Postgres, or process 1", call: func(ctx context.Context, p *play, s Step) error {
		return p.one(ctx, s.Node, func(n string) error { return p.w.Freeze(ctx, s.Word, n) })
	}},
	{pattern: "thaw NODE", acts: true, means: "lets it go on", call: func(ctx context.Context, p *play, s Step) error {
		return p.one(ctx, s.Node, func(n string) error { return p.w.Thaw(ctx, n) })
	}},
	{pattern: "cut NODE raft|replication|all [from OTHER]", acts: true, means: "no packet of the links of process 1, of Postgres, or of both, to and from all others or one", call: func(ctx context.Context, p *play, s Step) error {
		return p.cut(ctx, s)
	}},
	{pattern: "heal", acts: true, means: "ends every cut and freeze", call: func(ctx context.Context, p *play, _ Step) error { return p.w.Heal(ctx) }},
	{pattern: "wipe NODE", acts: true, means: "kills it and takes its volume away", call: func(ctx context.Context, p *play, s Step) error {
		return p.one(ctx, s.Node, func(n string) error { return p.w.Wipe(ctx, n) })
	}},
	{pattern: "save NODE", acts: true, means: "copies the volume of a node that is down", call: func(ctx context.Context, p *play, s Step) error {
		return p.one(ctx, s.Node, func(n string) error { return p.w.Save(ctx, n) })
	}},
	{pattern: "restore NODE", acts: true, means: "puts the copy in the volume's place", call: func(ctx context.Context, p *play, s Step) error {
		return p.one(ctx, s.Node, func(n string) error { return p.w.Restore(ctx, n) })
	}},
	{pattern: "drop NODE wal", acts: true, means: "removes all WAL that it does not need itself", call: func(ctx context.Context, p *play, s Step) error {
		return p.one(ctx, s.Node, func(n string) error { return p.w.DropWAL(ctx, n) })
	}},
	{pattern: "grow NODE wal", acts: true, means: "has a primary write WAL that waits for nobody's acknowledgement", call: func(ctx context.Context, p *play, s Step) error {
		return p.one(ctx, s.Node, func(n string) error { return p.w.GrowWAL(ctx, n) })
	}},
	{pattern: "block NODE replay", acts: true, means: "pauses replay on a standby", call: func(ctx context.Context, p *play, s Step) error {
		return p.one(ctx, s.Node, func(n string) error { return p.w.BlockReplay(ctx, n) })
	}},
	{pattern: "promote NODE", acts: true, means: "pg_promote(), which nobody should call", call: func(ctx context.Context, p *play, s Step) error {
		return p.one(ctx, s.Node, func(n string) error { return p.w.Promote(ctx, n) })
	}},
	{pattern: "switchover [to NODE]", acts: true, means: "a planned change, to the best standby or to one", call: func(ctx context.Context, p *play, s Step) error {
		return p.one(ctx, s.Node, func(n string) error { return p.w.Switchover(ctx, n) })
	}},
	{pattern: "fault KIND NODE seed NUMBER", acts: true, only: Sim, why: noPlan, means: "a line of the plan that a failing seed prints", call: func(ctx context.Context, p *play, s Step) error {
		return p.strike(ctx, s)
	}},
	{pattern: "pass DURATION", only: Sim, why: noTime, means: "lets time go by", call: func(ctx context.Context, p *play, s Step) error {
		return p.w.Pass(ctx, s.Duration)
	}},

	{pattern: "wait redundant", means: "until one primary serves and every other node streams from it", call: func(ctx context.Context, p *play, _ Step) error {
		return p.redundant(ctx)
	}},
	{pattern: "wait primary [is|not NODE]", means: "until clients are served, by this node or by another", call: func(ctx context.Context, p *play, s Step) error {
		return p.one(ctx, s.Node, func(n string) error {
			return p.w.Serves(ctx, func(got string) error { return suits(s, got, n) })
		})
	}},
	{pattern: "wait ahead NODE [by NUMBER]", means: "until it holds WAL (so many bytes) that no other node has", call: func(ctx context.Context, p *play, s Step) error {
		return p.one(ctx, s.Node, func(n string) error { return p.w.Ahead(ctx, n, max(1, s.Number)) })
	}},
	{pattern: "wait rule RULE [on NODE]", means: "until a node has followed a rule (docs/rules.md) since the last step that did something", call: func(ctx context.Context, p *play, s Step) error {
		return p.one(ctx, s.Node, func(n string) error { return p.w.Followed(ctx, s.Name, n) })
	}},
	{pattern: "wait rewinding NODE", only: Sim, why: noGlance, means: "until its data directory is neither the old one nor the new one", call: func(ctx context.Context, p *play, s Step) error {
		return p.one(ctx, s.Node, func(n string) error { return p.w.Rewinding(ctx, n) })
	}},
	{pattern: "wait refused NODE", means: "until the cluster does not let its volume in", call: func(ctx context.Context, p *play, s Step) error {
		return p.one(ctx, s.Node, func(n string) error { return p.w.Refused(ctx, n) })
	}},

	{pattern: "expect primary is|not NODE", means: "this node is primary, or another", call: func(ctx context.Context, p *play, s Step) error {
		return p.one(ctx, s.Node, func(n string) error {
			got, err := p.w.Primary(ctx)
			if err != nil {
				return err
			}
			return suits(s, got, n)
		})
	}},
	{pattern: "expect epoch +NUMBER [or more]", means: "so many changes of primary since the last such step, or since the cluster was redundant first", call: func(ctx context.Context, p *play, s Step) error {
		return p.epochs(ctx, s)
	}},
	{pattern: "expect no loss", means: "every acknowledged write is there once; on every node, if the cluster is redundant", call: func(ctx context.Context, p *play, _ Step) error {
		return p.w.NoLoss(ctx)
	}},
	{pattern: "expect no second primary", means: "one node admits writes", call: func(ctx context.Context, p *play, _ Step) error { return p.w.OnePrimary(ctx) }},
	{pattern: "expect no write for DURATION", means: "nothing is acknowledged for so long", call: func(ctx context.Context, p *play, s Step) error {
		return p.w.NoWrite(ctx, s.Duration)
	}},
	{pattern: "expect rule RULE [on NODE]", means: "a rule was followed since the last step that did something", call: func(ctx context.Context, p *play, s Step) error {
		return p.followed(ctx, s, true)
	}},
	{pattern: "expect no rule RULE [on NODE]", means: "it was not", call: func(ctx context.Context, p *play, s Step) error {
		return p.followed(ctx, s, false)
	}},
	{pattern: "outage below DURATION", means: "the longest time without an acknowledged write since the last step that did something; on containers told, never judged", call: func(ctx context.Context, p *play, s Step) error {
		return p.outage(ctx, s)
	}},
}

func suits(s Step, got, want string) error {
	if want != "" && (got == want) != (s.Word == "is") {
		return fmt.Errorf("%s is primary", got)
	}
	return nil
}
