// SPDX-License-Identifier: Apache-2.0

package pgctl

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/pgquorum/pgquorum/pgctl/conf"
	"github.com/pgquorum/pgquorum/pgctl/pgtest/proctest"
	"github.com/pgquorum/pgquorum/pgctl/procfs"
)

// TestOnlyTheTargetsSenderStays: during a stop that hands over, a WAL sender that comes back is ended again, however often
// (PROTOCOL 10.1.e).
func TestOnlyTheTargetsSenderStays(t *testing.T) {
	keep := proctest.Child(t, "postgres: main: walsender pgquorum 10.0.0.2(5000) streaming 0/3000148")
	session := proctest.Child(t, "postgres: main: app db 10.0.0.9(5000) idle")
	r := procfs.NewReader()
	for range 2 {
		other := proctest.Child(t, "postgres: main: walsender pgquorum 10.0.0.3(5000) streaming 0/3000148")
		if err := endSenders(r, os.Getpid(), keep.PID); err != nil {
			t.Fatal(err)
		}
		if s := other.Gone(); s != syscall.SIGTERM {
			t.Errorf("ended by %v", s)
		}
	}
	keep.Rename("postgres: main: walsender pgquorum 10.0.0.2(5000) streaming 0/3000200")
	session.Rename("postgres: main: app db 10.0.0.9(5000) SELECT")
}

// TestSourceSettingsAreNotUsed: a clone or rewind copies the source's settings file. What it says of upstream and quorum is
// taken out before the start, and the server reads our files, which lie outside the data (PROTOCOL 8.2, 12.1).
func TestSourceSettingsAreNotUsed(t *testing.T) {
	dir, err := os.MkdirTemp("", "pgq") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	p := &Postgres{version: 18, osUser: "postgres", opt: Options{
		DataDir: filepath.Join(dir, "data"), StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run"),
		Incarnation: 2, Members: 3, ReplUser: "pgquorum", ReplPassword: "x", Log: slog.New(slog.DiscardHandler),
	}}
	for _, d := range []string{p.opt.DataDir, p.confDir(), p.opt.RunDir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.openUpstream(); err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Order(t.Context(), Order{Host: "source", Addr: "10.0.0.1", Port: 5432, AppName: "b.e1"}); err != nil {
		t.Fatal(err)
	}
	auto := "primary_conninfo = 'host=source application_name=b.e1'\nprimary_slot_name = 'other'\nsynchronous_standby_names = ''\nwork_mem = '5MB'\n"
	if err := os.WriteFile(p.dataFile("postgresql.auto.conf"), []byte(auto), 0o600); err != nil {
		t.Fatal(err)
	}
	// Its last step looks for stubs, and there is no control file here.
	if err := p.prepareStart(StartSpec{Recovery: true, Settings: Nobody()}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "pg_control") {
		t.Fatal(err)
	}
	text, err := os.ReadFile(p.dataFile("postgresql.auto.conf"))
	if err != nil || strings.Contains(string(text), "primary") || strings.Contains(string(text), "standby_names") || !strings.Contains(string(text), "work_mem") {
		t.Errorf("the source's settings stay: %s %v", text, err)
	}
	managed, err := os.ReadFile(p.confFile("managed.conf"))
	if err != nil || !strings.Contains(string(managed), "service=pgquorum") || !strings.Contains(string(managed), conf.NobodyName) {
		t.Errorf("managed settings: %s %v", managed, err)
	}
	if !p.Parked() || !exists(p.dataFile("standby.signal")) {
		t.Error("not parked, or not in recovery")
	}
	for _, name := range []string{"config_file=" + p.confFile("postgresql.conf"), "hba_file=" + p.confFile("pg_hba.conf")} {
		if !slices.Contains(p.fileArgs(), name) || strings.Contains(name, p.opt.DataDir) {
			t.Errorf("the server is not told %s: %q", name, p.fileArgs())
		}
	}
}

// TestCertificateWithoutDigest: its signature has no digest of its own, so that channel binding cannot work (PROTOCOL 12.2.c).
func TestCertificateWithoutDigest(t *testing.T) {
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	short, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, public, private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	// Go cannot sign by Ed448, whose number in a certificate is one more than that of Ed25519.
	long := []byte(strings.ReplaceAll(string(short), "\x06\x03\x2b\x65\x70", "\x06\x03\x2b\x65\x71"))
	for name, c := range map[string]struct {
		der []byte
		ok  bool
	}{"ed25519": {short, false}, "ed448": {long, false}, "ecdsa": {good, true}} {
		path := filepath.Join(t.TempDir(), "server.crt")
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.der}), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkCertificate(path); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
