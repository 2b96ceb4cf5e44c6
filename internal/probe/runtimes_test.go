package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodetrust/nodetrust/internal/judge"
)

func described(rs []judge.Runtime) string {
	var out []string
	for _, r := range rs {
		out = append(out, fmt.Sprintf("%s/%s/%v/%s", r.Name, r.Version, len(r.Advisories) > 0, r.Fixed))
	}
	return strings.Join(out, " ")
}

// TestCRIVersion: of what a runtime says of itself only what could be a name and a version is taken, and nothing of
// it is an error.
func TestCRIVersion(t *testing.T) {
	for _, tt := range []struct {
		name, runtime, version string
		want                   string
	}{
		{"cri-o", "cri-o", "1.34.0", "cri-o/1.34.0/true/5.42.1"},
		{"OpenShift's", "cri-o", "1.29.5-7.rhaos4.16.git7db4ada.el9", "cri-o/1.29.5-7.rhaos4.16.git7db4ada.el9/true/5.42.1"},
		{"containerd", "containerd", "1.7.0", "containerd/1.7.0/false/"},
		{"no number", "cri-o", "unknown", "cri-o/unknown/false/"},
		{"no version", "cri-o", "", "cri-o//false/"},
		{"hostile version", "cri-o", "1.34.0\x1b[2J\n", "cri-o//false/"},
		{"hostile name", "cri-o\nnodetrust_state 1", "1.34.0", ""},
		{"without end", strings.Repeat("x", 1<<20), strings.Repeat("1", 1<<20), ""},
		{"more than a message takes", strings.Repeat("x", 8<<20), "1.34.0", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, o := newStore(t)
			s.version = func(context.Context) (*runtimeapi.VersionResponse, error) {
				return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: tt.runtime, RuntimeVersion: tt.version}, nil
			}
			if got := described(Runtimes(t.Context(), o)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestCRIVersionNotTold(t *testing.T) {
	s, o := newStore(t)
	if got := Runtimes(t.Context(), o); len(got) != 0 {
		t.Errorf("not implemented: got %+v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s.version = func(ctx context.Context) (*runtimeapi.VersionResponse, error) {
		cancel()
		<-ctx.Done()
		return nil, errors.New("late")
	}
	if got := Runtimes(ctx, o); len(got) != 0 {
		t.Errorf("hangs: got %+v", got)
	}
	o.CRISocket = filepath.Join(o.Root, "nobody")
	if got := Runtimes(t.Context(), o); len(got) != 0 {
		t.Errorf("no socket: got %+v", got)
	}
	o.Runtime = Verify
	if got := Runtimes(t.Context(), o); len(got) != 0 {
		t.Errorf("no runtime takes part: got %+v", got)
	}
}

// TestPodmanVersion: what a binary called podman may print.
func TestPodmanVersion(t *testing.T) {
	dir := t.TempDir()
	path := os.Getenv("PATH")
	t.Setenv("PATH", dir+":"+path)
	o := Options{Runtime: Podman, Environ: []string{"PATH=" + dir + ":" + path}}
	for _, tt := range []struct{ name, script, want string }{
		{"plain", `echo podman version 4.3.1`, "podman/4.3.1/true/5.42.1"},
		{"RHEL's", `echo podman version 4.9.4-rhel`, "podman/4.9.4-rhel/true/5.42.1"},
		{"warns", `echo warning >&2; echo podman version 5.4.2`, "podman/5.4.2/true/5.42.1"},
		{"docker's", `echo Docker version 28.0.0, build 1234567`, "podman//false/"},
		{"fails", `echo podman version 4.3.1; exit 125`, "podman//false/"},
		{"two lines", `echo podman version 4.3.1; echo more`, "podman//false/"},
		{"hostile", `printf 'podman version 4.3.1\033[2J'`, "podman//false/"},
		{"without end", `echo podman version 4.3.1; head -c 10000000 /dev/zero`, "podman//false/"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, os.WriteFile(filepath.Join(dir, "podman"),
				[]byte("#!/bin/sh\n[ \"$*\" = --version ] || exit 1\n"+tt.script+"\n"), 0o755))
			if got := described(Runtimes(t.Context(), o)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	t.Run("real", func(t *testing.T) {
		check(t, os.Remove(filepath.Join(dir, "podman")))
		if _, err := exec.LookPath("podman"); err != nil {
			t.Skip("podman is not installed")
		}
		rs := Runtimes(t.Context(), o)
		if len(rs) != 1 || !strings.Contains(rs[0].Version, ".") {
			t.Errorf("got %+v", rs)
		}
	})
}
