// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/pgquorum/pgquorum/cluster"
)

// handshake joins a client and a server over a pipe and returns both ends' errors after one byte each way: in
// TLS 1.3 a client learns of its refusal only when it reads.
func handshake(t *testing.T, server, client *tls.Config) (peer cluster.NodeName, cerr, serr error) {
	t.Helper()
	a, b := net.Pipe()
	done := make(chan error, 1)
	go func() {
		defer b.Close()
		s := tls.Server(b, server)
		err := s.Handshake()
		if err == nil {
			peer, err = PeerName(s.ConnectionState())
		}
		if err == nil {
			_, err = s.Write([]byte("x"))
		}
		done <- err
	}()
	c := tls.Client(a, client)
	cerr = c.Handshake()
	if cerr == nil {
		_, cerr = c.Read(make([]byte, 1))
	}
	a.Close()
	serr = <-done
	return peer, cerr, serr
}

func identity(t *testing.T, secret string, name cluster.NodeName) *Identity {
	t.Helper()
	id, err := New([]byte(secret), name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestSameSecretTrustsAcrossNodes(t *testing.T) {
	a, b := identity(t, "s3cret", "pg1"), identity(t, "s3cret", "pg2")
	peer, cerr, serr := handshake(t, b.ServerTLS(), a.ClientTLS("pg2"))
	if cerr != nil || serr != nil {
		t.Fatalf("client: %v, server: %v", cerr, serr)
	}
	if peer != "pg1" {
		t.Fatalf("server saw %q", peer)
	}
	if !a.caKey.Equal(b.caKey) || !bytes.Equal(a.ca.SubjectKeyId, b.ca.SubjectKeyId) {
		t.Fatal("the two nodes derived different authorities")
	}
}

func TestDifferentSecretsRefuseEachOther(t *testing.T) {
	a, b := identity(t, "one", "pg1"), identity(t, "two", "pg2")
	_, cerr, _ := handshake(t, b.ServerTLS(), a.ClientTLS("pg2"))
	if cerr == nil {
		t.Fatal("client accepted a server of another cluster")
	}
	blind := a.ClientTLS("pg2")
	blind.InsecureSkipVerify = true
	if _, _, serr := handshake(t, b.ServerTLS(), blind); serr == nil {
		t.Fatal("server accepted a client of another cluster")
	}
	if _, _, serr := handshake(t, b.ServerTLS(), &tls.Config{InsecureSkipVerify: true}); serr == nil {
		t.Fatal("server accepted a client without certificate")
	}
}

func TestNamesAreChecked(t *testing.T) {
	a, b := identity(t, "s", "pg1"), identity(t, "s", "pg2")
	if _, cerr, _ := handshake(t, b.ServerTLS(), a.ClientTLS("pg3")); cerr == nil {
		t.Fatal("client took pg2 for pg3")
	}
	if _, cerr, _ := handshake(t, b.ServerTLS(), a.ClientTLS("")); cerr == nil {
		t.Fatal("client connected without a name")
	}
	u := identity(t, "s", "pg_node_1")
	if _, cerr, serr := handshake(t, u.ServerTLS(), a.ClientTLS("pg_node_1")); cerr != nil || serr != nil {
		t.Fatalf("underscore in a name: %v, %v", cerr, serr)
	}
}

func TestPostgresFiles(t *testing.T) {
	a := identity(t, "s", "pg1")
	f, err := a.Postgres("localhost", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.X509KeyPair(f.Cert, f.Key); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(f.Cert)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if cert.SignatureAlgorithm != x509.ECDSAWithSHA256 {
		t.Fatalf("signature algorithm %s", cert.SignatureAlgorithm)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(identity(t, "s", "pg2").CAPEM())
	for _, n := range []string{"pg1", "localhost", "127.0.0.1"} {
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: n}); err != nil {
			t.Errorf("%s: %v", n, err)
		}
	}
}

func TestDerive(t *testing.T) {
	a, _ := Derive([]byte("s"), "replication", 32)
	b, _ := Derive([]byte("s"), "replication", 32)
	c, _ := Derive([]byte("s"), "other", 32)
	d, _ := Derive([]byte("t"), "replication", 32)
	if !bytes.Equal(a, b) || bytes.Equal(a, c) || bytes.Equal(a, d) || len(a) != 32 {
		t.Fatal("derivation is not a function of secret and label")
	}
	if _, err := Derive(nil, "x", 32); err == nil {
		t.Fatal("an empty secret was accepted")
	}
}

// The expected value was computed with hashlib.pbkdf2_hmac and hmac of Python, independently of this code.
func TestSCRAMVerifier(t *testing.T) {
	got, err := SCRAMVerifier(NewSecret([]byte("pencil")), []byte("0123456789abcdef"), 1)
	if err != nil {
		t.Fatal(err)
	}
	const want = "SCRAM-SHA-256$1:MDEyMzQ1Njc4OWFiY2RlZg==$6E6za7g9nQj7bvJ78b+hKOVaeRanit38xaWlCSvoB4Y=:+Xl/1j60mYw7IUJQ7cmQYlUgCDB0vLsvuw4MqpuAMaQ="
	if got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
	if _, err := SCRAMVerifier(NewSecret([]byte("pâté")), []byte("salt"), 1); err == nil {
		t.Fatal("a password that needs normalisation was accepted")
	}
}

func TestSecretNeverPrints(t *testing.T) {
	s := NewSecret([]byte("hunter2"))
	type holder struct{ S Secret }
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "s", s, "h", holder{s})
	j, err := json.Marshal(holder{s})
	if err != nil {
		t.Fatal(err)
	}
	all := log.String() + string(j) + s.String()
	for _, f := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		all += fmt.Sprintf(f, s) + fmt.Sprintf(f, holder{s}) + fmt.Sprintf(f, &s)
	}
	if strings.Contains(all, "hunter2") || strings.Contains(all, "68756e74657232") || strings.Contains(all, "104 117") {
		t.Fatalf("leak: %s", all)
	}
	if !s.Equal(NewSecret([]byte("hunter2"))) || s.Equal(NewSecret(nil)) {
		t.Fatal("Equal is wrong")
	}
}
