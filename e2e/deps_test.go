package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestDeps runs the dependency script on machines that have only what the test gives them.
func TestDeps(t *testing.T) {
	const (
		newGo = "#!/bin/sh\necho go version go1.21.0 linux/amd64\n"
		ran   = "#!/bin/sh\necho RAN \"${0##*/}\" \"$@\"\n"
	)
	for _, tt := range []struct {
		name  string
		tools map[string]string
		user  uint32
		args  []string
		code  int
		lines int // of output; 0 for any number
		want  []string
		not   []string
	}{
		{
			name: "no Go", tools: map[string]string{"apt-get": ran}, code: 1, lines: 1,
			want: []string{"Go is not installed", "1.21"},
		},
		{
			name: "Go that can't fetch a newer one", tools: map[string]string{
				"apt-get": ran,
				"go":      "#!/bin/sh\necho go version go1.19.8 linux/amd64\n",
			},
			code: 1, lines: 1, want: []string{"Go 1.19 is too old", "1.21"},
		},
		{
			name: "Debian, root", tools: map[string]string{"apt-get": ran, "go": newGo}, code: 0,
			want: []string{
				"RAN apt-get update", "RAN apt-get install", " libgpgme-dev", " pkg-config", " gnupg", " gcc",
				" podman", " skopeo", " runc", " libseccomp-dev",
			},
		},
		{
			name: "Debian, root, only to build", tools: map[string]string{"apt-get": ran, "go": newGo},
			args: []string{"build"}, code: 0,
			want: []string{"RAN apt-get install", " libgpgme-dev"}, not: []string{"podman"},
		},
		{
			name: "Fedora, root", tools: map[string]string{"dnf": ran, "go": newGo}, code: 0,
			want: []string{"RAN dnf install", " gpgme-devel", " gnupg2", " gcc", " podman"},
			not:  []string{"apt-get", "libgpgme-dev"},
		},
		{
			name: "a user without sudo", tools: map[string]string{"apt-get": ran, "go": newGo}, user: 65534, code: 1, lines: 1,
			want: []string{"nodetrust: error: missing:", "as root run: ", "apt-get install"}, not: []string{"RAN", "podman"},
		},
		{
			name: "a user with sudo, but no terminal", tools: map[string]string{"apt-get": ran, "sudo": ran, "go": newGo},
			user: 65534, code: 1, lines: 1,
			want: []string{"as root run: "}, not: []string{"RAN"},
		},
		{
			name: "nothing missing", args: []string{"build"}, tools: map[string]string{
				"apt-get": ran, "go": newGo, "make": "#!/bin/sh\n", "gcc": "#!/bin/sh\n", "pkg-config": "#!/bin/sh\n",
				"gpg": "#!/bin/sh\n",
			}, code: 0, not: []string{"RAN"},
		},
		{
			name: "unknown group", tools: map[string]string{"apt-get": ran, "go": newGo}, args: []string{"tset"}, code: 1,
			lines: 1, want: []string{"tset"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.code == 0 && len(tt.want) > 0 && os.Geteuid() != 0 {
				t.Skip("installing directly needs root")
			}
			// Open to the user that the script may run as.
			dir, err := os.MkdirTemp(theLab.Dir, "deps-")
			must(t, err)
			must(t, os.Chmod(dir, 0o755))
			for _, name := range []string{"sh", "id", "sed", "uname"} {
				path, err := exec.LookPath(name)
				must(t, err)
				must(t, os.Symlink(path, filepath.Join(dir, name)))
			}
			for name, script := range tt.tools {
				must(t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755))
			}
			script, err := os.ReadFile("../hack/deps.sh")
			must(t, err)
			cmd := exec.Command(filepath.Join(dir, "sh"), append([]string{"-s", "--"}, tt.args...)...)
			cmd.Stdin = bytes.NewReader(script)
			cmd.Dir = "/"
			cmd.Env = []string{"PATH=" + dir}
			if tt.user != 0 && os.Geteuid() == 0 {
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: tt.user, Gid: tt.user}}
			}
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if code := cmd.ProcessState.ExitCode(); code != tt.code {
				t.Errorf("exit status %d, want %d", code, tt.code)
			}
			for _, s := range tt.want {
				if !bytes.Contains(out, []byte(s)) {
					t.Errorf("does not say %q", s)
				}
			}
			for _, s := range tt.not {
				if bytes.Contains(out, []byte(s)) {
					t.Errorf("says %q", s)
				}
			}
			if got := strings.Count(string(out), "\n"); tt.lines > 0 && got != tt.lines {
				t.Errorf("%d lines, want %d", got, tt.lines)
			}
			if t.Failed() {
				t.Logf("output:\n%s", out)
			}
		})
	}
}

// TestDeps_redHat: RHEL keeps headers in a repository that is off, its base images for containers have one that is
// on, under another name.
func TestDeps_redHat(t *testing.T) {
	needNode(t) // another /etc needs root and namespaces
	for name, repository := range map[string]string{
		"redhat.repo": "--enablerepo=codeready-builder-for-rhel-9-",
		"ubi.repo":    "",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range map[string]string{
				"etc/os-release": "ID=rhel\nID_LIKE=fedora\nVERSION_ID=9.8\n", "etc/yum.repos.d/" + name: "",
				"bin/dnf": "#!/bin/sh\necho RAN \"$@\"\n", "bin/go": "#!/bin/sh\necho go version go1.26.7 linux/amd64\n",
			} {
				must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o755))
				must(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o755))
			}
			for _, tool := range []string{"sh", "id", "sed", "uname"} {
				path, err := exec.LookPath(tool)
				must(t, err)
				must(t, os.Symlink(path, filepath.Join(dir, "bin", tool)))
			}
			script, err := filepath.Abs("../hack/deps.sh")
			must(t, err)
			cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c",
				`mount -t overlay none -o "lowerdir=$1/etc:/etc" /etc && PATH="$1/bin" exec sh "$2" build`, "sh", dir, script)
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), " make ") || !strings.Contains(string(out), " gpgme-devel ") ||
				strings.Contains(string(out), "--enablerepo") != (repository != "") || !strings.Contains(string(out), repository) {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
