// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"testing"
)

func FuzzParseBytes(f *testing.F) {
	for _, s := range []string{"16MB", "1 gb", "-1", "99999999999TB", "9223372036854775808", "0x10", "1_0", "b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := parseBytes(s)
		if err != nil {
			return
		}
		if again, err := parseBytes(fmt.Sprint(n)); n > 1<<63 || err != nil || again != n {
			t.Fatalf("%q: %d, then %d, %v", s, n, again, err)
		}
	})
}
