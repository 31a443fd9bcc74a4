// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgquorum/pgquorum/e2e/docker"
	"github.com/pgquorum/pgquorum/e2e/ledger"
	"github.com/pgquorum/pgquorum/e2e/stack"
)

// setup is what a test wants of its stack beyond the shipped compose file.
type setup struct {
	project string
	port    int               // the first of three
	image   string            // image()
	args    []string          // of every container
	env     map[string]string // of every node
	nodeEnv map[string]map[string]string
}

// world is the shipped three-node stack under a running writer.
type world struct {
	*stack.Stack
	t      *testing.T
	ctx    context.Context
	ledger *ledger.Ledger
	image  string
}

// hook is what the init hook makes, some of each that a dump shall show.
const hook = `
	create table hook (at timestamptz not null);
	insert into hook values (now());
	create role reporter login password 'x' valid until '2099-01-01';
	create role writers;
	grant writers to reporter with admin option;
	create table orders (id int primary key, note text);
	grant select on orders to reporter;
	create schema later authorization writers;
	create view later.known as select id from orders;
	comment on view later.known is 'not the notes';
	alter role reporter in database postgres set work_mem = '7MB';
	alter default privileges in schema later grant select on tables to reporter;
	create database second;`

// override writes the compose file that adds what the test wants, and an init hook, to each node.
func (s setup) override(dir string) (string, error) {
	hooks := filepath.Join(dir, "hooks")
	if err := os.Mkdir(hooks, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(hooks, "10_once.sql"), []byte(hook), 0o644); err != nil {
		return "", err
	}
	for _, d := range []string{dir, hooks} { // the umask may have taken what the server's user needs
		if err := os.Chmod(d, 0o755); err != nil {
			return "", err
		}
	}
	var text strings.Builder
	text.WriteString("version: \"3.8\"\nservices:\n")
	for _, n := range []string{"pg1", "pg2", "pg3"} {
		fmt.Fprintf(&text, "  %s:\n    volumes: [\"%s:/docker-entrypoint-initdb.d:ro\"]\n", n, hooks)
		env := maps.Clone(s.nodeEnv[n])
		if env == nil {
			env = map[string]string{}
		}
		maps.Copy(env, s.env)
		if len(env) > 0 {
			text.WriteString("    environment:\n")
		}
		for _, name := range slices.Sorted(maps.Keys(env)) {
			fmt.Fprintf(&text, "      %s: %q\n", name, env[name])
		}
		if len(s.args) > 0 {
			fmt.Fprintf(&text, "    command: [%q, \"%s\"]\n", "postgres", strings.Join(s.args, `", "`))
		}
	}
	path := filepath.Join(dir, "override.yml")
	return path, os.WriteFile(path, []byte(text.String()), 0o644)
}

// startWorld forms a cluster, waits until it is redundant, and begins to write.
func startWorld(t *testing.T, set setup) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Minute)
	t.Cleanup(cancel)
	override, err := set.override(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if set.image == "" {
		set.image = image()
	}
	s, err := stack.New(ctx, stack.Options{
		Project: set.project, Root: "..", Image: set.image, Ports: []int{set.port, set.port + 1, set.port + 2},
		Secrets: filepath.Join(t.TempDir(), "secrets"), Files: []string{override},
	})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Stack: s, t: t, ctx: ctx, image: set.image}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.Logs(context.Background()))
		}
		if err := s.Down(context.Background(), true); err != nil {
			t.Error(err)
		}
	})
	if err := s.Down(ctx, true); err != nil {
		t.Fatal(err)
	}
	w.must(s.Up(ctx))
	w.redundant(90 * time.Second)
	dsn, err := s.DSN()
	w.must(err)
	w.ledger, err = ledger.Start(ctx, ledger.Options{DSN: dsn, Writers: 2})
	w.must(err)
	return w
}

func image() string {
	if i := os.Getenv("PGQUORUM_IMAGE"); i != "" {
		return i
	}
	return "pgquorum:18"
}

// imageOf is the image under test, on another major.
func imageOf(major string) string {
	name, _, _ := strings.Cut(image(), ":")
	return name + ":" + major
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) limit(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(w.ctx, d)
}

func (w *world) redundant(d time.Duration) stack.Status {
	w.t.Helper()
	ctx, cancel := w.limit(d)
	defer cancel()
	st, err := w.WaitRedundant(ctx, nil)
	w.must(err)
	return st
}

func (w *world) primary() string {
	w.t.Helper()
	ctx, cancel := w.limit(30 * time.Second)
	defer cancel()
	p, err := w.Primary(ctx)
	w.must(err)
	return p
}

