// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"time"

	"github.com/pgquorum/pgquorum/api/status"
)

const switchoverTimeout = 5 * time.Minute

// Switchover hands the primary over, to the named node or to the best one, and waits for the outcome.
func Switchover(ctx context.Context, c Call) int {
	return c.order(ctx, "switchover [NODE] [--timeout D]", 1, "switchover")
}

// Pause stops automatic failover until Resume.
func Pause(ctx context.Context, c Call) int { return c.order(ctx, "pause", 0, "pause") }

// Resume ends a pause.
func Resume(ctx context.Context, c Call) int { return c.order(ctx, "resume", 0, "resume") }

func (c Call) order(ctx context.Context, usage string, most int, op string) int {
	var timeout time.Duration
	rest, code, done := c.parse(usage, most, func(fs *flag.FlagSet) {
		fs.DurationVar(&timeout, "timeout", switchoverTimeout, "how long to wait for the outcome")
	})
	if done {
		return code
	}
	o := status.Order{Op: op}
	if len(rest) > 0 {
		o.Target = rest[0]
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var out status.Outcome
	code, err := newClient(SocketPath(c.Getenv)).do(ctx, http.MethodPost, status.PathRequest, o, &out)
	switch {
	case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return c.fail(fmt.Errorf("no outcome after %s; the %s may still be carried out: see pgquorum status", timeout, op))
	case err != nil:
		return c.fail(err)
	case code != http.StatusOK || !out.OK:
		return c.fail(fmt.Errorf("%s: %s", op, cmp.Or(out.Message, fmt.Sprintf("refused with code %d", code))))
	}
	fmt.Fprintf(c.Stdout, "%s (%s)\n", cmp.Or(out.Message, op+" done"), seconds(out.DurationMS))
	return exitOK
}

func seconds(ms int64) string { return fmt.Sprintf("%.2f s", float64(ms)/1000) }
