package release

import (
	"bytes"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/verify"
	"github.com/nodetrust/nodetrust/internal/verify/locate"
)

// FuzzSearch: whatever a layer holds, what comes out of it is bounded, and a list of images by digest or an error.
func FuzzSearch(f *testing.F) {
	w := &world{t: &testing.T{}}
	list := []byte(`{"kind":"ImageStream","metadata":{"name":"x"},"spec":{"tags":[{"name":"a","from":{"kind":"DockerImage","name":"q.io/a@sha256:` + strings.Repeat("a", 64) + `"}}]}}`)
	f.Add(w.layer(file(referencesFile, list)))
	f.Add(w.layer(file("release-manifests/.wh.image-references", nil)))
	f.Add([]byte("no tar"))
	f.Fuzz(func(t *testing.T, layer []byte) {
		b, found, err := search(bytes.NewReader(layer))
		if err != nil || !found {
			return
		}
		if len(b) > maxReferences {
			t.Fatalf("%d bytes", len(b))
		}
		checkPayload(t, b)
	})
}

// FuzzReferences: a list that is taken names images that runtimes pull by these digests.
func FuzzReferences(f *testing.F) {
	digest := "@sha256:" + strings.Repeat("a", 64)
	for _, name := range []string{
		"q.io/a" + digest, "q.io/a:tag" + digest, "a" + digest, "q.io/a", "Q.io/A" + digest,
		"dir:/x" + digest,
	} {
		f.Add([]byte(`{"kind":"ImageStream","spec":{"tags":[{"name":"a","from":{"kind":"DockerImage","name":"` +
			name + `"}}]}}`))
	}
	f.Fuzz(checkPayload)
}

func checkPayload(t *testing.T, b []byte) {
	p, err := parseReferences(b)
	if err != nil {
		return
	}
	if len(p.images) == 0 {
		t.Fatal("a list of nothing")
	}
	for _, i := range p.images {
		name, err := locate.Canonical(i.Image)
		if err != nil || !strings.HasSuffix(name, "@"+i.Digest) || !strings.HasSuffix(i.Image, "@"+i.Digest) {
			t.Fatalf("%+v is pulled as %s (%v)", i, name, err)
		}
	}
}

// FuzzConfigMaps: what is taken has the label, and what is found for a digest is no larger than a signature.
func FuzzConfigMaps(f *testing.F) {
	digest := "sha256:" + strings.Repeat("a", 64)
	good, err := Manifests(map[string][][]byte{digest: {[]byte("s")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"kind":"List","items":[{"kind":"ConfigMap"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseConfigMaps("fuzz", b)
		if err != nil {
			return
		}
		for _, m := range c.maps {
			if _, ok := m.Metadata.Labels[ConfigMapLabel]; !ok {
				t.Fatal("a ConfigMap without the label")
			}
		}
		blobs, _ := c.Signatures(t.Context(), digest)
		for _, s := range blobs {
			if len(s.Data) > verify.MaxSignatureSize {
				t.Fatal("a signature that is too large")
			}
		}
	})
}
