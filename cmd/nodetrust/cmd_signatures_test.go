package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// TestSignaturesBundle makes a bundle for a mirror, and lets what it says to write into trust.yaml judge the images
// with nothing else.
func TestSignaturesBundle(t *testing.T) {
	t.Chdir(t.TempDir())
	p := fixture.Parts{TB: t}
	must := p.Must
	key := p.Key(p.GPG(), "signer", fixture.KeyOptions{})
	p.Write("key.asc", key.Armored)
	registry, mirror, lookaside := p.Registry(), p.Registry(), p.Lookaside(t.TempDir())
	digest := p.Push(registry, "team/app", "v1", "app")
	p.Push(mirror, "rh/team/app", "v1", "app")
	p.Push(registry, "team/unsigned", "v1", "unsigned")
	image := registry.Host + "/team/app"
	p.Sign(lookaside, key, "team/app", digest, image+":v1", 1)
	conf := func(name, more string) { p.Write(name, []byte(fixture.Insecure(registry.Host)+more)) }
	conf("direct.conf", "")
	conf("nodes.conf", fmt.Sprintf("[[registry.mirror]]\nlocation = \"%s/rh\"\ninsecure = true\n", mirror.Host))
	config := func(name, entry string) {
		must(os.WriteFile(name, fmt.Appendf(nil, `apiVersion: nodetrust.io/v1alpha1
kind: TrustConfig
metadata: {name: lab}
spec:
  default: reject
  keys: [{name: k, file: key.asc}]
  registries:
  - require: [{signedBy: [k]}]
%s`, entry), 0o644))
	}
	canary := p.Push(registry, "team/canary", "v1", "canary")
	p.Sign(lookaside, key, "team/canary", canary, registry.Host+"/team/canary:v1", 1)
	config("trust.yaml", fmt.Sprintf("    scope: %s\n    lookaside: %s\n  canaries: [{image: %s/team/canary@%s, expect: accept}]\n", registry.Host, lookaside.URL(), registry.Host, canary))
	must(os.WriteFile("images.txt", []byte(image+":v1 by=shop\n"+image+"@"+digest+"\n"), 0o644))

	nodetrust := func(want int, args ...string) []byte {
		t.Helper()
		return nodetrustOutput(t, want, args...)
	}
	bundle := func(want int, args ...string) []byte {
		t.Helper()
		return nodetrust(want, append([]string{
			"signatures", "bundle", "--config", "trust.yaml", "--registries-conf", "direct.conf", "--platform", "linux/amd64",
			"--mirrors", "nodes.conf", "--to", "sigs",
		}, args...)...)
	}
	text := string(bundle(0, "--images-from", "images.txt", "--target", "/var/lib/sigs"))
	if !strings.HasPrefix(text, "complete: 3 images are accepted with the 3 signatures in sigs (4 files new)\n") ||
		!strings.Contains(text, "lookaside: file:///var/lib/sigs") {
		t.Errorf("%s", text)
	}
	var out bundled
	must(json.Unmarshal(bundle(0, "-o", "json", image+":v1"), &out))
	if out.Answer != verdict.Accept || len(out.Registries) != 1 || len(out.Registries[0].Mirrors) != 1 ||
		out.Images[0].Added+out.Images[1].Added != 0 {
		t.Fatalf("%+v", out)
	}

	// With the lookaside gone, trust.yaml as the bundle says.
	lookaside.Stop()
	r := out.Registries[0]
	config("offline.yaml", fmt.Sprintf("    scope: %s\n    lookaside: %s\n    mirrors: [{location: %s, lookaside: %s}]\n",
		r.Scope, r.Lookaside, r.Mirrors[0].Location, r.Mirrors[0].Lookaside))
	for _, conf := range []string{"direct.conf", "nodes.conf"} {
		nodetrust(0, "verify", "--config", "offline.yaml", "--registries-conf", conf, "--platform", "linux/amd64",
			image+":v1")
	}
	nodetrust(4, "verify", "--config", "trust.yaml", "--registries-conf", "direct.conf", "--platform", "linux/amd64",
		image+":v1")

	must(lookaside.Start())
	text = string(bundle(3, image+":v1", registry.Host+"/team/unsigned:v1"))
	if !strings.HasPrefix(text, "incomplete: 1 of 3 images are not accepted") || !strings.Contains(text, "NoSignature") {
		t.Errorf("%s", text)
	}
	bundle(4, registry.Host+"/team/absent:v1")
	bundle(1, "--to-configmaps", "maps.yaml", image+":v1")
}

// TestSignaturesBundle_isRelease: Red Hat's stores are asked for nothing but Red Hat's releases.
func TestSignaturesBundle_isRelease(t *testing.T) {
	var plain, stores signaturesBundle
	stores.release.stores = []string{"store"}
	for repository, want := range map[string][2]bool{
		"quay.io/openshift-release-dev/ocp-release": {true, true},
		"mirror.corp:5000/ocp/release":              {false, true},
		"mirror.corp/openshift/release-images":      {false, true},
		"quay.io/corp/app":                          {false, false},
	} {
		if got := [2]bool{plain.isRelease(repository), stores.isRelease(repository)}; got != want {
			t.Errorf("%s: %v, want %v", repository, got, want)
		}
	}
}
