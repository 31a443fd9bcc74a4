// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/pgctl/procfs"
)

// Roles of this test binary when it runs as a process of its own.
const roleVar = "PROC_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVar) {
	case "namespace":
		os.Exit(namespaceMain())
	case "parent":
		os.Exit(parentMain())
	}
	os.Exit(m.Run())
}

func newChildren(t *testing.T) *Children {
	t.Helper()
	c, err := New(Options{Tick: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func sh(script string) Spec {
	return Spec{Path: "/bin/sh", Args: []string{"-c", script}, Env: os.Environ()}
}

// eventually polls a condition; the bound only matters when the test fails.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never happened: %s", what)
}

func zombies(t *testing.T) int {
	t.Helper()
	all, err := procfs.List()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range procfs.ChildrenOf(all, os.Getpid()) {
		if p.State == 'Z' {
			n++
		}
	}
	return n
}

// TestNoExitCodeLost is the test that a blanket wait4 fails with a fifth of its codes lost.
func TestNoExitCodeLost(t *testing.T) {
	const workers, each = 8, 150
	c := newChildren(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var wrong []string
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				want := (w*each + i) % 200
				child, err := c.Start(sh(fmt.Sprintf("(sleep 0.0%d; exit 7) & exit %d", i%5, want)))
				if err != nil {
					t.Error(err)
					return
				}
				<-child.Done()
				if got := child.Exit(); got.Err != nil || got.Status() != want {
					mu.Lock()
					wrong = append(wrong, fmt.Sprintf("want %d, got %v", want, got))
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if len(wrong) > 0 {
		t.Errorf("%d of %d exit codes wrong, first: %s", len(wrong), workers*each, wrong[0])
	}
	eventually(t, "no zombie left, all orphans reaped", func() bool {
		_, reaped := c.Stats()
		return zombies(t) == 0 && reaped == workers*each
	})
	started, reaped := c.Stats()
	t.Logf("%d started, %d orphans reaped, %d codes lost", started, reaped, len(wrong))
}

func TestExit(t *testing.T) {
	c := newChildren(t)
	for script, want := range map[string]int{"exit 0": 0, "exit 255": 255, "kill -9 $$": 137, "kill -TERM $$": 143} {
		child, err := c.Start(sh(script))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			got, err := child.Wait(context.Background())
			if err != nil || got.Status() != want {
				t.Errorf("%s: got %v, %v", script, got, err)
			}
		}
		if err := child.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("signal after the end: %v", err)
		}
	}
	if _, err := c.Start(Spec{Path: "no-such-program", Env: os.Environ()}); err == nil {
		t.Error("started a program that is not there")
	}
	if _, err := c.Start(Spec{Path: "/no/such/program"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestOutput(t *testing.T) {
	c := newChildren(t)
	var out, both bytes.Buffer
	spec := sh("cat; echo $V; echo err >&2")
	spec.Env, spec.Stdin, spec.Stdout = append(spec.Env, "V=x y"), strings.NewReader("in\n"), &out
	if exit, err := c.Run(context.Background(), spec); err != nil || !exit.OK() || out.String() != "in\nx y\n" {
		t.Errorf("got %q, %v, %v", out.String(), exit, err)
	}
	spec = sh("echo out; echo err >&2; sleep 3600 &")
	spec.Stdout, spec.Stderr, spec.Setpgid = &both, &both, true
	start := time.Now()
	child, err := c.Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	<-child.Done() // although the background process keeps the pipe open
	if both.String() != "out\nerr\n" || time.Since(start) > 10*time.Second {
		t.Errorf("got %q after %s", both.String(), time.Since(start))
	}
	_ = syscall.Kill(-child.Pid(), syscall.SIGKILL)
}

func TestRunStopsWithContext(t *testing.T) {
	c := newChildren(t)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	spec := sh("sleep 3600")
	spec.Setpgid = true
	exit, err := c.Run(ctx, spec)
	if !errors.Is(err, context.DeadlineExceeded) || exit.Signal != syscall.SIGKILL {
		t.Errorf("got %v, %v", exit, err)
	}
}

// TestKillAllOneByOne covers a supervisor that is not process 1: orphans in sessions of their own, forking on.
func TestKillAllOneByOne(t *testing.T) {
	c := newChildren(t)
	if c.Scope().Own {
		t.Skip("this test runs as process 1 of a namespace of its own; TestKillAllNamespace covers that")
	}
	bystander := startBystander(t)
	child, err := c.Start(sh("setsid sh -c 'while :; do sleep 0.01 & done' & setsid sleep 3600 & wait"))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "several descendants", func() bool {
		all, _ := procfs.List()
		return len(procfs.Descendants(all, child.Pid())) > 2
	})
	if err := c.KillAll(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := c.Gone(ctx); err != nil {
		t.Fatal(err)
	}
	if got := <-child.Done(); child.Exit().Signal != syscall.SIGKILL {
		t.Errorf("got %v %v", got, child.Exit())
	}
	if err := syscall.Kill(bystander, 0); err != nil {
		t.Errorf("a process that is not ours was killed: %v", err)
	}
}

// startBystander starts a process that is no descendant of ours: it makes its child and dies under another reaper.
func startBystander(t *testing.T) int {
	t.Helper()
	pid := os.Getppid() // "go test" is one already
	if pid <= 1 {
		t.Skip("no parent to watch as a bystander")
	}
	return pid
}

func TestGoneNamesWhoIsLeft(t *testing.T) {
	c := newChildren(t)
	child, err := c.Start(Spec{Path: "sleep", Args: []string{"3600"}, Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := c.Gone(ctx); err == nil || !strings.Contains(err.Error(), strconv.Itoa(child.Pid())) {
		t.Errorf("got %v", err)
	}
	// One that is started aside while Gone waits, as a watchdog is after each kill, holds it up no longer.
	aside, err := c.Start(Spec{Path: "sleep", Args: []string{"3600"}, Env: os.Environ(), Aside: true})
	if err != nil {
		t.Fatal(err)
	}
	_ = child.Kill()
	<-child.Done()
	long, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	if err := c.Gone(long); err != nil {
		t.Errorf("with a child aside: %v", err)
	}
	_ = aside.Kill()
	<-aside.Done()
}

// TestKillAllNamespace runs this binary as process 1 of a namespace of its own.
func TestKillAllNamespace(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to make a pid namespace")
	}
	c := newChildren(t)
	var out bytes.Buffer
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child, err := c.Start(Spec{
		Path: "unshare", Args: []string{"--pid", "--fork", "--mount", "--mount-proc", "--kill-child", self},
		Env: append(os.Environ(), roleVar+"=namespace"), Stdout: &out, Stderr: &out,
	})
	if err != nil {
		t.Skipf("no unshare here: %v", err)
	}
	<-child.Done()
	if strings.Contains(out.String(), "Operation not permitted") {
		t.Skipf("no pid namespaces here: %s", out.String())
	}
	if !child.Exit().OK() || !strings.Contains(out.String(), "all gone") {
		t.Errorf("%v: %s", child.Exit(), out.String())
	}
	t.Log(out.String())
}

func namespaceMain() int {
	c, err := New(Options{})
	if err != nil || !c.Scope().Own {
		fmt.Println("scope", c.Scope(), err)
		return 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for range 5 {
		child, err := c.Start(sh("for i in 1 2 3 4 5 6 7 8; do setsid sh -c 'while :; do :; done' & done; wait"))
		if err != nil {
			fmt.Println(err)
			return 1
		}
		for all, _ := procfs.List(); len(all) < 9; all, _ = procfs.List() {
			time.Sleep(time.Millisecond)
		}
		start := time.Now()
		if err := c.KillAll(); err != nil {
			fmt.Println(err)
			return 1
		}
		killed := time.Since(start)
		if err := c.Gone(ctx); err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println("killed in", killed, "gone in", time.Since(start))
		<-child.Done()
	}
	fmt.Println("all gone")
	return 0
}

// TestDeathOfParent: the net that kills a child when its supervisor dies holds, and does not fire early when a
// thread of the supervisor ends.
func TestDeathOfParent(t *testing.T) {
	c := newChildren(t)
	rd, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	child, err := c.Start(Spec{Path: "/proc/self/exe", Env: append(os.Environ(), roleVar+"=parent"), Stdout: wr})
	if err != nil {
		t.Fatal(err)
	}
	_ = wr.Close()
	var grandchild int
	if _, err := fmt.Fscan(rd, &grandchild); err != nil {
		t.Fatal(err)
	}
	if p, there := procfs.NewReader().Stat(grandchild); !there || p.Dead() {
		t.Fatalf("died with a thread of its supervisor: %+v", p)
	}
	_ = child.Kill()
	eventually(t, "the grandchild dies with its supervisor", func() bool {
		p, there := procfs.NewReader().Stat(grandchild)
		return !there || p.Dead()
	})
}

func parentMain() int {
	c, err := New(Options{})
	if err != nil {
		return 1
	}
	// Start from threads that are then destroyed.
	started := make(chan *Child, 1)
	go func() {
		lockAndLeave()
		child, _ := c.Start(Spec{Path: "sleep", Args: []string{"3600"}, Env: os.Environ()})
		started <- child
	}()
	child := <-started
	for range 50 {
		done := make(chan struct{})
		go func() { lockAndLeave(); close(done) }()
		<-done
	}
	fmt.Println(child.Pid())
	<-child.Done()
	return 0
}

// lockAndLeave makes the runtime destroy the thread of the calling goroutine when that ends.
func lockAndLeave() { runtime.LockOSThread() }
