// SPDX-License-Identifier: Apache-2.0

//go:build e2e && bench

package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/e2e/docker"
)

// plainSetup is what a hand-made cluster of Postgres' own streaming replication shall be like.
type plainSetup struct {
	image string
	tls   bool
	args  []string // settings of every server
}

// plainHook makes a primary that standbys can attach to. The certificate is of the kind that ours has.
const plainHook = `set -e
cp /docker-entrypoint-initdb.d/server.* "$PGDATA"/ && chmod 600 "$PGDATA"/server.*
psql -U postgres -c "create role replicator replication login password '` + password + `'"
echo "host replication replicator all scram-sha-256" >> "$PGDATA/pg_hba.conf"
echo "ssl = on" >> "$PGDATA/postgresql.conf"
`

// startPlain makes a primary and two standbys of which one has to confirm every commit, and returns the primary. Volumes,
// network and shared memory are of the kind that the shipped compose file asks for.
func startPlain(t *testing.T, o plainSetup) docker.Container {
	t.Helper()
	dir := t.TempDir()
	writeCertificate(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "10.sh"), []byte(plainHook), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	net := network(t)
	flags := func(host string) []string {
		return []string{"--shm-size", "256m", "--network", net, "--network-alias", host, "-h", host, "-v", volume(t) + ":/var/lib/postgresql"}
	}
	mode := "sslmode=disable"
	if o.tls {
		mode = "sslmode=require channel_binding=require"
	}
	primary := start(t, docker.Options{
		Image: o.image, Env: []string{"POSTGRES_PASSWORD=" + password},
		Flags: append(flags("primary"), "-v", dir+":/docker-entrypoint-initdb.d:ro", "-p", "127.0.0.1::5432"), Args: o.args,
	})
	waitServing(t, primary)
	for _, name := range []string{"s1", "s2"} {
		line := fmt.Sprintf(`mkdir -p -m 700 "$PGDATA" && pg_basebackup -D "$PGDATA" -X stream -R -C -S %s `+
			`-d "host=primary user=replicator password='%s' application_name=%s %s" && exec postgres "$@"`, name, password, name, mode)
		start(t, docker.Options{
			Image: o.image, Name: unique(t),
			Flags: append(flags(name), "-u", "postgres", "--entrypoint", "bash"),
			Args:  append([]string{"-c", line, "standby"}, o.args...),
		})
	}
	ctx := deadline(t, time.Minute)
	if _, err := bench(ctx, primary, "psql", "-c", "alter system set synchronous_standby_names = 'ANY 1 (s1, s2)'", "-c", "select pg_reload_conf()"); err != nil {
		t.Fatal(err)
	}
	if err := docker.Wait(ctx, "both standbys to confirm", func(ctx context.Context) error {
		n, err := bench(ctx, primary, "psql", "-XAtqc", "select count(*) from pg_stat_replication where state = 'streaming' and sync_state = 'quorum'")
		if err == nil && n != "2" {
			err = fmt.Errorf("%s do", n)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return primary
}

// bench runs one of Postgres' programs in a container, over the unix socket.
func bench(ctx context.Context, c docker.Container, program string, args ...string) (string, error) {
	res, err := c.Exec(ctx, append([]string{program, "-U", "postgres", "-d", "postgres"}, args...)...)
	if err == nil && res.Code != 0 {
		err = fmt.Errorf("%s %q: exit code %d: %s", program, args, res.Code, res.Stderr)
	}
	return strings.TrimSpace(res.Stdout), err
}

// writeCertificate makes a certificate for P-256, as the nodes of a cluster derive theirs.
func writeCertificate(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	self := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "primary"}, DNSNames: []string{"primary"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, self, self, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"server.crt": {Type: "CERTIFICATE", Bytes: cert}, "server.key": {Type: "PRIVATE KEY", Bytes: raw},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
