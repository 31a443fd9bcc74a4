// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/config"
)

func FuzzParseMounts(f *testing.F) {
	f.Add("36 35 98:0 /m /var/lib/post\\040gres rw - ext4 /dev/x rw\n22 1 0:1 / / rw - overlay overlay rw\n", "/var/lib/post gres/x")
	f.Add("1 2 3 4 /a\\ - tmpfs", "/a")
	f.Fuzz(func(t *testing.T, text, path string) {
		mounts := parseMounts(text)
		at := mountOf(mounts, filepath.Clean("/"+path))
		if at.point != "/" && !config.Inside(filepath.Clean("/"+path), at.point) {
			t.Fatalf("%q is not on %q", path, at.point)
		}
		_ = at.lost()
	})
}

func FuzzParsePasswd(f *testing.F) {
	f.Add("root:x:0:0:root:/root:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/bash\n", "ssl-cert:x:101:postgres,x\n")
	f.Add("postgres:x:-1:99999999999999999999::rel:\n", "a:b:c:postgres")
	f.Fuzz(func(t *testing.T, passwd, group string) {
		u, ok := parsePasswd(passwd, func(name string, _ int) bool { return name == postgresUser })
		if ok && (u.Name != postgresUser || !filepath.IsAbs(u.Home)) {
			t.Fatalf("%+v", u)
		}
		if g := parseGroups(group, postgresUser, u.GID); len(g) == 0 || g[0] != u.GID {
			t.Fatalf("groups %v", g)
		}
	})
}

func FuzzParseIdentity(f *testing.F) {
	f.Add([]byte(`{"incarnation":"00000000000000ff"}`))
	f.Add([]byte(`{"incarnation":"ff"}`))
	f.Add([]byte(`{"incarnation":"0000000000000000"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if inc, err := parseIdentity(b); err == nil {
			again, err := parseIdentity([]byte(`{"incarnation":"` + inc.String() + `"}`))
			if inc == 0 || err != nil || again != inc {
				t.Fatalf("%s, again %s, %v", inc, again, err)
			}
		}
	})
}

func FuzzParseBoots(f *testing.F) {
	f.Add("1.00000000000000ff\n2.00000000000000fe\n")
	f.Add("1\n")
	f.Fuzz(func(t *testing.T, text string) {
		boots, err := parseBoots(text)
		if err != nil {
			return
		}
		path := filepath.Join(t.TempDir(), bootFile)
		if err := writeBoots(path, cluster.NextBoots(boots, 1)); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parseBoots(string(b)); boots[len(boots)-1].Number != 1<<64-1 && (err != nil || again[0] != boots[0]) {
			t.Fatalf("%v, again %v, %v", boots, again, err)
		}
	})
}
