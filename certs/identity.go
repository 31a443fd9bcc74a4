// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"strconv"
	"time"

	"github.com/pgquorum/pgquorum/cluster"
)

const (
	caName        = "pgquorum cluster CA"
	scalarLen     = 32
	maxCAAttempts = 8
)

// Identity is this node's place in the cluster's trust: the authority that every node derives, and a certificate
// for this node's name made at this start. It is immutable and safe for concurrent use.
type Identity struct {
	name  cluster.NodeName
	caKey *ecdsa.PrivateKey
	ca    *x509.Certificate
	roots *x509.CertPool
	leaf  tls.Certificate
}

// PostgresFiles is what Postgres' ssl_cert_file, ssl_key_file and ssl_ca_file (or libpq's sslrootcert) hold.
type PostgresFiles struct {
	Cert, Key, CA []byte
}

// New derives the authority from the secret and signs a certificate for name.
func New(secret []byte, name cluster.NodeName) (*Identity, error) {
	if name == "" {
		return nil, fmt.Errorf("make certificates: empty node name")
	}
	key, err := caKey(secret)
	if err != nil {
		return nil, err
	}
	ca, err := caCertificate(key)
	if err != nil {
		return nil, err
	}
	id := &Identity{name: name, caKey: key, ca: ca, roots: x509.NewCertPool()}
	id.roots.AddCert(ca)
	der, leafKey, err := id.sign([]string{string(name)})
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read own certificate: %w", err)
	}
	id.leaf = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: leafKey, Leaf: leaf}
	return id, nil
}

// ServerTLS is for listeners: only members get in. Who it is says the certificate (PeerName).
func (id *Identity) ServerTLS() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{id.leaf},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              id.roots,
		SessionTicketsDisabled: true,
	}
}

// ClientTLS is for dialling the node called peer. With an empty peer the caller must set ServerName before use;
// crypto/tls refuses to connect otherwise.
func (id *Identity) ClientTLS(peer cluster.NodeName) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{id.leaf},
		RootCAs:                id.roots,
		ServerName:             string(peer),
		SessionTicketsDisabled: true,
	}
}

// CAPEM is the authority's certificate. Its bytes differ from node to node and from start to start (an ECDSA
// signature is random); key and subject are the same, so each verifies every node's certificates.
func (id *Identity) CAPEM() []byte { return pemBlock("CERTIFICATE", id.ca.Raw) }

// Postgres makes a server certificate for Postgres: for the node's name and the other names given (addresses are
// recognised).
func (id *Identity) Postgres(others ...string) (PostgresFiles, error) {
	der, key, err := id.sign(append([]string{string(id.name)}, others...))
	if err != nil {
		return PostgresFiles{}, err
	}
	pk, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return PostgresFiles{}, fmt.Errorf("encode key: %w", err)
	}
	return PostgresFiles{Cert: pemBlock("CERTIFICATE", der), Key: pemBlock("PRIVATE KEY", pk), CA: id.CAPEM()}, nil
}

// PeerName returns the node name that the verified certificate of the other end is for.
func PeerName(s tls.ConnectionState) (cluster.NodeName, error) {
	if len(s.VerifiedChains) == 0 || len(s.PeerCertificates) == 0 {
		return "", fmt.Errorf("read peer name: no verified certificate")
	}
	return cluster.NodeName(s.PeerCertificates[0].Subject.CommonName), nil
}

// caKey makes the authority's key from the secret. A scalar out of range has a chance of 2^-32 and the next label
// is tried then, which is the same on every node.
func caKey(secret []byte) (*ecdsa.PrivateKey, error) {
	var err error
	for i := range maxCAAttempts {
		var raw []byte
		if raw, err = Derive(secret, "ca-key/"+strconv.Itoa(i), scalarLen); err != nil {
			return nil, err
		}
		var key *ecdsa.PrivateKey
		if key, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), raw); err == nil {
			return key, nil
		}
	}
	return nil, fmt.Errorf("derive ca key: %w", err)
}

func caCertificate(key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode ca key: %w", err)
	}
	sum := sha256.Sum256(point)
	t := template(caName)
	// The serial number and the key id depend on the key only, so that two nodes' copies are interchangeable.
	t.SerialNumber = new(big.Int).SetBytes(sum[:15])
	t.SubjectKeyId = sum[:20]
	t.IsCA = true
	t.BasicConstraintsValid = true
	t.MaxPathLenZero = true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("sign ca certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// sign makes a fresh key and a certificate for it; the first name is also the subject.
func (id *Identity) sign(names []string) ([]byte, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generate key: %w", err)
	}
	serial := make([]byte, 15)
	if _, err := rand.Read(serial); err != nil {
		return nil, nil, fmt.Errorf("draw serial number: %w", err)
	}
	t := template(names[0])
	t.SerialNumber = new(big.Int).SetBytes(serial)
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	t.BasicConstraintsValid = true
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
			continue
		}
		t.DNSNames = append(t.DNSNames, n)
	}
	der, err := x509.CreateCertificate(rand.Reader, t, id.ca, &key.PublicKey, id.caKey)
	if err != nil {
		return nil, nil, fmt.Errorf("sign certificate for %s: %w", names[0], err)
	}
	return der, key, nil
}

func template(cn string) *x509.Certificate {
	return &x509.Certificate{
		Subject:            pkix.Name{CommonName: cn, Organization: []string{"pgquorum"}},
		NotBefore:          time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:           time.Date(2099, 12, 31, 23, 59, 59, 0, time.UTC),
		SignatureAlgorithm: x509.ECDSAWithSHA256,
	}
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
