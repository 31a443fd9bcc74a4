// SPDX-License-Identifier: Apache-2.0

package proctest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

const variable = "PGQUORUM_PROCTEST"

// goneLimit is far more than a signal takes on a busy machine.
const goneLimit = 10 * time.Second

// Fake is a child with a title.
type Fake struct {
	PID int
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// Child starts a child with this title. It sleeps until it is told something, and ends with the test.
func Child(t testing.TB, title string) *Fake {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Args = []string{fmt.Sprintf("%-200s", title)}
	cmd.Env = append(os.Environ(), variable+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f := &Fake{PID: cmd.Process.Pid, t: t, cmd: cmd, in: in, out: bufio.NewScanner(out)}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		f.Gone()
	})
	f.answer()
	return f
}

func (f *Fake) tell(line string) {
	f.t.Helper()
	if _, err := io.WriteString(f.in, line+"\n"); err != nil {
		f.t.Fatal(err)
	}
}

func (f *Fake) answer() {
	f.t.Helper()
	if !f.out.Scan() {
		f.t.Fatalf("fake process %d ended", f.PID)
	}
}

// Rename gives the child another title and comes back when it has it.
func (f *Fake) Rename(title string) {
	f.t.Helper()
	f.tell(title)
	f.answer()
}

// Hold stops the child as one that lost its processor; told meanwhile, it does nothing before Continue.
func (f *Fake) Hold() {
	f.t.Helper()
	if err := syscall.Kill(f.PID, syscall.SIGSTOP); err != nil {
		f.t.Fatal(err)
	}
	var s syscall.WaitStatus
	if _, err := syscall.Wait4(f.PID, &s, syscall.WUNTRACED, nil); err != nil || !s.Stopped() {
		f.t.Fatalf("process %d is not held: %v %v", f.PID, s, err)
	}
}

// Continue lets a held child go on.
func (f *Fake) Continue() {
	f.t.Helper()
	if err := syscall.Kill(f.PID, syscall.SIGCONT); err != nil {
		f.t.Fatal(err)
	}
}

// ContinueAs lets a held child go on and waits until it has this title.
func (f *Fake) ContinueAs(title string) {
	f.t.Helper()
	f.Continue()
	f.Rename(title)
}

// Burn makes the child run without a pause.
func (f *Fake) Burn() {
	f.t.Helper()
	f.tell("burn")
	f.answer()
}

// Ended says whether the child is no longer there.
func (f *Fake) Ended() bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", f.PID))
	return err != nil || strings.Contains(string(b), ") Z ")
}

// Gone waits until the child has ended and says by which signal. One that does not end fails the test, and is killed.
func (f *Fake) Gone() syscall.Signal {
	late := time.AfterFunc(goneLimit, func() {
		f.t.Errorf("process %d does not end", f.PID)
		_ = f.cmd.Process.Kill()
	})
	_ = f.cmd.Wait()
	late.Stop()
	s, _ := f.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return s.Signal()
}

// Main is the child's life; in the test itself it does nothing. It begins every TestMain that uses Child.
func Main() {
	if os.Getenv(variable) == "" {
		return
	}
	// What /proc says of a process is said of its first thread, so the child lives there.
	runtime.LockOSThread()
	if syscall.Gettid() != os.Getpid() {
		fmt.Fprintln(os.Stderr, "not on the first thread, begin anew:", syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
		os.Exit(1)
	}
	// os.Args points at the memory that ps shows.
	title := unsafe.Slice(unsafe.StringData(os.Args[0]), len(os.Args[0])) //nolint:gosec // it is our own
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if in.Text() == "burn" {
			fmt.Println("ready")
			for n := 0; ; n++ {
				title[len(title)-1] = ' '
			}
		}
		copy(title, in.Text()+strings.Repeat(" ", len(title)))
		fmt.Println("ready")
	}
	os.Exit(0)
}
