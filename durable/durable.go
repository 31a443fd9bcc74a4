// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// tempSuffix marks a file that was not finished.
const tempSuffix = ".tmp"

// WriteFile replaces the content of path. Readers see the old content or the new one, also after a crash.
func WriteFile(path string, data []byte, perm os.FileMode) error {
	temp := path + tempSuffix
	if err := writeSynced(temp, data, perm); err != nil {
		_ = os.Remove(temp)
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := Rename(temp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func writeSynced(path string, data []byte, perm os.FileMode) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Replace replaces a file, whole, for whoever reads it from now on. It syncs nothing: after a crash of the host the file
// may be anything, so it is for what is written anew before it counts.
func Replace(path string, data []byte, perm os.FileMode) error {
	temp := path + ".new"
	if err := os.WriteFile(temp, data, perm); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

// Rename renames a file or directory and makes that durable, in both directories if there are two.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	err := SyncDir(filepath.Dir(to))
	if dir := filepath.Dir(from); err == nil && dir != filepath.Dir(to) {
		err = SyncDir(dir)
	}
	return err
}

// Remove removes files or empty directories and makes that durable. One that is not there is no error.
func Remove(paths ...string) error {
	var dirs []string
	for _, path := range paths {
		err := os.Remove(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if dir := filepath.Dir(path); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, dir := range dirs {
		if err := SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// Mkdir makes a directory durable, with exactly the mode perm, and its missing parents with mode 0755. One that
// exists is no error and keeps its mode.
func Mkdir(path string, perm os.FileMode) error {
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		return nil
	}
	if err == nil {
		return fmt.Errorf("make directory %s: a file is in its place", path)
	}
	if parent := filepath.Dir(path); parent != path {
		if err := Mkdir(parent, 0o755); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, perm); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if err := os.Chmod(path, perm); err != nil { // the umask may have taken bits away
		return fmt.Errorf("make directory: %w", err)
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the names in a directory durable.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", path, err)
	}
	return nil
}
