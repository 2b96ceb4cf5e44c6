package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodetrust/nodetrust/agent/disk"
	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// What an operator may meet: files that can't be changed, hosts whose directories come and go, restarts at a bad
// moment.

const (
	movedFile = "/etc/containers/registries.d/moved.yaml"
	locked    = `,"locked.example.com":[{"type":"reject"}]`
)

// pin makes a file or directory a mount of its own until the result is called: it can't be removed, nor renamed over.
// flags are added by a remount.
func (w *world) pin(p string, flags uintptr) (unpin func()) {
	w.t.Helper()
	if os.Geteuid() != 0 {
		w.t.Skip("needs root")
	}
	at := w.path(p)
	if err := unix.Mount(at, at, "", unix.MS_BIND, ""); err != nil {
		w.t.Skipf("can't mount: %v", err)
	}
	pinned := true
	unpin = func() {
		if pinned {
			pinned = false
			w.must(unix.Unmount(at, unix.MNT_DETACH))
		}
	}
	w.t.Cleanup(unpin)
	if flags != 0 {
		w.must(unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND|flags, ""))
	}
	return unpin
}

// undecided makes the canaries' answers those of a registry that is away: a set stays on trial.
func (w *world) undecided() { w.answers(bad("unknown", verdict.RegistryUnreachable)) }

func TestObsoleteFileThatStays(t *testing.T) {
	w := newWorld(t)
	w.enforced()
	unpin := w.pin(labFile, 0)
	mark := w.mark()
	d := w.desire(map[string]string{policyFile: policy(locked), movedFile: lab}, canaries)
	s := w.await(mark, judge.Drifted, "")
	if !strings.Contains(s.Message, "removing "+labFile) {
		t.Errorf("message %q", s.Message)
	}
	// One scope in two files fails every pull, and the new policy relies on a file that is not there.
	w.absent(movedFile)
	if w.read(policyFile) != policy("") {
		t.Error("the new policy was written without what it relies on")
	}
	unpin()
	if s := w.await(mark, judge.Enforced, ""); s.Observed != d {
		t.Errorf("status %+v", s)
	}
	w.absent(labFile)
}

// TestObsoleteFileBeside: a file of the old set can't be removed, and stands beside the new ones without a collision.
// What it says counts for the runtimes, so the node is not as desired.
func TestObsoleteFileBeside(t *testing.T) {
	w := newWorld(t)
	const other = "/etc/containers/registries.d/other.yaml"
	w.desire(files(other, "docker: {other.example.com: {}}"), canaries)
	w.start()
	w.await(0, judge.Enforced, "")
	unpin := w.pin(other, 0)
	mark := w.mark()
	w.desire(files(), canaries)
	s := w.await(mark, judge.Unknown, judge.ReasonWriteFailed)
	if !strings.Contains(s.Message, other) {
		t.Errorf("message %q", s.Message)
	}
	w.until("canaries", func() bool {
		return slices.ContainsFunc(w.since(mark), func(s Status) bool { return len(s.Canaries) == 2 })
	})
	w.never(mark, judge.Enforced)
	unpin()
	w.await(mark, judge.Enforced, "")
	w.absent(other)
}

func TestPolicyWaitsForItsFiles(t *testing.T) {
	w := newWorld(t)
	w.enforced()
	unpin := w.pin("/etc/pki/containers", unix.MS_RDONLY)
	mark := w.mark()
	const key = "/etc/pki/containers/new.gpg"
	newPolicy := strings.Replace(policy(""), keyFile, key, 1)
	d := w.desire(files(key, "new key", policyFile, newPolicy), canaries)
	s := w.await(mark, judge.Drifted, "")
	if !strings.Contains(s.Message, "read-only") {
		t.Errorf("message %q", s.Message)
	}
	if w.read(policyFile) != policy("") {
		t.Error("a policy whose key could not be written is in place")
	}
	unpin()
	if s := w.await(mark, judge.Enforced, ""); s.Observed != d {
		t.Errorf("status %+v", s)
	}
}

