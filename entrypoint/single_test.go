// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fakeImage makes an entrypoint of an image in a directory of its own: a script, with a program called postgres.
func fakeImage(t *testing.T, script string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	text := "#!/bin/bash\n" + script
	if err := os.WriteFile(filepath.Join(dir, "docker-entrypoint.sh"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash here")
	}
	if err := os.Symlink(bash, filepath.Join(dir, "postgres")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// program is "pgquorum run ARGS" in a process of its own.
func program(t *testing.T, dir string, args ...string) (cmd *exec.Cmd, stderr *bytes.Buffer) {
	t.Helper()
	cmd = exec.Command("/proc/self/exe", append([]string{"run"}, args...)...)
	cmd.Env = []string{asProgram, "PATH=" + dir + ":" + os.Getenv("PATH"), "PGDATA=" + filepath.Join(dir, "data"), "DIR=" + dir}
	stderr = &bytes.Buffer{}
	cmd.Stderr = stderr
	cmd.WaitDelay = 5 * time.Second
	return cmd, stderr
}

// startAndRead starts a program and reads its first line of output.
func startAndRead(t *testing.T, cmd *exec.Cmd) (line string) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func code(cmd *exec.Cmd) int {
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode()
}

func TestSinglePassesThrough(t *testing.T) {
	dir := fakeImage(t, `echo "out $0 $*"; echo err >&2; exit ${CODE:-0}`)
	for _, want := range []string{"0", "3", "127"} {
		cmd, stderr := program(t, dir, "-c", "a b=c")
		cmd.Env = append(cmd.Env, "CODE="+want)
		out, _ := cmd.Output()
		if got := cmd.ProcessState.ExitCode(); got != map[string]int{"0": 0, "3": 3, "127": 127}[want] {
			t.Errorf("exit code %d, want %s", got, want)
		}
		if string(out) != "out "+dir+"/docker-entrypoint.sh -c a b=c\n" || stderr.String() != "err\n" {
			t.Errorf("got %q, %q", out, stderr)
		}
	}
	cmd, _ := program(t, dir)
	if out, err := cmd.Output(); err != nil || !strings.HasSuffix(string(out), "docker-entrypoint.sh postgres\n") {
		t.Errorf("no arguments: got %q, %v", out, err)
	}
}

func TestForeignCommandReplacesUs(t *testing.T) {
	dir := fakeImage(t, `echo $$ "$@"`)
	cmd, stderr := program(t, dir, "psql", "--help")
	cmd.Env = append(cmd.Env, "PGQUORUM_PEERS=x,y", "PGQUORUM_NONSENSE=1")
	line := startAndRead(t, cmd)
	pid := cmd.Process.Pid
	if got := code(cmd); got != 0 || line != strings.Join([]string{itoa(pid), "psql", "--help"}, " ") || stderr.Len() > 0 {
		t.Errorf("got %d %q %q", got, line, stderr)
	}
	cmd, stderr = program(t, t.TempDir(), "psql")
	cmd.Env = append(cmd.Env, "PATH=/nowhere")
	cmd.Env[1] = "PATH=/nowhere"
	if _ = cmd.Run(); cmd.ProcessState.ExitCode() != exitNotFound || !strings.Contains(stderr.String(), "PGQUORUM_ENTRYPOINT") {
		t.Errorf("got %v %q", cmd.ProcessState, stderr)
	}
}

func TestSingleRelaysSignalsToTheServer(t *testing.T) {
	dir := fakeImage(t, `exec postgres -c 'trap "exit 10" INT; trap "exit 11" TERM; trap "exit 12" QUIT; trap "exit 13" HUP
	echo up; while :; do sleep 0.01; done'`)
	for sig, want := range map[syscall.Signal]int{syscall.SIGINT: 10, syscall.SIGTERM: 11, syscall.SIGQUIT: 12, syscall.SIGHUP: 13} {
		cmd, stderr := program(t, dir)
		startAndRead(t, cmd)
		_ = cmd.Process.Signal(sig)
		if got := code(cmd); got != want || stderr.Len() > 0 {
			t.Errorf("%v: got %d, want %d; %q", sig, got, want, stderr)
		}
	}
}

func TestSingleDropsWhatKillsInitialisation(t *testing.T) {
	dir := fakeImage(t, `echo up; read line; exit 4`)
	cmd, _ := program(t, dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	startAndRead(t, cmd)
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE, syscall.SIGABRT, syscall.SIGALRM} {
		_ = cmd.Process.Signal(sig)
	}
	_, _ = in.Write([]byte("go\n"))
	if got := code(cmd); got != 4 {
		t.Errorf("got %d", got)
	}
}

// TestStopDuringInitialisation: bash as process 1 would ignore the signal until the grace period is over. The server
// that the script has started for itself lives in a session of its own, as pg_ctl's does, and is stopped cleanly.
func TestStopDuringInitialisation(t *testing.T) {
	dir := fakeImage(t, `setsid -f postgres -c 'trap "echo clean > $DIR/stopped; exit 0" INT; touch $DIR/up; while :; do sleep 0.01; done'
	until [ -e $DIR/up ]; do sleep 0.01; done; echo up; sleep 3600`)
	for sig, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
		_ = os.Remove(filepath.Join(dir, "stopped"))
		_ = os.Remove(filepath.Join(dir, "up"))
		cmd, stderr := program(t, dir)
		startAndRead(t, cmd)
		_ = cmd.Process.Signal(sig)
		got := code(cmd)
		text, err := os.ReadFile(filepath.Join(dir, "stopped"))
		if got != want || err != nil || string(text) != "clean\n" || !strings.Contains(stderr.String(), "may be incomplete") {
			t.Errorf("%v: got %d, want %d; %q %v %q", sig, got, want, text, err, stderr)
		}
	}
}

func TestSecondContainerWaitsForTheFirst(t *testing.T) {
	dir := fakeImage(t, `exec postgres -c 'trap "exit 0" INT; echo up; while :; do sleep 0.01; done'`)
	first, _ := program(t, dir)
	startAndRead(t, first)
	second, _ := program(t, dir)
	pipe, err := os.CreateTemp(dir, "stderr")
	if err != nil {
		t.Fatal(err)
	}
	second.Stderr = pipe
	out, err := second.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second says that it waits", func() bool {
		text, _ := os.ReadFile(pipe.Name())
		return strings.Contains(string(text), "is in use by another container; waiting")
	})
	_ = first.Process.Signal(syscall.SIGINT)
	if got := code(first); got != 0 {
		t.Errorf("first: %d", got)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "up\n" {
		t.Errorf("second: %q, %v", line, err)
	}
	_ = second.Process.Signal(syscall.SIGINT)
	if got := code(second); got != 0 {
		t.Errorf("second: %d", got)
	}
}
