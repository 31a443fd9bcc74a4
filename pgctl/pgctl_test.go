// SPDX-License-Identifier: Apache-2.0

package pgctl

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestServerEnv(t *testing.T) {
	got := serverEnv([]string{
		"PGDATA=/d", "PG_MAJOR=18", "PGHOSTADDR=1", "PGHOST=x", "PGPORT=1", "PGSERVICEFILE=/x", "PGQUORUM_SECRET=s", "POSTGRES_PASSWORD=p",
		"POSTGRES_PASSWORD_FILE=f", "POSTGRES_USER=u", "HOME=/root", "LANG=C",
	}, "/home", "/s/service.conf")
	want := "[PGDATA=/d PG_MAJOR=18 POSTGRES_USER=u LANG=C PGSERVICEFILE=/s/service.conf HOME=/home]"
	if fmt.Sprint(got[:6]) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestVerifier(t *testing.T) {
	v := verifier("secret")
	if !strings.HasPrefix(v, "SCRAM-SHA-256$1:") || !verifies(v, "secret") || verifies(v, "Secret") || verifies("md5x", "secret") {
		t.Errorf("verifier %s", v)
	}
}

func TestSecretIsHidden(t *testing.T) {
	s := struct{ P Secret }{"hunter2"}
	for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%+v %#v %q %s", s, s, s.P, s.P)} {
		if strings.Contains(text, "hunter2") {
			t.Errorf("printed: %s", text)
		}
	}
}

func TestTail(t *testing.T) {
	l := &tail{out: io.Discard}
	for i := range 30 {
		fmt.Fprintf(l, "line %d\nha", i)
		fmt.Fprint(l, "lf ")
	}
	got := l.lines()
	if len(got) != tailLines || got[tailLines-1] != "half line 29" {
		t.Errorf("kept %q", got)
	}
	if lastSaid([]string{"FATAL:  x", "LOG:  y"}) != "FATAL:  x" {
		t.Error("the reason was not found")
	}
	if !(Exit{Tail: []string{"ERROR: replicas are not supported on community and require"}}).ReplicasRefused() {
		t.Error("paradedb was not recognised")
	}
}
