package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodetrust/nodetrust/e2e/lab"
)

const acceptAnything = `{"default":[{"type":"insecureAcceptAnything"}]}`

// TestTamper: whatever is done to the files is seen and healed, or named where the agent may not heal it.
func TestTamper(t *testing.T) {
	w := newWorld(t)
	w.installKey()
	must(t, w.node.StartCRIO(""))
	w.desire(w.render("machineconfig", w.trustYAML()))
	a := w.startAgent()
	a.settle("Enforced")

	policy := w.node.Path("etc/containers/policy.json")
	containers := w.node.Path("etc/containers")
	found, err := filepath.Glob(filepath.Join(containers, "registries.d/*.yaml"))
	must(t, err)
	if len(found) != 1 {
		t.Fatalf("registries.d holds %v, want one file", found)
	}
	lookasides := found[0]
	lookasidesOnHost := "/etc/containers/registries.d/" + filepath.Base(lookasides)

	// Healed: the file is as it was, and the status file names what was wrong on the way.
	for _, tt := range []struct {
		name string
		path string // that must be whole again
		host string // as the agent names it
		kind string
		do   func(t *testing.T)
	}{
		{"policy.json overwritten in place", policy, "/etc/containers/policy.json", "content", func(t *testing.T) {
			must(t, os.WriteFile(policy, []byte(acceptAnything), 0o644))
		}},
		{"policy.json replaced by rename", policy, "/etc/containers/policy.json", "content", func(t *testing.T) {
			must(t, os.WriteFile(policy+".new", []byte(acceptAnything), 0o644))
			must(t, os.Rename(policy+".new", policy))
		}},
		{"policy.json deleted", policy, "/etc/containers/policy.json", "missing", func(t *testing.T) {
			must(t, os.Remove(policy))
		}},
		{"policy.json chmod 0666", policy, "/etc/containers/policy.json", "mode", func(t *testing.T) {
			must(t, os.Chmod(policy, 0o666))
		}},
		{"policy.json made a symlink", policy, "/etc/containers/policy.json", "type", func(t *testing.T) {
			must(t, os.WriteFile(containers+"/loose.json", []byte(acceptAnything), 0o644))
			must(t, os.Symlink("loose.json", policy+".new"))
			must(t, os.Rename(policy+".new", policy))
		}},
		{"policy.json made a directory", policy, "/etc/containers/policy.json", "type", func(t *testing.T) {
			must(t, os.Mkdir(policy+".new", 0o755))
			must(t, exchange(policy, policy+".new"))
			must(t, os.Remove(policy+".new"))
		}},
		{"registries.d file emptied", lookasides, lookasidesOnHost, "content", func(t *testing.T) {
			must(t, os.Truncate(lookasides, 0))
		}},
		{"the whole directory replaced", policy, "/etc/containers/policy.json", "content", func(t *testing.T) {
			next := containers + ".next"
			must(t, os.MkdirAll(next+"/registries.d", 0o755))
			registries, err := os.ReadFile(containers + "/registries.conf")
			must(t, err)
			must(t, os.WriteFile(next+"/registries.conf", registries, 0o644))
			must(t, os.WriteFile(next+"/policy.json", []byte(acceptAnything), 0o644))
			must(t, exchange(containers, next))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want, err := os.ReadFile(tt.path)
			must(t, err)
			mark := a.mark()
			start := time.Now()
			tt.do(t)
			err = lab.Poll(20*time.Second, func() error { return whole(tt.path, want) })
			if err != nil {
				t.Fatalf("not healed: %v", err)
			}
			t.Logf("healed in less than %s", time.Since(start).Round(time.Millisecond))
			sub := a.as(t)
			sub.await("a status that names "+tt.host+" "+tt.kind, mark, func(s status) bool {
				return s.State != "Enforced" && s.differs(tt.host, tt.kind)
			})
			if s := sub.settle("Enforced"); len(s.Differences) > 0 {
				t.Errorf("Enforced with differences: %v", s)
			}
			sub.never(mark, "Blocked", "RolledBack", "unreadable")
		})
	}

	// The replaced directory was healed where it counts: bound again, the runtimes enforce.
	must(t, w.node.Rebind())
	w.judges(w.signed, true)
	w.judges(w.unsigned, false)

	// Not ours to heal: named until it is gone.
	for _, tt := range []struct {
		name, host, kind string
		do, undo         func(t *testing.T)
	}{
		{
			"a second registries.d file duplicates a scope", "/etc/containers/registries.d/zz-other.yaml", "duplicate",
			func(t *testing.T) {
				b, err := os.ReadFile(lookasides)
				must(t, err)
				must(t, os.WriteFile(containers+"/registries.d/zz-other.yaml", b, 0o644))
			},
			func(t *testing.T) { must(t, os.Remove(containers+"/registries.d/zz-other.yaml")) },
		},
		{
			"root's own policy.json in the way", "/root/.config/containers/policy.json", "masks",
			func(t *testing.T) { w.write("root/.config/containers/policy.json", []byte(acceptAnything)) },
			func(t *testing.T) { must(t, os.RemoveAll(w.node.Path("root/.config"))) },
		},
		{
			"the key file removed", "/" + keyPath, "key-missing",
			func(t *testing.T) { must(t, os.Remove(w.node.Path(keyPath))) },
			func(t *testing.T) { w.installKey() },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sub := a.as(t)
			mark := a.mark()
			tt.do(t)
			sub.await("a status that names "+tt.host+" "+tt.kind, mark, func(s status) bool {
				return s.State != "Enforced" && s.differs(tt.host, tt.kind)
			})
			mark = a.mark()
			tt.undo(t)
			sub.await("Enforced again", mark, state("Enforced"))
			if s := sub.settle("Enforced"); len(s.Differences) > 0 {
				t.Errorf("Enforced with differences: %v", s)
			}
		})
	}
}

// exchange swaps what two names stand for, in one step: the agent would see, and heal, what lies between two steps.
func exchange(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}

// whole says how the file at path is not the desired one.
func whole(path string, want []byte) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if info.Mode() != 0o644 {
		return &os.PathError{Op: "mode " + info.Mode().String(), Path: path, Err: os.ErrInvalid}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return &os.PathError{Op: "content", Path: path, Err: os.ErrInvalid}
	}
	return nil
}
