package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nodetrust/nodetrust/internal/judge"
)

// disk mounts a file system of a megabyte at a directory of the host.
func (w *world) disk(p string) {
	w.t.Helper()
	if os.Geteuid() != 0 {
		w.t.Skip("needs root")
	}
	w.must(os.MkdirAll(w.path(p), 0o700))
	if err := unix.Mount("tmpfs", w.path(p), "tmpfs", 0, "size=1m,mode=0700"); err != nil {
		w.t.Skipf("can't mount: %v", err)
	}
	w.t.Cleanup(func() {
		w.stop()
		_ = unix.Unmount(w.path(p), unix.MNT_DETACH)
	})
}

// fill leaves no byte free at p, and returns how to free them.
func (w *world) fill(p string) (free func()) {
	w.t.Helper()
	name := filepath.Join(w.path(p), "filler")
	f, err := os.Create(name)
	w.must(err)
	for _, block := range []int{64 << 10, 4096, 1} {
		for {
			if _, err := f.Write(make([]byte, block)); err != nil {
				break
			}
		}
	}
	w.must(f.Close())
	return func() { w.must(os.Remove(name)) }
}

// TestFirstSetWaitsForAStore: nothing of the host is replaced before what is there can be kept.
func TestFirstSetWaitsForAStore(t *testing.T) {
	for name, breaks := range map[string]func(w *world) (mend func()){
		"full": func(w *world) func() {
			w.disk(stateDir)
			return w.fill(stateDir)
		},
		"full below": func(w *world) func() {
			w.disk("/var/lib")
			return w.fill("/var/lib")
		},
		"read-only": func(w *world) func() {
			w.varLib()
			return w.pin("/var/lib", unix.MS_RDONLY)
		},
		"a file in its place": func(w *world) func() {
			w.write(stateDir, "")
			return func() { w.must(os.Remove(w.path(stateDir))) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			mend := breaks(w)
			w.write(policyFile, accepting)
			d := w.desire(files(), canaries)
			before := w.tree()
			w.start()
			s := w.await(0, judge.Held, judge.ReasonStateNotSaved)
			if s.Desired != d || !strings.Contains(s.Message, "not written") {
				t.Errorf("status %+v", s)
			}
			if w.tree() != before {
				t.Error("something was written")
			}
			w.never(0, judge.Enforced)
			mend()
			// Without an event: nothing of the agent's files has changed.
			if s := w.await(0, judge.Enforced, ""); s.Observed != d {
				t.Errorf("status %+v", s)
			}
			if !strings.Contains(w.read(stateFile), d) {
				t.Error("it is not remembered")
			}
		})
	}
}

// TestFullStoreKeepsTheSetInForce: a full disk neither lets a new set in nor takes the present one back.
func TestFullStoreKeepsTheSetInForce(t *testing.T) {
	w := newWorld(t)
	w.disk(stateDir)
	first := w.enforced()
	free := w.fill(stateDir)
	mark := w.mark()
	second := w.desire(map[string]string{policyFile: policy(locked), movedFile: lab}, canaries)
	if s := w.await(mark, judge.Held, judge.ReasonStateNotSaved); s.Observed != first {
		t.Errorf("status %+v", s)
	}
	w.stop()
	mark = w.mark()
	w.start()
	if s := w.await(mark, judge.Held, judge.ReasonStateNotSaved); s.Observed != first {
		t.Errorf("after a restart: status %+v", s)
	}
	w.absent(movedFile)
	if w.read(policyFile) != policy("") || w.read(labFile) != lab {
		t.Error("the set in force is not whole any more")
	}
	free()
	if s := w.await(mark, judge.Enforced, ""); s.Observed != second {
		t.Errorf("status %+v", s)
	}
	w.absent(labFile)
}

// TestFullStoreAfterwards: what is in force is right, but nothing of it is remembered.
func TestFullStoreAfterwards(t *testing.T) {
	w := newWorld(t)
	w.disk(stateDir)
	d := w.enforced()
	w.stop()
	w.must(os.RemoveAll(w.path(stateFile)))
	w.must(os.RemoveAll(w.path(foundDir)))
	free := w.fill(stateDir)
	before := w.tree()
	mark := w.mark()
	w.start()
	if s := w.await(mark, judge.Unknown, judge.ReasonStateNotSaved); s.Observed != d {
		t.Errorf("status %+v", s)
	}
	w.never(mark, judge.Enforced, judge.Drifted)
	if w.tree() != before {
		t.Error("something was written")
	}
	free()
	w.await(mark, judge.Enforced, "")
}

// TestNewerOnDiskThanRemembered: the memory is of the time before the last change.
func TestNewerOnDiskThanRemembered(t *testing.T) {
	w := newWorld(t)
	w.enforced()
	old := w.read(stateFile)
	mark := w.mark()
	second := w.desire(map[string]string{policyFile: policy(locked), movedFile: lab}, canaries)
	w.await(mark, judge.Enforced, "")
	w.stop()
	w.must(os.WriteFile(w.path(stateFile), []byte(old), 0o600))
	before := w.tree()
	mark = w.mark()
	w.start()
	if s := w.await(mark, judge.Enforced, ""); s.Observed != second || s.Desired != second {
		t.Errorf("status %+v", s)
	}
	w.never(mark, judge.Drifted, judge.RolledBack, judge.Held)
	if w.tree() != before {
		t.Errorf("files were written:\n%s\nbefore\n%s", w.tree(), before)
	}
	if !strings.Contains(w.read(stateFile), second) {
		t.Error("it is not remembered")
	}
}
