package trust

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/openpgp/key"
	"github.com/nodetrust/nodetrust/templates"
)

// full uses everything that a trust config can say.
const full = `apiVersion: nodetrust.io/v1alpha1
kind: TrustConfig
metadata:
  name: full
spec:
  pools: [worker, infra]
  default: reject
  keys:
  - name: redhat-release
    path: /etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-release
    fingerprints: [567E347AD0044ADE55BA8A5F199E2F91FD431D51]
  - name: beta
    path: /etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-beta
  - name: corp
    file: corp.asc
    fingerprints: ["F594 A003 D2A5 11CF BBF9  7AA0 EE57 246F CE6B 18A6"]
  - name: cosign
    file: cosign.pub
  - name: rekor
    data: |
      -----BEGIN PUBLIC KEY-----
      MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEmd6edXLzEtH9fXt6dNtmCft8WYYI
      CNdVCQGRCyHs4xbyU75CsJRzDv73Zi1Rd92KZVJOqfJ0dEOPSsyTIsB6Xw==
      -----END PUBLIC KEY-----
  - name: ca
    path: /etc/pki/ca.pem
  - name: cosign2
    path: /etc/pki/cosign2.pub
  - name: cosign3
    path: /etc/pki/cosign3.pub
  registries:
  - scope: registry.redhat.io
    require:
    - signedBy: [redhat-release]
      identity: matchRepoDigestOrExact
    lookaside: https://registry.redhat.io/containers/sigstore/
    mirrors:
    - location: mirror.corp:5000/redhat
      lookaside: https://mirror.corp/sigstore
  - scope: registry.redhat.io/redhat/community-operator-index
    require: accept
    because: index images carry another vendor key
  - scope: registry.example.com:5000/team
    require:
    - signedBy: [redhat-release, beta]
      identity: matchRepository
    - signedBy: [corp]
      identity: {type: remapIdentity, prefix: registry.example.com:5000/team, signedPrefix: build.example.com/team}
    lookaside: file:///var/lib/signatures
  - scope: registry.example.com:5000/team/app:v1
    require:
    - signedBy: [corp]
      identity: {type: exactReference, dockerReference: "build.example.com/app:v1"}
  - scope: registry.example.com:5000/team/lib
    require:
    - signedBy: [corp]
      identity: {type: exactRepository, dockerRepository: build.example.com/lib}
    lookaside: http://127.0.0.1:8080/x
  - scope: quay.io/corp
    require:
    - sigstore: {keys: [cosign], rekor: [rekor]}
    attachments: true
    mirrors:
    - location: mirror.corp:5000/corp
    - location: mirror2.corp/corp
      attachments: false
      lookaside: http://mirror2.corp/x
      insecure: true
  - scope: quay.io/corp/fulcio
    require:
    - sigstore:
        fulcio: {ca: ca, oidcIssuer: "https://issuer.example.com", subjectEmail: build@example.com}
        rekor: [rekor, cosign]
  - scope: quay.io/corp/pki
    require:
    - sigstore:
        pki: {roots: ca, subjectHostname: build.example.com}
  - scope: quay.io/corp/two
    require:
    - sigstore: {keys: [cosign2, cosign3]}
      identity: matchExact
  - scope: "*.internal.example.com"
    require: reject
    attachments: false
  canaries:
  - image: registry.redhat.io/ubi9/ubi-micro@sha256:0000000000000000000000000000000000000000000000000000000000000000
    expect: accept
  - image: registry.redhat.io/ubi9/ubi-minimal@sha256:0000000000000000000000000000000000000000000000000000000000000000
    expect: refuse
`

