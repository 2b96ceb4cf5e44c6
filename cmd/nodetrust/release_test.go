package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/release"
	"github.com/nodetrust/nodetrust/verdict"
)

// TestReleaseVerify judges a release and lets the policies written for it judge its images, by the commands.
func TestReleaseVerify(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(t.TempDir())
	gpg, err := fixture.NewGPG()
	must(err)
	defer gpg.Close()
	key, err := gpg.NewKey("release", fixture.KeyOptions{})
	must(err)
	must(os.WriteFile("key.asc", key.Armored, 0o644))
	registry, err := fixture.NewRegistry("127.0.0.1:0")
	must(err)
	defer registry.Stop()
	must(os.WriteFile("registries.conf", fmt.Appendf(nil, "[[registry]]\nlocation = %q\ninsecure = true\n", registry.Host), 0o644))
	etcd, err := registry.Push("ocp/payload", "etcd", "etcd")
	must(err)
	image := registry.Host + "/ocp/payload@" + etcd
	img, err := fixture.ImageOf("amd64", nil, fixture.File{Name: "release-manifests/image-references", Data: fmt.Appendf(nil,
		`{"kind":"ImageStream","metadata":{"name":"4.99.1"},"spec":{"tags":[{"name":"etcd","from":{"kind":"DockerImage","name":%q}}]}}`, image)})
	must(err)
	digest, err := registry.PushImage("ocp/release", "4.99.1", img)
	must(err)
	name := registry.Host + "/ocp/release"
	store := filepath.Join("store", strings.Replace(digest, ":", "=", 1))
	must(os.MkdirAll(store, 0o755))
	sig, err := key.Sign(digest, name+":4.99.1")
	must(err)
	must(os.WriteFile(filepath.Join(store, "signature-1"), sig, 0o644))

	nodetrust := func(want int, args ...string) []byte {
		t.Helper()
		var stdout, stderr bytes.Buffer
		if got := run(t.Context(), args, strings.NewReader(""), &stdout, &stderr); got != want {
			t.Errorf("nodetrust %s: status %d, want %d\n%s%s", strings.Join(args, " "), got, want, stdout.String(), stderr.String())
		}
		return stdout.Bytes()
	}
	verify := func(want int, args ...string) (r release.Result) {
		t.Helper()
		out := nodetrust(want, append([]string{"release", "verify", "--registries-conf", "registries.conf", "--platform", "linux/amd64", "--key", "key.asc", "-o", "json"}, args...)...)
		if len(out) > 0 {
			must(json.Unmarshal(out, &r))
		}
		return r
	}
	for _, file := range []string{"policy.json", "trust.yaml"} {
		r := verify(0, "--store", "store", "--to-policy", file, name+":4.99.1")
		if r.Verdict != verdict.Accept || r.Digest != digest || r.Version != "4.99.1" || len(r.Images) != 1 || r.Images[0].Image != image {
			t.Errorf("%+v", r)
		}
	}
	if out := nodetrust(0, "release", "verify", "--registries-conf", "registries.conf", "--key", "key.asc", "--store", "store", name+"@"+digest); !strings.Contains(string(out), `"etcd"  `+image) {
		t.Errorf("%s", out)
	}
	nodetrust(0, "lint", "trust.yaml")
	for _, policy := range [][]string{{"--policy", "policy.json"}, {"--config", "trust.yaml"}} {
		judge := append([]string{"verify", "--registries-conf", "registries.conf"}, policy...)
		nodetrust(0, append(judge, image)...)
		nodetrust(0, append(judge, name+"@"+digest)...)
		nodetrust(3, append(judge, name+":4.99.1")...)
	}

	// Nothing is written for a release that isn't accepted, and nothing half.
	r := verify(3, "--store", t.TempDir(), "--to-policy", "none.json", name+"@"+digest)
	if r.Reason != verdict.NoSignature || len(r.Images) != 0 {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat("none.json"); err == nil {
		t.Error("a policy was written for a release that was refused")
	}
	nodetrust(1, "release", "verify", "--registries-conf", "registries.conf", "--key", "key.asc", "--store", "store", "--to-policy", "no/such/dir.json", name+"@"+digest)
	registry.Stop()
	if r := verify(4, "--store", "store", name+"@"+digest); r.Reason != verdict.RegistryUnreachable || len(r.Images) != 0 {
		t.Errorf("%+v", r)
	}
}
