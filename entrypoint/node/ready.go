// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"

	"github.com/pgquorum/pgquorum/agent"
	"github.com/pgquorum/pgquorum/entrypoint/watchdog"
)

// mayWrite returns when everything holds that has to be durable or confirmed before Postgres leaves recovery or starts
// read-write, and makes room for it. A promotion does it while the gate is being closed, so that it costs no time.
func (s *shell) mayWrite(ctx context.Context, t agent.Task) error {
	s.letGo(t)
	return errors.Join(s.n.store.saveServed(), s.armed(ctx))
}

// armed: the watchdog has confirmed the deadline of this lease (PROTOCOL 4.5.c).
func (s *shell) armed(ctx context.Context) error {
	d := s.n.dog.Load()
	if d == nil {
		return watchdog.ErrGone
	}
	return d.Armed(ctx)
}
