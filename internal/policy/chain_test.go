package policy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.podman.io/image/v5/directory"
	"go.podman.io/image/v5/oci/layout"
	"go.podman.io/image/v5/types"
)

// TestChain: what is looked up for scopes that are no plain references.
func TestChain(t *testing.T) {
	for _, tt := range []struct{ transport, scope, want string }{
		{"docker", "", ""},
		{"docker", "h.x:5000/a/b:v1", "h.x:5000/a/b:v1 h.x:5000/a/b h.x:5000/a h.x:5000 *.x "},
		{"docker", "*.b.c", "*.b.c *.c "},
		{"docker", "localhost:5000", "localhost:5000 "},
		{"dir", "/a/b", "/a/b /a "},
		{"oci", "/a/b:v1", "/a/b:v1 /a/b /a "},
		{
			"containers-storage", "[overlay@/s]a.b/c:v1",
			"[overlay@/s]a.b/c:v1 [overlay@/s]a.b/c [overlay@/s]a.b [overlay@/s] [/s] ",
		},
		{"docker-archive", "", ""},
	} {
		if got := strings.Join(Chain(tt.transport, tt.scope), " "); got != tt.want {
			t.Errorf("%s %s: got %q, want %q", tt.transport, tt.scope, got, tt.want)
		}
	}
}

// TestChain_library holds the chains of paths against the image library: those of images, and what follows a scope in
// them.
func TestChain_library(t *testing.T) {
	root := t.TempDir()
	image := filepath.Join(root, "a", "b-c", "d.e")
	if err := os.MkdirAll(image, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := directory.NewReference(image)
	if err != nil {
		t.Fatal(err)
	}
	named, err := layout.NewReference(image, "name:v1")
	if err != nil {
		t.Fatal(err)
	}
	plain, err := layout.NewReference(image, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []types.ImageReference{dir, named, plain} {
		want := append([]string{ref.PolicyConfigurationIdentity()}, append(ref.PolicyConfigurationNamespaces(), "")...)
		want = slices.Compact(want) // of oci the identity is among the namespaces
		for i, scope := range want {
			if got := Chain(ref.Transport().Name(), scope); !slices.Equal(got, want[i:]) {
				t.Errorf("%s %s: got %q, want %q", ref.Transport().Name(), scope, got, want[i:])
			}
		}
	}
}
