package mechanism

import (
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Who was told of the directory is ended, and nobody else.
func TestEndStragglers(t *testing.T) {
	dir := t.TempDir()
	start := func(cmd *exec.Cmd) *exec.Cmd {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return cmd
	}
	other := start(exec.Command("sleep", "600"))
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	byArgument := start(exec.Command("cat", pipe))
	byEnvironment := exec.Command("sleep", "600")
	byEnvironment.Env = []string{"TMPDIR=" + dir}
	start(byEnvironment)
	EndStragglers(dir)
	for name, cmd := range map[string]*exec.Cmd{"by argument": byArgument, "by environment": byEnvironment} {
		_ = cmd.Wait()
		if s, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGKILL {
			t.Errorf("%s: %s", name, cmd.ProcessState)
		}
	}
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("another process: %v", err)
	}
}
