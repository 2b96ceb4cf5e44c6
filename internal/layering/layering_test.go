// Package layering holds the borders between packages, and the pages that describe them.
package layering

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// borders are what packages must not link, however many imports lie between. The table can be written anew from the
// tree; the borders can't.
var borders = []struct {
	name      string
	build     build
	packages  []string
	forbidden []string
}{
	{
		"the agent stays small", agentBuild,
		[]string{"cmd/nodetrust-agent"},
		[]string{
			"go.podman.io/image", "google.golang.org/grpc", "k8s.io/client-go/kubernetes", "k8s.io/api",
			"k8s.io/cri-api", "github.com/coreos/butane",
			module + "internal/verify", module + "internal/probe", module + "render",
		},
	},
	{
		"the core knows no cluster", cgoBuild,
		[]string{
			"internal/trust", "internal/openpgp/key", "render", "internal/verify", "internal/judge", "internal/verdict",
			"internal/desired", "internal/lint", "internal/policy/compare", "internal/cluster/mco", "internal/audit",
			"internal/audit/cache", "internal/audit/page", "internal/release", "internal/lookaside",
		},
		[]string{"k8s.io/client-go"},
	},
	{
		"what judges no image needs no image library", cgoBuild,
		[]string{
			"internal/trust", "internal/openpgp/key", "render", "internal/judge", "internal/verdict", "internal/desired",
			"internal/policy/compare", "internal/cluster/mco", "internal/audit", "internal/audit/cache",
			"internal/audit/page", "internal/hostfs", "internal/openpgp", "internal/registriesd",
			"internal/verify/hostlimit",
		},
		[]string{"go.podman.io/image", "google.golang.org/grpc"},
	},
	{
		"files and packets are read without a network", cgoBuild,
		[]string{"internal/hostfs", "internal/openpgp"},
		[]string{"net/http", "os/exec"},
	},
	{
		"everybody may import outside, so it imports nobody", cgoBuild,
		[]string{"internal/outside"},
		[]string{"net/http", "os/exec", "golang.org", "go.podman.io", module + "*"},
	},
	{
		"the second look shares no parsing with the image library", cgoBuild,
		[]string{"internal/verify/secondlook"},
		[]string{
			"go.podman.io", "github.com/opencontainers", "github.com/distribution", "github.com/containers",
			"github.com/ProtonMail", "encoding/json", "net/http", "os/exec",
		},
	},
	{
		"who decides on nodes knows no network", cgoBuild,
		[]string{"internal/judge", "internal/verdict"},
		[]string{"net", "os/exec"},
	},
}

func TestBorders(t *testing.T) {
	loaded := map[string]graph{}
	for _, b := range borders {
		t.Run(b.name, func(t *testing.T) {
			if loaded[b.build.tags] == nil {
				loaded[b.build.tags] = b.build.load(t, "./...")
			}
			for _, pkg := range b.packages {
				for _, dep := range loaded[b.build.tags].links(t, pkg) {
					for _, f := range b.forbidden {
						if dep != module+pkg && within(dep, f) {
							t.Errorf("%s links %s", pkg, dep)
						}
					}
				}
			}
		})
	}
}

// within reports whether path is the package prefix or below it. "github.com/a/b/*" is only what is below.
func within(path, prefix string) bool {
	above, wild := strings.CutSuffix(prefix, "/*")
	return strings.HasPrefix(path, above+"/") || !wild && path == above
}

// ioPackages are what a pure package doesn't import itself.
var ioPackages = []string{
	"crypto/tls", "log", "log/slog", "net", "net/http", "os", "os/exec", "os/signal", "os/user", "syscall",
	"golang.org/x/sys/unix",
}

// TestPure: a package that the table calls pure gets bytes and returns values.
func TestPure(t *testing.T) {
	g := cgoBuild.load(t, "./...")
	pure := 0
	for _, r := range table {
		if !r.Pure {
			continue
		}
		pure++
		for _, imp := range g[module+r.Package] {
			if slices.Contains(ioPackages, imp) {
				t.Errorf("%s is pure, and imports %s", r.Package, imp)
			}
		}
		for _, dep := range g.links(t, r.Package) {
			if within(dep, "os/exec") || within(dep, "k8s.io/client-go") {
				t.Errorf("%s is pure, and links %s", r.Package, dep)
			}
		}
	}
	if pure == 0 {
		t.Error("nothing is pure: this test looks at the wrong thing")
	}
}

// TestOnlyVerifyImportsTheImageLibrary looks at direct imports, tests left aside: they may ask the library for a
// second opinion. What is below verify is part of it.
func TestOnlyVerifyImportsTheImageLibrary(t *testing.T) {
	seen := false
	for _, r := range table {
		if !slices.Contains(r.Modules, "go.podman.io/image/v5") {
			continue
		}
		seen = true
		if !within(r.Package, "internal/verify") {
			t.Errorf("%s imports the image library: only verify and what is below it may", r.Package)
		}
	}
	if !seen {
		t.Error("nobody imports the image library: this test looks at the wrong thing")
	}
}

// TestImageContext: .dockerignore lets the folders through that the programs are made of, and no other.
func TestImageContext(t *testing.T) {
	ignore, err := os.ReadFile(filepath.Join(root, ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	var allowed []string
	for line := range strings.Lines(string(ignore)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "!"); ok {
			if info, err := os.Stat(filepath.Join(root, name)); err != nil {
				t.Error(err)
			} else if info.IsDir() {
				allowed = append(allowed, name)
			}
		}
	}
	var needed []string
	for pkg := range cgoBuild.load(t, "./cmd/...") {
		if path, ok := strings.CutPrefix(pkg, module); ok {
			top, _, _ := strings.Cut(path, "/")
			needed = append(needed, top)
		}
	}
	slices.Sort(needed)
	if needed = slices.Compact(needed); !slices.Equal(needed, allowed) {
		t.Errorf(".dockerignore lets %q through, the programs are made of %q", allowed, needed)
	}
}
