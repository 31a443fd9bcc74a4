// SPDX-License-Identifier: Apache-2.0

package conf

import (
	"slices"
	"strings"
	"testing"
)

// FuzzParseArgs: no arguments of a user's reach the server with a managed setting or a file location among them.
func FuzzParseArgs(f *testing.F) {
	for _, s := range []string{"-c\nwork_mem=1MB", "--fsync=off", "-cfsync=off", "-c\nSynchronous-Commit=off", "-D\n/x\n-p5433", "-F", "-c", "x", "-\n--", "-e\n-c\nconfig_file=/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, lines string) {
		a, err := ParseArgs(strings.Split(lines, "\n"))
		if err != nil {
			return
		}
		again, err := ParseArgs(a.Keep)
		if err != nil {
			t.Fatalf("what is kept of %q is refused: %v", lines, err)
		}
		if !slices.Equal(again.Keep, a.Keep) || !slices.EqualFunc(again.Settings, a.Settings, func(x, y Setting) bool { return x.Name == y.Name && x.Value == y.Value }) {
			t.Fatalf("kept %q, then %q; settings %v, then %v", a.Keep, again.Keep, a.Settings, again.Settings)
		}
		if again.DataDir+again.ConfigFile+again.HBAFile+again.IdentFile != "" {
			t.Fatalf("a file location is passed on: %q", a.Keep)
		}
		for _, s := range a.Settings {
			if IsManaged(s.Name) {
				t.Fatalf("%s passes", s.Name)
			}
		}
	})
}

// FuzzHBA: the copy of a user's file is behind our lines, never before or between them, and making its names absolute
// twice changes nothing more.
func FuzzHBA(f *testing.F) {
	f.Add("host all @admins 10.0.0.0/8 md5\ninclude sub.conf\n# @x\nhost @a,\"@b\" all all trust")
	f.Add("local all all\\\ntrust")
	f.Fuzz(func(t *testing.T, user string) {
		once := absoluteNames(user, "/etc/pg")
		if again := absoluteNames(once, "/etc/pg"); again != once {
			t.Fatalf("%q, then %q", once, again)
		}
		p := HBAParams{ReplUser: "pgquorum_repl", User: user, UserFile: "/etc/pg/hba.conf"}
		open := HBA(p)
		p.User = ""
		ours := HBA(p)
		if !strings.HasPrefix(open, strings.TrimSuffix(ours, "\n")) {
			t.Fatalf("the user's lines are among ours:\n%s", open)
		}
		p.User, p.Closed = user, true
		if closed := HBA(p); strings.Contains(closed, "copy of") || !strings.HasSuffix(closed, "host all,replication all all reject\n") {
			t.Fatalf("a closed gate:\n%s", closed)
		}
	})
}
