// SPDX-License-Identifier: Apache-2.0

package raft_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The recorder runs a program under ptrace and looks at a directory after every system call of it that changes files.
// What a call of fsync returned for is durable from then on; all else may or may not survive a loss of power.

// inode is a file or a directory as it is (data, names) and as it survives (kept, keptNames; nil: nothing of it).
type inode struct {
	dir             bool
	data, kept      []byte
	names, keptTree map[string]uint64
}

// moment is the directory after one system call, and how many bytes the program had put into its progress file.
type moment struct {
	call   string
	inodes map[uint64]inode
	done   int
}

type recorder struct {
	t        *testing.T
	root     string
	progress string
	inodes   map[uint64]inode
	history  []moment
	entered  map[int]syscallInfo // by thread
	syncing  map[int]uint64      // inode whose fsync has begun, by thread
	captured map[int]inode       // as it was then
}

// syscallInfo is the kernel's struct ptrace_syscall_info: the same on every architecture.
type syscallInfo struct {
	Op   uint8
	_    [3]uint8
	Arch uint32
	_    [2]uint64
	Nr   uint64 // at exit: the return value
	Args [6]uint64
	_    [2]uint64
}

const (
	ptraceGetSyscallInfo = 0x420e
	syscallEntry         = 1
	syscallExit          = 2
	rootInode            = 0 // the directory that is recorded; it is there from the beginning
)

func (r *recorder) info(tid int) (syscallInfo, error) {
	var i syscallInfo
	_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, ptraceGetSyscallInfo, uintptr(tid), unsafe.Sizeof(i), uintptr(unsafe.Pointer(&i)), 0, 0)
	if errno != 0 {
		return i, errno
	}
	return i, nil
}

// run starts the program and follows all of its threads to their end.
func (r *recorder) run(cmd *exec.Cmd) error {
	runtime.LockOSThread() // a tracer is a thread
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	pid := cmd.Process.Pid
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil {
		return err
	}
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	if err := unix.PtraceSetOptions(pid, options); err != nil {
		return err
	}
	if err := unix.PtraceSyscall(pid, 0); err != nil {
		return err
	}
	for {
		tid, err := unix.Wait4(-pid, &ws, unix.WALL, nil)
		if err != nil {
			return fmt.Errorf("wait for a thread: %w", err)
		}
		switch {
		case ws.Exited() || ws.Signaled():
			if tid == pid {
				if ws.ExitStatus() != 0 {
					return fmt.Errorf("the program ended with status %d, signal %v", ws.ExitStatus(), ws.Signal())
				}
				return nil
			}
			continue
		case !ws.Stopped():
			continue
		}
		signal := 0
		switch s := ws.StopSignal(); {
		case s == unix.SIGTRAP|0x80:
			if err := r.stopped(tid); err != nil {
				return err
			}
		case s != unix.SIGTRAP && s != unix.SIGSTOP:
			signal = int(s)
		}
		if err := unix.PtraceSyscall(tid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
}

// changing are the calls after which the directory is looked at.
var changing = map[uint64]string{
	unix.SYS_WRITE: "write", unix.SYS_PWRITE64: "pwrite", unix.SYS_WRITEV: "writev", unix.SYS_PWRITEV: "pwritev",
	unix.SYS_FTRUNCATE: "ftruncate", unix.SYS_FALLOCATE: "fallocate", unix.SYS_OPENAT: "openat", unix.SYS_MKDIRAT: "mkdirat",
	unix.SYS_RENAMEAT: "renameat", unix.SYS_RENAMEAT2: "renameat2", unix.SYS_UNLINKAT: "unlinkat",
	unix.SYS_FSYNC: "fsync", unix.SYS_FDATASYNC: "fdatasync",
}

func (r *recorder) stopped(tid int) error {
	i, err := r.info(tid)
	if err != nil {
		return fmt.Errorf("read a system call: %w", err)
	}
	if i.Op == syscallEntry {
		r.entered[tid] = i
		if i.Nr == unix.SYS_FSYNC || i.Nr == unix.SYS_FDATASYNC {
			return r.syncBegins(tid, i.Args[0])
		}
		return nil
	}
	begun, ok := r.entered[tid]
	if i.Op != syscallExit || !ok {
		return nil
	}
	delete(r.entered, tid)
	call := changing[begun.Nr]
	if call == "" || int64(i.Nr) < 0 {
		return nil
	}
	if call == "openat" && begun.Args[2]&unix.O_CREAT == 0 {
		return nil
	}
	return r.look(tid, call)
}

// syncBegins remembers what an fsync is about to make durable.
func (r *recorder) syncBegins(tid int, fd uint64) error {
	delete(r.syncing, tid)
	st, err := os.Stat(fmt.Sprintf("/proc/%d/fd/%d", tid, fd))
	if err != nil {
		return err
	}
	now, err := r.read()
	if err != nil {
		return err
	}
	ino := r.number(st)
	if n, ok := now[ino]; ok {
		r.syncing[tid], r.captured[tid] = ino, n
	}
	return nil
}

// look records a moment, if anything changed.
func (r *recorder) look(tid int, call string) error {
	now, err := r.read()
	if err != nil {
		return err
	}
	what := ""
	if ino, ok := r.syncing[tid]; ok && (call == "fsync" || call == "fdatasync") {
		was := r.captured[tid]
		n := now[ino]
		n.kept, n.keptTree = was.data, was.names
		now[ino] = n
		delete(r.syncing, tid)
		what = "sync"
	}
	for ino, n := range now {
		o, ok := r.inodes[ino]
		if !ok || string(o.data) != string(n.data) || !maps.Equal(o.names, n.names) {
			what = call
		}
	}
	if what == "" && len(now) == len(r.inodes) {
		return nil
	}
	r.inodes = now
	done, err := os.ReadFile(r.progress)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	r.history = append(r.history, moment{call: call, inodes: maps.Clone(now), done: len(done)})
	return nil
}

func (r *recorder) number(st os.FileInfo) uint64 {
	top, err := os.Stat(r.root)
	if err == nil && os.SameFile(top, st) {
		return rootInode
	}
	return st.Sys().(*syscall.Stat_t).Ino
}

// read reads the whole tree. A file that is gone keeps what it had: an image of an earlier directory may name it.
func (r *recorder) read() (map[uint64]inode, error) {
	now := maps.Clone(r.inodes)
	err := filepath.WalkDir(r.root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		ino := r.number(st)
		n := r.inodes[ino]
		n.dir = d.IsDir()
		if n.dir {
			n.names = map[string]uint64{}
		} else {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if !slices.Equal(b, n.data) || n.data == nil {
				n.data = b
			}
		}
		now[ino] = n
		if ino != rootInode {
			parent, err := os.Stat(filepath.Dir(path))
			if err != nil {
				return err
			}
			now[r.number(parent)].names[d.Name()] = ino
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look at the directory: %w", err)
	}
	return now, nil
}

// record runs cmd, which works in root and adds a byte to progress after each of its writes.
func record(t *testing.T, cmd *exec.Cmd, root, progress string) []moment {
	t.Helper()
	r := &recorder{
		t: t, root: root, progress: progress, inodes: map[uint64]inode{}, entered: map[int]syscallInfo{}, syncing: map[int]uint64{}, captured: map[int]inode{},
	}
	if err := r.run(cmd); err != nil {
		if errors.Is(err, unix.EPERM) {
			t.Skipf("ptrace is not permitted here: %v", err)
		}
		t.Fatal(err)
	}
	return r.history
}
