// SPDX-License-Identifier: Apache-2.0

package pgctl

import (
	"os"
	"testing"

	"github.com/pgquorum/pgquorum/pgctl/pgtest/proctest"
)

func TestMain(m *testing.M) {
	proctest.Main()
	os.Exit(m.Run())
}
