package child

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What a child that was taken over tries.

func TestInheritedFilesAreClosed(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(secret)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	left, err := unix.Dup(int(f.Fd())) // as a shell leaves one
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(left)
	if err := Harden(); err != nil {
		t.Fatal(err)
	}
	if res := run(t, script(fmt.Sprintf("cat <&%d; true", left))); len(res.Stdout) > 0 {
		t.Errorf("the child read %q", res.Stdout)
	}
}

func TestChildIsKilledFirst(t *testing.T) {
	res := run(t, script(`i=0; while read -r adj </proc/$$/oom_score_adj && [ "$adj" != 1000 ] && [ $i -lt 3000 ]; do i=$((i+1)); sleep 0.01; done; echo "$adj"`))
	if string(res.Stdout) != "1000\n" {
		t.Errorf("oom_score_adj is %s", res.Stdout)
	}
}

// TestLeftoversEndBeforeTheNextRun: whoever outlived a run would share the user, and so the files, of the next.
func TestLeftoversEndBeforeTheNextRun(t *testing.T) {
	r := New("/bin/sh")
	left := exec.Command("sleep", "300")
	if r.asRoot {
		left.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: UID, Gid: GID}}
	}
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	res, err := r.Run(t.Context(), script(fmt.Sprintf("ps -o pid= -p %d; true", left.Process.Pid)))
	if err != nil || len(strings.TrimSpace(string(res.Stdout))) > 0 {
		t.Errorf("it was there: %s, %v", res.Stdout, err)
	}
}

// TestChildThatCannotBeKilled: a process that hangs in the kernel gives no result, and the agent goes on.
func TestChildThatCannotBeKilled(t *testing.T) {
	needRoot(t)
	freezer := filepath.Join("/sys/fs/cgroup/freezer", fmt.Sprintf("nodetrust-test-%d", os.Getpid()))
	if err := os.Mkdir(freezer, 0o755); err != nil {
		t.Skipf("no freezer of cgroup v1: %v", err)
	}
	write := func(name, value string) {
		if err := os.WriteFile(filepath.Join(freezer, name), []byte(value), 0); err != nil {
			t.Error(err)
		}
	}
	thaw := func() { write("freezer.state", "THAWED") }
	defer func() {
		for end := time.Now().Add(time.Minute); unix.Rmdir(freezer) != nil; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s is left", freezer)
			}
		}
	}()
	defer thaw()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := New("/bin/sh").Run(ctx, script("echo $$; exec sleep 300", func(c *Command) {
			c.FirstLine = func(line []byte) {
				write("cgroup.procs", strings.TrimSpace(string(line)))
				write("freezer.state", "FROZEN")
				cancel()
			}
		}))
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil {
			t.Error("there was a result")
		}
	case <-time.After(time.Minute):
		thaw()
		t.Errorf("waited for a process that can't be killed; in the end: %v", <-done)
	}
	thaw()
	// The next run ends it first.
	run(t, script("true"))
}

// TestDeepDirectoryIsSwept: a child may nest directories deeper than anyone may open files.
func TestDeepDirectoryIsSwept(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(os.TempDir(), tmpPrefix+strconv.Itoa(dead.Process.Pid)+"-x")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Open(dir, unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		if err := unix.Mkdirat(at, "d", 0o755); err != nil {
			t.Fatal(err)
		}
		if f, err := unix.Openat(at, "f", unix.O_CREAT|unix.O_WRONLY, 0o644); err == nil {
			unix.Close(f)
		}
		next, err := unix.Openat(at, "d", unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(at)
		at = next
	}
	unix.Close(at)

	var limit, few unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	few = unix.Rlimit{Cur: 200, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	New("/bin/sh")
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is left (%v)", dir, err)
	}
}

// TestSweepLeavesOthersAlone: in a shared directory anyone may use the names of ours.
func TestSweepLeavesOthersAlone(t *testing.T) {
	needRoot(t)
	t.Setenv("TMPDIR", t.TempDir())
	dir := filepath.Join(os.TempDir(), tmpPrefix+strconv.Itoa(os.Getpid())+"-x")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	New("/bin/sh")
	if _, err := os.Lstat(dir); err != nil {
		t.Error(err)
	}
}
