package render_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/render"
)

// shells are those that hosts have as sh: dash, busybox's, and whatever is sh here.
func shells(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	if p, err := filepath.EvalSymlinks("/bin/sh"); err == nil && filepath.Base(p) != "dash" &&
		filepath.Base(p) != "busybox" {
		out["sh"] = []string{"sh"}
	}
	for name, argv := range map[string][]string{"dash": {"dash"}, "busybox": {"busybox", "sh"}} {
		if _, err := exec.LookPath(argv[0]); err != nil {
			t.Logf("%s is not installed: the script is not run under it", name)
			continue
		}
		out[name] = argv
	}
	if len(out) == 0 {
		t.Fatal("no shell to run the script under")
	}
	return out
}

const (
	bundlePolicy   = "etc/containers/policy.json"
	bundleRegistry = "etc/containers/registries.d/registry.corp_5000.yaml"
	bundleMirror   = "etc/containers/registries.d/mirror.corp.yaml"
)

// host is a scratch root on which the script runs.
type host struct {
	t      *testing.T
	root   string
	script []byte
	argv   []string
}

func newHost(t *testing.T, in render.Input, argv []string) *host {
	h := &host{t: t, root: scratch(t), script: must(t)(render.Bundle(in)), argv: argv}
	h.write("etc/pki/os", "a key\n")
	return h
}

