package agent

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

const (
	accepting = `{"default":[{"type":"insecureAcceptAnything"}]}` + "\n"
	otherFile = "/etc/containers/registries.d/other.yaml"
)

// snapshot is everything below a directory: kind, mode, owner, label and content of each path.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		fmt.Fprintf(&b, "%s %o %d:%d", rel, st.Mode, st.Uid, st.Gid)
		label := make([]byte, 256)
		if n, err := unix.Lgetxattr(p, "security.selinux", label); err == nil {
			fmt.Fprintf(&b, " %s", label[:n])
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if len(data) > 1000 {
				fmt.Fprintf(&b, " %d bytes", len(data))
			} else {
				fmt.Fprintf(&b, " %q", data)
			}
		case unix.S_IFLNK:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " -> %s", target)
		}
		b.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// restores runs Restore and compares the host with what it was.
func (w *world) restores(before string) {
	w.t.Helper()
	left, err := Restore(context.Background(), w.options())
	if err != nil || len(left) > 0 {
		w.t.Fatalf("left %q, %v", left, err)
	}
	if after := snapshot(w.t, w.host); after != before {
		w.t.Errorf("the host is\n%s\nand was\n%s", after, before)
	}
}

// label sets an SELinux label, where the test may.
func (w *world) label(p, label string) {
	w.t.Helper()
	if err := unix.Lsetxattr(w.path(p), "security.selinux", []byte(label), 0); err != nil {
		w.t.Logf("without a label: %v", err)
	}
}

// varLib makes the directory that every host has.
func (w *world) varLib() { w.must(os.MkdirAll(w.path("/var/lib"), 0o755)) }