func (w *world) container(node string) docker.Container {
	w.t.Helper()
	c, err := w.Container(w.ctx, node)
	w.must(err)
	return c
}

// standbys are the nodes that are not primary.
func (w *world) standbys(primary string) []string {
	return slices.DeleteFunc(w.Nodes(), func(n string) bool { return n == primary })
}

func (w *world) other(not string) string { return w.standbys(not)[0] }

// exec runs a shell line in a node's container; a code other than 0 is an error.
func (w *world) exec(ctx context.Context, node, line string) (string, error) {
	c, err := w.Container(ctx, node)
	if err != nil {
		return "", err
	}
	res, err := c.Exec(ctx, "bash", "-c", line)
	if err == nil && res.Code != 0 {
		err = fmt.Errorf("%s: %s: exit code %d: %s%s", node, line, res.Code, res.Stdout, res.Stderr)
	}
	return strings.TrimSpace(res.Stdout), err
}

// sql runs a statement in a node's container and returns psql's bare output.
func (w *world) sql(ctx context.Context, node, statement string) (string, error) {
	c, err := w.Container(ctx, node)
	if err != nil {
		return "", err
	}
	res, err := c.Exec(ctx, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-c", statement)
	if err == nil && res.Code != 0 {
		err = fmt.Errorf("%s: %s: %s", node, statement, res.Stderr)
	}
	return strings.TrimSpace(res.Stdout), err
}

// waitEpoch waits until an epoch later than old has a primary.
func (w *world) waitEpoch(ctx context.Context, old uint64) (stack.Status, error) {
	var now stack.Status
	err := docker.Wait(ctx, "a later epoch", func(ctx context.Context) error {
		st, err := w.AnyStatus(ctx)
		if err != nil {
			return err
		}
		if st.Primary == "" || st.Epoch <= old {
			return fmt.Errorf("primary is %q in epoch %d", st.Primary, st.Epoch)
		}
		now = st
		return nil
	})
	return now, err
}

// settle waits for full redundancy and checks that every acknowledged row is on every node exactly once.
func (w *world) settle(what string, d time.Duration) {
	w.t.Helper()
	began := time.Now()
	w.redundant(d)
	took := time.Since(began)
	h := w.ledger.Snapshot()
	rep, err := w.ledger.Verify(w.ctx, h)
	w.must(err)
	if err := rep.Missing(); err != nil {
		w.t.Fatalf("%s: %v", what, err)
	}
	w.everyNode(h)
	w.t.Logf("%s: redundant after %s; %d rows acknowledged, 0 lost", what, took.Round(time.Millisecond), rep.Acknowledged)
}

// everyNode checks that every acknowledged row is everywhere, and that the init hooks ran once.
func (w *world) everyNode(h ledger.History) {
	w.t.Helper()
	for _, n := range w.Nodes() {
		dsn, err := w.NodeDSN(n)
		w.must(err)
		ctx, cancel := w.limit(20 * time.Second)
		w.must(docker.Wait(ctx, n+" to hold everything", func(ctx context.Context) error {
			c, err := pgx.Connect(ctx, dsn)
			if err != nil {
				return err
			}
			defer c.Close(ctx)
			var hooks int
			if err := c.QueryRow(ctx, `select count(*) from hook`).Scan(&hooks); err != nil {
				return err
			}
			if hooks != 1 {
				return fmt.Errorf("init hooks ran %d times", hooks)
			}
			keys, err := w.ledger.StoredAt(ctx, c)
			if err != nil {
				return err
			}
			return ledger.Check(h, keys).Missing()
		}))
		cancel()
	}
}

// finish ends the writers and holds everything that they were told against what is there.
func (w *world) finish() {
	w.t.Helper()
	rep, err := w.ledger.Verify(w.ctx, w.ledger.Stop())
	w.must(err)
	w.must(rep.Err())
	w.t.Logf("in all: %d acknowledged, %d failed, %d unknown, 0 lost", rep.Acknowledged, rep.Failed, rep.Unknown)
}

// steps runs each as a test of its own on the one stack. PGQ_E2E_STEP picks some, by a part of their names.
func (w *world) steps(list []step) {
	w.t.Helper()
	only := os.Getenv("PGQ_E2E_STEP")
	for _, s := range list {
		if !strings.Contains(s.name, only) {
			continue
		}
		ok := w.t.Run(s.name, func(t *testing.T) {
			sub := *w
			sub.t = t
			s.run(&sub)
		})
		if !ok {
			w.t.Fatalf("the stack is not usable after %q", s.name)
		}
	}
}

// step is one part of the life of a stack.
type step struct {
	name string
	run  func(*world)
}
