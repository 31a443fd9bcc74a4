// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func testFile(t *testing.T) (*File, FileOptions) {
	t.Helper()
	dir := t.TempDir()
	o := FileOptions{
		Path: filepath.Join(dir, "service.conf"), UserFile: filepath.Join(dir, "user.conf"),
		ParkingDir: filepath.Join(dir, "parked"), ParkingPort: 5432, User: "repl",
	}
	user := "junk=before\n[other]\nhost=a\n\n[pgquorum]\nhost=evil\n[third]\nport=1\n"
	if err := os.WriteFile(o.UserFile, []byte(user), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := NewFile(o)
	if err != nil {
		t.Fatal(err)
	}
	return f, o
}

func TestParkedAndOrdered(t *testing.T) {
	f, o := testFile(t)
	read := func() string {
		b, err := os.ReadFile(o.Path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	parked := read()
	for _, want := range []string{
		"[pgquorum]\nhost=" + o.ParkingDir + "\n", "\nhostaddr=\n", "\nport=5432\n", "\nsslrootcert=" + o.ParkingDir + "/none\n",
		"\ntarget_session_attrs=any\n", "\ngssencmode=disable\n", "\noptions=\n", "\n[other]\nhost=a\n", "[third]\nport=1\n",
	} {
		if !strings.Contains(parked, want) {
			t.Errorf("parked file lacks %q:\n%s", want, parked)
		}
	}
	if strings.Contains(parked, "evil") || strings.Contains(parked, "junk") {
		t.Errorf("parked file holds the user's group of our name:\n%s", parked)
	}
	good := Order{Host: "pg1", HostAddr: "10.0.0.1", Port: 5433, User: "repl", Password: "p=w #d", AppName: "pg2.00.e1"}
	for _, bad := range []Order{
		{Host: "pg1", Port: 1, User: "u", AppName: "a"},
		{Host: "pg1", HostAddr: "10.0.0.1", User: "u", AppName: "a"},
		{Host: "pg1", HostAddr: "10.0.0.1", Port: 1, User: "u", AppName: "a\nhost=x"},
		{Host: "pg1", HostAddr: "10.0.0.1", Port: 1, User: "u", AppName: "a", Password: " x"},
		{Host: "pg1", HostAddr: "10.0.0.1", Port: 1, User: "u", AppName: strings.Repeat("a", 2000)},
	} {
		if err := f.order(bad); err == nil || read() != parked || !f.Parked() {
			t.Errorf("order %+v: %v", bad, err)
		}
	}
	if err := f.order(good); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"hostaddr=10.0.0.1\n", "password=p=w #d\n", "application_name=pg2.00.e1\n", "sslmode=require\nchannel_binding=require\n", "[other]"} {
		if !strings.Contains(read(), want) {
			t.Errorf("ordered file lacks %q:\n%s", want, read())
		}
	}
	if err := f.order(good); !errors.Is(err, ErrNotParked) {
		t.Error("ordered twice without parking", err)
	}
	if err := f.Park(); err != nil || read() != parked {
		t.Error(err)
	}
}

func TestEnv(t *testing.T) {
	in := []string{"PATH=/bin", "PGHOSTADDR=1.2.3.4", "PGDATA=/d", "PG_MAJOR=18", "PGPASSWORD=x", "PGSERVICEFILE=/other", "HOME=/root", "PGPORT=5433", "PGTARGETSESSIONATTRS=primary"}
	out := Env(in, "/s/service.conf", "/home/pg")
	for _, want := range []string{"PATH=/bin", "PGDATA=/d", "PG_MAJOR=18", "PGSERVICEFILE=/s/service.conf", "HOME=/home/pg"} {
		if !slices.Contains(out, want) {
			t.Errorf("lacks %s", want)
		}
	}
	size := 0
	for _, kv := range out {
		size += len(kv)
		if strings.HasPrefix(kv, "PGHOSTADDR") || strings.HasPrefix(kv, "PGTARGET") || strings.HasPrefix(kv, "PGPASS") || kv == "HOME=/root" {
			t.Errorf("holds %s", kv)
		}
	}
	if size < titleSpace {
		t.Errorf("only %d bytes for titles", size)
	}
	if again := Env(out, "/s/service.conf", "/home/pg"); !slices.Equal(again, out) {
		t.Error("not idempotent")
	}
	if s := Settings(in); s["port"] != "5433" {
		t.Error(s)
	}
}

func TestParking(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "pgq")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	p, err := NewParking(dir, 5432)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var conns []net.Conn
	for range maxParked + 3 {
		c, err := net.Dial("unix", SocketPath(dir, 5432))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	until(t, "the oldest are let go", func() bool { return p.Parked() == maxParked })
	conns[len(conns)-1].Close()
	until(t, "one that hung up is forgotten", func() bool { return p.Parked() == maxParked-1 })
	p.Release()
	until(t, "all are let go", func() bool { return p.Parked() == 0 })
	late, err := net.Dial("unix", SocketPath(dir, 5432))
	if err != nil {
		t.Fatal(err)
	}
	conns = append([]net.Conn{late}, conns...)
	for _, c := range conns[:len(conns)-1] {
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := c.Read(make([]byte, 1)); n != 0 || os.IsTimeout(err) {
			t.Fatal("a parked connection was answered or kept", n, err)
		}
		c.Close()
	}
}

func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("in vain: " + what)
		}
	}
}

func TestFenceWithoutPostgres(t *testing.T) {
	f, _ := testFile(t)
	if _, err := Fence(context.Background(), FenceParams{File: f}); err != nil {
		t.Error(err)
	}
	if _, err := Fence(context.Background(), FenceParams{File: f, PostmasterPID: 1 << 22}); !errors.Is(err, ErrNoPostmaster) {
		t.Error(err)
	}
}