func parseKey(t testing.TB, b []byte) *key.File {
	t.Helper()
	f, err := key.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func dearmored(t testing.TB, b []byte) []byte {
	t.Helper()
	return parseKey(t, b).Binary
}

func parse(t testing.TB, text string) *Config {
	t.Helper()
	cfg, err := Parse("t.yaml", []byte(text), testKeys(t).read)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// load has the image library read policy.json and every registries.d file, and returns the policy and a folder with
// the latter.
func load(t testing.TB, files FileSet) (*signature.Policy, string) {
	t.Helper()
	dir := t.TempDir()
	var policy *signature.Policy
	for _, f := range files {
		if f.Mode != 0o644 || f.UID != 0 || f.GID != 0 {
			t.Errorf("%s: %#o %d:%d, want 0644 0:0", f.Path, f.Mode, f.UID, f.GID)
		}
		if f.Path == PolicyPath {
			p, err := signature.NewPolicyFromBytes(f.Data)
			if err != nil {
				t.Fatalf("policy.json: %v\n%s", err, f.Data)
			}
			policy = p
			continue
		}
		if filepath.Dir(f.Path) != RegistriesDir || !strings.HasSuffix(f.Path, ".yaml") {
			t.Errorf("unexpected path %s", f.Path)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f.Path)), f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if policy == nil {
		t.Fatal("no policy.json")
	}
	lookup(t, dir, "any.example.com/x")
	return policy, dir
}

// lookup is the lookaside of repository:tag as the library sees it.
func lookup(t testing.TB, dir, repository string) string {
	t.Helper()
	named, err := reference.ParseNormalizedNamed(repository + ":tag")
	if err != nil {
		t.Fatal(err)
	}
	ref, err := docker.NewReference(named)
	if err != nil {
		t.Fatal(err)
	}
	u, err := docker.SignatureStorageBaseURL(&types.SystemContext{RegistriesDirPath: dir}, ref, false)
	if err != nil {
		t.Fatal(err)
	}
	return u.String()
}

func TestConfig_Files(t *testing.T) {
	cfg := parse(t, full)
	files, err := cfg.Files([]Reader{current()})
	if err != nil {
		t.Fatal(err)
	}
	policy, dir := load(t, files)

	var paths []string
	for _, f := range files {
		paths = append(paths, filepath.Base(f.Path))
	}
	want := []string{
		"policy.json", "_.internal.example.com.yaml", "mirror.corp_5000.yaml", "mirror2.corp.yaml",
		"quay.io.yaml", "registry.example.com_5000.yaml", "registry.redhat.io.yaml",
	}
	if !slices.Equal(paths, want) {
		t.Errorf("files %q, want %q", paths, want)
	}
	for repository, want := range map[string]string{
		"registry.redhat.io/ubi9/ubi":          "https://registry.redhat.io/containers/sigstore/ubi9/ubi",
		"mirror.corp:5000/redhat/ubi9":         "https://mirror.corp/sigstore/redhat/ubi9",
		"registry.example.com:5000/team/other": "file:///var/lib/signatures/team/other",
		"registry.example.com:5000/team/lib":   "http://127.0.0.1:8080/x/team/lib",
		"mirror2.corp/corp/a":                  "http://mirror2.corp/x/corp/a",
	} {
		if got := lookup(t, dir, repository); got != want {
			t.Errorf("lookaside of %s: got %s, want %s", repository, got, want)
		}
	}

	// What the library makes of the policy is what its own constructors make of the same words.
	scopes := policy.Transports["docker"]
	if len(scopes) != len(cfg.Registries)+1 {
		t.Errorf("%d scopes, want %d and the carved-out canary", len(scopes), len(cfg.Registries))
	}
	for name, want := range wantRequirements(t) {
		got := marshal(t, scopes[name])
		if got != marshal(t, want) {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, marshal(t, want))
		}
	}
	for _, local := range []string{"containers-storage", "dir", "docker-archive", "docker-daemon", "oci", "oci-archive"} {
		if got, want := marshal(t, policy.Transports[local][""]),
			marshal(t, signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()}); got != want {
			t.Errorf("transport %s: got %s", local, got)
		}
	}
	if got, want := marshal(t, policy.Default), marshal(t,
		signature.PolicyRequirements{signature.NewPRReject()}); got != want {
		t.Errorf("default: got %s, want %s", got, want)
	}
}

