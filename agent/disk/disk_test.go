package disk_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nodetrust/nodetrust/agent/disk"
	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/trust"
)

const (
	policyPath = "/etc/containers/policy.json"
	labPath    = "/etc/containers/registries.d/lab.yaml"
	keyPath    = "/etc/pki/containers/lab.gpg"
)

const policy = `{"default":[{"type":"insecureAcceptAnything"}],"transports":{"docker":{"lab.example.com":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/etc/pki/containers/lab.gpg"}]}}}`

const lab = "docker:\n  lab.example.com:\n    lookaside: https://lab.example.com/sigstore\n"

func wanted() trust.FileSet {
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	return trust.FileSet{
		{Path: policyPath, Mode: 0o644, UID: uid, GID: gid, Data: []byte(policy)},
		{Path: labPath, Mode: 0o644, UID: uid, GID: gid, Data: []byte(lab)},
	}
}

// host is a scratch host root.
type host struct {
	t    *testing.T
	dir  string
	root *os.Root
}

func newHost(t *testing.T) host {
	t.Helper()
	h := host{t: t, dir: t.TempDir()}
	var err error
	if h.root, err = os.OpenRoot(h.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.root.Close() })
	return h
}

// newRight is a host that is as wanted.
func newRight(t *testing.T) host {
	t.Helper()
	h := newHost(t)
	for _, f := range wanted() {
		if _, err := disk.Replace(h.root, f); err != nil {
			t.Fatal(err)
		}
	}
	h.write(keyPath, "key")
	return h
}

func (h host) path(p string) string { return filepath.Join(h.dir, p) }

func (h host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h host) write(p, data string) {
	h.t.Helper()
	h.must(os.MkdirAll(filepath.Dir(h.path(p)), 0o755))
	h.must(os.WriteFile(h.path(p), []byte(data), 0o644))
}

func (h host) remove(p string) { h.t.Helper(); h.must(os.RemoveAll(h.path(p))) }

func (h host) link(target, p string) {
	h.t.Helper()
	h.must(os.MkdirAll(filepath.Dir(h.path(p)), 0o755))
	h.must(os.Symlink(target, h.path(p)))
}

