// SPDX-License-Identifier: Apache-2.0

package conf

import (
	"fmt"
	"path/filepath"
	"sort"
	"strings"
)

// maxDepth is how deep includes may nest; Postgres has the same limit.
const maxDepth = 10

// Source is how Load reads files: the file system, or a map in tests.
type Source interface {
	ReadFile(path string) ([]byte, error)
	// List returns the names in a directory.
	List(dir string) ([]string, error)
}

// Load reads a configuration file with everything it includes and returns the last value of each setting.
// What cannot be read is left out: Postgres reports it in its own words when it starts.
func Load(src Source, path string) (map[string]string, error) {
	out := map[string]string{}
	if err := load(src, path, out, 0); err != nil {
		return nil, err
	}
	return out, nil
}

func load(src Source, path string, out map[string]string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("read %s: includes nest deeper than %d", path, maxDepth)
	}
	text, err := src.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	settings, _ := Parse(string(text))
	for _, s := range settings {
		target := s.Value
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		switch s.Name {
		case "include":
			if err := load(src, target, out, depth+1); err != nil {
				return err
			}
		case "include_if_exists":
			_ = load(src, target, out, depth+1)
		case "include_dir":
			if err := loadDir(src, target, out, depth+1); err != nil {
				return err
			}
		default:
			out[s.Name] = s.Value
		}
	}
	return nil
}

func loadDir(src Source, dir string, out map[string]string, depth int) error {
	names, err := src.List(dir)
	if err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	sort.Strings(names)
	for _, n := range names {
		if strings.HasPrefix(n, ".") || !strings.HasSuffix(n, ".conf") {
			continue
		}
		if err := load(src, filepath.Join(dir, n), out, depth); err != nil {
			return err
		}
	}
	return nil
}
