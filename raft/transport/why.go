// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"strconv"
	"syscall"

	"github.com/pgquorum/pgquorum/cluster"
)

// Unreached says of each peer that could not be dialled why, and what to do about it. A peer with a link is not in it.
func (t *Transport) Unreached() map[cluster.NodeName]string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return maps.Clone(t.unreached)
}

// noteDial keeps and says why a peer has no link: once a minute for each kind of reason, so that a first name that is
// not known yet does not hide a secret that differs.
func (t *Transport) noteDial(p Peer, err error) {
	kind, text := t.why(p, err)
	t.mu.Lock()
	t.unreached[p.Name] = text
	t.mu.Unlock()
	t.note("dial "+string(p.Name)+" "+kind, "peer is not reachable", "peer", string(p.Name), "reason", text, "err", err)
}

// reached forgets why a peer could not be dialled.
func (t *Transport) reached(name cluster.NodeName) {
	t.mu.Lock()
	delete(t.unreached, name)
	t.mu.Unlock()
	t.notes.forget("dial " + string(name) + " ")
}

// why turns the error of a dial into a kind and a sentence for people, which names what to set.
func (t *Transport) why(p Peer, err error) (kind, text string) {
	address := net.JoinHostPort(p.Host, strconv.Itoa(p.Port))
	var (
		name    *net.DNSError
		cert    *tls.CertificateVerificationError
		garbage tls.RecordHeaderError
		no      refusal
	)
	switch {
	case errors.As(err, &name) && name.IsNotFound:
		return "name", fmt.Sprintf("the network does not know the name %s: is its container started?", p.Host)
	case errors.As(err, &name):
		return "name", fmt.Sprintf("the name %s cannot be looked up: %s", p.Host, name.Err)
	case errors.As(err, &cert):
		return "certificate", t.distrust(p, cert)
	case errors.As(err, &no):
		return "refused", no.err.Error()
	case errors.As(err, &garbage):
		return "stranger", fmt.Sprintf("what listens on %s is no pgquorum node", address)
	case isRemoteAlert(err):
		return "distrusted", fmt.Sprintf("%s refuses this node's certificate (%v)", p.Name, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "listen", fmt.Sprintf("nothing listens on %s (connection refused)", address)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), isTimeout(err):
		return "silent", fmt.Sprintf("no answer from %s: each node must reach that port (PGQUORUM_RAFT_PORT) of the others", address)
	}
	return "other", err.Error()
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// isRemoteAlert says that the other side ended the handshake with an alert: it does not like our certificate. Package
// tls gives such errors no type of their own but the operation's name.
func isRemoteAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

const ownName = "give each container its own hostname (or PGQUORUM_NODE), the one that PGQUORUM_PEERS has for it"

// distrust tells a node with another secret, a node with another name and a stranger apart by the certificate that
// was presented. Nothing of it is believed: it only picks the sentence.
func (t *Transport) distrust(p Peer, e *tls.CertificateVerificationError) string {
	if len(e.UnverifiedCertificates) == 0 {
		return e.Error()
	}
	theirs := e.UnverifiedCertificates[0]
	called := cluster.NodeName("")
	if len(theirs.DNSNames) > 0 {
		called = cluster.NodeName(theirs.DNSNames[0])
	}
	own := t.ownCertificate()
	// The name is checked by itself: package x509 looks at it first, and then the signature is not looked at.
	_, err := theirs.Verify(x509.VerifyOptions{Roots: t.opts.ClientTLS.RootCAs})
	switch {
	case err != nil && (own == nil || !bytes.Equal(own.RawIssuer, theirs.RawIssuer)):
		return fmt.Sprintf("what listens on %s is no pgquorum node (its certificate is for %s)",
			net.JoinHostPort(p.Host, strconv.Itoa(p.Port)), theirs.Subject)
	case err != nil:
		return fmt.Sprintf("%s has another PGQUORUM_SECRET than this node: give every node the same", p.Name)
	case own != nil && bytes.Equal(own.Raw, theirs.Raw):
		return fmt.Sprintf("the name %s leads back to this container, which is called %s: %s", p.Host, called, ownName)
	case called == t.opts.Self:
		return fmt.Sprintf("the container reached as %s is called %s, as this one is: %s", p.Host, called, ownName)
	}
	return fmt.Sprintf("the container reached as %s is called %s: %s", p.Host, called, ownName)
}

func (t *Transport) ownCertificate() *x509.Certificate {
	if c := t.opts.ClientTLS.Certificates; len(c) > 0 && len(c[0].Certificate) > 0 {
		if own, err := x509.ParseCertificate(c[0].Certificate[0]); err == nil {
			return own
		}
	}
	return nil
}

// strange says of a connection that came in and did not become a link what that may mean.
func strange(err error) string {
	var cert *tls.CertificateVerificationError
	var garbage tls.RecordHeaderError
	var no refusal
	switch {
	case errors.As(err, &no):
		return no.err.Error()
	case errors.As(err, &cert):
		return "it has another PGQUORUM_SECRET, or is no node of this cluster"
	case isRemoteAlert(err):
		return "it does not take this node for the one that it looked for: another PGQUORUM_SECRET, or another name, there or here"
	case errors.As(err, &garbage):
		return "it is no pgquorum node"
	}
	return "it did not introduce itself as a node"
}
