//go:build linux

package verify

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/fixture"
)

// TestPolicy_killed: what a process leaves that is killed while it judges, the next one removes; and it does so only
// then. The child is this test program.
func TestPolicy_killed(t *testing.T) {
	if image := os.Getenv("NODETRUST_TEST_KILLED"); image != "" {
		judgeForEver(t, image)
	}
	w := newWorld(t)
	d := w.push("team/app", "v1")
	w.sign(w.key, "team/app", d, w.ref("team/app:v1"), 1)
	w.policy(signedBy(w.key))
	tmp := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestPolicy_killed$")
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "NODETRUST_TEST_KILLED="+w.ref("team/app:v1"),
		"NODETRUST_TEST_POLICY="+w.path(""))
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "judged"; {
	}
	// While it lives its directory stays, whoever starts meanwhile.
	t.Setenv("TMPDIR", tmp)
	open := func() *Policy {
		t.Helper()
		p, err := openFiles(w.path("policy.json"), []string{w.path("registries.d")}, Source{})
		check(t, err)
		return p
	}
	left := func() []string {
		dirs, err := filepath.Glob(filepath.Join(tmp, "*", scratchName+"*"))
		check(t, err)
		more, err := filepath.Glob(filepath.Join(tmp, scratchName+"*"))
		check(t, err)
		return append(dirs, more...)
	}
	before := left()
	if len(before) != 1 {
		t.Fatalf("the child has %v", before)
	}
	t.Setenv("TMPDIR", filepath.Dir(before[0])) // the test program makes one of its own below
	check(t, open().Close())
	if now := left(); len(now) != 1 || now[0] != before[0] {
		t.Fatalf("%v became %v", before, now)
	}
	check(t, cmd.Process.Kill())
	_ = cmd.Wait()
	if now := left(); len(now) != 1 {
		t.Fatalf("killed, and %v is there: this test looks at the wrong thing", now)
	}
	orphansEnd(t, before[0])
	p := open()
	if now := left(); len(now) != 1 || now[0] == before[0] {
		t.Errorf("%v is left", now)
	}
	check(t, p.Close())
	if now := append(left(), agentsIn(tmp)...); len(now) != 0 {
		t.Errorf("%v is left", now)
	}
}

// orphansEnd waits for the gpg that a killed process leaves for a moment. From being forked to becoming gpg it holds
// the lock of the directory, which is not taken for one that was left until then; later it may still write into it. A
// gpg-agent, which is started where WithoutAgents came late, lives as long as the directory.
func orphansEnd(t *testing.T, dir string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		left := slices.DeleteFunc(fixture.ProcessesIn(dir), func(p string) bool { return strings.Contains(p, "gpg-agent ") })
		if lock := lockDir(dir); lock != nil {
			check(t, lock.Close())
			if len(left) == 0 {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("somebody still uses %s: %v", dir, left)
		}
	}
}

// scratchName is the beginning of the names of the directories that Open makes.
const scratchName = "nodetrust-verify-"

// lockDir takes the lock of a directory; nil if another process has it.
func lockDir(dir string) *os.File {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		return f
	}
	_ = f.Close()
	return nil
}

// agentsIn names the processes that were started for a directory, after giving them time to end: an agent that could
// have no inotify looks once a minute whether its directory is there.
func agentsIn(dir string) []string {
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if out := fixture.ProcessesIn(dir); len(out) == 0 || time.Now().After(deadline) {
			return out
		}
	}
}

// judgeForEver is the child of TestPolicy_killed. It says "judged" after each verdict.
func judgeForEver(t *testing.T, image string) {
	dir := os.Getenv("NODETRUST_TEST_POLICY")
	p, err := openFiles(filepath.Join(dir, "policy.json"), []string{filepath.Join(dir, "registries.d")}, Source{})
	check(t, err)
	check(t, p.usePrivateTempDir())
	for {
		v, err := judgeImage(context.Background(), image, "", p, testOptions())
		check(t, err)
		if v.Answer != "accept" {
			t.Fatal(v)
		}
		_, _ = os.Stdout.WriteString("judged\n")
	}
}
