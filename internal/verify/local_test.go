package verify

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// ociLayout writes a layout with one image, or with an index of one image per arch.
func ociLayout(t *testing.T, archs ...string) (dir, digest string, instances []string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "layout")
	p, err := layout.Write(dir, empty.Index)
	check(t, err)
	idx := v1.ImageIndex(empty.Index)
	for _, arch := range archs {
		img, err := fixture.Image("oci"+arch, arch)
		check(t, err)
		d, err := img.Digest()
		check(t, err)
		instances = append(instances, d.String())
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{
			Add:        img,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	if len(archs) == 1 {
		img, err := fixture.Image("oci"+archs[0], archs[0])
		check(t, err)
		check(t, p.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "v1"})))
		return dir, instances[0], nil
	}
	check(t, p.AppendIndex(idx))
	d, err := idx.Digest()
	check(t, err)
	return dir, d.String(), instances
}

func blobPath(dir, digest string) string {
	return filepath.Join(dir, "blobs", strings.Replace(digest, ":", "/", 1))
}

func TestImage_oci(t *testing.T) {
	w := newWorld(t)
	one, digest, _ := ociLayout(t, "amd64")
	multi, index, instances := ociLayout(t, "amd64", "arm64")
	p := w.policyText(fmt.Sprintf(`{"default":[{"type":"reject"}],"transports":{
		"oci":{%s:[{"type":"insecureAcceptAnything"}],%s:[%s]},
		"docker":{"quay.io/corp":[%[3]s],"quay.io/free":[{"type":"insecureAcceptAnything"}]}}}`, quote(one), quote(filepath.Dir(multi)), signedBy(w.key)))

	v := w.judge(p, "oci:"+one)
	w.want(v, verdict.Accept, "")
	if v.Digest != digest || v.Index != "" || v.Lookaside != nil ||
		*v.Scope != (verdict.Scope{Transport: "oci", Name: one, Matched: "exact"}) {
		t.Errorf("%+v, scope %+v", v, v.Scope)
	}
	w.want(w.judge(p, "oci:"+one+":v1"), verdict.Accept, "")
	w.want(w.judge(p, "oci:"+one+":@0"), verdict.Accept, "")
	w.want(w.judge(p, "oci:"+one+":v2"), verdict.Unknown, verdict.ImageNotFound)

	v = w.judge(p, "oci:"+multi)
	w.want(v, verdict.Refuse, verdict.NoSignature)
	if v.Index != index || v.Digest != instances[0] || !strings.Contains(v.Message, "OCI layout") ||
		!strings.Contains(v.Hint, "dir: copy") {
		t.Errorf("%+v", v)
	}
	v = w.judgeWith(p, "oci:"+multi, Options{Platform: "linux/arm64"})
	w.want(v, verdict.Refuse, verdict.NoSignature)
	if v.Digest != instances[1] {
		t.Errorf("linux/arm64 takes %s, want %s", v.Digest, instances[1])
	}
	w.want(w.judgeWith(p, "oci:"+multi, Options{Platform: "linux/s390x"}), verdict.Unknown, verdict.ImageNotFound)

	// As a docker reference: its scope counts, and neither registry nor lookaside are asked.
	w.want(w.judgeAs(p, "oci:"+one, "quay.io/free/app:v1"), verdict.Accept, "")
	v = w.judgeAs(p, "oci:"+one, "quay.io/corp/app:v1")
	w.want(v, verdict.Refuse, verdict.NoSignature)
	if v.Scope.Name != "quay.io/corp" {
		t.Errorf("scope %+v", v.Scope)
	}
	w.want(w.judgeAs(p, "oci:"+one, "quay.io/else/app:v1"), verdict.Refuse, verdict.RejectedByPolicy)
	v = w.judgeAs(p, "oci:"+multi, "quay.io/free/app@"+instances[1])
	w.want(v, verdict.Accept, "")
	if v.Digest != instances[1] {
		t.Errorf("judged %s, want %s", v.Digest, instances[1])
	}
	w.want(w.judgeAs(p, "oci:"+one, "quay.io/free/app@"+index), verdict.Unknown, verdict.ImageNotFound)
	if len(w.lookaside.Requests())+len(w.registry.Requests()) > 0 {
		t.Error("registry or lookaside were asked")
	}
	if v, err := judgeImage(t.Context(), "oci:"+one, "", p, Options{Offline: true}); err != nil ||
		v.Answer != verdict.Accept {
		t.Errorf("offline: %+v %v", v, err)
	}
}

