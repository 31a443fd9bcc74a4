// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pgquorum/pgquorum/config"
)

// mount is one line of /proc/self/mountinfo.
type mount struct{ point, kind string }

// lost says why what is on a mount does not outlive the container; empty when it does.
func (m mount) lost() string {
	switch {
	case m.point == "/":
		return "is on the container's own file system, which is lost with the container"
	case slices.Contains([]string{"tmpfs", "ramfs", "overlay"}, m.kind):
		return "is on a " + m.kind + " (mounted at " + m.point + "), which is lost with the container"
	}
	return ""
}

func parseMounts(text string) []mount {
	var out []mount
	for line := range strings.Lines(text) {
		left, right, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(left), strings.Fields(right)
		if !ok || len(f) < 5 || len(g) < 1 {
			continue
		}
		out = append(out, mount{point: unescape(f[4]), kind: g[0]})
	}
	return out
}

// unescape undoes the octal escapes of blanks in mountinfo.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mountOf finds the mount that a path is, or would be made, on. Later lines cover earlier ones.
func mountOf(mounts []mount, path string) mount {
	best := mount{point: "/"}
	for _, m := range mounts {
		if config.Inside(path, m.point) && len(m.point) >= len(best.point) {
			best = m
		}
	}
	return best
}

// realPath resolves the symbolic links of a path whose last parts need not exist yet.
func realPath(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return real, err
	}
	parent := filepath.Dir(path)
	if parent == path {
		return path, nil
	}
	real, err = realPath(parent)
	return filepath.Join(real, filepath.Base(path)), err
}

// stateDir decides and checks where this node keeps its state (PROTOCOL 9.11). The rules are about what the mounts
// are, so they are here and not in config.
func stateDir(cfg config.Config, data string) (dir string, warning string, err error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", "", fmt.Errorf("read mounts: %w", err)
	}
	return chooseStateDir(cfg, data, parseMounts(string(text)))
}

func chooseStateDir(cfg config.Config, data string, mounts []mount) (dir, warning string, err error) {
	dir = cfg.StateDir
	guessed := dir == ""
	if guessed {
		dir = filepath.Join(filepath.Dir(data), "pgquorum")
	}
	var real, realData string
	if real, err = realPath(dir); err == nil {
		realData, err = realPath(data)
	}
	if err != nil {
		return "", "", fmt.Errorf("find state directory: %w", err)
	}
	on, onData := mountOf(mounts, real), mountOf(mounts, realData)
	const fix = "\n  mount one volume at /var/lib/postgresql and use a data directory below it, such as PGDATA=" +
		"/var/lib/postgresql/18/docker; or set PGQUORUM_STATE_DIR to a directory beside the data directory on its volume"
	switch {
	case config.Inside(real, realData):
		return "", "", fmt.Errorf("state directory %s: is inside the data directory %s, which clones and rewinds replace%s", dir, data, fix)
	case on != onData && guessed:
		return "", "", fmt.Errorf("state directory: PGQUORUM_STATE_DIR is not set, and %s, beside the data directory, is not on its volume (%s)%s",
			dir, onData.point, fix)
	case on != onData && !cfg.AllowEphemeral:
		return "", "", fmt.Errorf("state directory %s: is on another volume (%s) than the data directory %s (%s);"+
			" a node's identity must not be separated from its data%s", dir, on.point, data, onData.point, fix)
	case on.lost() != "" && !cfg.AllowEphemeral:
		return "", "", fmt.Errorf("state directory %s: %s: this node would forget its votes and its data%s"+
			"\n  or, for a test only, set PGQUORUM_ALLOW_EPHEMERAL=1", dir, on.lost(), fix)
	case on.lost() != "":
		warning = fmt.Sprintf("state directory %s %s (allowed by PGQUORUM_ALLOW_EPHEMERAL)", dir, on.lost())
	}
	return dir, warning, nil
}
