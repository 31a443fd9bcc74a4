// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Bounds of the volume lock.
const (
	lockWait   = 60 * time.Second // a slow stop of the container before us
	lockPoll   = 100 * time.Millisecond
	lockSettle = 250 * time.Millisecond // a dying process 1 drops its locks a little before its container is dead
)

// errLocked means that another container holds the volume.
var errLocked = errors.New("the volume is in use by another container")

// volumeLock holds the flocks that keep two containers from running on one volume. Postgres cannot see that itself:
// the other's processes and shared memory are in other namespaces, so both would start, and ruin the data.
type volumeLock struct{ files []*os.File }

// add takes an exclusive flock on an existing file or directory, waiting up to wait for its holder to go. The lock
// is on the inode of a directory where possible, so that nothing is created in a data directory that initdb wants
// empty.
func (l *volumeLock) add(ctx context.Context, path string, wait time.Duration, waiting func()) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	deadline := time.Now().Add(wait)
	for waited := false; ; {
		err = flock(f)
		if err == nil {
			if waited {
				time.Sleep(lockSettle)
			}
			l.files = append(l.files, f)
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			break
		}
		if !waited {
			waited = true
			waiting()
		}
		if time.Now().After(deadline) {
			err = errLocked
			break
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return fmt.Errorf("lock %s: %w", path, context.Cause(ctx))
		case <-time.After(lockPoll):
		}
	}
	_ = f.Close()
	return fmt.Errorf("lock %s: %w", path, err)
}

func flock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// Close gives the locks back.
func (l *volumeLock) Close() {
	for _, f := range l.files {
		_ = f.Close()
	}
	l.files = nil
}

// lockText is what the operator reads when the wait was in vain.
func lockText(path string) string {
	return fmt.Sprintf("%s is in use by another container (or by another process of this machine), which did not let go"+
		" within %s.\nTwo servers on one data directory destroy it, so this one does not start. Find the other with"+
		"\n  docker ps --filter volume=VOLUME\nand stop it, or give this container a volume of its own.", path, lockWait)
}

// singleLockPaths are the places to lock in single mode: the data directory itself and, where a cluster member has
// lived on the volume, its lock too (a member may exchange the data directory under its lock).
func singleLockPaths(pgdata string) []string {
	paths := []string{pgdata}
	for _, dir := range []string{
		filepath.Join(filepath.Dir(pgdata), "pgquorum"), filepath.Join(pgdata, "..", "..", "pgquorum"),
	} {
		path := filepath.Join(dir, "lock")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			paths = append(paths, path)
		}
	}
	return paths
}
