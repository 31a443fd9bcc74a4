// SPDX-License-Identifier: Apache-2.0

// The rules of the house that a compiler does not check: docs/architecture.md says why they are as they are.
package pgquorum_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module       = "github.com/pgquorum/pgquorum"
	license      = "// SPDX-License-Identifier: Apache-2.0\n"
	maxFileLines = 500
	maxFuncLines = 70
	maxFiles     = 15
)

// levels: a room imports only rooms of a lower level, never one of its own. Rooms that are not listed may be
// imported by tests only.
var levels = map[string]int{
	"cluster": 0, "durable": 0,
	"config": 1,
	"raft":   2, "pgctl": 2, "certs": 2,
	"agent": 4, "api": 4, "gateway": 4, "cli": 4, "backup": 4,
	"entrypoint": 5, "sim": 5, "model": 5, "e2e": 5, "images": 5,
}

// across are the imports between rooms of one level that are allowed, with the reason.
var across = map[[2]string]string{
	{"cli", "api/status"}: "what the API says and what its client reads is one type",
}

// testsOnly are rooms that no part of the product imports.
var testsOnly = []string{"sim", "model", "e2e", "images", "pgctl/pgtest", "raft/storetest"}

// forbidden imports of the product, with the reason and the places that are exempt.
var forbidden = []struct {
	path, why string
	except    []string
}{
	{"text/template", "its reflection makes the linker keep every exported method: 6 MB", nil},
	{"html/template", "its reflection makes the linker keep every exported method: 6 MB", nil},
	{"log", "logs are structured: log/slog", nil},
	{"math/rand", "what is random matters here: crypto/rand, math/rand/v2 with a seed in simulations", nil},
	{"os/user", "without cgo it fails for users that no file knows", nil},
	{"os/exec", "pgctl/proc starts every process: a second starter breaks the reaper", []string{"pgctl/proc", "pgctl/pgtest", "e2e", "images"}},
	{"io/ioutil", "deprecated", nil},
	{"github.com/pkg/errors", "errors of the standard library do", nil},
	{"github.com/alecthomas/kong", "links text/template", nil},
	{"github.com/urfave/cli", "links text/template", nil},
	{"golang.org/x/net/trace", "links html/template", nil},
}

// pure is what cluster may not import: it is values and functions, the same in the container and in the simulator.
var pure = []string{"os", "net", "log", "sync", "context", "math/rand", "crypto/rand", "syscall", "runtime", "testing"}

// clock are the functions of package time that are not values.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

// source is one Go file.
type source struct {
	path, dir string // with slashes, from the top
	text      []byte
	file      *ast.File
	set       *token.FileSet
	test      bool
}

func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if path != "." && (name == "bin" || name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "tmp")) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		out = append(out, source{
			path: filepath.ToSlash(path), dir: filepath.ToSlash(filepath.Dir(path)), text: text, file: file, set: set,
			test: strings.HasSuffix(name, "_test.go"),
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 20 {
		t.Fatalf("only %d files found: not run at the top of the repository?", len(out))
	}
	return out
}

func (s source) imports() []string {
	var out []string
	for _, spec := range s.file.Imports {
		path, _ := strconv.Unquote(spec.Path.Value)
		out = append(out, path)
	}
	return out
}

// under says that a directory is, or is below, one of a list.
func under(dir string, list ...string) bool {
	return slices.ContainsFunc(list, func(l string) bool { return dir == l || strings.HasPrefix(dir, l+"/") })
}

func room(dir string) string {
	first, _, _ := strings.Cut(dir, "/")
	return first
}

func TestFiles(t *testing.T) {
	files, docs := make(map[string]int), make(map[string]bool)
	for _, s := range sources(t) {
		if !bytes.HasPrefix(s.text, []byte(license)) {
			t.Errorf("%s: the first line is not %q", s.path, strings.TrimSpace(license))
		}
		if n := bytes.Count(s.text, []byte("\n")); n > maxFileLines {
			t.Errorf("%s: %d lines, at most %d", s.path, n, maxFileLines)
		}
		if !s.test {
			files[s.dir]++
			docs[s.dir] = docs[s.dir] || (slices.Contains([]string{"doc.go", "main.go"}, filepath.Base(s.path)) && s.file.Doc != nil)
		}
	}
	for dir, n := range files {
		if n > maxFiles {
			t.Errorf("%s: %d files, at most %d", dir, n, maxFiles)
		}
		if !docs[dir] {
			t.Errorf("%s: no doc.go (or comment in main.go) that says where a newcomer starts", dir)
		}
	}
}

func TestFunctions(t *testing.T) {
	for _, s := range sources(t) {
		for _, decl := range s.file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Body == nil {
				continue
			}
			from, to := s.set.Position(f.Pos()).Line, s.set.Position(f.End()).Line
			if n := to - from + 1; n > maxFuncLines {
				t.Errorf("%s:%d: function %s has %d lines, at most %d", s.path, from, f.Name.Name, n, maxFuncLines)
			}
			if f.Name.Name == "init" && f.Recv == nil {
				t.Errorf("%s:%d: init function: nothing happens behind a reader's back", s.path, from)
			}
		}
	}
}

