package lint

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/trust"
)

// holes are what lint says of known holes.
func holes(t *testing.T, root string, paths []string, readers ...string) []string {
	t.Helper()
	r, err := Run(paths, Options{Root: root, Readers: readers, Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range r.Findings {
		if f.Code == "reader-advisory" {
			if f.Severity != Warning {
				t.Errorf("%s: is an %s", f.Message, f.Severity)
			}
			out = append(out, f.File+" "+f.Message+" ("+f.Hint+")")
		}
	}
	return out
}

// TestReaderAdvisory: a hole is told of readers that were named, once each, and of no other.
func TestReaderAdvisory(t *testing.T) {
	dir := write(t, t.TempDir(), map[string]string{"policy.json": signedPolicy})
	paths := []string{filepath.Join(dir, "policy.json")}
	for _, tt := range []struct {
		name    string
		readers []string
		want    int
	}{
		{"nobody was named", nil, 0},
		{"the current library", []string{CurrentLibrary}, 0},
		{"the last with a hole", []string{"containers-image-5.42.0"}, 1},
		{"an older line that is mended", []string{"containers-image-5.39.4"}, 0},
		{"twice the same", []string{"containers-image-5.42.0", "containers-image-5.42.0"}, 1},
		{"two of them", []string{"containers-image-5.42.0", "cri-o-1.35"}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := holes(t, "", paths, tt.readers...)
			if len(got) != tt.want {
				t.Fatalf("got %q", got)
			}
			for _, text := range got {
				if !strings.Contains(text, ", whose verifier has known holes: forged-schema1 (fixed in 5.42.1, 5.39.4)") {
					t.Errorf("got %q", text)
				}
			}
		})
	}
}

// TestHostAdvisory: of a host's programs the library counts that is built in, or else the version of the Debian
// package.
func TestHostAdvisory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "program")
	if out, err := exec.Command("go", "build", "-o", file, "./testdata/program").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	program, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	built := func(version string) string {
		return string(bytes.ReplaceAll(program, []byte("go.podman.io/image/v5\tv5.42.1\t"),
			[]byte("go.podman.io/image/v5\t"+version+"\t")))
	}
	const debian = "Package: podman\nStatus: install ok installed\nVersion: 4.3.1+ds1-8+deb12u1+b1\n\nPackage: cri-o\nStatus: deinstall ok config-files\nVersion: 1.30.0-1\n"
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"nothing is known", map[string]string{"usr/bin/podman": "#!/bin/sh\n"}, ""},
		{
			"an old library",
			map[string]string{"usr/bin/podman": built("v5.42.0")},
			"/usr/bin/podman is built with containers-image 5.42.0, whose verifier has known holes: forged-schema1 (fixed in 5.42.1, 5.39.4)",
		},
		{"the current library", map[string]string{"usr/bin/podman": built("v5.42.1")}, ""},
		{"a program says more than its package", map[string]string{
			"usr/bin/podman":      built("v5.42.1"),
			"var/lib/dpkg/status": debian,
		}, ""},
		{"a program beside the package's", map[string]string{
			"usr/local/bin/podman": built("v5.42.1"),
			"var/lib/dpkg/status":  debian,
		}, "/var/lib/dpkg/status podman 4.3.1+ds1-8+deb12u1+b1 has containers-image 5.23.1, whose verifier has known holes: forged-schema1 (fixed in 5.42.1, 5.39.4)"},
		{
			"a package",
			map[string]string{"usr/bin/podman": "\x7fELF", "var/lib/dpkg/status": debian},
			"/var/lib/dpkg/status podman 4.3.1+ds1-8+deb12u1+b1 has containers-image 5.23.1, whose verifier has known holes: forged-schema1 (fixed in 5.42.1, 5.39.4)",
		},
		{"a package that was removed", map[string]string{"var/lib/dpkg/status": debian[strings.Index(debian,
			"Package: cri-o"):]}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.files["etc/containers/policy.json"] = signedPolicy
			root := write(t, t.TempDir(), tt.files)
			var forged []string
			for _, text := range holes(t, root, nil) {
				if strings.Contains(text, "forged-schema1") {
					forged = append(forged, text)
				}
			}
			switch {
			case tt.want == "" && len(forged) > 0, tt.want != "" && (len(forged) != 1 || !strings.HasPrefix(forged[0], tt.want)):
				t.Errorf("got %q", forged)
			case strings.HasPrefix(tt.want, dpkgStatus) && !strings.Contains(forged[0], "its changelog"):
				t.Errorf("got %q: nothing says that the package may be mended", forged[0])
			}
		})
	}
}

func TestLibraryOf(t *testing.T) {
	for _, tt := range []struct {
		name, path, version string
		replace             *debug.Module
		want                string
	}{
		{"today's module", "go.podman.io/image/v5", "v5.41.2", nil, "5.41.2"},
		{"the old module", "github.com/containers/image/v5", "v5.29.2", nil, "5.29.2"},
		{"a snapshot", "github.com/containers/image/v5", "v5.29.3-0.20240101000000-0123456789ab", nil, "5.29.2"},
		{
			"a snapshot of the main branch", "github.com/containers/image/v5", "v5.30.0-0.20240101000000-0123456789ab",
			nil, "5.29.0",
		},
		{
			"replaced", "github.com/containers/image/v5", "v5.29.2",
			&debug.Module{Path: "example.com/fork", Version: "v5.29.3"}, "5.29.3",
		},
		{"replaced by a folder", "github.com/containers/image/v5", "v5.29.2", &debug.Module{Path: "../image"}, ""},
		{"no version", "github.com/containers/image/v5", "(devel)", nil, ""},
		{"another module", "github.com/containers/storage", "v1.50.0", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := libraryOf(&debug.BuildInfo{Deps: []*debug.Module{{
				Path: tt.path, Version: tt.version,
				Replace: tt.replace,
			}}})
			if ok != (tt.want != "") || ok && got.String() != tt.want {
				t.Errorf("got %v, %v", got, ok)
			}
		})
	}
}

// TestBuildAdvisory: a hole that only some builds have is told of these.
func TestBuildAdvisory(t *testing.T) {
	for _, a := range trust.Advisories() {
		if a.Build == "" {
			continue
		}
		for tags, want := range map[string]bool{"seccomp," + a.Build: true, "seccomp": false, "no_" + a.Build: false} {
			if got := builtWith(&debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "-tags", Value: tags}}},
				a.Build); got != want {
				t.Errorf("%s: got %v", tags, got)
			}
		}
	}
}