func (h host) fifo(p string) {
	h.t.Helper()
	h.must(os.MkdirAll(filepath.Dir(h.path(p)), 0o755))
	h.must(unix.Mkfifo(h.path(p), 0o644))
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// short is what a difference says, without digests.
func short(ds []judge.Difference) []string {
	var out []string
	for _, d := range ds {
		got := d.Got
		if strings.HasPrefix(got, "sha256:") {
			got = ""
		}
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s", d.Path, d.Kind, got)))
	}
	return out
}

func TestCompare(t *testing.T) {
	const extra = "/etc/containers/registries.d/extra.yaml"
	for _, tt := range []struct {
		name string
		do   func(h host)
		want []string
	}{
		{"right", func(h host) {}, nil},
		{"missing", func(h host) { h.remove(policyPath) }, []string{policyPath + " missing"}},
		{"directory missing", func(h host) { h.remove("/etc/containers/registries.d") }, []string{labPath + " missing"}},
		{"directory is a file", func(h host) {
			h.remove("/etc/containers/registries.d")
			h.write("/etc/containers/registries.d", "")
		}, []string{labPath + " missing"}},
		{"content", func(h host) { h.write(policyPath, "{}") }, []string{policyPath + " content"}},
		{"emptied", func(h host) { h.write(labPath, "") }, []string{labPath + " content"}},
		{"mode", func(h host) { h.must(os.Chmod(h.path(policyPath), 0o666)) }, []string{policyPath + " mode 0666"}},
		{
			"setuid", func(h host) { h.must(os.Chmod(h.path(policyPath), 0o644|os.ModeSetuid)) },
			[]string{policyPath + " mode 4644"},
		},
		{"symlink to equal bytes", func(h host) {
			h.must(os.Rename(h.path(policyPath), h.path(policyPath+".real")))
			h.link("policy.json.real", policyPath)
		}, []string{policyPath + " type symlink"}},
		{
			"dangling symlink", func(h host) { h.remove(policyPath); h.link("nowhere", policyPath) },
			[]string{policyPath + " type symlink"},
		},
		{
			"directory in the way", func(h host) { h.remove(policyPath); h.must(os.Mkdir(h.path(policyPath), 0o755)) },
			[]string{policyPath + " type directory"},
		},
		{"fifo", func(h host) { h.remove(policyPath); h.fifo(policyPath) }, []string{policyPath + " type fifo"}},
		{
			"too large", func(h host) { h.must(os.Truncate(h.path(policyPath), 5<<20)) },
			[]string{policyPath + " unreadable larger than 4194304 bytes"},
		},
		{"parent leads out", func(h host) {
			h.remove("/etc/containers/registries.d")
			h.link(h.t.TempDir(), "/etc/containers/registries.d")
		}, []string{
			labPath + " unreadable path escapes from parent",
			"/etc/containers/registries.d unreadable path escapes from parent",
		}},

		{
			"root's own policy", func(h host) { h.write("/root/.config/containers/policy.json", "{}") },
			[]string{"/root/.config/containers/policy.json masks file"},
		},
		{
			"root's own policy, dangling", func(h host) { h.link("nowhere", "/root/.config/containers/policy.json") },
			[]string{"/root/.config/containers/policy.json masks symlink"},
		},
		{"root's home elsewhere", func(h host) {
			h.write("/etc/passwd", "root:x:0:0:root:/var/roothome:/bin/bash\nuser:x:1000:1000::/home/user:/bin/sh\n")
			h.write("/var/roothome/.config/containers/policy.json", "{}")
			h.write("/home/user/.config/containers/policy.json", "{}")
		}, []string{"/var/roothome/.config/containers/policy.json masks file"}},
		{"root's home is an absolute link", func(h host) {
			h.link("/var/roothome", "/root")
			h.write("/var/roothome/.config/containers/policy.json", "{}")
		}, []string{"/root/.config/containers/policy.json masks file"}},
		{"root's own registries.d", func(h host) {
			h.must(os.MkdirAll(h.path("/root/.config/containers/registries.d"),
				0o755))
		}, []string{"/root/.config/containers/registries.d masks directory"}},
		{
			"namespaced policy", func(h host) { h.write("/etc/crio/policies/team-a.json", "{}") },
			[]string{"/etc/crio/policies/team-a.json masks policy of namespace team-a"},
		},
		{"file of our name in rootful.d", func(h host) {
			h.write("/etc/containers/registries.rootful.d/lab.yaml", "docker: {}")
		}, []string{"/etc/containers/registries.rootful.d/lab.yaml masks file"}},

		{"another file, another scope", func(h host) { h.write(extra, "docker: {other.example.com: {}}") }, nil},
		{"duplicate scope", func(h host) { h.write(extra, lab) }, []string{extra + ` duplicate scope "lab.example.com"`}},
		{
			"duplicate scope, sorted later", func(h host) { h.write("/etc/containers/registries.d/z.yaml", lab) },
			[]string{"/etc/containers/registries.d/z.yaml" + ` duplicate scope "lab.example.com"`},
		},
		{
			"duplicate scope while ours is emptied", func(h host) { h.write(labPath, ""); h.write(extra, lab) },
			[]string{labPath + " content", extra + ` duplicate scope "lab.example.com"`},
		},
		{
			"duplicate in /usr/share", func(h host) { h.write("/usr/share/containers/registries.d/vendor.yaml", lab) },
			[]string{`/usr/share/containers/registries.d/vendor.yaml duplicate scope "lab.example.com"`},
		},
		{"same name in /usr/share", func(h host) { h.write("/usr/share/containers/registries.d/lab.yaml", lab) }, nil},
		{"two default-docker", func(h host) {
			h.write(extra, "default-docker: {}")
			h.write("/etc/containers/registries.d/default.yaml", "default-docker: {lookaside: 'file:///x'}")
		}, []string{"/etc/containers/registries.d/extra.yaml duplicate default-docker"}},
		{"default-docker without a value", func(h host) {
			h.write(extra, "default-docker:")
			h.write("/etc/containers/registries.d/default.yaml", "default-docker:")
		}, nil},
		{"bad YAML", func(h host) { h.write(extra, "docker:\n\t- x: [") }, []string{extra + " invalid bad YAML in line 2"}},
		{"unknown keys are no error to a runtime", func(h host) { h.write(extra, "docker: {x: {lookasid: y}}") }, nil},
		{
			"duplicate behind a link", func(h host) { h.write("/opt/x", lab); h.link("/opt/x", extra) },
			[]string{extra + ` duplicate scope "lab.example.com"`},
		},
		{"dangling link", func(h host) { h.link("nowhere", extra) }, []string{extra + " invalid dangling symlink"}},
		{"fifo among them", func(h host) { h.fifo(extra) }, []string{extra + " invalid fifo"}},
		{
			"directory among them", func(h host) { h.must(os.Mkdir(h.path(extra), 0o755)) },
			[]string{extra + " invalid directory"},
		},
		{"not .yaml", func(h host) { h.write("/etc/containers/registries.d/extra.yml", lab) }, nil},

		{"key missing", func(h host) { h.remove(keyPath) }, []string{keyPath + " key-missing"}},
		{"key empty", func(h host) { h.write(keyPath, "") }, []string{keyPath + " key-unreadable empty"}},
		{
			"key is a directory", func(h host) { h.remove(keyPath); h.must(os.Mkdir(h.path(keyPath), 0o755)) },
			[]string{keyPath + " key-unreadable directory"},
		},
		{"key is a fifo", func(h host) { h.remove(keyPath); h.fifo(keyPath) }, []string{keyPath + " key-unreadable fifo"}},
		{"key behind an absolute link", func(h host) {
			h.remove(keyPath)
			h.write("/usr/lib/key", "k")
			h.link("/usr/lib/key",
				keyPath)
		}, nil},
		{
			"key behind a dangling link", func(h host) { h.remove(keyPath); h.link("/usr/lib/key", keyPath) },
			[]string{keyPath + " key-missing"},
		},
		{
			"key in a loop of links", func(h host) { h.remove(keyPath); h.link("lab.gpg", keyPath) },
			[]string{keyPath + " key-unreadable too many levels of symbolic links"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newRight(t)
			tt.do(h)
			got := short(disk.Compare(h.root, wanted()))
			if strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
				t.Errorf("got %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestCompareOwner(t *testing.T) {
	needRoot(t)
	h := newRight(t)
	h.must(os.Chown(h.path(policyPath), 7, 8))
	if got := short(disk.Compare(h.root, wanted())); len(got) != 1 || got[0] != policyPath+" owner 7:8" {
		t.Errorf("got %q", got)
	}
}

func TestLabel(t *testing.T) {
	needRoot(t)
	h := newRight(t)
	set := func(p, label string) {
		if err := unix.Setxattr(h.path(p), "security.selinux", []byte(label+"\x00"), 0); err != nil {
			t.Skipf("no SELinux labels on this file system: %v", err)
		}
	}
	set("/etc/containers", "system_u:object_r:etc_t:s0")
	set(policyPath, "unconfined_u:object_r:etc_t:s0")
	if got := disk.Compare(h.root, wanted()); len(got) != 0 {
		t.Errorf("another user in the label is reported: %v", got)
	}
	h.write(policyPath, "{}")
	f, _ := wanted().Get(policyPath)
	if _, err := disk.Replace(h.root, f); err != nil {
		t.Fatal(err)
	}
	if got := labelOf(t, h.path(policyPath)); got != "unconfined_u:object_r:etc_t:s0" {
		t.Errorf("label of the old file was not kept: %q", got)
	}
	set(policyPath, "system_u:object_r:user_tmp_t:s0")
	got := disk.Compare(h.root, wanted())
	if len(got) != 1 || got[0].Kind != judge.Label || got[0].Got != "system_u:object_r:user_tmp_t:s0" {
		t.Fatalf("got %v", got)
	}
	if _, err := disk.Replace(h.root, f); err != nil {
		t.Fatal(err)
	}
	if got := labelOf(t, h.path(policyPath)); got != "system_u:object_r:etc_t:s0" {
		t.Errorf("label is %q, not the directory's", got)
	}
}

func labelOf(t *testing.T, p string) string {
	t.Helper()
	buf := make([]byte, 256)
	n, err := unix.Getxattr(p, "security.selinux", buf)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimRight(string(buf[:n]), "\x00")
}

func TestReplace(t *testing.T) {
	f, _ := wanted().Get(policyPath)
	for _, tt := range []struct {
		name  string
		do    func(h host)
		aside bool
	}{
		{"nothing there", func(h host) { h.remove("/etc") }, false},
		{"other bytes", func(h host) { h.write(policyPath, "{}") }, false},
		{
			"a symlink", func(h host) { h.remove(policyPath); h.write("/etc/victim", "v"); h.link("../victim", policyPath) },
			false,
		},
		{"a dangling symlink", func(h host) { h.remove(policyPath); h.link("nowhere", policyPath) }, false},
		{"a fifo", func(h host) { h.remove(policyPath); h.fifo(policyPath) }, false},
		{"an empty directory", func(h host) { h.remove(policyPath); h.must(os.Mkdir(h.path(policyPath), 0o755)) }, false},
		{"a directory with files", func(h host) { h.remove(policyPath); h.write(policyPath+"/x", "v") }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newRight(t)
			tt.do(h)
			aside, err := disk.Replace(h.root, f)
			if err != nil {
				t.Fatal(err)
			}
			if ds := new(disk.Comparer).Files(h.root, trust.FileSet{f}); len(ds) != 0 {
				t.Errorf("not as wanted afterwards: %v", ds)
			}
			if tt.aside != (aside != "") {
				t.Errorf("aside %q", aside)
			}
			if aside != "" {
				if b, err := os.ReadFile(h.path("/etc/containers/" + aside + "/x")); err != nil || string(b) != "v" {
					t.Errorf("what was in the way is lost: %v", err)
				}
			}
			if b, err := os.ReadFile(h.path("/etc/victim")); err == nil && string(b) != "v" {
				t.Error("wrote through the symlink")
			}
			noTemps(t, h.path("/etc/containers"))
		})
	}
}

func noTemps(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			t.Errorf("left %s", e.Name())
		}
	}
}

func TestReplaceKeepsTheOldOnFailure(t *testing.T) {
	f, _ := wanted().Get(policyPath)
	f.Data = []byte(`{"default":[{"type":"reject"}]}`)

	t.Run("parent leads out", func(t *testing.T) {
		h := newRight(t)
		outside := t.TempDir()
		h.remove("/etc/containers")
		h.link(outside, "/etc/containers")
		if _, err := disk.Replace(h.root, f); err == nil {
			t.Error("followed a symlink out of the root")
		}
		if entries, _ := os.ReadDir(outside); len(entries) != 0 {
			t.Errorf("wrote outside: %v", entries)
		}
	})
	t.Run("parent is a fifo", func(t *testing.T) {
		h := newRight(t)
		h.remove("/etc/containers")
		h.fifo("/etc/containers")
		if _, err := disk.Replace(h.root, f); err == nil {
			t.Error("no error")
		}
	})
	t.Run("read-only", func(t *testing.T) {
		needRoot(t)
		h := newRight(t)
		dir := h.path("/etc/containers")
		if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
			t.Skipf("can't mount: %v", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		h.must(unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
		if _, err := disk.Replace(h.root, f); !errors.Is(err, unix.EROFS) {
			t.Errorf("got %v, want a read-only file system", err)
		}
		if b, _ := os.ReadFile(h.path(policyPath)); string(b) != policy {
			t.Error("the old file is not whole")
		}
	})
	t.Run("no space", func(t *testing.T) {
		needRoot(t)
		h := newRight(t)
		dir := h.path("/etc/small")
		h.must(os.MkdirAll(dir, 0o755))
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16k"); err != nil {
			t.Skipf("can't mount: %v", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		small := trust.File{Path: "/etc/small/f", Mode: 0o644, Data: []byte("old")}
		if _, err := disk.Replace(h.root, small); err != nil {
			t.Fatal(err)
		}
		small.Data = make([]byte, 64<<10)
		if _, err := disk.Replace(h.root, small); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("got %v, want no space left", err)
		}
		if b, _ := os.ReadFile(dir + "/f"); string(b) != "old" {
			t.Error("the old file is not whole")
		}
		noTemps(t, dir)
	})
}

func TestSweep(t *testing.T) {
	h := newRight(t)
	const dir = "/etc/containers/"
	for _, n := range []string{".policy.json8261", ".policy.json", ".other.json55", "policy.json.bak", ".policy.json12x"} {
		h.write(dir+n, "t")
	}
	h.must(os.Mkdir(h.path(dir+".policy.json77"), 0o755))
	err := disk.Sweep(h.root, []string{policyPath, labPath, "/absent/x"})
	if err == nil || !strings.Contains(err.Error(), ".policy.json77") {
		t.Errorf("a directory of a temporary file's name: %v", err)
	}
	for n, kept := range map[string]bool{
		".policy.json8261": false, ".policy.json": true, ".other.json55": true,
		"policy.json.bak": true, ".policy.json12x": true, "policy.json": true,
	} {
		if _, err := os.Lstat(h.path(dir + n)); (err == nil) != kept {
			t.Errorf("%s: kept %v", n, err == nil)
		}
	}
}

func TestRemove(t *testing.T) {
	h := newRight(t)
	for range 2 {
		if err := disk.Remove(h.root, labPath); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(h.path(labPath)); !os.IsNotExist(err) {
		t.Error("still there")
	}
	if err := disk.Remove(h.root, "/etc/containers"); err == nil {
		t.Error("removed a directory")
	}
}

func TestObsoleteFilesCollideWithNothing(t *testing.T) {
	h := newRight(t)
	const old = "/etc/containers/registries.d/old.yaml"
	h.write(old, lab)
	var c disk.Comparer
	if ds := c.Compare(h.root, wanted(), []string{old}); len(ds) != 0 {
		t.Errorf("got %v", ds)
	}
	if ds := c.Compare(h.root, wanted(), nil); len(ds) != 1 {
		t.Errorf("got %v", ds)
	}
}

// TestForeignFilesAreBounded: who may write registries.d, a pod with that hostPath for example, must not be able to
// take the agent's memory or time.
func TestForeignFilesAreBounded(t *testing.T) {
	const dir = "/etc/containers/registries.d/"
	t.Run("one large file", func(t *testing.T) {
		h := newRight(t)
		h.write(dir+"large.yaml", strings.Repeat("# some comment\n", 1<<20/15)+"docker: {}\n")
		got := disk.Compare(h.root, wanted())
		if len(got) != 1 || got[0].Kind != judge.Invalid || !strings.Contains(got[0].Got, "larger than") {
			t.Errorf("got %v", short(got))
		}
	})
	t.Run("many files", func(t *testing.T) {
		h := newRight(t)
		const each = 200 << 10
		for i := range 64 {
			h.write(fmt.Sprintf("%sf%d.yaml", dir, i), strings.Repeat("#", each-1)+"\n")
		}
		var c disk.Comparer
		invalid := 0
		for _, d := range c.Compare(h.root, wanted(), nil) {
			if d.Kind == judge.Invalid {
				invalid++
			}
		}
		if parsed := 64 - invalid; parsed*each > 4<<20 {
			t.Errorf("%d bytes were parsed and are remembered", parsed*each)
		}
	})
}

func TestComparerForgets(t *testing.T) {
	h := newRight(t)
	const extra = "/etc/containers/registries.d/extra.yaml"
	var c disk.Comparer
	for i := range 3 {
		h.write(extra, lab)
		if ds := c.Compare(h.root, wanted(), nil); len(ds) != 1 {
			t.Fatalf("round %d: %v", i, ds)
		}
		h.write(extra, "docker: {}")
		if ds := c.Compare(h.root, wanted(), nil); len(ds) != 0 {
			t.Fatalf("round %d: %v", i, ds)
		}
	}
}

func TestFoundHasTheDigestOfTheWanted(t *testing.T) {
	h := newRight(t)
	if got, want := disk.Found(h.root, wanted()).Digest(), wanted().Digest(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	h.must(os.Chmod(h.path(policyPath), 0o600))
	if got, want := disk.Found(h.root, wanted()).Digest(), wanted().Digest(); got == want {
		t.Error("another mode has the same digest")
	}
}

func BenchmarkCompare50(b *testing.B) {
	dir := b.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer root.Close()
	set := wanted()
	for i := range 48 {
		set = append(set, trust.File{
			Path: fmt.Sprintf("/etc/containers/registries.d/r%d.yaml", i), Mode: 0o644, UID: uint32(os.Geteuid()),
			GID:  uint32(os.Getegid()),
			Data: fmt.Appendf(nil, "docker:\n  r%d.example.com:\n    lookaside: https://x/\n", i),
		})
	}
	for _, f := range set {
		if _, err := disk.Replace(root, f); err != nil {
			b.Fatal(err)
		}
	}
	var c disk.Comparer
	for b.Loop() {
		c.Compare(root, set, nil)
	}
}
