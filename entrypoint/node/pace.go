// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"
)

// restFor is how long a node has been at rest before it is given one processor.
const restFor = time.Second

// pace gives a node at rest one processor. With more, the runtime wakes another thread for each message that comes, to
// look for work that is not there. Whatever disturbs the rest gets all of them.
type pace struct {
	calm *atomic.Bool
	due  chan struct{}
	use  func(processors int) (before int) // runtime.GOMAXPROCS
}

func newPace() pace {
	return pace{calm: new(atomic.Bool), due: make(chan struct{}, 1), use: runtime.GOMAXPROCS}
}

func (p pace) set(calm bool) {
	p.calm.Store(calm)
	select {
	case p.due <- struct{}{}:
	default:
	}
}

// run is a goroutine of its own: to change the number, the runtime stops the world, and waits for a collection's end.
func (p pace) run(ctx context.Context) {
	all := p.use(0)
	defer p.use(all)
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.due:
		}
		if !p.calm.Load() {
			p.use(all)
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(restFor):
		}
		if p.calm.Load() {
			p.use(1)
		}
	}
}
