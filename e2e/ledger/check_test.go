// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"strings"
	"testing"
	"time"
)

func history(outcomes ...Outcome) History {
	var h History
	at := time.Unix(1000, 0)
	for i, o := range outcomes {
		h = append(h, Attempt{Key: Key{Writer: 1, Seq: int64(i)}, Outcome: o, Done: at.Add(time.Duration(i) * time.Second)})
	}
	return h
}

func keys(seqs ...int64) []Key {
	var ks []Key
	for _, s := range seqs {
		ks = append(ks, Key{Writer: 1, Seq: s})
	}
	return ks
}

// A checker that accepts everything proves nothing: each way of breaking the promise must be rejected.
func TestCheck(t *testing.T) {
	ack, fail, unknown := Acknowledged, Failed, Unknown
	reused := append(history(ack), history(ack)...)
	tests := []struct {
		name    string
		history History
		stored  []Key
		want    string // part of the error; empty: accepted
	}{
		{"all there", history(ack, ack, ack), keys(0, 1, 2), ""},
		{"nothing at all", nil, nil, ""},
		{"failed row absent", history(ack, fail), keys(0), ""},
		{"unknown row absent", history(ack, unknown), keys(0), ""},
		{"unknown row present", history(ack, unknown), keys(0, 1), ""},
		{"acknowledged row lost", history(ack, ack), keys(0), "1 acknowledged rows lost (first: writer 1 row 1)"},
		{"all lost", history(ack, ack), nil, "2 acknowledged rows lost"},
		{"acknowledged row twice", history(ack), keys(0, 0), "1 rows there more than once"},
		{"unknown row twice", history(unknown), keys(0, 0), "1 rows there more than once"},
		{"failed row present", history(fail), keys(0), "1 failed rows there all the same"},
		{"stranger", history(ack), keys(0, 7), "1 rows that nobody wrote (first: writer 1 row 7)"},
		{"other writer's row is no substitute", history(ack), []Key{{Writer: 2, Seq: 0}}, "1 acknowledged rows lost"},
		{"id used twice", reused, keys(0), "1 ids used twice"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := Check(tt.history, tt.stored).Err()
			switch {
			case tt.want == "" && err != nil:
				t.Fatalf("sound history rejected: %v", err)
			case tt.want != "" && err == nil:
				t.Fatalf("broken history accepted, want %q", tt.want)
			case tt.want != "" && !strings.Contains(err.Error(), tt.want):
				t.Fatalf("got %q, want %q in it", err, tt.want)
			}
		})
	}
}

func TestOutage(t *testing.T) {
	h := history(Acknowledged, Acknowledged, Failed, Unknown, Failed, Acknowledged, Acknowledged)
	d, from := h.Outage()
	if d != 4*time.Second || !from.Equal(time.Unix(1001, 0)) {
		t.Fatalf("outage is %s from %s, want 4s from 1001", d, from)
	}
	if d, _ := h.Since(time.Unix(1005, 0)).Outage(); d != time.Second {
		t.Fatalf("outage since the recovery is %s, want 1s", d)
	}
	if d, _ := (History{}).Outage(); d != 0 {
		t.Fatalf("outage of nothing is %s", d)
	}
}
