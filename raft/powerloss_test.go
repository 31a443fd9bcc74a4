// SPDX-License-Identifier: Apache-2.0

package raft_test

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"go.etcd.io/etcd/server/v3/storage/wal"

	first "github.com/pgquorum/pgquorum/e2e/seed"
	"github.com/pgquorum/pgquorum/raft"
	"github.com/pgquorum/pgquorum/raft/storetest"
)

const (
	childEnv = "PGQ_TEST_POWERLOSS" // directory, progress file and seed of the program that is recorded
	sector   = 512
	writes   = 40
	// Small segments: a script fills several.
	segment = 16 << 10
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if err := child(os.Args[len(os.Args)-3:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func options(dir string) raft.WALOptions {
	return raft.WALOptions{Dir: filepath.Join(dir, "raft"), ID: storetest.Voters()[0], Logger: slog.New(slog.DiscardHandler)}
}

// open opens with small segments. The size is a variable of etcd's, set by the first use of the store.
func open(dir string) (*raft.WALStore, error) {
	s, err := raft.OpenWAL(options(dir))
	wal.SegmentSizeBytes = segment
	return s, err
}

func script(seed uint64) storetest.Script {
	return storetest.NewScript(rand.New(rand.NewPCG(seed, 1)), writes)
}

// child is the program: it makes a store, writes the script to it and ends without a word, as a killed one does.
func child(args []string) error {
	dir, progress := args[0], args[1]
	seed, err := strconv.ParseUint(args[2], 10, 64)
	if err != nil {
		return err
	}
	p, err := os.OpenFile(progress, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := raft.CreateGenesis(options(dir), storetest.Voters(), []byte(storetest.Genesis)); err != nil {
		return err
	}
	s, err := open(dir)
	if err != nil {
		return err
	}
	if _, err := p.WriteString("."); err != nil {
		return err
	}
	for _, o := range script(seed).Ops {
		if err := o.Do(s); err != nil {
			return fmt.Errorf("%s: %w", o, err)
		}
		if _, err := p.WriteString("."); err != nil {
			return err
		}
	}
	return nil
}

// image is what a loss of power leaves: which names each directory has, and which sectors of each file.
type image struct {
	what  string
	whole bool // no sector is missing in front of one that is there: never a reason to refuse
	names func(inode) map[string]uint64
	data  func(inode) []byte
}

func keptNames(n inode) map[string]uint64 { return n.keptTree }
func allNames(n inode) map[string]uint64  { return n.names }
func allData(n inode) []byte              { return n.data }
func keptData(n inode) []byte             { return n.kept }

// images of one moment: the program alone dies; all that was not synced is lost; ways in between, by chance. One of those
// in between, drawn anew each time, or all.
func images(rng *rand.Rand, all bool) []image {
	prefix := func(n inode) []byte {
		cut := rng.IntN(len(n.data)/sector + 2)
		return mix(n, func(i int) bool { return i < cut })
	}
	// A cut right before or in the last sectors that changed, where a write is torn.
	torn := func(n inode) []byte {
		last := 0
		for i := range (len(n.data) + sector - 1) / sector {
			if !slices.Equal(part(n.data, i), part(n.kept, i)) {
				last = i
			}
		}
		cut := last - rng.IntN(3)
		return mix(n, func(i int) bool { return i <= cut })
	}
	holes := func(n inode) []byte { return mix(n, func(int) bool { return rng.IntN(2) == 0 }) }
	list := []image{
		{"the program is killed", true, allNames, allData},
		{"nothing unsynced is left", true, keptNames, keptData},
		{"all names, nothing else unsynced", true, allNames, keptData},
		{"all data, no unsynced name", true, keptNames, allData},
		{"torn in the last sectors", true, allNames, torn},
		{"torn somewhere", true, allNames, prefix},
		{"some sectors", false, allNames, holes},
		{"some sectors, no unsynced name", false, keptNames, holes},
	}
	if !all {
		list = append(list[:2], list[2+rng.IntN(len(list)-2)])
	}
	return list
}

// mix takes the sectors for which now is true from what the file is, the others from what survives.
func mix(n inode, now func(int) bool) []byte {
	out := slices.Clone(n.kept)
	for i := 0; i*sector < len(n.data); i++ {
		if !now(i) {
			continue
		}
		end := min(len(n.data), (i+1)*sector)
		if len(out) < end {
			out = append(out, make([]byte, end-len(out))...)
		}
		copy(out[i*sector:end], n.data[i*sector:end])
	}
	return out
}

func part(b []byte, i int) []byte { return b[min(len(b), i*sector):min(len(b), (i+1)*sector)] }

// write puts an image on disk.
func (im image) write(m moment, ino uint64, path string) error {
	n := m.inodes[ino]
	if !n.dir {
		return os.WriteFile(path, im.data(n), 0o600)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	for name, child := range im.names(n) {
		if err := im.write(m, child, filepath.Join(path, name)); err != nil {
			return err
		}
	}
	return nil
}

// TestPowerLoss: the log store on real files, its program's every write and fsync recorded. After a loss of power at
// each of them the store opens with all that it had promised, or there is no store yet, or it is refused as corrupt:
// the last only when the disk wrote a later sector and lost an earlier one.
func TestPowerLoss(t *testing.T) {
	seed := first.First()
	repeated := os.Getenv("PGQ_POWERLOSS_SEED") // and then with every image of every moment
	if repeated != "" {
		seed, _ = strconv.ParseUint(repeated, 10, 64)
	}
	t.Logf("seed %d; PGQ_POWERLOSS_SEED= repeats it, with all images", seed)
	base := scratch(t)
	root, progress := filepath.Join(base, "volume"), filepath.Join(base, "progress")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, root, progress, strconv.FormatUint(seed, 10))
	cmd.Env, cmd.Stderr = append(os.Environ(), childEnv+"=1"), os.Stderr
	history := record(t, cmd, root, progress)
	if n := len(history); n < 3*writes || history[n-1].done < writes*3/4 {
		t.Fatalf("%d moments, %d writes: the recorder sees too little", n, history[n-1].done)
	}
	rng := rand.New(rand.NewPCG(seed, 2))
	s := script(seed)
	opened, refused, none := 0, 0, 0
	for i, m := range history {
		for j, im := range images(rng, repeated != "") {
			dir := filepath.Join(base, "image")
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if err := im.write(m, rootInode, dir); err != nil {
				t.Fatal(err)
			}
			err := checkImage(s, dir, m.done)
			switch {
			case err == nil:
				opened++
			case errors.Is(err, raft.ErrNoStore) && m.done == 0:
				none++
			case errors.Is(err, raft.ErrCorrupt) && !im.whole:
				refused++
			default:
				keep := filepath.Join(os.TempDir(), fmt.Sprintf("powerloss-%d-%d-%d", seed, i, j))
				_ = os.RemoveAll(keep)
				_ = os.Rename(dir, keep)
				t.Fatalf("moment %d of %d (%s), %d writes done, %s: %v\nkept in %s", i, len(history), m.call, m.done, im.what, err, keep)
			}
		}
	}
	t.Logf("%d moments, %d images opened with all that was promised, %d of them refused, %d before the store was made", len(history), opened, refused, none)
	if opened < 4*writes {
		t.Error("too few images were opened to show anything")
	}
}

// scratch is a directory in memory where there is one: what survives is decided here and not by the disk.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "pgq")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// checkImage opens what a crash left, checks it, writes to it, and opens it again.
func checkImage(s storetest.Script, dir string, done int) error {
	store, err := open(dir)
	if err != nil {
		return err
	}
	defer store.Close()
	if err := s.Check(store, max(done-1, 0)); err != nil { // the first is the store's creation
		return err
	}
	if err := storetest.GoOn(store); err != nil {
		return fmt.Errorf("go on: %w", err)
	}
	want, err := storetest.Read(store)
	if err != nil {
		return err
	}
	if err := store.Close(); err != nil {
		return err
	}
	again, err := open(dir)
	if err != nil {
		return fmt.Errorf("open again: %w", err)
	}
	defer again.Close()
	got, err := storetest.Read(again)
	if err == nil && got.String() != want.String() {
		err = fmt.Errorf("opened again it holds %s, before %s", got, want)
	}
	return err
}

// memDisk is MemStore: what was saved is there, whatever happens.
type memDisk struct{ *raft.MemStore }

func (d memDisk) Open() (raft.LogStore, error) { return d.MemStore, nil }
func (memDisk) Crash(bool) error               { return nil }

// TestMemStore: the same statements about the store without a disk.
func TestMemStore(t *testing.T) {
	err := storetest.Run(rand.New(rand.NewPCG(1, 1)), 20, func() (storetest.Disk, error) {
		m, err := raft.NewMemStore(storetest.Voters(), []byte(storetest.Genesis))
		return memDisk{m}, err
	})
	if err != nil {
		t.Error(err)
	}
}
