// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgquorum/pgquorum/pgctl/proc"
	"github.com/pgquorum/pgquorum/pgctl/procfs"
)

const busyProcesses = 6

// namespaceLimit is what a namespace may take: its process 1 gives up by itself before.
const namespaceLimit = 60 * time.Second

// inNamespace starts this binary as process 1 of a PID namespace of its own.
func inNamespace(t *testing.T, children *proc.Children, out *bytes.Buffer, env ...string) *proc.Child {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to make a pid namespace")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child, err := children.Start(proc.Spec{
		Path: "unshare", Args: []string{"--pid", "--fork", "--mount", "--mount-proc", "--kill-child", self},
		Env: append(append(os.Environ(), roleVar+"=init"), env...), Stdout: out, Stderr: out,
	})
	if err != nil {
		t.Skipf("no unshare here: %v", err)
	}
	return child
}

// ended waits for the namespace's end. One that hangs is asked for its goroutines and killed: the test fails with
// what it was doing, not at the time limit of the whole package.
func ended(t *testing.T, child *proc.Child, out *bytes.Buffer) {
	t.Helper()
	over := func(limit time.Duration) bool {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		_, err := child.Wait(ctx)
		return err == nil
	}
	if over(namespaceLimit) {
		return
	}
	all, _ := procfs.List()
	for _, p := range procfs.ChildrenOf(all, child.Pid()) {
		_ = syscall.Kill(p.PID, syscall.SIGQUIT)
	}
	if !over(5*time.Second) && child.Kill() == nil && !over(5*time.Second) {
		t.Fatal("the namespace neither ends nor can be killed") // its output may still be written: it is not read
	}
	t.Fatalf("the namespace hung: %s", out.String())
}

func newChildren(t *testing.T) *proc.Children {
	t.Helper()
	children, err := proc.New(proc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(children.Close)
	return children
}

func TestKillsWholeContainer(t *testing.T) {
	var out bytes.Buffer
	child := inNamespace(t, newChildren(t), &out, "HOW=fire", "STAMPS="+stamps(t))
	ended(t, child, &out)
	if strings.Contains(out.String(), "Operation not permitted") {
		t.Skipf("no pid namespaces here: %s", out.String())
	}
	if !strings.Contains(out.String(), "all gone") {
		t.Errorf("%s: %s", child.Exit(), out.String())
	}
}

// sweep is PROTOCOL 5.7.d's margin.
const sweep = 20 * time.Millisecond

// TestEndProvesDeath is experiment E51 on this code: process 1 of a container with busy processes is killed, or
// leaves by itself as in a crash; whoever reads the end of its link then knows that no other process of the
// container will run another instruction once the kernel's sweep is over.
func TestEndProvesDeath(t *testing.T) {
	children := newChildren(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for round := range 12 {
		how := []string{"exit", "wait"}[round%2]
		var out bytes.Buffer
		file := stamps(t)
		child := inNamespace(t, children, &out, "HOW="+how, "STAMPS="+file, "ADDR="+l.Addr().String())
		_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(20 * time.Second))
		conn, err := l.Accept()
		if err != nil {
			ended(t, child, &out)
			if strings.Contains(out.String(), "Operation not permitted") {
				t.Skipf("no pid namespaces here: %s", out.String())
			}
			t.Fatalf("%v: %s", err, out.String())
		}
		if how == "wait" {
			all, _ := procfs.List()
			for _, p := range procfs.ChildrenOf(all, child.Pid()) {
				_ = syscall.Kill(p.PID, syscall.SIGKILL)
			}
		}
		readEOF(t, conn.(*net.TCPConn))
		end := Now()
		_ = conn.Close()
		ended(t, child, &out)
		last := lastStamp(t, file)
		// The kernel signals the processes of a namespace one after the other, and the watchdog may be dead before the
		// last one is told: seen up to half a millisecond. PROTOCOL 5.7.d waits 20 ms for that sweep.
		if last == 0 || last > end+sweep {
			t.Errorf("round %d (%s): last instruction %s after the end of the link", round, how, last-end)
		}
		t.Logf("%s: last instruction %s before the end of the link", how, end-last)
	}
}

// stamps makes the file into which the busy processes write the time, over and over.
func stamps(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stamps")
	if err := os.WriteFile(path, make([]byte, 8*busyProcesses), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func lastStamp(t *testing.T, path string) (last time.Duration) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range busyProcesses {
		last = max(last, time.Duration(binary.NativeEndian.Uint64(raw[8*i:])))
	}
	return last
}

// busyMain writes the time into shared memory until it is killed.
func busyMain() {
	slot, _ := strconv.Atoi(os.Getenv("SLOT"))
	f, err := os.OpenFile(os.Getenv("STAMPS"), os.O_RDWR, 0)
	if err != nil {
		os.Exit(1)
	}
	m, err := unix.Mmap(int(f.Fd()), 0, 8*busyProcesses, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		os.Exit(1)
	}
	for {
		binary.NativeEndian.PutUint64(m[8*slot:], uint64(Now()))
	}
}

// initMain is process 1 of the namespace.
func initMain() int {
	if err := namespaceInit(); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func namespaceInit() error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	children, err := proc.New(proc.Options{})
	if err != nil {
		return err
	}
	opt := options(children)
	opt.Path = "/proc/self/exe"
	c, err := Start(ctx, opt)
	if err != nil {
		return err
	}
	if !c.Whole() {
		return fmt.Errorf("not whole: %v", children.Scope())
	}
	for i := range busyProcesses {
		_, err := children.Start(proc.Spec{
			Path: "/proc/self/exe", Setsid: true, KeepAfterUs: true, // only the kernel's sweep may end them
			Env: append([]string{roleVar + "=busy", "SLOT=" + strconv.Itoa(i)}, os.Environ()...), // the first counts
		})
		if err != nil {
			return err
		}
	}
	for running := 0; running < busyProcesses; time.Sleep(time.Millisecond) {
		raw, err := os.ReadFile(os.Getenv("STAMPS"))
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		running = 0
		for i := range busyProcesses {
			if binary.NativeEndian.Uint64(raw[8*i:]) != 0 {
				running++
			}
		}
	}
	if os.Getenv("HOW") == "fire" {
		if err := arm(ctx, c, Now()+100*time.Millisecond); err != nil {
			return err
		}
		if err := awaitFire(ctx, children, c); err != nil {
			return err
		}
		fmt.Println("all gone")
		return nil
	}
	return link(ctx, c)
}

func awaitFire(ctx context.Context, children *proc.Children, c *Client) error {
	for c.Fired() == 0 {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		time.Sleep(time.Millisecond)
	}
	if err := children.Gone(ctx); err != nil {
		return err
	}
	if !c.Alive() {
		return ErrGone
	}
	return nil
}

// link opens a link that is held twice and leaves, or waits to be killed.
func link(ctx context.Context, c *Client) error {
	conn, err := net.Dial("tcp", os.Getenv("ADDR"))
	if err != nil {
		return err
	}
	if _, err := c.Hold(ctx, conn.(*net.TCPConn)); err != nil {
		return err
	}
	if os.Getenv("HOW") == "wait" {
		<-ctx.Done()
	}
	return nil // as a crash would: no goodbye
}