// TestRestartOnTrial: what is on trial outlives the agent, whatever has become of the desired state meanwhile.
func TestRestartOnTrial(t *testing.T) {
	onTrial := func(t *testing.T) (w *world, mark int) {
		w = newWorld(t)
		w.enforced()
		w.undecided()
		mark = w.mark()
		second := w.desire(map[string]string{policyFile: policy(locked), movedFile: lab}, canaries)
		if s := w.await(mark, judge.Unknown, "RegistryUnreachable"); s.Observed != second {
			t.Fatalf("status %+v", s)
		}
		w.stop()
		return w, w.mark()
	}
	t.Run("the desired state is lost", func(t *testing.T) {
		w, mark := onTrial(t)
		w.must(os.Remove(filepath.Join(w.desired, "desired.ign")))
		w.must(os.WriteFile(w.path(movedFile), []byte("docker: {}\n"), 0o644))
		w.start()
		w.await(mark, judge.Unknown, judge.ReasonDesiredInvalid)
		w.until("what was on trial to be healed", func() bool { return w.read(movedFile) == lab })
		if w.read(policyFile) != policy(locked) {
			t.Error("the last good policy is back, though nothing has called for it")
		}
		w.absent(labFile)
	})
	t.Run("it is the last good one again", func(t *testing.T) {
		w, mark := onTrial(t)
		w.answers(good("cri"))
		first := w.desire(files(), canaries)
		w.start()
		if s := w.await(mark, judge.Enforced, ""); s.Observed != first {
			t.Errorf("status %+v", s)
		}
		w.absent(movedFile)
	})
	t.Run("it is a third one", func(t *testing.T) {
		w, mark := onTrial(t)
		w.answers(good("cri"))
		third := w.desire(map[string]string{policyFile: policy(""), "/etc/containers/registries.d/third.yaml": lab}, canaries)
		w.start()
		if s := w.await(mark, judge.Enforced, ""); s.Observed != third {
			t.Errorf("status %+v", s)
		}
		w.absent(movedFile)
		w.absent(labFile)
	})
	t.Run("it is refused", func(t *testing.T) {
		w, mark := onTrial(t)
		w.answers(bad("refuse", verdict.NoSignature))
		w.start()
		w.await(mark, judge.RolledBack, "")
		w.stop()
		if w.absent(movedFile); w.read(labFile) != lab {
			t.Error("the last good set is not back")
		}
		mark = w.mark()
		w.answers(good("cri"))
		w.start()
		w.await(mark, judge.RolledBack, "")
		w.absent(movedFile)
	})
}

// TestBackBesideAForeignFile: going back to a set that was confirmed once is no reason to fail every pull.
func TestBackBesideAForeignFile(t *testing.T) {
	w := newWorld(t)
	w.enforced()
	w.undecided()
	mark := w.mark()
	const foreign = "/etc/containers/registries.d/foreign.yaml"
	w.desire(map[string]string{policyFile: policy(locked)}, canaries)
	w.await(mark, judge.Unknown, "RegistryUnreachable")
	w.absent(labFile)
	w.write(foreign, lab)
	mark = w.mark()
	w.desire(files(), canaries)
	s := w.await(mark, judge.Drifted, "Duplicate")
	if !strings.Contains(s.Message, foreign) {
		t.Errorf("message %q", s.Message)
	}
	w.absent(labFile)
	w.answers(good("cri"))
	w.must(os.Remove(w.path(foreign)))
	w.await(mark, judge.Enforced, "")
}

// TestUnwritableFile: our own temporary file is an event. A file that can't be replaced must not keep the agent, the
// log and the API server busy.
func TestUnwritableFile(t *testing.T) {
	w := newWorld(t)
	w.enforced()
	unpin := w.pin(policyFile, 0)
	mark := w.mark()
	w.must(os.WriteFile(w.path(policyFile), []byte("{}"), 0o644))
	w.await(mark, judge.Drifted, "")
	w.until("a few tries, or what would be their time",
		func() bool { return len(w.since(mark)) > 8 || w.elapsed(mark) > 2*time.Second })
	if n := len(w.since(mark)); n > 4 {
		for _, s := range w.since(mark) {
			t.Log(s.Message)
		}
		t.Errorf("%d reports of the same thing", n)
	}
	unpin()
	w.must(os.WriteFile(w.path(policyFile), []byte("{ }"), 0o644)) // the mount was of another inode's name
	w.await(mark, judge.Enforced, "")
}

// elapsed is the time since the first report after mark.
func (w *world) elapsed(mark int) time.Duration {
	if s := w.since(mark); len(s) > 0 {
		return time.Since(s[0].CheckedAt)
	}
	return 0
}

// TestEverOtherBytes: who writes something else each time, while no canary answers, must not fill the memory.
func TestEverOtherBytes(t *testing.T) {
	w := newWorld(t)
	w.enforced()
	w.put("hang", nil)
	mark := w.mark()
	for i := range 30 {
		w.must(os.WriteFile(w.path(policyFile)+".new", fmt.Appendf(nil, "{%d", i), 0o644))
		w.must(os.Rename(w.path(policyFile)+".new", w.path(policyFile)))
		w.until("healed", func() bool { return w.read(policyFile) == policy("") })
	}
	for _, s := range w.since(mark) {
		if len(s.Differences) > 2 {
			t.Fatalf("%d differences of one file", len(s.Differences))
		}
	}
}

func TestManyDifferences(t *testing.T) {
	w := newWorld(t)
	var b strings.Builder
	b.WriteString("docker:\n")
	for i := range 1000 {
		fmt.Fprintf(&b, " h%d: {}\n", i)
	}
	w.write("/etc/containers/registries.d/a.yaml", b.String())
	w.write("/etc/containers/registries.d/b.yaml", b.String())
	w.desire(files(), canaries)
	w.start()
	if s := w.await(0, judge.Drifted, "Duplicate"); len(s.Differences) > 256 {
		t.Errorf("%d differences are told", len(s.Differences))
	}
}

