// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
)

// labelPrefix keeps our derivations apart from those of any other program that is given the same secret.
const labelPrefix = "pgquorum/1/"

// hidden is what a secret looks like wherever it is printed.
const hidden = "***"

// Secret is a byte string that prints as *** in every form: fmt, slog, JSON, text.
type Secret struct{ b []byte }

// NewSecret keeps a copy of b.
func NewSecret(b []byte) Secret { return Secret{b: append([]byte(nil), b...)} }

// Reveal returns the bytes. The name is long on purpose: each use of it is a place to look at in a review.
func (s Secret) Reveal() []byte { return s.b }

// Empty reports whether there is no secret.
func (s Secret) Empty() bool { return len(s.b) == 0 }

// Equal compares in constant time.
func (s Secret) Equal(o Secret) bool { return hmac.Equal(s.b, o.b) }

// String implements fmt.Stringer.
func (Secret) String() string { return hidden }

// Format implements fmt.Formatter, which is asked before every other way fmt has to print a value.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText implements encoding.TextMarshaler; JSON uses it as well.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// Derive returns n bytes that only somebody who knows the secret can compute. A label is for one purpose only.
func Derive(secret []byte, label string, n int) ([]byte, error) {
	if len(secret) == 0 {
		return nil, fmt.Errorf("derive %s: empty secret", label)
	}
	b, err := hkdf.Key(sha256.New, secret, nil, labelPrefix+label, n)
	if err != nil {
		return nil, fmt.Errorf("derive %s: %w", label, err)
	}
	return b, nil
}

// Password derives a password of 256 bits in hexadecimal: plain ASCII, so that no normalisation of any client can
// change it.
func Password(secret []byte, label string) (Secret, error) {
	b, err := Derive(secret, label, 32)
	if err != nil {
		return Secret{}, err
	}
	return Secret{b: []byte(hex.EncodeToString(b))}, nil
}

// SCRAMVerifier returns what Postgres stores for a password:
// SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>. The password must be ASCII (no SASLprep is done). One
// iteration is enough for a password of 256 random bits and saves a standby the stretching at each connection.
func SCRAMVerifier(password Secret, salt []byte, iterations int) (string, error) {
	if password.Empty() || len(salt) == 0 || iterations < 1 {
		return "", fmt.Errorf("compute scram verifier: password, salt and iterations must be given")
	}
	for _, c := range password.b {
		if c < 0x20 || c > 0x7e {
			return "", fmt.Errorf("compute scram verifier: password is not printable ascii")
		}
	}
	salted, err := pbkdf2.Key(sha256.New, string(password.b), salt, iterations, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("compute scram verifier: %w", err)
	}
	stored := sha256.Sum256(mac(salted, "Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, b64(salt), b64(stored[:]),
		b64(mac(salted, "Server Key"))), nil
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
