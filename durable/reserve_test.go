// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestReserve: the file has its blocks, whether the file system can reserve them or has to be written to.
func TestReserve(t *testing.T) {
	const size = 20<<20 + 4096
	ways := map[string]func(*os.File, int64, int64) error{
		"allocated": allocate,
		"written":   func(*os.File, int64, int64) error { return syscall.EOPNOTSUPP },
		"old":       func(*os.File, int64, int64) error { return syscall.ENOSYS },
	}
	for name, way := range ways {
		path := filepath.Join(t.TempDir(), "ballast")
		if err := os.WriteFile(Unfinished(path), []byte("left over from a crash"), 0o400); err != nil {
			t.Fatal(err)
		}
		if err := reserve(t.Context(), path, size, way); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Sys().(*syscall.Stat_t).Blocks * 512; info.Size() != size || got < size {
			t.Errorf("%s: %d bytes long, %d on the device", name, info.Size(), got)
		}
		if _, err := os.Stat(Unfinished(path)); !os.IsNotExist(err) {
			t.Errorf("%s: temporary file left: %v", name, err)
		}
	}
}

// TestReserveLeavesNothing: one that does not fit, or is given up, takes no room.
func TestReserveLeavesNothing(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	full := func(f *os.File, at, n int64) error {
		if at > 0 {
			return syscall.ENOSPC
		}
		return allocate(f, at, n)
	}
	for name, c := range map[string]struct {
		ctx  context.Context
		way  func(*os.File, int64, int64) error
		want error
	}{"full": {t.Context(), full, syscall.ENOSPC}, "given up": {ended, allocate, context.Canceled}} {
		dir := t.TempDir()
		if err := reserve(c.ctx, filepath.Join(dir, "ballast"), 20<<20, c.way); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: %v is left, %v", name, left, err)
		}
	}
	if err := Reserve(t.Context(), filepath.Join(t.TempDir(), "no such directory", "ballast"), 1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}
