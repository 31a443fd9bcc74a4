// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

// authority stands in for the certificates of the cluster; the room certs may not be imported here.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true,
		BasicConstraintsValid: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &authority{key, cert}, err
}

func (a *authority) configs(name string) (server, client *tls.Config) {
	t := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, &key.PublicKey, a.key)
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	leaf := []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	return &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: leaf, ClientCAs: pool,
			ClientAuth: tls.RequireAndVerifyClientCert,
		},
		&tls.Config{MinVersion: tls.VersionTLS13, Certificates: leaf, RootCAs: pool}
}

// inbox keeps all events of one transport.
type inbox struct {
	mu      sync.Mutex
	events  []any
	onEvent func(any)
}

func (b *inbox) add(e any) {
	b.mu.Lock()
	b.events = append(b.events, e)
	f := b.onEvent
	b.mu.Unlock()
	if f != nil {
		f(e)
	}
}

func (b *inbox) LinkUp(e LinkUp)             { b.add(e) }
func (b *inbox) LinkDown(e LinkDown)         { b.add(e) }
func (b *inbox) HelloChanged(e HelloChanged) { b.add(e) }
func (b *inbox) Message(e Message)           { b.add(e) }

// await polls for an event that fits, and returns it.
func await[T any](t *testing.T, b *inbox, what string, fits func(T) bool) T {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		if e, ok := find(b, fits); ok {
			return e
		}
		time.Sleep(time.Millisecond)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	t.Fatalf("no %s within 10 s; events: %+v", what, b.events)
	panic("unreachable")
}

func find[T any](b *inbox, fits func(T) bool) (T, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.events {
		if v, ok := e.(T); ok && fits(v) {
			return v, true
		}
	}
	var zero T
	return zero, false
}

func (b *inbox) clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = nil
}

type testNode struct {
	*Transport
	*inbox
	hello Hello
	mu    sync.Mutex
	peers []Peer
}

func (n *testNode) setPeers(p ...Peer) {
	n.mu.Lock()
	n.peers = p
	n.mu.Unlock()
	if n.Transport != nil {
		n.PeersChanged()
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// fakeHolder confirms at once.
type fakeHolder struct {
	mu       sync.Mutex
	holding  int
	released int
	fail     bool
}

func (h *fakeHolder) Hold(*net.TCPConn) (func(), error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail {
		return nil, fmt.Errorf("no watchdog")
	}
	h.holding++
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.released++
	}, nil
}

func newNode(a *authority, name string, change func(*Options)) (*testNode, error) {
	n := &testNode{inbox: &inbox{}}
	n.hello = Hello{
		Cluster: "c", Node: cluster.Incarnation(len(name)*1000 + int(name[len(name)-1])), PID1: true,
		Boot: cluster.Boot{Number: 1, ID: uint64(time.Now().UnixNano())}, Version: "test",
	}
	server, client := a.configs(name)
	o := Options{
		Self: cluster.NodeName(name), Listen: "127.0.0.1:0", ServerTLS: server, ClientTLS: client,
		Peers: func() []Peer {
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.peers
		},
		Hello: func() Hello {
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.hello
		},
		Accept:  func(Hello) error { return nil },
		Handler: n.inbox, Holder: &fakeHolder{}, Logger: quiet(),
	}
	if change != nil {
		change(&o)
	}
	t, err := New(o)
	n.mu.Lock()
	n.Transport = t
	n.mu.Unlock()
	return n, err
}

func startNode(t *testing.T, a *authority, name string, change func(*Options)) *testNode {
	t.Helper()
	n, err := newNode(a, name, change)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close(false) })
	return n
}

func (n *testNode) peer(name string) Peer {
	return Peer{Name: cluster.NodeName(name), Host: "127.0.0.1", Port: n.Addr().(*net.TCPAddr).Port}
}

func testAuthority(t *testing.T) *authority {
	t.Helper()
	a, err := newAuthority()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// childEnv makes the test binary a node of its own: the argument is the authority's key and certificate in PEM.
const childEnv = "PGQUORUM_TEST_TRANSPORT_CHILD"

func TestMain(m *testing.M) {
	if v := os.Getenv(childEnv); v != "" {
		if err := child(v); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child listens, says where on stdout, and lives until its stdin ends.
func child(v string) error {
	name, port, _ := strings.Cut(v, ":")
	bundle, err := io.ReadAll(io.LimitReader(os.Stdin, 1<<16))
	_ = bundle
	if err != nil {
		return err
	}
	kb, rest := pem.Decode(bundle)
	cb, _ := pem.Decode(rest)
	key, err := x509.ParseECPrivateKey(kb.Bytes)
	if err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(cb.Bytes)
	if err != nil {
		return err
	}
	n, err := newNode(&authority{key, cert}, name, func(o *Options) { o.Listen = "127.0.0.1:" + port })
	if err != nil {
		return err
	}
	fmt.Println(n.Addr().(*net.TCPAddr).Port)
	select {}
}

type childProcess struct {
	cmd  *exec.Cmd
	port int
}

func startChild(t *testing.T, a *authority, name string, port int) *childProcess {
	t.Helper()
	c := &childProcess{cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s:%d", childEnv, name, port))
	der, err := x509.MarshalECPrivateKey(a.key)
	if err != nil {
		t.Fatal(err)
	}
	c.cmd.Stdin = strings.NewReader(string(pem.EncodeToMemory(&pem.Block{Type: "K", Bytes: der})) +
		string(pem.EncodeToMemory(&pem.Block{Type: "C", Bytes: a.cert.Raw})))
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("child %s did not start: %v", name, err)
	}
	if c.port, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *childProcess) peer(name string) Peer {
	return Peer{Name: cluster.NodeName(name), Host: "127.0.0.1", Port: c.port}
}