// must is for the library's constructors.
func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantRequirements(t testing.TB) map[string]signature.PolicyRequirements {
	t.Helper()
	req := must[signature.PolicyRequirement](t)
	const gpg = signature.SBKeyTypeGPGKeys
	rh := "/etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-release"
	corp := dearmored(t, templates.CanaryKey)
	sigstoreID := signature.NewPRMMatchRepoDigestOrExact()
	remap, err := signature.NewPRMRemapIdentity("registry.example.com:5000/team", "build.example.com/team")
	if err != nil {
		t.Fatal(err)
	}
	exactRef, err := signature.NewPRMExactReference("build.example.com/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	exactRepo, err := signature.NewPRMExactRepository("build.example.com/lib")
	if err != nil {
		t.Fatal(err)
	}
	fulcio, err := signature.NewPRSigstoreSignedFulcio(signature.PRSigstoreSignedFulcioWithCAPath("/etc/pki/ca.pem"),
		signature.PRSigstoreSignedFulcioWithOIDCIssuer("https://issuer.example.com"),
		signature.PRSigstoreSignedFulcioWithSubjectEmail("build@example.com"))
	if err != nil {
		t.Fatal(err)
	}
	pki, err := signature.NewPRSigstoreSignedPKI(signature.PRSigstoreSignedPKIWithCARootsPath("/etc/pki/ca.pem"),
		signature.PRSigstoreSignedPKIWithSubjectHostname("build.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]signature.PolicyRequirements{
		"registry.redhat.io": {req(signature.NewPRSignedByKeyPath(gpg, rh, signature.NewPRMMatchRepoDigestOrExact()))},
		"registry.redhat.io/redhat/community-operator-index": {signature.NewPRInsecureAcceptAnything()},
		"registry.example.com:5000/team": {
			req(signature.NewPRSignedByKeyPaths(gpg, []string{rh, "/etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-beta"},
				signature.NewPRMMatchRepository())),
			req(signature.NewPRSignedByKeyData(gpg, corp, remap)),
		},
		"registry.example.com:5000/team/app:v1": {req(signature.NewPRSignedByKeyData(gpg, corp, exactRef))},
		"registry.example.com:5000/team/lib":    {req(signature.NewPRSignedByKeyData(gpg, corp, exactRepo))},
		"quay.io/corp": {req(signature.NewPRSigstoreSigned(signature.PRSigstoreSignedWithKeyData([]byte(pemKey)),
			signature.PRSigstoreSignedWithRekorPublicKeyData([]byte(pemKey)),
			signature.PRSigstoreSignedWithSignedIdentity(sigstoreID)))},
		"quay.io/corp/fulcio": {req(signature.NewPRSigstoreSigned(signature.PRSigstoreSignedWithFulcio(fulcio),
			signature.PRSigstoreSignedWithRekorPublicKeyDatas([][]byte{[]byte(pemKey), []byte(pemKey)}),
			signature.PRSigstoreSignedWithSignedIdentity(sigstoreID)))},
		"quay.io/corp/pki": {req(signature.NewPRSigstoreSigned(signature.PRSigstoreSignedWithPKI(pki),
			signature.PRSigstoreSignedWithSignedIdentity(sigstoreID)))},
		"quay.io/corp/two": {req(signature.NewPRSigstoreSigned(
			signature.PRSigstoreSignedWithKeyPaths([]string{"/etc/pki/cosign2.pub", "/etc/pki/cosign3.pub"}),
			signature.PRSigstoreSignedWithSignedIdentity(signature.NewPRMMatchExact())))},
		"*.internal.example.com": {signature.NewPRReject()},
		"registry.redhat.io/ubi9/ubi-minimal" + zeros: {req(signature.NewPRSignedByKeyData(gpg,
			dearmored(t, templates.CanaryKey), signature.NewPRMMatchRepository()))},
	}
}

// TestInline_mechanism has the library's own OpenPGP mechanism import what stands in keyData: no key is lost,
// whatever else the key file held.
func TestInline_mechanism(t *testing.T) {
	imports := func(b []byte, want ...string) {
		t.Helper()
		m, got, err := signature.NewEphemeralGPGSigningMechanism(b)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		for i := range got {
			got[i] = strings.ToUpper(got[i])
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("imported %q, want %q", got, want)
		}
	}
	keys := testKeys(t)
	imports(inline(Key{File: parseKey(t, keys["both.gpg"])}), "F594A003D2A511CFBBF97AA0EE57246FCE6B18A6")

	dir := os.Getenv("NODETRUST_REALDATA")
	if dir == "" {
		t.Skip("Red Hat's key files: NODETRUST_REALDATA is not set")
	}
	b, err := os.ReadFile(filepath.Join(dir, "keys", "RPM-GPG-KEY-redhat10-release"))
	if err != nil {
		t.Fatal(err)
	}
	imports(inline(Key{File: parseKey(t, b)}), "567E347AD0044ADE55BA8A5F199E2F91FD431D51",
		"7E4624258C406535D56D6F135054E4A45A6340B3")
}

func TestConfig_Files_deterministic(t *testing.T) {
	digest := ""
	for range 20 {
		files, err := parse(t, full).Files([]Reader{current()})
		if err != nil {
			t.Fatal(err)
		}
		if d := files.Digest(); digest == "" {
			digest = d
		} else if d != digest {
			t.Fatalf("digest %s, want %s", d, digest)
		}
	}
}

func TestConfig_Files_comment(t *testing.T) {
	files, err := parse(t, full).Files(DefaultReaders()[1:])
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files[1:] {
		if !bytes.HasPrefix(f.Data, []byte("# Written by nodetrust from the trust config full; edit that instead.\n")) {
			t.Errorf("%s: no comment", f.Path)
		}
	}
}

func reader(t testing.TB, name string) Reader {
	t.Helper()
	r, err := LookupReader(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestConfig_Files_oldReader(t *testing.T) {
	cfg := parse(t, config("  registries:\n  - {scope: a.b, require: accept, lookaside: 'https://a.b/c'}\n"))
	for name, want := range map[string]string{
		"rhel7":      "docker:\n  a.b:\n    lookaside: https://a.b/c\n    sigstore: https://a.b/c\n",
		"podman-4.3": "docker:\n  a.b:\n    lookaside: https://a.b/c\n",
	} {
		files, err := cfg.Files([]Reader{current(), reader(t, name)})
		if err != nil {
			t.Fatal(err)
		}
		f, _ := files.Get(RegistriesDir + "/a.b.yaml")
		if _, got, _ := strings.Cut(string(f.Data), "\n"); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
	}
}

func TestConfig_Files_features(t *testing.T) {
	cfg := parse(t, full)
	_, err := cfg.Files([]Reader{reader(t, "rhel7"), reader(t, "podman-5.2.2"), current()})
	want := `t.yaml:45: spec.registries[2].require[0].signedBy: reader rhel7 does not support several key paths in one signedBy
t.yaml:47: spec.registries[2].require[1].identity: reader rhel7 does not support remapIdentity
t.yaml:61: spec.registries[5].require[0].sigstore: reader rhel7 does not support sigstore
t.yaml:61: spec.registries[5].require[0].sigstore.rekor: reader rhel7 does not support rekor
t.yaml:62: spec.registries[5].attachments: reader rhel7 does not support sigstore
t.yaml:71: spec.registries[6].require[0].sigstore: reader rhel7 does not support sigstore
t.yaml:71: spec.registries[6].require[0].sigstore.fulcio: reader rhel7 does not support fulcio
t.yaml:71: spec.registries[6].require[0].sigstore.rekor: reader rhel7 does not support rekor
t.yaml:71: spec.registries[6].require[0].sigstore.rekor: reader rhel7 does not support several sigstore keys
t.yaml:76: spec.registries[7].require[0].sigstore: reader rhel7 does not support sigstore
t.yaml:76: spec.registries[7].require[0].sigstore.pki: reader rhel7 does not support pki
t.yaml:76: spec.registries[7].require[0].sigstore.pki: reader podman-5.2.2 does not support pki
t.yaml:80: spec.registries[8].require[0].sigstore: reader rhel7 does not support sigstore
t.yaml:80: spec.registries[8].require[0].sigstore.keys: reader rhel7 does not support several sigstore keys
t.yaml:82: spec.registries[9].scope: reader rhel7 does not support wildcard scopes`
	var problems Problems
	if !errors.As(err, &problems) || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func marshal(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
