// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Result is what a command printed and how it ended.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Command runs `docker args...`. A non-zero exit code is an error that carries what docker said.
func Command(ctx context.Context, args ...string) (Result, error) {
	return Run(ctx, nil, "docker", args...)
}

// Run runs a command with additional environment variables, in the manner of Command.
func Run(ctx context.Context, env []string, name string, args ...string) (Result, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Env = append(os.Environ(), env...)
	// A grandchild that keeps the pipe open must not hold us after the deadline.
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	res := Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode()}
	if err == nil {
		return res, nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return res, fmt.Errorf("run %s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(res.Stderr+res.Stdout))
}

// Available says why containers cannot be had, or nil.
func Available(ctx context.Context) error {
	if _, err := exec.LookPath("docker"); err != nil {
		return fmt.Errorf("find the docker client: %w", err)
	}
	_, err := Command(ctx, "info", "--format", "{{.ServerVersion}}")
	return err
}

// Options describes a container to run. Flags are passed to `docker run` as they are.
type Options struct {
	Image string
	Name  string
	Env   []string
	Flags []string
	Args  []string
	Label string
}

// Container is a handle on one container.
type Container struct {
	ID string
}

// Start runs a container in the background.
func Start(ctx context.Context, o Options) (Container, error) {
	args := []string{"run", "-d"}
	if o.Name != "" {
		args = append(args, "--name", o.Name)
	}
	if o.Label != "" {
		args = append(args, "--label", o.Label)
	}
	for _, e := range o.Env {
		args = append(args, "-e", e)
	}
	args = append(args, o.Flags...)
	args = append(args, o.Image)
	res, err := Command(ctx, append(args, o.Args...)...)
	if err != nil {
		return Container{}, err
	}
	return Container{ID: strings.TrimSpace(res.Stdout)}, nil
}

// State is the part of `docker inspect` that tests look at.
type State struct {
	Status     string
	Running    bool
	Paused     bool
	Restarting bool
	Pid        int
	ExitCode   int
	StartedAt  string
}

// State asks for the container's state.
func (c Container) State(ctx context.Context) (State, error) {
	var s State
	res, err := Command(ctx, "inspect", "--format", "{{json .State}}", c.ID)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal([]byte(res.Stdout), &s); err != nil {
		return s, fmt.Errorf("parse the state of %s: %w", c.ID, err)
	}
	return s, nil
}

// WaitState polls until cond holds, and says what the state was when it never did.
func (c Container) WaitState(ctx context.Context, what string, cond func(State) bool) (State, error) {
	var last State
	err := Wait(ctx, what, func(ctx context.Context) error {
		s, err := c.State(ctx)
		if err != nil {
			return err
		}
		last = s
		if !cond(s) {
			return fmt.Errorf("state is %+v", s)
		}
		return nil
	})
	return last, err
}

// Exec runs a command in the container. A non-zero exit code is no error here: it is in the result.
func (c Container) Exec(ctx context.Context, args ...string) (Result, error) {
	res, err := Command(ctx, append([]string{"exec", c.ID}, args...)...)
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return res, nil
	}
	return res, err
}

// Logs returns what the container printed, both streams in order of arrival.
func (c Container) Logs(ctx context.Context) (string, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "docker", "logs", c.ID)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("read the log of %s: %w", c.ID, err)
	}
	return out.String(), nil
}

// Kill kills the container and proves that it is dead. Docker then suppresses the restart policy: see KillInit.
func (c Container) Kill(ctx context.Context) error {
	if _, err := Command(ctx, "kill", c.ID); err != nil {
		return err
	}
	_, err := c.WaitState(ctx, "the killed container to be dead", func(s State) bool { return !s.Running && s.ExitCode == 137 })
	return err
}

// KillInit kills the container's first process from outside, as a crash would, so that the restart policy acts. It
// proves the death by the process' pid.
func (c Container) KillInit(ctx context.Context) error {
	before, err := c.State(ctx)
	if err != nil {
		return err
	}
	if before.Pid <= 1 {
		return fmt.Errorf("kill the first process of %s: it is not running: %+v", c.ID, before)
	}
	if err := syscall.Kill(before.Pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill pid %d: %w", before.Pid, err)
	}
	_, err = c.WaitState(ctx, "the first process to be gone", func(s State) bool { return s.Pid != before.Pid })
	return err
}

// Signal sends a signal to the container's first process.
func (c Container) Signal(ctx context.Context, signal string) error {
	_, err := Command(ctx, "kill", "--signal", signal, c.ID)
	return err
}

// Pause freezes the container and proves it.
func (c Container) Pause(ctx context.Context) error {
	if _, err := Command(ctx, "pause", c.ID); err != nil {
		return err
	}
	_, err := c.WaitState(ctx, "the container to be paused", func(s State) bool { return s.Paused })
	return err
}

// Unpause thaws the container and proves it.
func (c Container) Unpause(ctx context.Context) error {
	if _, err := Command(ctx, "unpause", c.ID); err != nil {
		return err
	}
	_, err := c.WaitState(ctx, "the container to be thawed", func(s State) bool { return s.Running && !s.Paused })
	return err
}

// Stop stops the container as `docker stop` does and returns its exit code.
func (c Container) Stop(ctx context.Context, grace time.Duration) (int, error) {
	if _, err := Command(ctx, "stop", "-t", strconv.Itoa(int(grace.Seconds())), c.ID); err != nil {
		return 0, err
	}
	s, err := c.WaitState(ctx, "the container to have stopped", func(s State) bool { return !s.Running })
	return s.ExitCode, err
}

// Restart starts a stopped container and proves it.
func (c Container) Restart(ctx context.Context) error {
	if _, err := Command(ctx, "start", c.ID); err != nil {
		return err
	}
	_, err := c.WaitState(ctx, "the container to run", func(s State) bool { return s.Running })
	return err
}

// Wait waits until the container has ended and returns its exit code.
func (c Container) Wait(ctx context.Context) (int, error) {
	s, err := c.WaitState(ctx, "the container to end", func(s State) bool { return !s.Running && s.Status == "exited" })
	return s.ExitCode, err
}

// Addr is where the host reaches a port of the container ("5432").
func (c Container) Addr(ctx context.Context, port string) (string, error) {
	res, err := Command(ctx, "port", c.ID, port)
	if err != nil {
		return "", err
	}
	lines := strings.Fields(res.Stdout)
	i := slices.IndexFunc(lines, func(l string) bool { return !strings.HasPrefix(l, "[") })
	if i < 0 {
		return "", fmt.Errorf("find port %s of %s: docker says %q", port, c.ID, res.Stdout)
	}
	host, p, err := net.SplitHostPort(lines[i])
	if err != nil {
		return "", fmt.Errorf("parse %q: %w", lines[i], err)
	}
	if host == "0.0.0.0" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, p), nil
}

// Remove removes the container and its anonymous volumes, running or not. One that is gone already is no error.
func (c Container) Remove(ctx context.Context) error {
	_, err := Command(ctx, "rm", "-f", "-v", c.ID)
	if err != nil && strings.Contains(err.Error(), "No such container") {
		return nil
	}
	return err
}
