// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/pgctl/proc"
)

const roleVar = "WATCHDOG_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVar) {
	case "child":
		os.Exit(Main())
	case "init":
		os.Exit(initMain())
	case "busy":
		busyMain()
	}
	os.Exit(m.Run())
}

func options(c *proc.Children) Options {
	return Options{Children: c, Args: []string{"watchdog"}, Env: []string{roleVar + "=child"}}
}

func start(t *testing.T) (*proc.Children, *Client) {
	t.Helper()
	children, err := proc.New(proc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(children.Close)
	c, err := Start(context.Background(), options(children))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return children, c
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never happened: %s", what)
}

// arm sets a deadline and waits until it is confirmed.
func arm(ctx context.Context, c *Client, deadline time.Duration) error {
	return errors.Join(c.Extend(deadline), c.Armed(ctx))
}

// TestArmed: nobody may write before the watchdog holds a deadline (PROTOCOL 4.5.c).
func TestArmed(t *testing.T) {
	_, c := start(t)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := c.Armed(ctx); err == nil {
		t.Fatal("armed without a deadline")
	}
	if err := arm(ctx, c, Now()+time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Extend(Now()+2*time.Hour), c.Disarm()); err != nil {
		t.Fatal(err)
	}
	if err := c.Armed(ctx); err == nil {
		t.Fatal("armed although disarmed")
	}
	c.Close()
	if err := c.Armed(ctx); err == nil || ctx.Err() != nil {
		t.Fatalf("armed although gone: %v", err)
	}
}

func TestDeadlineKills(t *testing.T) {
	children, c := start(t)
	victim, err := children.Start(proc.Spec{Path: "sh", Args: []string{"-c", "setsid sleep 3600 & exec sleep 3600"}, Env: os.Environ(), Setsid: true})
	if err != nil {
		t.Fatal(err)
	}
	deadline := Now() + 300*time.Millisecond
	if err := arm(context.Background(), c, deadline); err != nil || c.Confirmed() != deadline {
		t.Fatalf("confirmed %s, %v", c.Confirmed(), err)
	}
	// An extension moves it: the victim lives past the first deadline.
	later := deadline + 300*time.Millisecond
	if err := c.Extend(later); err != nil {
		t.Fatal(err)
	}
	<-victim.Done()
	if at := Now(); at < later || victim.Exit().Signal != syscall.SIGKILL {
		t.Errorf("%s, %s after the deadline", victim.Exit(), at-later)
	} else {
		t.Logf("killed and reaped %s after the deadline", at-later)
	}
	eventually(t, "it says that it fired", func() bool { return c.Fired() == 1 && c.Confirmed() == 0 })
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := children.Gone(ctx); err != nil {
		t.Error(err)
	}
	if !c.Alive() {
		t.Error("killed itself")
	}
}

func TestDisarm(t *testing.T) {
	children, c := start(t)
	victim, err := children.Start(proc.Spec{Path: "sleep", Args: []string{"3600"}, Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	deadline := Now() + 100*time.Millisecond
	if err := arm(context.Background(), c, deadline); err != nil {
		t.Fatal(err)
	}
	if err := c.Disarm(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "disarmed", func() bool { return c.Confirmed() == 0 })
	eventually(t, "the deadline is past", func() bool { return Now() > deadline+50*time.Millisecond })
	if c.Fired() != 0 {
		t.Error("fired")
	}
	_ = victim.Kill()
	<-victim.Done()
}

// pair is a TCP connection, both ends ours.
func pair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// quiet says whether nothing, not even EOF, arrives for a while.
func quiet(t *testing.T, c *net.TCPConn) bool {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	_, err := c.Read(make([]byte, 1))
	return errors.Is(err, os.ErrDeadlineExceeded)
}

func readEOF(t *testing.T, c *net.TCPConn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want the end", err)
	}
}

// TestHeldTwice is PROTOCOL 6.2.b: the end of a link shows only when both holders are gone.
func TestHeldTwice(t *testing.T) {
	t.Run("released", func(t *testing.T) {
		_, c := start(t)
		near, far := pair(t)
		release, err := c.Hold(context.Background(), near)
		if err != nil {
			t.Fatal(err)
		}
		_ = near.Close()
		if !quiet(t, far) {
			t.Error("the end showed while the watchdog held the link")
		}
		release()
		release()
		readEOF(t, far)
	})
	t.Run("killed", func(t *testing.T) {
		_, c := start(t)
		near, far := pair(t)
		if _, err := c.Hold(context.Background(), near); err != nil {
			t.Fatal(err)
		}
		_ = near.Close()
		if !quiet(t, far) {
			t.Error("the end showed while the watchdog held the link")
		}
		_ = c.child.Kill()
		readEOF(t, far)
	})
	t.Run("shutdown ends it at once", func(t *testing.T) {
		_, c := start(t)
		near, far := pair(t)
		if _, err := c.Hold(context.Background(), near); err != nil {
			t.Fatal(err)
		}
		_ = near.CloseWrite()
		readEOF(t, far)
	})
	t.Run("the link stays usable", func(t *testing.T) {
		_, c := start(t)
		near, far := pair(t)
		if _, err := c.Hold(context.Background(), near); err != nil {
			t.Fatal(err)
		}
		if _, err := near.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(far, make([]byte, 1)); err != nil {
			t.Error(err)
		}
	})
}

func TestBounds(t *testing.T) {
	_, c := start(t)
	near, _ := pair(t)
	for i := range maxHeld {
		if _, err := c.Hold(context.Background(), near); err != nil {
			t.Fatalf("hold %d: %v", i, err)
		}
	}
	if _, err := c.Hold(context.Background(), near); err == nil {
		t.Error("no bound")
	}
	if err := arm(context.Background(), c, Now()+time.Hour); err != nil {
		t.Errorf("after a refusal: %v", err)
	}
}

func TestGoneClient(t *testing.T) {
	_, c := start(t)
	near, _ := pair(t)
	_ = c.child.Kill()
	<-c.Done()
	eventually(t, "it knows", func() bool { return !c.Alive() && c.Extend(Now()+time.Hour) != nil })
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := c.Hold(ctx, near); err == nil || ctx.Err() != nil {
		t.Errorf("hold: %v", err)
	}
	if err := arm(ctx, c, Now()+time.Hour); err == nil || ctx.Err() != nil {
		t.Errorf("arm: %v", err)
	}
}

func TestKeepRestarts(t *testing.T) {
	children, err := proc.New(proc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer children.Close()
	ctx, cancel := context.WithCancel(context.Background())
	var log []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		Keep(ctx, options(children), func(c *Client, err error) {
			switch {
			case c == nil:
				log = append(log, "lost")
			case len(log) < 4:
				log = append(log, "runs")
				_ = c.child.Kill()
			default:
				log = append(log, "runs")
				cancel()
			}
		})
	}()
	<-done
	if got := strings.Join(log, " "); got != "runs lost runs lost runs lost" {
		t.Errorf("got %q", got)
	}
	if got := children.Running(); len(got) != 0 {
		t.Errorf("left running: %v", got)
	}
}