// A layout that is damaged, ambiguous or too large is never accepted, even where the policy takes everything.
func TestImage_ociHostile(t *testing.T) {
	w := newWorld(t)
	p := w.policyText(`{"default":[{"type":"insecureAcceptAnything"}]}`)
	large := strings.Repeat(" ", maxManifest+1)
	fifo := func(path string) {
		check(t, os.Remove(path))
		check(t, syscall.Mkfifo(path, 0o600))
	}
	for _, tt := range []struct {
		name   string
		damage func(dir, digest, instance string)
		reason verdict.Reason
	}{
		{
			"no index.json", func(dir, _, _ string) { check(t, os.Remove(filepath.Join(dir, "index.json"))) },
			verdict.ImageNotFound,
		},
		{"index.json is no JSON", func(dir, _, _ string) {
			check(t,
				os.WriteFile(filepath.Join(dir, "index.json"), []byte("{"), 0o600))
		}, verdict.RegistryUnreachable},
		{"large index.json", func(dir, _, _ string) {
			check(t, os.WriteFile(filepath.Join(dir, "index.json"), []byte(large), 0o600))
		}, verdict.RegistryUnreachable},
		{
			"index.json is a pipe", func(dir, _, _ string) { fifo(filepath.Join(dir, "index.json")) },
			verdict.RegistryUnreachable,
		},
		{"two images", func(dir, _, _ string) {
			img, err := fixture.Image("another", "amd64")
			check(t, err)
			check(t, layout.Path(dir).AppendImage(img))
		}, verdict.ImageNotFound},
		{"path for a digest", func(dir, digest, _ string) {
			path := filepath.Join(dir, "index.json")
			b, err := os.ReadFile(path)
			check(t, err)
			check(t, os.WriteFile(path, []byte(strings.Replace(string(b), digest, "sha256:../../index.json", 1)), 0o600))
		}, verdict.RegistryUnreachable},
		{"no manifest", func(dir, digest, _ string) { check(t, os.Remove(blobPath(dir, digest))) }, verdict.ImageNotFound},
		{
			"other manifest", func(dir, digest, _ string) { check(t, os.WriteFile(blobPath(dir, digest), []byte("{}"), 0o600)) },
			verdict.ImageNotFound,
		},
		{"large manifest", func(dir, digest, _ string) {
			check(t,
				os.WriteFile(blobPath(dir, digest), []byte(large), 0o600))
		}, verdict.RegistryUnreachable},
		{"manifest is a pipe", func(dir, digest, _ string) { fifo(blobPath(dir, digest)) }, verdict.RegistryUnreachable},
		{
			"no instance", func(dir, _, instance string) { check(t, os.Remove(blobPath(dir, instance))) },
			verdict.ImageNotFound,
		},
		{"other instance", func(dir, _, instance string) {
			check(t, os.WriteFile(blobPath(dir, instance), []byte("{}"), 0o600))
		}, verdict.ImageNotFound},
		{"instance is a pipe", func(dir, _, instance string) { fifo(blobPath(dir, instance)) }, verdict.RegistryUnreachable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, digest, instances := ociLayout(t, "amd64", "arm64")
			tt.damage(dir, digest, instances[0])
			v := w.judgeWith(p, "oci:"+dir, Options{Timeout: time.Minute})
			w.want(v, verdict.Unknown, tt.reason)
		})
	}
}