// TestHostDirectoryReplaced: a mount is of a directory, not of its name.
func TestHostDirectoryReplaced(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(dir string) error
	}{
		{"renamed", func(dir string) error { return os.Rename(dir, dir+".old") }},
		{"removed", func(dir string) error {
			err := os.RemoveAll(dir)
			for range 100 { // the agent puts back what is in it
				if err == nil {
					break
				}
				err = os.RemoveAll(dir)
			}
			return err
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if os.Geteuid() != 0 {
				t.Skip("needs root")
			}
			w := newWorld(t)
			real, at := filepath.Join(w.dir, "real"), w.path("/etc/containers")
			w.must(errors.Join(os.Mkdir(real, 0o755), os.MkdirAll(at, 0o755)))
			if err := unix.Mount(real, at, "", unix.MS_BIND, ""); err != nil {
				t.Skipf("can't mount: %v", err)
			}
			t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
			w.enforced(func(o *Options) { o.Resync = 200 * time.Millisecond })
			w.must(tt.do(real))
			w.must(os.Mkdir(real, 0o755))
			select {
			case <-w.done:
			case <-time.After(patience):
				t.Fatal("the agent goes on looking at a directory that the host has put aside")
			}
			if w.err == nil || !strings.Contains(w.err.Error(), at) {
				t.Errorf("ended with %v", w.err)
			}
		})
	}
}

// TestHostDirectoryCovered: what the host mounts on top of a directory is what counts, whatever becomes of the one
// below.
func TestHostDirectoryCovered(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	w := newWorld(t)
	first, second, at := filepath.Join(w.dir, "first"), filepath.Join(w.dir, "second"), w.path("/etc/containers")
	w.must(errors.Join(os.Mkdir(first, 0o755), os.Mkdir(second, 0o755), os.MkdirAll(at, 0o755)))
	mount := func(dir string) {
		if err := unix.Mount(dir, at, "", unix.MS_BIND, ""); err != nil {
			t.Skipf("can't mount: %v", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	}
	mount(first)
	w.enforced()
	// Mounts are looked at after a round of canaries, so not between these two.
	w.must(os.Rename(first, first+".old"))
	mount(second)
	for range 3 {
		mark := w.mark()
		w.must(os.RemoveAll(w.path(policyFile)))
		w.write("/etc/event", "") // the agent watches the directory below, at first
		w.await(mark, judge.Enforced, "")
	}
	if _, err := os.Stat(filepath.Join(second, "policy.json")); err != nil {
		t.Errorf("the files are not in the directory on top: %v", err)
	}
}

// TestMemoryIsWrittenLater: the file system of /var is full or read-only for a while.
func TestMemoryIsWrittenLater(t *testing.T) {
	w := newWorld(t)
	w.enforced(func(o *Options) { o.Resync = 100 * time.Millisecond })
	unpin := w.pin("/var/lib/nodetrust", unix.MS_RDONLY)
	mark := w.mark()
	const extra = "/etc/containers/registries.d/extra.yaml"
	d := w.desire(files(extra, "docker: {extra.example.com: {}}"), canaries)
	if s := w.await(mark, judge.Held, judge.ReasonStateNotSaved); !strings.Contains(s.Message, "read-only") {
		t.Errorf("message %q", s.Message)
	}
	w.absent(extra)
	// What is in force is healed all the same: what leads back to it is on disk.
	w.must(os.WriteFile(w.path(policyFile), []byte("{}"), 0o644))
	w.until("the active set to be healed", func() bool { return w.read(policyFile) == policy("") })
	unpin()
	w.await(mark, judge.Enforced, "")
	w.until("the last good set to be remembered",
		func() bool { return strings.Contains(w.read(stateFile), `"lastGood":{"digest":"`+d) })
}

// TestNotDurable: a file that is right, but that a loss of power may take back, is written again until that is not so.
func TestNotDurable(t *testing.T) {
	w := newWorld(t)
	root, err := os.OpenRoot(w.host)
	w.must(err)
	defer root.Close()
	f := trust.File{
		Path: policyFile, Mode: 0o644, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()),
		Data: []byte(policy("")),
	}
	_, err = disk.Replace(root, f)
	w.must(err)
	a := &Agent{
		Options: w.options(), root: root, store: &store{}, active: &set{files: trust.FileSet{f}},
		failed: failures{},
	}
	now := time.Now()
	a.fail(policyFile, disk.ErrNotDurable, true)
	if a.heal(nil, now) || a.worst() == nil || a.worst().Reason != judge.ReasonWriteFailed {
		t.Errorf("it was forgotten: %v", a.worst())
	}
	a.heal(nil, now.Add(time.Hour))
	if len(a.failed) != 0 {
		t.Errorf("it was not written again: %v", a.failed)
	}
}

// TestProbesAreNoDebt: after many heals canaries run less often, not hours later.
func TestProbesAreNoDebt(t *testing.T) {
	a := &Agent{}
	for range 1000 {
		a.probeNow()
	}
	a.probeAt = time.Time{}
	before := time.Now()
	a.probeNow()
	if d := a.probeAt.Sub(before); d <= 0 || d > time.Minute {
		t.Errorf("the next canaries run in %v", d)
	}
}
