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
	"github.com/nodetrust/nodetrust/internal/release"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// pushRelease stores ocp/release:4.99.1 with one image in its payload, and below store its signature.
func pushRelease(p fixture.Parts, r *fixture.Registry, image string, key *fixture.Key, store string) (digest string) {
	p.Helper()
	img, err := fixture.ImageOf("amd64", nil, fixture.File{
		Name: "release-manifests/image-references",
		Data: fmt.Appendf(nil,
			`{"kind":"ImageStream","metadata":{"name":"4.99.1"},"spec":{"tags":[{"name":"etcd","from":{"kind":"DockerImage","name":%q}}]}}`, image),
	})
	p.Must(err)
	digest, err = r.PushImage("ocp/release", "4.99.1", img)
	p.Must(err)
	sig, err := key.Sign(digest, r.Host+"/ocp/release:4.99.1")
	p.Must(err)
	p.Write(filepath.Join(store, strings.Replace(digest, ":", "=", 1), "signature-1"), sig)
	return digest
}

// nodetrustOutput runs the program, wants this exit status, and returns what was written to the standard output.
func nodetrustOutput(t *testing.T, want int, args ...string) []byte {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if got := run(t.Context(), args, strings.NewReader(""), &stdout, &stderr); got != want {
		t.Errorf("nodetrust %s: status %d, want %d\n%s%s", strings.Join(args, " "), got, want, stdout.String(),
			stderr.String())
	}
	return stdout.Bytes()
}

// TestReleaseVerify judges a release and lets the policies written for it judge its images, by the commands.
func TestReleaseVerify(t *testing.T) {
	t.Chdir(t.TempDir())
	p := fixture.Parts{TB: t}
	must := p.Must
	key := p.Key(p.GPG(), "release", fixture.KeyOptions{})
	p.Write("key.asc", key.Armored)
	registry := p.Registry()
	p.Write("registries.conf", []byte(fixture.Insecure(registry.Host)))
	image := registry.Host + "/ocp/payload@" + p.Push(registry, "ocp/payload", "etcd", "etcd")
	digest := pushRelease(p, registry, image, key, "store")
	name := registry.Host + "/ocp/release"

	nodetrust := func(want int, args ...string) []byte {
		t.Helper()
		return nodetrustOutput(t, want, args...)
	}
	verify := func(want int, args ...string) (r release.Result) {
		t.Helper()
		out := nodetrust(want, append([]string{
			"release", "verify", "--registries-conf", "registries.conf", "--platform",
			"linux/amd64", "--key", "key.asc", "-o", "json",
		}, args...)...)
		if len(out) > 0 {
			must(json.Unmarshal(out, &r))
		}
		return r
	}
	for _, file := range []string{"policy.json", "trust.yaml"} {
		r := verify(0, "--store", "store", "--to-policy", file, name+":4.99.1")
		if r.Answer != verdict.Accept || r.Digest != digest || r.Version != "4.99.1" || len(r.Images) != 1 ||
			r.Images[0].Image != image {
			t.Errorf("%+v", r)
		}
	}
	if out := nodetrust(0, "release", "verify", "--registries-conf", "registries.conf", "--key", "key.asc", "--store",
		"store", name+"@"+digest); !strings.Contains(string(out), `"etcd"  `+image) {
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
	nodetrust(1, "release", "verify", "--registries-conf", "registries.conf", "--key", "key.asc", "--store", "store",
		"--to-policy", "no/such/dir.json", name+"@"+digest)
	registry.Stop()
	if r := verify(4, "--store", "store", name+"@"+digest); r.Reason != verdict.RegistryUnreachable || len(r.Images) != 0 {
		t.Errorf("%+v", r)
	}
}