// scratch is a directory in memory where there is one: the script syncs, which takes seconds on a busy disk.
func scratch(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "nodetrust-bundle-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (h *host) write(path, text string) {
	h.t.Helper()
	p := filepath.Join(h.root, path)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// run pipes the script into the shell, as ssh host sh -s does.
func (h *host) run(want int, args ...string) string {
	h.t.Helper()
	argv := append(slices.Clone(h.argv), append([]string{"-s", "--", "--root", h.root}, args...)...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin = bytes.NewReader(h.script)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != want {
		h.t.Fatalf("%v: exit status %d, want %d\n%s", args, got, want, out)
	}
	return string(out)
}

// tree is all of the root but the backups: path to type, mode and content.
func (h *host) tree() map[string]string {
	h.t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(h.root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(h.root, p)
		if strings.HasPrefix(rel, "var/lib/nodetrust") {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := info.Mode().String()
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			text += " " + string(b)
		}
		out[rel] = text
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

func (h *host) same(before map[string]string, when string) {
	h.t.Helper()
	now := h.tree()
	for p := range now {
		if before[p] != now[p] {
			h.t.Errorf("%s: %s was %q, is %q", when, p, before[p], now[p])
		}
	}
	for p := range before {
		if _, ok := now[p]; !ok {
			h.t.Errorf("%s: %s is gone", when, p)
		}
	}
}

func (h *host) has(files trust.FileSet) {
	h.t.Helper()
	for _, f := range files {
		p := filepath.Join(h.root, f.Path)
		b, err := os.ReadFile(p)
		if err != nil || !bytes.Equal(b, f.Data) {
			h.t.Errorf("%s is not as rendered (%v)", f.Path, err)
			continue
		}
		if info, _ := os.Lstat(p); uint32(info.Mode().Perm()) != f.Mode || !info.Mode().IsRegular() {
			h.t.Errorf("%s is %s", f.Path, info.Mode())
		}
	}
}

func TestBundle(t *testing.T) {
	in := input(t, "rhel7")
	for name, argv := range shells(t) {
		t.Run(name, func(t *testing.T) {
			t.Run("lifecycle", func(t *testing.T) {
				h := newHost(t, in, argv)
				before := h.tree()
				if out := h.run(3); !strings.Contains(out, bundlePolicy+": missing\n+{\n") {
					t.Errorf("the dry run says %s", out)
				}
				h.same(before, "after the dry run")
				h.run(3, "--check")
				h.run(0, "--apply")
				h.has(in.Files)
				if len(h.tree()) != len(before)+3 {
					t.Errorf("more was written than three files: %v", h.tree())
				}
				after := h.tree()
				if out := h.run(0, "--apply"); out != "nothing to do\n" {
					t.Errorf("a second --apply says %s", out)
				}
				h.run(0, "--check")
				h.run(0)
				h.same(after, "after a second --apply")
				h.run(0, "--undo")
				h.same(before, "after --undo")
				h.run(1, "--undo")
			})

			t.Run("drift", func(t *testing.T) {
				h := newHost(t, in, argv)
				h.run(0, "--apply")
				for name, spoil := range map[string]func(string) error{
					"different":  func(p string) error { return os.WriteFile(p, []byte("{}\n"), 0o644) },
					"missing":    os.Remove,
					"mode":       func(p string) error { return os.Chmod(p, 0o666) },
					"empty":      func(p string) error { return os.Truncate(p, 0) },
					"NUL":        func(p string) error { return appendTo(p, "\x00") },
					"no newline": func(p string) error { st, _ := os.Stat(p); return os.Truncate(p, st.Size()-1) },
				} {
					files := map[bool][]string{true: {bundlePolicy, bundleMirror}, false: {bundlePolicy}}[name == "missing"]
					for _, file := range files {
						if err := spoil(filepath.Join(h.root, file)); err != nil {
							t.Fatal(err)
						}
						spoilt := h.tree()
						if out := h.run(3, "--check"); strings.Contains(out, "/"+file+": same") {
							t.Errorf("%s of %s is not seen:\n%s", name, file, out)
						}
						h.same(spoilt, name+" after --check")
						if name != "mode" && name != "missing" && name != "different" {
							h.write(file, string(contentOf(in, "/"+file)))
							continue
						}
						h.run(0, "--apply")
						h.has(in.Files)
						if name == "missing" {
							h.run(0, "--undo")
							h.same(spoilt, name+" after --undo")
							h.run(0, "--apply")
						}
					}
				}
				if os.Geteuid() == 0 {
					if err := os.Chown(filepath.Join(h.root, bundlePolicy), 65534, 0); err != nil {
						t.Fatal(err)
					}
					if out := h.run(3, "--check"); !strings.Contains(out, bundlePolicy+": owner\n") {
						t.Errorf("another owner is not seen:\n%s", out)
					}
				}
			})

			// What keeps the files from having an effect, or would break pulls: nothing is written.
			t.Run("obstacles", func(t *testing.T) {
				for _, tt := range []struct {
					path, text, want string
				}{
					{"root/.config/containers/policy.json", "{}", "/root/.config/containers/policy.json is read instead"},
					{"root/.config/containers/registries.d/x.yaml", "", "/root/.config/containers/registries.d is read instead"},
					{
						"etc/containers/registries.d/other.yaml", "docker:\n    \"registry.corp:5000\":\n        sigstore: file:///x\n",
						"other.yaml has the scope registry.corp:5000 too",
					},
					{
						"etc/containers/registries.d/flow.yaml", "docker: {a.b: {}, mirror.corp/x: {sigstore: 'https://a.b/c'}}\n",
						"flow.yaml has the scope mirror.corp/x too",
					},
					{
						"etc/containers/registries.rootful.d/mirror.corp.yaml", "",
						"mirror.corp.yaml has the name of /etc/containers/registries.d/mirror.corp.yaml and is read instead",
					},
					{
						"etc/machine-config-daemon/currentconfig", `{"files":[{"path":"/etc/containers/policy.json"}]}`,
						"policy.json: belongs to the node's MachineConfig",
					},
					{"etc/pki/os", "", "the key file /etc/pki/os is missing or empty"},
				} {
					h := newHost(t, in, argv)
					h.write(tt.path, tt.text)
					before := h.tree()
					if out := h.run(3, "--check"); !strings.Contains(out, tt.want) {
						t.Errorf("%s: --check says\n%s", tt.path, out)
					}
					if out := h.run(1, "--apply"); !strings.Contains(out, tt.want) || !strings.Contains(out, "nothing was changed") {
						t.Errorf("%s: --apply says\n%s", tt.path, out)
					}
					h.same(before, tt.path)
				}
			})

			// What lint says of registries.d on a host, the script says too: what readers fail at is in the way.
			t.Run("no files", func(t *testing.T) {
				const dir = "etc/containers/registries.d/"
				link := func(to string) func(string) error { return func(p string) error { return os.Symlink(to, p) } }
				mkdir := func(p string) error { return os.Mkdir(p, 0o755) }
				pipe := func(p string) error { return syscall.Mkfifo(p, 0o644) }
				all := []string{"rhel7", "cri-o-1.34", "containers-image-5.42.1"}
				for _, tt := range []struct {
					path    string
					spoil   func(string) error
					want    string
					readers []string // that fail
				}{
					{dir + "z.yaml", link("/nowhere"), "is a link to nothing", all[:1]},
					{dir + "z.yaml", mkdir, "is a directory", all[:2]},
					{dir + "z.yaml", link("/etc"), "is no readable file", all},
					{dir + "z.yaml", link("z.yaml"), "leads in a circle", all},
					{dir + "z.yaml", pipe, "is no readable file", all},
					{dir + ".z.yaml", pipe, "is no readable file", all},
					{"usr/share/containers/registries.d/z.yaml", pipe, "is no readable file", all[2:]},
					{dir + "z.yaml", link("/etc/target"), "z.yaml has the scope mirror.corp/x too", all},
					{dir + "z.yaml", link("../../other"), "", nil},
					{dir + "z.yaml", link("/dev/null"), "", nil},
					{dir + "z.yml", link("/nowhere"), "", nil},
					{dir + "mirror.corp.yml", mkdir, "", nil},
					{"usr/share/containers/registries.d/mirror.corp.yaml", pipe, "", nil}, // ours masks it
				} {
					for _, reader := range all {
						h := newHost(t, input(t, reader), argv)
						h.write("etc/target", "docker: {mirror.corp/x: {}}\n")
						h.write("etc/other", "docker: {}\n")
						p := filepath.Join(h.root, tt.path)
						if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), tt.spoil(p)); err != nil {
							t.Fatal(err)
						}
						want := 0
						if slices.Contains(tt.readers, reader) {
							want = 1
						}
						if out := h.run(want, "--apply"); want == 1 && !strings.Contains(out, tt.want) {
							t.Errorf("%s, %s: --apply says\n%s", tt.path, reader, out)
						}
					}
				}
			})

			t.Run("no obstacles", func(t *testing.T) {
				h := newHost(t, in, argv)
				h.write("etc/containers/registries.d/other.yaml",
					"# registry.corp:5000:\ndocker:\n  registry.corp:  # not registry.corp:5000\n    sigstore: https://registry.corp:5000/x\n  registry.corp:5000/below:\n    sigstore: https://mirror.corp/x\n")
				h.write("etc/containers/registries.d/mirror.corp.yaml", "docker:\n  mirror.corp/x:\n    sigstore: https://old/x\n")
				h.write("etc/containers/registries.d/ignored.yml", "docker: {mirror.corp/x: {}}\n")
				h.run(0, "--apply")
				h.has(in.Files)
			})

			t.Run("strange places", func(t *testing.T) {
				h := newHost(t, in, argv)
				h.write("etc/target", "x")
				if err := os.MkdirAll(filepath.Join(h.root, "etc/containers"), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink("../target", filepath.Join(h.root, bundlePolicy)); err != nil {
					t.Fatal(err)
				}
				before := h.tree()
				if out := h.run(1, "--apply"); !strings.Contains(out, "is no readable file, but: link") {
					t.Errorf("got %s", out)
				}
				h.same(before, "a link")
				if err := os.Remove(filepath.Join(h.root, bundlePolicy)); err != nil {
					t.Fatal(err)
				}
				// A file where a directory should be: the second file can't be staged, so the first is not written either.
				h.write("etc/containers/registries.d", "no directory")
				before = h.tree()
				if out := h.run(1, "--apply"); !strings.Contains(out, "nothing was changed") {
					t.Errorf("got %s", out)
				}
				h.same(before, "a file in the way")
			})

			t.Run("links out of the root", func(t *testing.T) {
				for _, dir := range []string{"etc", "etc/containers", "etc/containers/registries.d", "var/lib/nodetrust"} {
					h, outside := newHost(t, in, argv), scratch(t)
					link := filepath.Join(h.root, dir)
					if err := errors.Join(os.RemoveAll(link), os.MkdirAll(filepath.Dir(link), 0o755),
						os.Symlink(outside, link)); err != nil {
						t.Fatal(err)
					}
					if out := h.run(1, "--apply"); !strings.Contains(out, "leads out of "+h.root) ||
						!strings.Contains(out, "nothing was changed") {
						t.Errorf("%s: --apply says\n%s", dir, out)
					}
					if found, err := os.ReadDir(outside); err != nil || len(found) > 0 {
						t.Errorf("%s: %v was written outside (%v)", dir, found, err)
					}
				}
				h := newHost(t, in, argv)
				if err := errors.Join(os.MkdirAll(filepath.Join(h.root, "etc/real"), 0o755),
					os.Symlink("real", filepath.Join(h.root, "etc/containers"))); err != nil {
					t.Fatal(err)
				}
				h.run(0, "--apply")
				h.has(in.Files)
			})

			t.Run("undo keeps what others wrote", func(t *testing.T) {
				h := newHost(t, in, argv)
				h.run(0, "--apply")
				h.write(bundleRegistry, "docker: {}\n")
				before := h.tree()
				if out := h.run(1, "--undo"); !strings.Contains(out, "was changed since --apply; nothing was changed") {
					t.Errorf("got %s", out)
				}
				h.same(before, "after a refused --undo")
			})

			t.Run("undo goes back step by step", func(t *testing.T) {
				h := newHost(t, in, argv)
				h.write(bundlePolicy, "first\n")
				first := h.tree()
				h.run(0, "--apply")
				h.write(bundlePolicy, "second\n")
				if err := os.Chmod(filepath.Join(h.root, bundlePolicy), 0o640); err != nil {
					t.Fatal(err)
				}
				second := h.tree()
				h.run(0, "--apply")
				h.run(0, "--undo")
				h.same(second, "after the first --undo")
				h.run(1, "--undo") // second is not what the first --apply wrote
				h.run(0, "--apply")
				h.run(0, "--undo")
				h.write(bundlePolicy, string(contentOf(in, trust.PolicyPath)))
				h.run(0, "--apply")
				h.run(0, "--undo") // of the mode
				if err := os.Chmod(filepath.Join(h.root, bundlePolicy), 0o644); err != nil {
					t.Fatal(err)
				}
				h.run(0, "--undo")
				h.same(first, "after the last --undo")
			})

			// A script that arrives in part does nothing.
			t.Run("truncated", func(t *testing.T) {
				h := newHost(t, in, argv)
				before := h.tree()
				whole := h.script
				for _, n := range []int{
					len(whole) / 4, len(whole) / 2, bytes.LastIndex(whole, []byte("\nmain ")),
					len(whole) - 20,
				} {
					h.script = whole[:n]
					argv := append(slices.Clone(h.argv), "-s", "--", "--root", h.root, "--apply")
					cmd := exec.Command(argv[0], argv[1:]...)
					cmd.Stdin = bytes.NewReader(h.script)
					_ = cmd.Run()
					h.same(before, "truncated")
				}
			})

			t.Run("usage", func(t *testing.T) {
				h := newHost(t, in, argv)
				h.run(2, "--apply", "--undo")
				h.run(2, "--other")
				h.run(2, "--root")
				h.run(2, "--root", filepath.Join(h.root, "missing"))
			})
		})
	}
}

func contentOf(in render.Input, path string) []byte {
	f, _ := in.Files.Get(path)
	return f.Data
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}

// TestBundle_podman has Debian's podman read what the script wrote.
func TestBundle_podman(t *testing.T) {
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skip("podman is not installed")
	}
	in := input(t, "rhel7", "podman-4.3")
	h := newHost(t, in, []string{"sh"})
	h.run(0, "--apply")
	dir := t.TempDir()
	out, err := exec.Command("podman", "--root", dir+"/root", "--runroot", dir+"/run", "--storage-driver", "vfs", "image",
		"trust", "show", "--json",
		"--policypath", filepath.Join(h.root, bundlePolicy), "--registrypath",
		filepath.Join(h.root, "etc/containers/registries.d")).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"registry.corp:5000"`, `"sigstore": "https://registry.corp/sigs"`,
		`"registry.corp:5000/index"`,
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("podman does not know %s:\n%s", want, out)
		}
	}
}

// TestBundle_unfit: what can't stand in a script is refused, not mangled.
func TestBundle_unfit(t *testing.T) {
	for _, f := range []trust.File{
		{Path: "/etc/pki/containers/a b", Mode: 0o644, Data: []byte("x\n")},
		{Path: "/etc/pki/containers/$(id)", Mode: 0o644, Data: []byte("x\n")},
		{Path: "/etc/pki/containers/a", Mode: 0o644, Data: []byte("x")},
		{Path: "/etc/pki/containers/a", Mode: 0o644, Data: []byte("x\x00\n")},
		{Path: "/etc/pki/containers/a", Mode: 0o644, UID: 1, Data: []byte("x\n")},
	} {
		in := input(t)
		in.Files = append(in.Files, f)
		if _, err := render.Bundle(in); err == nil {
			t.Errorf("%+v stands in a script", f)
		}
	}
	// A line that looks like the end of a here-document.
	in := input(t)
	in.Files = append(in.Files, trust.File{
		Path: "/etc/pki/containers/a", Mode: 0o600,
		Data: []byte("NODETRUST_END\nNODETRUST_END_\n$(touch /x) `id` \\\n"),
	})
	h := newHost(t, in, []string{"sh"})
	h.run(0, "--apply")
	h.has(in.Files)
}

// TestBundle_killed: a script that is killed at any step leaves each file whole, as it was or as it should be, and
// the next --apply goes on.
func TestBundle_killed(t *testing.T) {
	in := input(t, "rhel7")
	if _, err := exec.LookPath("dash"); err != nil {
		t.Skip("dash is not installed")
	}
	shims := t.TempDir()
	for _, name := range []string{"chmod", "chown", "cp", "cksum", "mkdir", "mv", "sync"} {
		real, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		// Each call is counted; before the one that is asked for the script is killed.
		shim := "#!/bin/sh\necho x >>\"$COUNT\"\n[ \"$(wc -l <\"$COUNT\")\" != \"$KILL_AT\" ] || { kill -9 $PPID; exit 9; }\nexec " + real + " \"$@\"\n"
		if err := os.WriteFile(filepath.Join(shims, name), []byte(shim), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for at, killed := 1, true; killed; at++ {
		if at > 200 {
			t.Fatal("the script never comes to its end")
		}
		h := newHost(t, in, []string{"dash"})
		h.write(bundlePolicy, "old\n")
		count := filepath.Join(t.TempDir(), "count")
		cmd := exec.Command("dash", "-s", "--", "--root", h.root, "--apply")
		cmd.Stdin = bytes.NewReader(h.script)
		cmd.Env = append(os.Environ(), "PATH="+shims+":"+os.Getenv("PATH"), "COUNT="+count, "KILL_AT="+strconv.Itoa(at))
		killed = cmd.Run() != nil
		if !killed && at < 10 {
			t.Fatalf("there was no step %d", at)
		}
		for p, now := range h.tree() {
			switch {
			case p == "etc/pki/os", p == bundlePolicy && strings.HasSuffix(now, " old\n"):
			case strings.HasSuffix(p, ".tmp"): // no reader takes it
			case !strings.HasSuffix(now, " "+string(contentOf(in, "/"+p))):
				t.Errorf("killed at step %d: %s is %q", at, p, now)
			}
		}
		h.run(0, "--apply")
		h.has(in.Files)
	}
}

// TestBundle_chroot runs the script as `oc debug node/N -- chroot /host sh -s` does, in a root with nothing but
// busybox, and with a restorecon that notes what it is asked for.
func TestBundle_chroot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("chroot needs root")
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox is not installed")
	}
	h := newHost(t, input(t, "rhel7"), nil)
	install(t, h.root, busybox)
	if cksum, err := exec.LookPath("cksum"); err == nil {
		install(t, h.root, cksum) // Debian's busybox has none
	}
	h.write("dev/null", "") // where the test's directory may have no devices
	h.write("sbin/restorecon", "#!/bin/busybox sh\necho \"$1\" >>/labelled\n")
	if err := os.Chmod(filepath.Join(h.root, "sbin/restorecon"), 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(want int, args ...string) string {
		t.Helper()
		cmd := exec.Command("chroot", append([]string{h.root, "/bin/busybox", "sh", "-s", "--"}, args...)...)
		cmd.Stdin = bytes.NewReader(h.script)
		cmd.Env = []string{"PATH=/bin:/sbin"}
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Fatalf("%v: exit status %d, want %d\n%s", args, got, want, out)
		}
		return string(out)
	}
	run(3)
	run(0, "--apply")
	in := input(t, "rhel7")
	h.has(in.Files)
	labelled, err := os.ReadFile(filepath.Join(h.root, "labelled"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range in.Files {
		// Before it is renamed, so that no reader sees it without, and after, where the path counts.
		if !strings.Contains(string(labelled), "\n"+f.Path+"\n") ||
			!strings.Contains(string(labelled), filepath.Dir(f.Path)+"/.nodetrust.") {
			t.Errorf("%s got no label: %s", f.Path, labelled)
		}
	}
	run(0, "--check")
	run(0, "--undo")
	if _, err := os.Stat(filepath.Join(h.root, bundlePolicy)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after --undo: %v", err)
	}
}

// install puts a program with its libraries into root, and for busybox the names of its applets.
func install(t *testing.T, root, program string) {
	t.Helper()
	libraries := regexp.MustCompile(`/\S+`)
	files := []string{program}
	if out, err := exec.Command("ldd", program).Output(); err == nil {
		files = append(files, libraries.FindAllString(string(out), -1)...)
	}
	for i, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(root, f)
		if i == 0 {
			to = filepath.Join(root, "bin", filepath.Base(program))
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if filepath.Base(program) != "busybox" {
		return
	}
	applets, err := exec.Command(program, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.FieldsSeq(string(applets)) {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
	}
}
