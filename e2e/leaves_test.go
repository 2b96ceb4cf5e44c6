package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/e2e/lab"
)

// tempDirs are where a node's programs may leave something that TMPDIR doesn't steer.
var tempDirs = []string{"/tmp", "/var/tmp", "/dev/shm", "/run"}

// TestProbeLeavesNothing: after fifty rounds, some of them killed midway, nothing of them is left, though gpg starts
// daemons that leave their session, and a killed process removes nothing.
func TestProbeLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.installKey()
	must(t, w.node.StartCRIO(""))
	w.desire(w.render("machineconfig", w.trustYAML()))

	images, err := w.node.Images()
	must(t, err)
	before := listing(t, w)

	a := w.startAgent("--probe-interval", "50ms", "--runtime", "auto")
	const rounds, killEvery = 50, 5
	seed := uint64(1)
	dice := rand.New(rand.NewPCG(seed, 0))
	seen := map[int]bool{}
	killed := 0
	err = lab.Poll(10*time.Minute, func() error {
		for _, pid := range probes(t, w, a.PID()) {
			if seen[pid] {
				continue
			}
			seen[pid] = true
			if len(seen) >= (killed+1)*killEvery {
				// Anywhere between its first steps and its last; if it was over by then, the next one.
				time.Sleep(time.Duration(dice.IntN(400)) * time.Millisecond)
				if syscall.Kill(pid, syscall.SIGKILL) == nil {
					killed++
				}
			}
		}
		if a.Exited() {
			t.Fatal("the agent has ended")
		}
		if len(seen) <= rounds {
			return fmt.Errorf("%d rounds so far", len(seen))
		}
		return nil
	})
	must(t, err)
	if killed < rounds/killEvery/2 {
		t.Fatalf("only %d rounds were killed: the test shows nothing", killed)
	}
	t.Logf("%d rounds, %d of them killed", len(seen), killed)

	// Between rounds only the agent and CRI-O are there; and the agent recovers from the killed ones.
	a.settle("Enforced")
	if code := a.Stop(); code != 0 {
		t.Errorf("after SIGTERM the agent ends with %d, want 0", code)
	}

	// What ends by itself may take a moment, and what isn't there for good is another program's.
	err = lab.Poll(time.Minute, func() error {
		left, err := w.node.Processes()
		if err == nil && (len(left) != 1 || !strings.Contains(left[0].Command, "crio")) {
			err = fmt.Errorf("processes: %v, want CRI-O alone", left)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if n, err := w.node.Inotify(); err != nil || n != 0 {
		t.Errorf("inotify instances: %d (%v)", n, err)
	}
	if after, err := w.node.Images(); err != nil || !slices.Equal(after, images) {
		t.Errorf("images of CRI-O: %q, before: %q (%v)", after, images, err)
	}
	err = lab.Poll(time.Minute, func() error {
		news := slices.DeleteFunc(listing(t, w), func(path string) bool { return slices.Contains(before, path) })
		if len(news) > 0 {
			return fmt.Errorf("temporary files: %q", news)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// probes are the running children of the agent that probe.
func probes(t *testing.T, w *world, agent int) []int {
	t.Helper()
	procs, err := w.node.Processes()
	must(t, err)
	var out []int
	for _, p := range procs {
		if p.PPID == agent && p.State != "Z" && strings.Contains(p.Command, " probe ") {
			out = append(out, p.PID)
		}
	}
	return out
}

// listing is what lies in the temporary directories that may be a probe's, by path. Other programs of this machine
// use them too.
func listing(t *testing.T, w *world) []string {
	t.Helper()
	out, err := w.node.TempFiles()
	must(t, err)
	for _, dir := range tempDirs {
		found, err := filepath.Glob(dir + "/*")
		must(t, err)
		for _, f := range found {
			if name := filepath.Base(f); strings.Contains(name, "nodetrust") || strings.Contains(name, "ephemeral") {
				out = append(out, f)
			}
		}
	}
	return out
}

// TestProbeChildIsWeak: the child that touches network input can neither change the policy nor read the agent's
// token. Here the child is a shell that tries.
func TestProbeChildIsWeak(t *testing.T) {
	w := newWorld(t)
	w.installKey()
	must(t, w.node.StartCRIO(""))
	w.desire(w.render("machineconfig", w.trustYAML()))

	token := filepath.Join(w.dir, "token")
	must(t, os.WriteFile(token, []byte("secret"), 0o600))
	out := filepath.Join(w.dir, "out")
	must(t, os.Mkdir(out, 0o777))
	must(t, os.Chmod(out, 0o777))
	script := filepath.Join(w.dir, "nodetrust")
	must(t, os.WriteFile(script, []byte(fmt.Sprintf(`#!/bin/sh
{
	id -u; id -g; id -G
	grep -E '^(NoNewPrivs|CapEff|CapPrm|CapBnd)' /proc/self/status
	for f in %[1]s/etc/containers/policy.json /etc/containers/policy.json; do
		[ ! -e $f ] || { (echo x >>$f) && echo "WROTE $f"; mv $f $f.gone && echo "MOVED $f"; rm -f $f && echo "REMOVED $f"; }
	done
	touch %[1]s/etc/containers/registries.d/evil.yaml && echo "CREATED evil.yaml"
	cat %[2]s && echo "READ token"
	ls -l /proc/self/fd
	env
	tr '\0' '\n' </proc/$PPID/environ && echo "READ the agent's environment"
	kill -TERM $PPID && echo "SIGNALLED the agent"
	test -w $TMPDIR && echo "own TMPDIR $TMPDIR"
} >%[3]s/$$.part 2>&1
mv %[3]s/$$.part %[3]s/$$.txt
exec %[4]s "$@"
`, w.node.Root, token, out, theLab.Programs.Nodetrust)), 0o755))

	a := w.startAgent("--nodetrust", script)
	a.settle("Enforced")
	a.Stop()

	// As root the same deeds succeed: the test can fail.
	if b, err := w.node.Command(context.Background(), "cat", token).Output(); err != nil || string(b) != "secret" {
		t.Fatalf("root can't read the token: %v", err)
	}
	reports, err := filepath.Glob(out + "/*.txt")
	must(t, err)
	tried := false
	for _, r := range reports {
		b, err := os.ReadFile(r)
		must(t, err)
		text := string(b)
		for _, deed := range []string{"WROTE", "MOVED", "REMOVED", "CREATED", "READ", "SIGNALLED", "secret"} {
			if strings.Contains(text, deed) {
				t.Errorf("a child did it (%s):\n%s", deed, text)
			}
		}
		lines := strings.SplitN(text, "\n", 4)
		if len(lines) < 4 || lines[0] != "65532" || lines[1] != "0" || lines[2] != "0" {
			t.Errorf("a child is not user 65532 with group 0 alone:\n%s", text)
		}
		for _, want := range []string{
			"NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000",
			"own TMPDIR",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("a child lacks %q:\n%s", want, text)
			}
		}
		tried = tried || strings.Contains(text, "policy.json: Permission denied")
	}
	if !tried {
		t.Errorf("no child tried to write policy.json (%d reports)", len(reports))
	}
}
