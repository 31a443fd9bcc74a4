// SPDX-License-Identifier: Apache-2.0

package pgtest

import (
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const oldest = 15

// Lab is a directory with servers of one Postgres version.
type Lab struct {
	T       testing.TB
	Version int
	Bin     string
	Dir     string
	Rand    *rand.Rand
}

// Each runs f as a subtest for every Postgres found.
func Each(t *testing.T, f func(t *testing.T, l *Lab)) {
	t.Helper()
	if os.Getuid() == 0 {
		t.Fatal("contract tests must not run as root: Postgres refuses; use runuser -u postgres")
	}
	found := Versions()
	if len(found) == 0 {
		t.Fatal("no Postgres 15 or later under /usr/lib/postgresql")
	}
	for _, v := range found {
		t.Run(strconv.Itoa(v), func(t *testing.T) { f(t, New(t, v)) })
	}
}

// Versions lists the majors that are installed and asked for.
func Versions() []int {
	want := strings.Split(os.Getenv("PGQ_CONTRACT_VERSIONS"), ",")
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	var out []int
	for _, d := range dirs {
		name := filepath.Base(filepath.Dir(filepath.Dir(d)))
		v, err := strconv.Atoi(name)
		if err == nil && v >= oldest && (want[0] == "" || slices.Contains(want, name)) {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return out
}

// New makes a lab for one version. Its directory has a short name: a socket's path may have 107 bytes.
func New(t testing.TB, version int) *Lab {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "pgq")
	if err != nil {
		t.Fatal(err)
	}
	l := &Lab{T: t, Version: version, Bin: "/usr/lib/postgresql/" + strconv.Itoa(version) + "/bin", Dir: dir}
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("PGQ_CONTRACT_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("postgres %d, seed %d", version, seed)
	l.Rand = rand.New(rand.NewPCG(seed, seed))
	t.Cleanup(func() {
		if t.Failed() && os.Getenv("PGQ_CONTRACT_KEEP") != "" {
			t.Logf("kept %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	return l
}

// Rounds is PGQ_CONTRACT_ROUNDS, or n.
func Rounds(n int) int {
	if v, err := strconv.Atoi(os.Getenv("PGQ_CONTRACT_ROUNDS")); err == nil && v > 0 {
		return v
	}
	return n
}

// Run runs a program of this Postgres and returns its output.
func (l *Lab) Run(program string, args ...string) string {
	l.T.Helper()
	cmd := exec.Command(filepath.Join(l.Bin, program), args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		l.T.Fatalf("%s %v: %v\n%s", program, args, err, out)
	}
	return string(out)
}

// FreePort finds a free TCP port on loopback.
func FreePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Wait polls f until it is true and returns how long that took.
func Wait(t testing.TB, what string, limit time.Duration, f func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	if !Poll(limit, f) {
		t.Fatalf("waited %s in vain: %s", limit, what)
	}
	return time.Since(begin)
}

// Poll polls f until it is true; false: it was not in time.
func Poll(limit time.Duration, f func() bool) bool {
	for begin := time.Now(); !f(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > limit {
			return false
		}
	}
	return true
}

// Stats collects durations and prints their spread.
type Stats []time.Duration

// Add adds one.
func (s *Stats) Add(d time.Duration) { *s = append(*s, d) }

func (s Stats) String() string {
	if len(s) == 0 {
		return "none"
	}
	c := slices.Clone(s)
	slices.Sort(c)
	r := func(d time.Duration) string { return d.Round(10 * time.Microsecond).String() }
	return "n=" + strconv.Itoa(len(c)) + " p50 " + r(c[len(c)/2]) + " p99 " + r(c[len(c)*99/100]) + " max " + r(c[len(c)-1])
}
