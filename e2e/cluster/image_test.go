package cluster

import (
	"archive/tar"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// ours are the files that the image has beside those of its base.
var ours = map[string]int64{
	"usr/bin/nodetrust": 0o755, "usr/bin/nodetrust-agent": 0o755,
	"usr/share/licenses/nodetrust/LICENSE": 0o644,
}

// ourLayer returns the digest of the image's layer that holds our programs, and fails the test if there is more or
// less in it than ours, or anything in the layers above it.
func ourLayer(t *testing.T, dir string) string {
	t.Helper()
	index, err := layout.ImageIndexFromPath(dir)
	must(t, err)
	manifest, err := index.IndexManifest()
	must(t, err)
	img, err := index.Image(manifest.Manifests[0].Digest)
	must(t, err)
	layers, err := img.Layers()
	must(t, err)
	found := ""
	for _, l := range layers[1:] { // the first one is the base
		files := regular(t, l)
		delete(files, "etc/hosts") // empty: what podman mounted a file on
		if len(files) == 0 {
			continue
		}
		if found != "" || !maps.Equal(files, ours) {
			t.Errorf("a layer has %v: want one with %v", files, ours)
		}
		digest, err := l.Digest()
		must(t, err)
		found = digest.String()
	}
	if found == "" {
		t.Error("the image has nothing of ours")
	}
	return found
}

// regular are the files of a layer with their modes.
func regular(t *testing.T, l v1.Layer) map[string]int64 {
	t.Helper()
	r, err := l.Uncompressed()
	must(t, err)
	defer r.Close()
	files := map[string]int64{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		must(t, err)
		if h.Typeflag != tar.TypeDir {
			files[h.Name] = h.Mode & 0o7777
		}
	}
}

// TestImage: a second build, from other copies of the sources and without the objects of the first, gives the same
// layer. What lies about in the work tree gets into neither.
func TestImage(t *testing.T) {
	t.Parallel()
	c := need(t)
	first, err := c.Lab.Image(t.Context())
	must(t, err)
	s, err := c.Lab.Source()
	must(t, err)
	for _, name := range []string{
		".env", ".git/config", "agent/agent_test.go", "bin/nodetrust", "deploy/sbom/main.go", "docs/install.md",
		"e2e/lab/image.go", "hack/soak.sh", "id_ed25519", "internal/trust/testdata/secret.yaml",
	} {
		must(t, os.MkdirAll(filepath.Join(s.Dir, filepath.Dir(name)), 0o755))
		must(t, os.WriteFile(filepath.Join(s.Dir, name), []byte("secret\n"), 0o644))
	}
	seen, err := c.Lab.Context(t.Context(), s)
	must(t, err)
	if !slices.Equal(seen, s.Files) {
		t.Errorf("the build sees\n%q\nwant\n%q", seen, s.Files)
	}
	second, err := c.Lab.BuildImage(t.Context(), s)
	must(t, err)
	if a, b := ourLayer(t, first), ourLayer(t, second); a != b {
		t.Errorf("two builds gave the layers %s and %s", a, b)
	}
}
