// SPDX-License-Identifier: Apache-2.0

package model

import "flag"

var (
	large   = flag.Bool("large", false, "TestWorlds explores the larger bounds: half an hour, 6 GB of memory")
	rewrite = flag.Bool("rewrite", false, "write the figures into docs/model.md")
)
