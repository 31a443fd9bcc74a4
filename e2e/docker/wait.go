// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"fmt"
	"time"
)

// pollInterval is how often a condition is asked: short beside the times measured, long beside the cost of a question.
const pollInterval = 50 * time.Millisecond

// Wait polls until check returns nil or the context ends. The error says what was waited for and what the last check
// found, because "deadline exceeded" helps nobody.
func Wait(ctx context.Context, what string, check func(context.Context) error) error {
	start := time.Now()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		// An error of the deadline itself would hide the last answer.
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w after %s; last: %w", what, ctx.Err(), time.Since(start).Round(time.Millisecond), last)
		case <-tick.C:
		}
	}
}
