package layering

import (
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const (
	module = "github.com/nodetrust/nodetrust/"
	root   = "../.."
)

// The tags of the two programs' builds, as the Makefile has them.
const (
	cgoTags  = "containers_image_docker_daemon_stub,containers_image_storage_stub,exclude_graphdriver_btrfs"
	pureTags = cgoTags + ",containers_image_openpgp"
)

// build is one way to build the tree. What a package imports differs between them.
type build struct {
	tags string
	env  []string
}

var (
	cgoBuild    = build{cgoTags, []string{"CGO_ENABLED=1"}}
	pureBuild   = build{pureTags, []string{"CGO_ENABLED=0"}}
	darwinBuild = build{pureTags, []string{"CGO_ENABLED=0", "GOOS=darwin"}}
	agentBuild  = build{"", []string{"CGO_ENABLED=0"}}
)

// graph is who imports whom: import paths by import path.
type graph map[string][]string

// load asks the go command for pattern, and for what it links.
func (b build) load(t *testing.T, pattern string) graph {
	t.Helper()
	g := graph{}
	for _, f := range b.list(t, "-deps", "-f", `{{.ImportPath}} {{join .Imports " "}}`, pattern) {
		g[f[0]] = f[1:]
	}
	return g
}

// list runs `go list` at the root of the module and returns the words of each line.
func (b build) list(t *testing.T, args ...string) [][]string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-tags", b.tags}, args...)...)
	cmd.Dir = root
	cmd.Env = append(cmd.Environ(), b.env...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v %v: %v", b.env, cmd.Args, err)
	}
	var lines [][]string
	for line := range strings.Lines(string(out)) {
		lines = append(lines, strings.Fields(line))
	}
	return lines
}

// links returns what a program with our package pkg in it holds: pkg, its imports, and theirs.
func (g graph) links(t *testing.T, pkg string) []string {
	t.Helper()
	if _, ok := g[module+pkg]; !ok {
		t.Errorf("there is no package %s", pkg)
	}
	seen := map[string]bool{}
	var add func(string)
	add = func(p string) {
		if !seen[p] {
			seen[p] = true
			for _, imp := range g[p] {
				add(imp)
			}
		}
	}
	add(module + pkg)
	return slices.Sorted(maps.Keys(seen))
}
