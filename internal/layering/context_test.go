package layering

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestImageContext: .dockerignore lets the packages through that the programs are made of, and no other folder.
func TestImageContext(t *testing.T) {
	ignore, err := os.ReadFile("../../.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	if _, rest, ok := strings.Cut(string(ignore), "\n*\n"); !ok || strings.Contains(rest, "#") {
		t.Fatal("it isn't a list of what is allowed")
	}
	var allowed []string
	for line := range strings.Lines(string(ignore)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "!"); ok {
			if info, err := os.Stat(filepath.Join("../..", name)); err != nil {
				t.Error(err)
			} else if info.IsDir() {
				allowed = append(allowed, name)
			}
		}
	}
	out, err := exec.Command("go", "list", "-deps", module+"cmd/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	needed := []string{"cmd"}
	for _, pkg := range strings.Fields(string(out)) {
		if rel, ok := strings.CutPrefix(pkg, module); ok {
			top, _, _ := strings.Cut(rel, "/")
			needed = append(needed, top)
		}
	}
	slices.Sort(needed)
	if needed = slices.Compact(needed); !slices.Equal(needed, allowed) {
		t.Errorf(".dockerignore lets %q through, the programs are made of %q", allowed, needed)
	}
}
