// SPDX-License-Identifier: Apache-2.0

package pgctl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/pgquorum/pgquorum/durable"
)

// save replaces a file of ours, whole and durably. Some hold passwords. One writer at a time: an override may be
// undone while a start writes the same file.
func (p *Postgres) save(path string, data []byte) error {
	p.files.Lock()
	defer p.files.Unlock()
	return durable.WriteFile(path, data, 0o600)
}

// replace replaces a file of ours for whoever reads it now. Not durably.
func (p *Postgres) replace(path string, data []byte) error { return durable.Replace(path, data, 0o600) }

// writeChanged writes only when the content differs, and says whether it did.
func writeChanged(path string, data []byte, write func(string, []byte) error) (bool, error) {
	if old, err := os.ReadFile(path); err == nil && string(old) == string(data) {
		return false, nil
	}
	return true, write(path, data)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// isEmpty says whether a directory is missing or has nothing in it.
func isEmpty(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", dir, err)
	}
	return len(entries) == 0, nil
}

// freeName returns base.<kind>-N for the lowest N above every one in use.
func freeName(base, kind string) string {
	for n := 1; ; n++ {
		if name := fmt.Sprintf("%s.%s-%d", base, kind, n); !exists(name) {
			return name
		}
	}
}

// fileStamp tells whether a file was replaced or changed.
type fileStamp struct {
	modified time.Time
	size     int64
}

func stamp(path string) fileStamp {
	info, err := os.Stat(path)
	if err != nil {
		return fileStamp{}
	}
	return fileStamp{info.ModTime(), info.Size()}
}