// TestRestore: whatever was at the paths of ours is back after the agent has worked there, in every respect.
func TestRestore(t *testing.T) {
	for _, tt := range []struct {
		name  string
		found func(w *world)
	}{
		{"nothing", func(*world) {}},
		{"a vendor's files", func(w *world) {
			w.write(policyFile, accepting)
			w.write(labFile, "docker: {lab.example.com: {lookaside: https://old.example.com}}\n")
			w.write(otherFile, "docker: {other.example.com: {}}\n")
			w.label(policyFile, "system_u:object_r:old_policy_t:s0")
			w.label(labFile, "unconfined_u:object_r:etc_t:s0")
		}},
		{"mode and owner", func(w *world) {
			w.write(policyFile, accepting)
			w.must(os.Chmod(w.path(policyFile), 0o4640))
			if os.Geteuid() == 0 {
				w.must(os.Chown(w.path(policyFile), 12, 34))
			}
			w.must(os.Chmod(w.path("/etc/containers"), 0o750))
		}},
		{"exactly the desired files", func(w *world) {
			for p, data := range files() {
				w.write(p, data)
			}
		}},
		{"an empty file", func(w *world) { w.write(labFile, "") }},
		{"a symlink", func(w *world) {
			w.write("/etc/own/policy.json", accepting)
			w.must(os.MkdirAll(w.path("/etc/containers"), 0o755))
			w.must(os.Symlink("../own/policy.json", w.path(policyFile)))
			if os.Geteuid() == 0 {
				w.must(os.Lchown(w.path(policyFile), 12, 34))
			}
		}},
		{"a symlink to itself", func(w *world) {
			w.must(os.MkdirAll(filepath.Dir(w.path(labFile)), 0o755))
			w.must(os.Symlink("lab.yaml", w.path(labFile)))
		}},
		{"a directory", func(w *world) {
			w.write(labFile+"/in/it", "somebody's")
			w.must(os.Chmod(w.path(labFile), 0o711))
		}},
		{"an empty directory", func(w *world) { w.must(os.MkdirAll(w.path(policyFile), 0o700)) }},
		{"a fifo", func(w *world) {
			w.must(os.MkdirAll(filepath.Dir(w.path(labFile)), 0o755))
			w.must(unix.Mkfifo(w.path(labFile), 0o640))
		}},
		{"a large file", func(w *world) { w.write(labFile, strings.Repeat("# large\n", 5<<20/8)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.varLib()
			tt.found(w)
			before := snapshot(t, w.host)
			w.enforced()
			// Other sets, one with new paths and one without the first ones.
			mark := w.mark()
			w.desire(files("/etc/pki/containers/new.gpg", "key", otherFile, "docker: {other.example.com: {}}\n"), canaries)
			w.await(mark, judge.Enforced, "")
			mark = w.mark()
			w.desire(map[string]string{policyFile: policy(locked), movedFile: lab}, canaries)
			w.await(mark, judge.Enforced, "")
			w.absent(labFile)
			w.stop()
			w.restores(before)
			w.restores(before)
		})
	}
}

// TestRestoreLeavesWhatOthersChanged: who has changed a file since has had a reason.
func TestRestoreLeavesWhatOthersChanged(t *testing.T) {
	w := newWorld(t)
	w.varLib()
	w.write(policyFile, accepting)
	before := snapshot(t, w.host)
	w.enforced()
	w.stop()
	const theirs = `{"default":[{"type":"reject"}]}`
	w.write(policyFile, theirs)
	left, err := Restore(t.Context(), w.options())
	if err != nil || len(left) != 1 || !strings.HasPrefix(left[0], policyFile+" was changed by somebody else") {
		t.Fatalf("left %q, %v", left, err)
	}
	if w.read(policyFile) != theirs {
		t.Error("it was overwritten")
	}
	w.absent(labFile)
	// The message names the copy of the original.
	if _, copied, _ := strings.Cut(left[0], " is in "); w.read(copied) != accepting {
		t.Errorf("the original is not at %q", copied)
	}
	w.must(os.Remove(w.path(policyFile)))
	w.restores(before)
}

// TestRestoreOfAnOlderVersion: an agent that kept nothing has written the files.
func TestRestoreOfAnOlderVersion(t *testing.T) {
	w := newWorld(t)
	w.varLib()
	before := snapshot(t, w.host)
	w.enforced()
	w.stop()
	w.must(os.RemoveAll(w.path(foundDir)))
	w.start()
	w.until("the status", func() bool { return w.read(foundDir+"/index.json") != "" })
	w.stop()
	left, err := Restore(t.Context(), w.options())
	if err != nil || len(left) != 2 || !strings.Contains(left[0], "kept no original") {
		t.Fatalf("left %q, %v", left, err)
	}
	if w.read(policyFile) != policy("") {
		t.Error("a policy was removed without anything to put in its place")
	}
	w.must(os.RemoveAll(w.path("/etc/containers")))
	w.restores(before)
}

func TestRestoreOnMCONode(t *testing.T) {
	w := newWorld(t)
	w.varLib()
	w.must(os.MkdirAll(w.path("/"+mcdDir), 0o755))
	w.write(policyFile, accepting)
	before := snapshot(t, w.host)
	w.desire(files(), canaries)
	w.start()
	w.await(0, judge.Drifted, "")
	w.stop()
	if _, err := os.Lstat(w.path(stateDir)); err != nil {
		t.Fatalf("the test shows nothing: %v", err)
	}
	for range 2 {
		if left, err := Restore(t.Context(), w.options()); len(left) > 0 || err != ErrMCO {
			t.Errorf("left %q, %v", left, err)
		}
		if after := snapshot(t, w.host); after != before {
			t.Errorf("the host is\n%s\nand was\n%s", after, before)
		}
	}
}

func TestRestoreWhileAnAgentRuns(t *testing.T) {
	w := newWorld(t)
	w.enforced()
	before := snapshot(t, w.host)
	if _, err := Restore(t.Context(), w.options()); err == nil || !strings.Contains(err.Error(), errLocked.Error()) {
		t.Errorf("%v", err)
	}
	if snapshot(t, w.host) != before {
		t.Error("it did something")
	}
}

// TestFirstSetBackToFound: the first set ever refuses what the host has accepted until now.
func TestFirstSetBackToFound(t *testing.T) {
	w := newWorld(t)
	w.varLib()
	w.write(policyFile, accepting)
	before := snapshot(t, w.path("/etc"))
	w.answers(bad("refuse", verdict.NoSignature))
	first := w.desire(files(), canaries)
	w.start()
	s := w.await(0, judge.RolledBack, judge.ReasonAcceptCanaryRefused)
	if s.Desired != first || !strings.Contains(s.Message, acceptImage) {
		t.Errorf("status %+v", s)
	}
	if after := snapshot(t, w.path("/etc")); after != before {
		t.Errorf("the host is\n%s\nand was\n%s", after, before)
	}
	w.stop()
	mark, calls := w.mark(), len(w.calls())
	w.start()
	w.await(mark, judge.RolledBack, judge.ReasonAcceptCanaryRefused)
	if got := w.calls()[calls:]; len(got) > 0 {
		t.Errorf("tried again: %q", got)
	}
	if after := snapshot(t, w.path("/etc")); after != before {
		t.Errorf("after a restart the host is\n%s\nand was\n%s", after, before)
	}
	// The host's own files are its owner's to change meanwhile.
	w.write(policyFile, accepting+"\n")
	before = snapshot(t, w.path("/etc"))
	w.answers(good("cri"))
	mark = w.mark()
	w.desire(files(policyFile, policy(locked)), canaries)
	w.await(mark, judge.Enforced, "")
	w.stop()
	if left, err := Restore(t.Context(), w.options()); err != nil || len(left) > 0 {
		t.Errorf("left %q, %v", left, err)
	}
	if after := snapshot(t, w.path("/etc")); after != before {
		t.Errorf("the host is\n%s\nand was\n%s", after, before)
	}
}
