// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"syscall"
)

// Unfinished is the name under which WriteFile and Reserve make a file. After a crash it may be left.
func Unfinished(path string) string { return path + tempSuffix }

const (
	reserveStep = 8 << 20 // between two looks at whether somebody wants it to end
	reserveTry  = 100     // fallocate on tmpfs gives up at any signal, and the Go runtime sends some
)

// Reserve makes a file that takes up size bytes of its device, so that deleting it gives them back: whole, and on disk
// when this returns nil, or not at all.
func Reserve(ctx context.Context, path string, size int64) error {
	if err := reserve(ctx, path, size, allocate); err != nil {
		return fmt.Errorf("reserve %d bytes as %s: %w", size, path, err)
	}
	return nil
}

func reserve(ctx context.Context, path string, size int64, allocate func(f *os.File, at, n int64) error) error {
	temp := Unfinished(path)
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	for at := int64(0); at < size && err == nil; at += reserveStep {
		n := min(reserveStep, size-at)
		if err = ctx.Err(); err != nil {
			break
		}
		if err = allocate(f, at, n); errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
			err = fill(f, at, n)
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = Rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, Remove(temp))
	}
	return nil
}

func allocate(f *os.File, at, n int64) (err error) {
	for range reserveTry {
		if err = syscall.Fallocate(int(f.Fd()), 0, at, n); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
	return err
}

// fill writes what no file system can keep in less room: zeros compress to nothing. It is synced bit by bit, so that
// others do not wait long for the device.
func fill(f *os.File, at, n int64) error {
	b := make([]byte, 1<<20)
	for end := at + n; at < end; at += int64(len(b)) {
		b = b[:min(int64(len(b)), end-at)]
		if _, err := rand.Read(b); err != nil {
			return err
		}
		if _, err := f.WriteAt(b, at); err != nil {
			return err
		}
	}
	return syscall.Fdatasync(int(f.Fd()))
}
