// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgquorum/pgquorum/e2e/docker"
)

// Options of a stack. The zero value is the stack of `make up`, as seen from the top of the repository.
type Options struct {
	Project string   // "pgquorum"
	Root    string   // top of the repository; "."
	Image   string   // "pgquorum:18"
	Ports   []int    // published on 127.0.0.1; 25431, 25432, 25433: none that the kernel gives to connections that go out
	Secrets string   // directory of the secret files; compose/.secrets
	Files   []string // further compose files that override the shipped one
}

// Stack is a compose project.
type Stack struct {
	opt     Options
	compose []string // the client: "docker compose" or "docker-compose"
	nodes   []string
}

// New finds the compose client and makes the secrets if they are missing.
func New(ctx context.Context, opt Options) (*Stack, error) {
	if opt.Project == "" {
		opt.Project = "pgquorum"
	}
	if opt.Root == "" {
		opt.Root = "."
	}
	if opt.Image == "" {
		opt.Image = "pgquorum:18"
	}
	if opt.Ports == nil {
		opt.Ports = []int{25431, 25432, 25433}
	}
	root, err := filepath.Abs(opt.Root)
	if err != nil {
		return nil, fmt.Errorf("find the top of the repository: %w", err)
	}
	opt.Root = root
	if opt.Secrets == "" {
		opt.Secrets = filepath.Join(root, "compose", ".secrets")
	}
	s := &Stack{opt: opt, nodes: []string{"pg1", "pg2", "pg3"}}
	if _, err := docker.Command(ctx, "compose", "version"); err == nil {
		s.compose = []string{"docker", "compose"}
	} else {
		s.compose = []string{"docker-compose"}
	}
	for name, make := range map[string]func() string{
		"postgres_password": rand.Text,
		"pgquorum_secret":   func() string { return rand.Text() + rand.Text() },
	} {
		if err := ensureSecret(filepath.Join(opt.Secrets, name), make()); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// ensureSecret writes value to path unless there is a file already.
func ensureSecret(path, value string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make the directory of the secrets: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make secret: %w", err)
	}
	_, err = f.WriteString(value + "\n")
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write secret: %w", err)
	}
	return nil
}

// Nodes are the names of the nodes.
func (s *Stack) Nodes() []string { return slices.Clone(s.nodes) }

// Project is the compose project's name.
func (s *Stack) Project() string { return s.opt.Project }

// Elsewhere is the same project as it is seen by another checkout, which has secrets of its own.
func (s *Stack) Elsewhere(ctx context.Context, secrets string) (*Stack, error) {
	o := s.opt
	o.Secrets = secrets
	return New(ctx, o)
}

// Password is the password of the user postgres.
func (s *Stack) Password() (string, error) {
	b, err := os.ReadFile(filepath.Join(s.opt.Secrets, "postgres_password"))
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// Compose runs the compose client on the shipped file, with this project's name, image, ports and secrets.
func (s *Stack) Compose(ctx context.Context, args ...string) (docker.Result, error) {
	line := append(slices.Clone(s.compose[1:]), "-p", s.opt.Project, "-f", filepath.Join(s.opt.Root, "compose", "docker-compose.yml"))
	for _, f := range s.opt.Files {
		line = append(line, "-f", f)
	}
	return docker.Run(ctx, s.env(), s.compose[0], append(line, args...)...)
}

func (s *Stack) env() []string {
	env := []string{"PGQUORUM_IMAGE=" + s.opt.Image, "PGQUORUM_SECRETS=" + s.opt.Secrets}
	for i, p := range s.opt.Ports {
		env = append(env, fmt.Sprintf("PGQUORUM_PORT%d=%d", i+1, p))
	}
	return env
}

// Up creates and starts the nodes named, or all of them.
func (s *Stack) Up(ctx context.Context, nodes ...string) error {
	_, err := s.Compose(ctx, append([]string{"up", "-d"}, nodes...)...)
	return err
}

// Down stops and removes the containers and networks, and the volumes too when data is true.
func (s *Stack) Down(ctx context.Context, data bool) error {
	args := []string{"down", "--remove-orphans", "-t", "30"}
	if data {
		args = append(args, "-v")
	}
	_, err := s.Compose(ctx, args...)
	return err
}

// Container finds a node's container, running or not.
func (s *Stack) Container(ctx context.Context, node string) (docker.Container, error) {
	res, err := docker.Command(ctx, "ps", "-aq", "--no-trunc", "--filter", "label=com.docker.compose.project="+s.opt.Project,
		"--filter", "label=com.docker.compose.service="+node)
	if err != nil {
		return docker.Container{}, err
	}
	ids := strings.Fields(res.Stdout)
	if len(ids) != 1 {
		return docker.Container{}, fmt.Errorf("find the container of %s in project %s: there are %d", node, s.opt.Project, len(ids))
	}
	return docker.Container{ID: ids[0]}, nil
}

// Wipe removes a node's container and volume and proves that the volume is gone. Up makes the node anew, empty.
func (s *Stack) Wipe(ctx context.Context, node string) error {
	c, err := s.Container(ctx, node)
	if err != nil {
		return err
	}
	if err := c.Remove(ctx); err != nil {
		return err
	}
	volume := s.Volume(node)
	if _, err := docker.Command(ctx, "volume", "rm", volume); err != nil {
		return err
	}
	if _, err := docker.Command(ctx, "volume", "inspect", volume); err == nil {
		return fmt.Errorf("wipe %s: volume %s is still there", node, volume)
	}
	return nil
}

// Volume is the name of a node's volume.
func (s *Stack) Volume(node string) string { return s.opt.Project + "_" + node }

// DSN is libpq's multi-host string to whichever node is primary, from the host of the containers.
func (s *Stack) DSN() (string, error) { return s.dsn(s.opt.Ports, "read-write") }

// NodeDSN is the string to one node, in whatever role.
func (s *Stack) NodeDSN(node string) (string, error) {
	i := slices.Index(s.nodes, node)
	if i < 0 {
		return "", fmt.Errorf("find node %s: the nodes are %s", node, strings.Join(s.nodes, ", "))
	}
	return s.dsn(s.opt.Ports[i:i+1], "any")
}

// ReadDSN is the multi-host string to a standby, or to the primary when there is none.
func (s *Stack) ReadDSN() (string, error) { return s.dsn(s.opt.Ports, "prefer-standby") }

func (s *Stack) dsn(ports []int, attrs string) (string, error) {
	password, err := s.Password()
	if err != nil {
		return "", err
	}
	hosts := make([]string, 0, len(ports))
	for _, p := range ports {
		hosts = append(hosts, net.JoinHostPort("127.0.0.1", strconv.Itoa(p)))
	}
	return fmt.Sprintf("postgresql://postgres:%s@%s/postgres?target_session_attrs=%s&connect_timeout=2",
		url.QueryEscape(password), strings.Join(hosts, ","), attrs), nil
}

// Logs returns what all nodes printed, each part under the node's name.
func (s *Stack) Logs(ctx context.Context) string {
	var b strings.Builder
	for _, node := range s.nodes {
		fmt.Fprintf(&b, "==== %s of %s, %s\n", node, s.opt.Project, time.Now().UTC().Format(time.TimeOnly))
		c, err := s.Container(ctx, node)
		if err != nil {
			fmt.Fprintln(&b, err)
			continue
		}
		log, err := c.Logs(ctx)
		if err != nil {
			fmt.Fprintln(&b, err)
		}
		b.WriteString(log)
	}
	return b.String()
}
