// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
)

// parse reads flags that may stand before and after the other arguments. It returns done when the command must end
// at once, with that exit code.
func (c Call) parse(usage string, most int, define func(*flag.FlagSet)) (rest []string, code int, done bool) {
	fs := flag.NewFlagSet("pgquorum", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	define(fs)
	show := func(w io.Writer) {
		fmt.Fprintf(w, "usage: pgquorum %s\n", usage)
		fs.SetOutput(w)
		fs.PrintDefaults()
	}
	args := c.Args
	for {
		err := fs.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			show(c.Stdout)
			return nil, exitOK, true
		}
		if err == nil && fs.NArg() > 0 && len(rest) == most {
			err = fmt.Errorf("unexpected argument %q", fs.Arg(0))
		}
		if err != nil {
			fmt.Fprintf(c.Stderr, "pgquorum: %v\n", err)
			show(c.Stderr)
			return nil, exitUsage, true
		}
		if fs.NArg() == 0 {
			return rest, exitOK, false
		}
		rest, args = append(rest, fs.Arg(0)), fs.Args()[1:]
	}
}
