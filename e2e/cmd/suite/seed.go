// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/pgquorum/pgquorum/e2e/seed"
)

// setSeed chooses where the tests that draw by chance begin, unless somebody has: by the content of a clean checkout, so
// that a commit passes or fails everywhere alike and every commit draws anew; by the clock otherwise.
func setSeed(ctx context.Context, out io.Writer) {
	from := "given by " + seed.Variable
	if os.Getenv(seed.Variable) == "" {
		n, ok := treeSeed(ctx)
		from = "of this tree"
		if !ok {
			n, from = seed.First(), "of this moment: the checkout is not clean"
		}
		_ = os.Setenv(seed.Variable, strconv.FormatUint(n, 10))
	}
	_ = os.Setenv("PGQ_CONTRACT_SEED", os.Getenv(seed.Variable))
	fmt.Fprintf(out, "seed %s, %s; %s= sets another\n", os.Getenv(seed.Variable), from, seed.Variable)
}

// treeSeed is made of the hash of what is checked out; false if that is not all there is.
func treeSeed(ctx context.Context) (uint64, bool) {
	changed, err := exec.CommandContext(ctx, "git", "status", "--porcelain").Output()
	if err != nil || len(changed) != 0 {
		return 0, false
	}
	tree, err := exec.CommandContext(ctx, "git", "rev-parse", "HEAD^{tree}").Output()
	if err != nil {
		return 0, false
	}
	return parseTree(strings.TrimSpace(string(tree)))
}

// parseTree makes a seed of a hash: small enough to be read and typed again.
func parseTree(hash string) (uint64, bool) {
	if len(hash) < 10 {
		return 0, false
	}
	n, err := strconv.ParseUint(hash[:10], 16, 64)
	return n + 1, err == nil
}
