// SPDX-License-Identifier: Apache-2.0

package node

import (
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// Commits that nobody confirms are stuck from the last progress on, also when the WAL senders end one after the other.
func TestStuck(t *testing.T) {
	at := func(flushes ...cluster.LSN) (list []cluster.Sender) {
		for _, f := range flushes {
			list = append(list, cluster.Sender{Flush: f})
		}
		return list
	}
	var k stuck
	for _, tt := range []struct {
		now     time.Duration
		waiting int
		senders []cluster.Sender
		want    time.Duration
	}{
		{1 * time.Second, 0, at(100, 90), 0},
		{2 * time.Second, 3, at(100, 90), time.Second},
		{3 * time.Second, 3, at(120, 90), 0}, // progress
		{7 * time.Second, 3, at(90), 4 * time.Second},
		{8 * time.Second, 3, at(), 5 * time.Second},
		{9 * time.Second, 3, at(120), 6 * time.Second}, // back, with what it had
		{10 * time.Second, 3, at(121), 0},
		{11 * time.Second, 0, at(121), 0},
	} {
		if got := k.look(tt.now, tt.waiting, tt.senders); got != tt.want {
			t.Errorf("at %s: stuck for %s, want %s", tt.now, got, tt.want)
		}
	}
}
