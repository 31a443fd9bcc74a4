// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Outcome is what the writer knows about an attempt.
type Outcome uint8

// The outcomes. Unknown is the zero value: who was not told anything knows nothing.
const (
	Unknown      Outcome = iota // the connection broke, or the limit passed, before an answer
	Acknowledged                // the server said the row is committed
	Failed                      // the server refused it, or it was never sent
)

func (o Outcome) String() string {
	switch o {
	case Acknowledged:
		return "acknowledged"
	case Failed:
		return "failed"
	case Unknown:
		return "unknown"
	}
	return "invalid"
}

// Key names a row.
type Key struct {
	Writer int
	Seq    int64
}

// Attempt is one try to write one row.
type Attempt struct {
	Key
	Outcome     Outcome
	Start, Done time.Time
	Err         string
}

// History is all attempts of all writers, in no order.
type History []Attempt

// Count returns how many attempts ended so.
func (h History) Count(o Outcome) int {
	n := 0
	for _, a := range h {
		if a.Outcome == o {
			n++
		}
	}
	return n
}

// Outage is the longest time without any acknowledged write, and when it began. It counts from an acknowledgement to
// the next one by whichever writer, so with one writer it holds the writer's own pacing.
func (h History) Outage() (time.Duration, time.Time) {
	var acks []time.Time
	for _, a := range h {
		if a.Outcome == Acknowledged {
			acks = append(acks, a.Done)
		}
	}
	slices.SortFunc(acks, time.Time.Compare)
	var longest time.Duration
	var from time.Time
	for i := 1; i < len(acks); i++ {
		if d := acks[i].Sub(acks[i-1]); d > longest {
			longest, from = d, acks[i-1]
		}
	}
	return longest, from
}

// Story tells what the client saw between two moments, like attempts in a row on one line: what made an outage long.
func (h History) Story(from, to time.Time) string {
	part := slices.DeleteFunc(h.Since(from), func(a Attempt) bool { return a.Start.After(to) })
	slices.SortFunc(part, func(a, b Attempt) int { return a.Done.Compare(b.Done) })
	var b strings.Builder
	for i := 0; i < len(part); {
		a, j := part[i], i
		for j < len(part) && part[j].Outcome == a.Outcome && part[j].Err == a.Err {
			j++
		}
		fmt.Fprintf(&b, "%7.3f to %7.3f s  %4d %s", a.Start.Sub(from).Seconds(), part[j-1].Done.Sub(from).Seconds(), j-i, a.Outcome)
		if a.Err != "" {
			b.WriteString(": " + strings.ReplaceAll(a.Err, "\n", " | "))
		}
		b.WriteByte('\n')
		i = j
	}
	return b.String()
}

// Since returns the attempts that ended at or after t.
func (h History) Since(t time.Time) History {
	return slices.DeleteFunc(slices.Clone(h), func(a Attempt) bool { return a.Done.Before(t) })
}

// Report is what Check found. Each list holds what must not be.
type Report struct {
	Acknowledged, Failed, Unknown int
	Lost                          []Key // acknowledged and not there
	Duplicated                    []Key // there more than once
	Ghosts                        []Key // failed, and there all the same
	Strangers                     []Key // there, and never written
	Reused                        []Key // one id in two attempts: the history itself is broken
}

// Err is nil when the promise was kept.
func (r Report) Err() error {
	var bad []string
	add := func(what string, keys []Key) {
		if len(keys) > 0 {
			bad = append(bad, fmt.Sprintf("%d %s (first: writer %d row %d)", len(keys), what, keys[0].Writer, keys[0].Seq))
		}
	}
	add("acknowledged rows lost", r.Lost)
	add("rows there more than once", r.Duplicated)
	add("failed rows there all the same", r.Ghosts)
	add("rows that nobody wrote", r.Strangers)
	add("ids used twice", r.Reused)
	if len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("check %d acknowledged rows: %s", r.Acknowledged, strings.Join(bad, ", "))
}

// Missing is Err for a history that is older than the rows: rows that it does not know are not held against it.
func (r Report) Missing() error {
	r.Strangers, r.Ghosts = nil, nil
	return r.Err()
}

// Check compares the history with the rows that the table holds. Rows of unknown outcome may be there or not, once.
func Check(h History, stored []Key) Report {
	var r Report
	count := make(map[Key]int, len(stored))
	for _, k := range stored {
		count[k]++
	}
	seen := make(map[Key]bool, len(h))
	for _, a := range h {
		if seen[a.Key] {
			r.Reused = append(r.Reused, a.Key)
		}
		seen[a.Key] = true
		switch a.Outcome {
		case Acknowledged:
			r.Acknowledged++
			if count[a.Key] == 0 {
				r.Lost = append(r.Lost, a.Key)
			}
		case Failed:
			r.Failed++
			if count[a.Key] > 0 {
				r.Ghosts = append(r.Ghosts, a.Key)
			}
		case Unknown:
			r.Unknown++
		}
	}
	for k, n := range count {
		if n > 1 {
			r.Duplicated = append(r.Duplicated, k)
		}
		if !seen[k] {
			r.Strangers = append(r.Strangers, k)
		}
	}
	for _, l := range [][]Key{r.Lost, r.Duplicated, r.Ghosts, r.Strangers, r.Reused} {
		slices.SortFunc(l, func(a, b Key) int {
			return cmp.Or(cmp.Compare(a.Writer, b.Writer), cmp.Compare(a.Seq, b.Seq))
		})
	}
	return r
}
