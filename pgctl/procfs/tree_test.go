// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"os"
	"strings"
	"testing"
)

const statLine = "42 (a) R (b) Z 7 40 40 0 -1 4 0 0 0 0 0 0 0 0 20 0 3 0 12345 0 0\n"

func TestParse(t *testing.T) {
	p, ok := parse([]byte(statLine))
	if !ok || p.PID != 42 || p.Parent != 7 || p.State != 'Z' || p.Threads != 3 || p.Start != 12345 || p.Comm() != "a) R (b" {
		t.Errorf("got %+v, %v", p, ok)
	}
	if p.Dead() {
		t.Error("a zombie leader with living threads is not dead")
	}
	if p.Threads = 1; !p.Dead() {
		t.Error("a zombie alone is dead")
	}
	for _, bad := range []string{"", "1", "1 (x)", "1 (x) S", "(x) S 1 1 1", "x (x) S 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"} {
		if _, ok := parse([]byte(bad)); ok {
			t.Errorf("%q was understood", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(statLine))
	f.Fuzz(func(_ *testing.T, b []byte) { parse(b) })
}

func TestTree(t *testing.T) {
	all := []Process{{PID: 4, Parent: 3}, {PID: 2, Parent: 1}, {PID: 3, Parent: 2}, {PID: 9, Parent: 8}, {PID: 8, Parent: 9}}
	if got := Descendants(all, 2); len(got) != 2 || got[0].PID != 3 || got[1].PID != 4 {
		t.Errorf("got %v", got)
	}
	if got := Descendants(all, 9); len(got) > 2 {
		t.Errorf("got %v", got)
	}
	if got := ChildrenOf(all, 3); len(got) != 1 || got[0].PID != 4 {
		t.Errorf("got %v", got)
	}
	self := NewReader()
	p, there := self.Stat(os.Getpid())
	if title := self.Title(os.Getpid()); !there || !strings.Contains(title, "procfs") || p.Comm() == "" {
		t.Errorf("this process is %+v, %q", p, title)
	}
	if _, there := self.Stat(1 << 22); there {
		t.Error("a process that cannot be is there")
	}
}

// A process that cannot be looked at, for want of descriptors say, must not pass for gone: a fence rests on it.
func TestUnreadableIsNoEnd(t *testing.T) {
	r := NewReader()
	if _, err := r.read(os.Getpid(), "mem/x"); err == nil { // ENOTDIR
		t.Error("an error other than that it is gone was swallowed")
	}
	if b, err := r.read(1<<22, "stat"); err != nil || b != nil {
		t.Errorf("a process that is gone: %q, %v", b, err)
	}
}
