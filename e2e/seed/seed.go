// SPDX-License-Identifier: Apache-2.0

package seed

import (
	"os"
	"strconv"
	"time"
)

// Variable holds the first seed.
const Variable = "PGQ_SEED"

// First is the first seed of a run.
func First() uint64 {
	if n, err := strconv.ParseUint(os.Getenv(Variable), 10, 64); err == nil && n != 0 {
		return n
	}
	return uint64(time.Now().UnixMilli())
}
