package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/tools/txtar"

	"github.com/nodetrust/nodetrust/internal/fixture"
)

// explainGolden is what explain says in each situation, with addresses, digests and fingerprints replaced by names.
const explainGolden = "testdata/explain.txtar"

// story is a situation that explain is asked about.
type story struct {
	name string
	code int
	// host are the host's files; reference is asked for.
	host      map[string]string
	reference string
	lookaside http.HandlerFunc
	registry  http.HandlerFunc
	args      []string
}

// TestExplain tells the story of many images and compares with golden texts; go test -update rewrites them.
func TestExplain(t *testing.T) {
	p := fixture.Parts{TB: t}
	must := p.Must
	gpg := p.GPG()
	corp, other := p.Key(gpg, "corp", fixture.KeyOptions{}), p.Key(gpg, "other", fixture.KeyOptions{})
	registry, mirror, lookaside := p.Registry(), p.Registry(), p.Lookaside(t.TempDir())
	names := []string{
		corp.Fingerprint, "CORP-KEY", other.Fingerprint, "OTHER-KEY", registry.Host, "registry:5000",
		mirror.Host, "mirror:5000", lookaside.Host, "lookaside",
	}
	digest := func(d, name string) string {
		names = append(names, d, "sha256:"+name, strings.Replace(d, ":", "=", 1), "sha256="+name,
			strings.Replace(d, ":", "-", 1), "sha256-"+name)
		return d
	}
	push := func(repo string, keys ...*fixture.Key) string {
		t.Helper()
		d := p.Push(registry, repo, "v1", repo)
		for i, k := range keys {
			p.Sign(lookaside, k, repo, d, registry.Host+"/"+repo+":v1", i+1)
		}
		return digest(d, strings.ToUpper(strings.ReplaceAll(repo, "/", "-")))
	}
	push("team/signed", corp)
	push("team/stranger", other)
	push("team/both", other, corp)
	push("team/bare")
	index, instances, err := registry.PushIndex("team/multi", "v1", "multi", "amd64", "arm64")
	must(err)
	digest(index, "INDEX")
	digest(instances[0], "AMD64")
	p.Sign(lookaside, corp, "team/multi", index, registry.Host+"/team/multi:v1", 1)
	cosigned := push("team/cosigned")
	tag, err := name.NewTag(registry.Host+"/team/cosigned:"+strings.Replace(cosigned, ":", "-", 1)+".sig", name.Insecure)
	must(err)
	must(remote.Write(tag, mutate.MediaType(empty.Image, types.OCIManifestSchema1)))
	digest(p.Push(mirror, "copy/app", "v1", "mirrored"), "MIRRORED")

	signedBy := func(k *fixture.Key, more string) string {
		return fmt.Sprintf(`{"type":"signedBy","keyType":"GPGKeys","keyData":%q%s}`,
			base64.StdEncoding.EncodeToString(k.Binary), more)
	}
	scope := func(requirements ...string) string {
		return fmt.Sprintf(`{"default":[{"type":"reject"}],"transports":{"docker":{%q:[%s],"":[{"type":"insecureAcceptAnything"}]}}}`, registry.Host+"/team", strings.Join(requirements, ","))
	}
	insecure := fixture.Insecure(registry.Host)
	host := func(policy, registriesD string, more ...string) map[string]string {
		h := map[string]string{
			"etc/containers/policy.json": policy, "etc/containers/registries.conf": insecure,
			"etc/containers/registries.d/lab.yaml": registriesD,
		}
		for i := 0; i+1 < len(more); i += 2 {
			h[more[i]] = more[i+1]
		}
		return h
	}
	lab := fmt.Sprintf("docker:\n  %s:\n    lookaside: %s\n", registry.Host, lookaside.URL())
	// A key that parses; nothing is signed with it.
	const sigstore = `{"type":"sigstoreSigned","keyData":"LS0tLS1CRUdJTiBQVUJMSUMgS0VZLS0tLS0KTUZrd0V3WUhLb1pJemowQ0FRWUlLb1pJemowREFRY0RRZ0FFZ0hraDhIYitLWVFoQzlmdStkMG1IR0hxV2xGMQpiZFdFUDRONGJQUTBkTk5FWGZ2YzVjREljV21jUjlkL3M0cUpvTW5iZ2FMdWcxOEtRdVlEekRBb3h3PT0KLS0tLS1FTkQgUFVCTElDIEtFWS0tLS0tCg=="}`
	ref := func(repo string) string { return registry.Host + "/team/" + repo + ":v1" }
	page := func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte("<!DOCTYPE html>")) }

	var got txtar.Archive
	for i, s := range []story{
		{name: "accepted", host: host(scope(signedBy(corp, "")), lab), reference: ref("signed")},
		{
			name:      "accepted by the second signature, and by digest",
			host:      host(scope(signedBy(corp, `,"signedIdentity":{"type":"matchRepository"}`)), lab),
			reference: registry.Host + "/team/both@" + digestOf(t, registry, "team/both"),
		},
		{name: "signed by another key", code: 3, host: host(scope(signedBy(corp, "")), lab), reference: ref("stranger")},
		{
			name: "signed as something else", code: 3,
			host: host(scope(signedBy(corp, `,"signedIdentity":{"type":"remapIdentity","prefix":`+
				fmt.Sprintf("%q", registry.Host+"/team")+`,"signedPrefix":"quay.io/corp"}`)), lab), reference: ref("signed"),
		},
		{name: "not signed", code: 3, host: host(scope(signedBy(corp, "")), lab), reference: ref("bare")},
		{
			name: "two requirements, one of which holds", code: 3,
			host: host(scope(signedBy(corp, ""), signedBy(other, "")), lab), reference: ref("signed"),
		},
		{
			name: "a misspelt key of registries.d", code: 3,
			host: host(scope(signedBy(corp, "")), strings.Replace(lab, "lookaside:", "lookasid:", 1)), reference: ref("signed"),
		},
		{name: "only the index is signed", code: 3, host: host(scope(signedBy(corp, "")), lab), reference: ref("multi")},
		{
			name: "a mirror without signatures", code: 3,
			host: host(fmt.Sprintf(`{"default":[{"type":"reject"}],"transports":{"docker":{"quay.example.com":[%s]}}}`,
				signedBy(corp, "")),
				"docker:\n  quay.example.com:\n    lookaside: "+lookaside.URL()+"\n",
				"etc/containers/registries.conf", fmt.Sprintf(
					"[[registry]]\nprefix = \"quay.example.com/team\"\nlocation = \"quay.example.com/team\"\n[[registry.mirror]]\nlocation = %q\ninsecure = true\n", mirror.Host+"/copy")), reference: "quay.example.com/team/app:v1",
		},
		{name: "attachments are off", code: 3, host: host(scope(sigstore), lab), reference: ref("cosigned")},
		{
			name: "a web page for a signature", code: 4, host: host(scope(signedBy(corp, "")), lab), reference: ref("bare"),
			lookaside: page,
		},
		{
			name: "the lookaside fails", code: 4, host: host(scope(signedBy(corp, "")), lab), reference: ref("signed"),
			lookaside: func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(503) },
		},
		{
			name: "the lookaside fails, and no policy asks for signatures", code: 4,
			host: host(`{"default":[{"type":"insecureAcceptAnything"}]}`, lab), reference: ref("signed"),
			lookaside: func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(403) },
		},
		{
			name: "the registry wants a login", code: 4, host: host(scope(signedBy(corp, "")), lab), reference: ref("signed"),
			registry: func(rw http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/v2/" {
					rw.WriteHeader(401)
				}
			},
		},
		{
			name: "the registry serves signatures itself", code: 3, host: host(scope(signedBy(corp, "")), lab),
			reference: ref("signed"), registry: func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("X-Registry-Supports-Signatures", "1")
				if strings.HasPrefix(r.URL.Path, "/extensions/") {
					_, _ = rw.Write([]byte(`{"signatures":[]}`))
					return
				}
				registry.Serve(rw, r)
			},
		},
		{
			name: "a registry that writes to terminals", code: 4, host: host(scope(signedBy(corp, "")), lab),
			reference: ref("signed"), registry: func(rw http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/v2/" {
					rw.WriteHeader(404)
					_, _ = rw.Write([]byte("{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\",\"message\":\"\\u001b[2J\\naccept everything\"}]}"))
				}
			},
		},
		{name: "a missing key, and root's own files mask the host's", code: 4, host: host(scope(signedBy(corp, "")), lab,
			"root/.config/containers/policy.json", `{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/etc/pki/corp.gpg"}]}`,
			"root/.config/containers/registries.d/mine.yaml", "default-docker:\n  lookaside: "+lookaside.URL()+"\n",
			"usr/share/containers/policy.json", `{"default":[{"type":"reject"}]}`), reference: ref("bare")},
		{name: "rejected", code: 3, host: host(scope(`{"type":"reject"}`), lab,
			"usr/share/containers/registries.d/vendor.yaml",
			"docker:\n  vendor.example.com:\n    lookaside: https://vendor.example.com\n"), reference: ref("signed")},
		{
			name: "offline", code: 4, host: host(scope(signedBy(corp, "")), lab), reference: ref("signed"),
			args: []string{"--offline"},
		},
	} {
		root := filepath.Join(t.TempDir(), fmt.Sprint(i))
		for path, content := range s.host {
			path = filepath.Join(root, path)
			p.Write(path, []byte(content))
		}
		lookaside.Fault(s.lookaside)
		registry.Fault(s.registry)
		var stdout, stderr bytes.Buffer
		args := append([]string{"explain", "--root", root, "--platform", "linux/amd64", s.reference}, s.args...)
		if code := run(t.Context(), args, strings.NewReader(""), &stdout, &stderr); code != s.code || stderr.Len() > 0 {
			t.Errorf("%s: exit status %d, want %d\n%s%s", s.name, code, s.code, &stdout, &stderr)
		}
		text := strings.NewReplacer(names...).Replace(strings.ReplaceAll(stdout.String(), root, "ROOT"))
		text = regexp.MustCompile(`[0-9]+ bytes`).ReplaceAllString(text, "N bytes")
		got.Files = append(got.Files, txtar.File{Name: s.name, Data: []byte(text)})
	}
	if *update {
		must(os.WriteFile(explainGolden, txtar.Format(&got), 0o644))
		return
	}
	want, err := txtar.ParseFile(explainGolden)
	must(err)
	if len(want.Files) != len(got.Files) {
		t.Errorf("%d texts, want %d", len(got.Files), len(want.Files))
	}
	for i := range min(len(want.Files), len(got.Files)) {
		if w, g := want.Files[i], got.Files[i]; w.Name != g.Name || !bytes.Equal(w.Data, g.Data) {
			t.Errorf("%s: got\n%s\nwant %s\n%s", g.Name, g.Data, w.Name, w.Data)
		}
	}
}

// digestOf is the digest of repo:v1.
func digestOf(t *testing.T, r *fixture.Registry, repo string) string {
	t.Helper()
	ref, err := name.NewTag(r.Host+"/"+repo+":v1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	d, err := remote.Head(ref)
	if err != nil {
		t.Fatal(err)
	}
	return d.Digest.String()
}
