// Package layering holds the borders between packages.
package layering

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/nodetrust/nodetrust/"

// deps lists what pkg links, itself included.
func deps(t *testing.T, pkg string, env ...string) []string {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", module+pkg)
	cmd.Env = append(cmd.Environ(), env...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -deps %s: %v", pkg, err)
	}
	return strings.Fields(string(out))
}

func forbid(t *testing.T, pkg string, list []string, prefixes ...string) {
	t.Helper()
	for _, d := range list {
		for _, p := range prefixes {
			if d == p || strings.HasPrefix(d, p+"/") {
				t.Errorf("%s links %s", pkg, d)
			}
		}
	}
}

func TestAgentStaysSmall(t *testing.T) {
	list := deps(t, "cmd/nodetrust-agent", "CGO_ENABLED=0")
	forbid(t, "the agent", list, "go.podman.io/image", "google.golang.org/grpc", "k8s.io/client-go/kubernetes",
		"k8s.io/api",
		"k8s.io/cri-api", "github.com/coreos/butane", module+"internal/verify", module+"internal/probe", module+"render")
}

func TestPureCore(t *testing.T) {
	for _, pkg := range []string{
		"internal/trust", "internal/openpgp/key", "render", "internal/verify", "internal/judge",
		"internal/verdict", "internal/desired", "internal/lint", "internal/strength", "internal/cluster/mco",
		"internal/audit", "internal/audit/cache", "internal/audit/page", "internal/release", "internal/lookaside",
	} {
		forbid(t, pkg, deps(t, pkg), "k8s.io/client-go")
	}
	for _, pkg := range []string{
		"internal/trust", "internal/openpgp/key", "render", "internal/judge", "internal/verdict",
		"internal/desired", "internal/strength", "internal/cluster/mco", "internal/audit", "internal/audit/cache",
		"internal/audit/page",
	} {
		forbid(t, pkg, deps(t, pkg), "go.podman.io/image", "google.golang.org/grpc")
	}
	// What needs no image library says so by being apart from it.
	for _, pkg := range []string{"internal/verify/hostfs", "internal/openpgp"} {
		forbid(t, pkg, deps(t, pkg), "go.podman.io/image", "net/http", "os/exec")
	}
	// Everybody may import it, so it imports nobody.
	forbid(t, "internal/outside", slices.DeleteFunc(deps(t, "internal/outside"), func(p string) bool {
		return p == module+"internal/outside"
	}), "net/http", "os/exec", strings.TrimSuffix(module, "/"), "golang.org", "go.podman.io")
	forbid(t, "internal/verify/hostlimit", deps(t, "internal/verify/hostlimit"), "go.podman.io/image")
	// The second look shares no parsing with the image library.
	forbid(t, "internal/verify/secondlook", deps(t, "internal/verify/secondlook"), "go.podman.io",
		"github.com/opencontainers", "github.com/distribution",
		"github.com/containers", "github.com/ProtonMail", "encoding/json", "net/http", "os/exec")
	// judge and verdict know no clock, no file and no network.
	for _, pkg := range []string{"internal/judge", "internal/verdict"} {
		forbid(t, pkg, deps(t, pkg), "net", "os/exec")
	}
}

// TestOnlyVerifyImportsTheImageLibrary looks at direct imports, tests left aside: they may ask the library for a
// second opinion. What is below verify is part of it.
func TestOnlyVerifyImportsTheImageLibrary(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := false
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		for _, imp := range f[1:] {
			if !strings.HasPrefix(imp, "go.podman.io/image") {
				continue
			}
			seen = true
			if f[0] != module+"internal/verify" && !strings.HasPrefix(f[0], module+"internal/verify/") {
				t.Errorf("%s imports %s: only verify and what is below it may", f[0], imp)
			}
		}
	}
	if !seen {
		t.Error("nobody imports the image library: this test looks at the wrong thing")
	}
}

// TestDependenciesAreExplained looks for every direct requirement of go.mod in docs/dependencies.md.
func TestDependenciesAreExplained(t *testing.T) {
	page, err := os.ReadFile("../../docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{if not (or .Main .Indirect)}}{{.Path}}{{end}}", "all").Output()
	if err != nil {
		t.Fatal(err)
	}
	modules := strings.Fields(string(out))
	if len(modules) == 0 {
		t.Fatal("go.mod requires nothing: this test looks at the wrong place")
	}
	for _, m := range modules {
		if !strings.Contains(string(page), "`"+m+"`") {
			t.Errorf("docs/dependencies.md doesn't say what %s is for", m)
		}
	}
}