func TestImportDirection(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || s.dir == "." {
			continue
		}
		from, ok := levels[room(s.dir)]
		if !ok {
			t.Errorf("%s: room %s has no level in this test", s.path, room(s.dir))
		}
		for _, path := range s.imports() {
			to, ours := strings.CutPrefix(path, module+"/")
			if !ours || room(to) == room(s.dir) {
				if ours && under(to, testsOnly...) && !under(s.dir, testsOnly...) {
					t.Errorf("%s: imports %s, which is for tests", s.path, to)
				}
				continue
			}
			switch {
			case under(to, testsOnly...) && !under(s.dir, testsOnly...):
				t.Errorf("%s: imports %s, which is for tests", s.path, to)
			case across[[2]string{room(s.dir), to}] != "":
			case room(to) == "config" && from < 5:
				t.Errorf("%s: imports config: plain values are handed down instead", s.path)
			case levels[room(to)] >= from:
				t.Errorf("%s: imports %s, which is not below it", s.path, to)
			}
		}
	}
}

func TestForbiddenImports(t *testing.T) {
	for _, s := range sources(t) {
		for _, path := range s.imports() {
			for _, f := range forbidden {
				if (path == f.path || strings.HasPrefix(path, f.path+"/v")) && !s.test && !under(s.dir, f.except...) &&
					path != "math/rand/v2" {
					t.Errorf("%s: imports %s: %s", s.path, path, f.why)
				}
			}
			if s.dir == "cluster" && !s.test && under(path, pure...) {
				t.Errorf("%s: imports %s, but cluster is pure", s.path, path)
			}
		}
	}
}

// TestLinkedPackages looks at what the binary really links: a library may bring what we avoid.
func TestLinkedPackages(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-tags", "grpcnotrace", "./entrypoint").Output()
	if err != nil {
		t.Fatalf("list packages: %v", err)
	}
	linked := strings.Fields(string(out))
	for _, path := range []string{"text/template", "html/template", "testing", "golang.org/x/net/trace"} {
		if slices.Contains(linked, path) {
			t.Errorf("the binary links %s", path)
		}
	}
}

// calls lists the uses of pkg.name for some names, as "position: pkg.name".
func (s source) calls(pkg string, names []string) []string {
	var out []string
	ast.Inspect(s.file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == pkg && slices.Contains(names, sel.Sel.Name) {
			out = append(out, s.set.Position(n.Pos()).String()+": "+pkg+"."+sel.Sel.Name)
		}
		return true
	})
	return out
}

// TestEnvironment: config is the only room that reads the environment; entrypoint hands it over.
func TestEnvironment(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || under(s.dir, testsOnly...) || s.path == "entrypoint/main.go" {
			continue
		}
		for _, call := range s.calls("os", []string{"Getenv", "LookupEnv", "Environ", "Setenv", "ExpandEnv"}) {
			t.Errorf("%s: only config reads the environment", call)
		}
		if s.dir != "cluster" {
			continue
		}
		for _, call := range s.calls("time", clock) {
			t.Errorf("%s: cluster is told the time", call)
		}
	}
}

func TestModule(t *testing.T) {
	text, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(strings.TrimSpace(line), "replace") {
			t.Errorf("go.mod: %s: what is built must be what the module proxy has", strings.TrimSpace(line))
		}
	}
}
