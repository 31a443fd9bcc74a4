// SPDX-License-Identifier: Apache-2.0

package procfs

import "bytes"

// settled is how long, in ns on a processor, a process must have shown one title before it is taken for all of it.
// Writing a title takes about a microsecond.
const settled = 1_000_000

// Certain reads the title of p again and says whether it can be relied on.
//
// Postgres writes a title piece by piece. A child that lost its processor meanwhile shows a part, such as
// "postgres: walre", for as long as it waits for its next turn: a session or a WAL receiver that looks like none. A
// title with a peer is complete, because the peer is its end. Any other counts once it has stayed the same while the
// process slept, or over a millisecond of its own running, where the kernel tells that. A child without a title is never certain.
func (r *Reader) Certain(p *Process) bool {
	before := r.Title(p.PID)
	now, _ := r.Stat(p.PID)
	title := r.Title(p.PID)
	if title != p.Title || p.ran == 0 {
		p.Title, p.ran = title, r.ran(p.PID)
	}
	switch {
	case Complete(title):
		return true
	case before != title || Classify(title) == KindUntitled:
		return false
	}
	return now.State == 'S' || p.ran == 0 || r.ran(p.PID) >= p.ran+settled
}

// Complete says whether a title holds all that it will ever say about what its process is.
func Complete(title string) bool {
	k := Classify(title)
	return k == KindClient || k == KindSender
}

// ran is the time in ns that the first thread of a process has been on a processor; 0 where the kernel does not say.
func (r *Reader) ran(pid int) uint64 {
	b, _ := r.read(pid, "schedstat")
	word, _, _ := bytes.Cut(b, []byte(" "))
	var n uint64
	for _, c := range word {
		if c < '0' || c > '9' {
			return 0
		}
		n = n*10 + uint64(c-'0')
	}
	return n
}
