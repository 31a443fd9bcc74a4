// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/pgquorum/pgquorum/api/status"
)

const (
	watchEvery  = time.Second
	clearScreen = "\x1b[H\x1b[2J\x1b[3J"
)

// Status prints the cluster as this node sees it: a table, or the document itself. Its exit code is 2 when there is
// no primary.
func Status(ctx context.Context, c Call) int {
	var asJSON, watch bool
	var every time.Duration
	_, code, done := c.parse("status [--json] [--watch] [--every D]", 0, func(f *flag.FlagSet) {
		f.BoolVar(&asJSON, "json", false, "print the document; its fields stay as they are")
		f.BoolVar(&watch, "watch", false, "again and again, until interrupted")
		f.DurationVar(&every, "every", watchEvery, "how often --watch prints")
	})
	if done {
		return code
	}
	cl := newClient(SocketPath(c.Getenv))
	show := func() int { return c.show(ctx, cl, asJSON) }
	if !watch {
		return show()
	}
	tick := time.NewTicker(max(every, 100*time.Millisecond))
	defer tick.Stop()
	for {
		if !asJSON && terminal(c.Stdout) {
			fmt.Fprint(c.Stdout, clearScreen)
		}
		code = show()
		if !asJSON && !terminal(c.Stdout) {
			fmt.Fprintln(c.Stdout)
		}
		select {
		case <-ctx.Done():
			return code
		case <-tick.C:
		}
	}
}

func (c Call) show(ctx context.Context, cl *client, asJSON bool) int {
	d, err := cl.status(ctx)
	if err != nil {
		return c.fail(err)
	}
	if asJSON {
		err = writeJSON(c.Stdout, d)
	} else {
		_, err = io.WriteString(c.Stdout, Render(d))
	}
	switch {
	case err != nil:
		return c.fail(fmt.Errorf("print the status: %w", err))
	case d.Primary == "":
		return exitNoPrimary
	}
	return exitOK
}

func writeJSON(w io.Writer, d status.Doc) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(d)
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
