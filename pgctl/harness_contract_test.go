// SPDX-License-Identifier: Apache-2.0

//go:build contract

package pgctl

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/pgctl/proc"
	"github.com/pgquorum/pgquorum/pgctl/procfs"
)

// oneOf gives each of several servers in one test process a KillAll of its own.
type oneOf struct {
	all *proc.Children

	mu     sync.Mutex
	roots  []int
	killed []int
}

func (o *oneOf) Start(s proc.Spec) (*proc.Child, error) {
	c, err := o.all.Start(s)
	if err == nil {
		o.mu.Lock()
		o.roots = append(o.roots, c.Pid())
		o.mu.Unlock()
	}
	return c, err
}

func (o *oneOf) KillAll() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	list, err := procfs.List()
	if err != nil {
		return err
	}
	for _, root := range o.roots {
		for _, p := range procfs.Descendants(list, root) {
			o.killed = append(o.killed, p.PID)
		}
		o.killed = append(o.killed, root)
	}
	o.roots = nil
	for _, pid := range o.killed {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	return nil
}

func (o *oneOf) Gone(ctx context.Context) error {
	return poll(ctx, time.Millisecond, func() (bool, error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		list, err := procfs.List()
		return err == nil && !slices.ContainsFunc(list, func(p procfs.Process) bool {
			return !p.Dead() && slices.Contains(o.killed, p.PID)
		}), err
	})
}

type node struct {
	*Postgres
	t    *testing.T
	name string
	port int
	inc  cluster.Incarnation
}

func (n *node) source() Source { return Source{Host: "127.0.0.1", Addr: "127.0.0.1", Port: n.port} }

// world holds what the nodes of one test share.
type world struct {
	t        *testing.T
	ctx      context.Context
	children *proc.Children
	dir, bin string
	cert     []byte
	key      []byte
}

func newWorld(t *testing.T) *world {
	if os.Geteuid() == 0 {
		t.Fatal("Postgres does not run as root: compile the test and run it as another user")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	children, err := proc.New(proc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "pgq")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = children.KillAll()
		_ = children.Gone(context.Background())
		children.Close() // its reaper must not take the children of the next test
		if !t.Failed() {
			_ = os.RemoveAll(dir)
		} else {
			t.Log("left in place: ", dir)
		}
	})
	w := &world{t: t, ctx: ctx, children: children, dir: dir, bin: findBin(t)}
	w.cert, w.key = selfSigned(t)
	return w
}

func findBin(t *testing.T) string {
	if b := os.Getenv("PG_BIN"); b != "" {
		return b
	}
	if p, err := exec.LookPath("postgres"); err == nil {
		if p, err = filepath.EvalSymlinks(p); err == nil {
			return filepath.Dir(p)
		}
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(found) == 0 {
		t.Fatal("no Postgres found: set PG_BIN")
	}
	return found[len(found)-1]
}

func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (w *world) node(name string, inc cluster.Incarnation) *node {
	base := filepath.Join(w.dir, name)
	for _, d := range []string{base, filepath.Join(base, "sock")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			w.t.Fatal(err)
		}
	}
	log, err := os.Create(filepath.Join(base, "log"))
	if err != nil {
		w.t.Fatal(err)
	}
	port := freePort(w.t)
	p, err := New(Options{
		DataDir: filepath.Join(base, "data"), StateDir: filepath.Join(base, "state"), BinDir: w.bin,
		ServerArgs: []string{
			"-c", fmt.Sprintf("port=%d", port), "-c", "listen_addresses=127.0.0.1",
			"-c", "unix_socket_directories=" + filepath.Join(base, "sock"), "-c", "cluster_name=" + name,
			"-c", "shared_buffers=32MB", "-c", "max_connections=20", "-c", "log_line_prefix=%m [%p] %b ",
		},
		Env:      append(os.Environ(), "PGHOSTADDR=192.0.2.1", "PGSSLMODE=disable"),
		Children: &oneOf{all: w.children}, Node: cluster.NodeName(name), Incarnation: inc, Members: 3,
		ReplUser: "pgquorum", ReplPassword: "a-password-of-256-bits", ReplTLS: true, Cert: w.cert, Key: w.key,
		LocalPassword: "local", Stdout: log, Stderr: log, EnsureInit: "no-such-script", Entrypoint: "no-such-script",
		Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = p.Close() })
	return &node{Postgres: p, t: w.t, name: name, port: port, inc: inc}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// until polls a condition with a deadline.
func (w *world) until(what string, f func() bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 20*time.Second)
	defer cancel()
	if err := poll(ctx, 5*time.Millisecond, func() (bool, error) { return f(), nil }); err != nil {
		w.t.Fatalf("%s: %v", what, err)
	}
}

func (w *world) sql(n *node, q string) []row {
	w.t.Helper()
	rows, err := n.run(w.ctx, "test", "SET search_path = public; "+q)
	if err != nil {
		w.t.Fatalf("%s: %s: %v", n.name, q, err)
	}
	return rows
}

func (w *world) founder(name string, inc cluster.Incarnation) *node {
	n := w.node(name, inc)
	w.must(n.Init(w.ctx))
	w.must(n.Prepare(w.ctx))
	d, err := n.Disk(w.ctx)
	if err != nil || d.Kind != Present || d.Control.DataChecksumVersion == 0 || d.Highest != 1 {
		w.t.Fatalf("disk after init: %+v, %v", d, err)
	}
	w.must(n.Start(w.ctx, StartSpec{}))
	changed, err := n.EnsureRole(w.ctx)
	if err != nil || !changed {
		w.t.Fatalf("role: %v %v", changed, err)
	}
	if changed, err = n.EnsureRole(w.ctx); err != nil || changed {
		w.t.Fatalf("role again: %v %v", changed, err)
	}
	return n
}

func (w *world) follow(n, up *node, app string) {
	w.t.Helper()
	w.must(n.Order(w.ctx, Order{Host: "127.0.0.1", Addr: "127.0.0.1", Port: up.port, AppName: app}))
	w.until(n.name+" streams from "+up.name, func() bool {
		s, err := up.Observe(w.ctx)
		return err == nil && slices.ContainsFunc(s.Senders, func(x Sender) bool {
			return x.App == app && x.State == "streaming" && x.Slot == SlotName(n.inc)
		})
	})
}

func selfSigned(t *testing.T) (cert, key []byte) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}
