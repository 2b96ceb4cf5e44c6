package lint

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verify/library"
	"github.com/nodetrust/nodetrust/templates"
)

// randomConfig is a trust.yaml that uses what there is, not all of it validly: scopes may be there twice, and readers
// lack features.
func randomConfig(rng *rand.Rand) string {
	pick := func(of ...string) string { return of[rng.IntN(len(of))] }
	some := func(s string) string {
		if rng.IntN(3) == 0 {
			return s
		}
		return ""
	}
	host := func() string {
		return pick("a.example.com", "b.example.com:5000", "quay.example.io", "localhost:5000", "docker.io")
	}
	scope := func() string {
		return pick(host(), host()+"/team", host()+"/team/app", host()+"/team/app:v1",
			host()+"/x_y/z-"+fmt.Sprint(rng.IntN(9)), host()+"/team/app@sha256:"+strings.Repeat("0", 64), "'*.example.com'")
	}
	place := func() string {
		return some(", lookaside: "+pick("https://sigs.example.com/x", "file:///var/lib/sigs",
			"https://sigs.example.com:8443")) + some(", attachments: "+pick("true", "false"))
	}
	identity := func() string {
		return some(", identity: " + pick("matchExact", "matchRepository", "matchRepoDigestOrExact",
			"{type: exactReference, dockerReference: 'a.example.com/x:y'}",
			"{type: exactRepository, dockerRepository: a.example.com/x}",
			"{type: remapIdentity, prefix: a.example.com/x, signedPrefix: b.example.com:5000}"))
	}
	requirement := func() string {
		return "{" + pick("signedBy: [gpg]", "signedBy: [gpg-path]", "signedBy: [gpg-path, gpg-path2]",
			"sigstore: {keys: [pem]"+some(", rekor: [pem]")+"}", "sigstore: {keys: [pem-path, pem-path2]}",
			"sigstore: {keys: [pem-path]"+some(", rekor: [pem-path, pem-path2]")+"}",
			"sigstore: {fulcio: {ca: ca, oidcIssuer: 'https://i.example.com', subjectEmail: e@example.com}, rekor: [pem]}",
			"sigstore: {pki: {roots: ca"+some(", intermediates: ca")+", "+
				pick("subjectEmail: e@example.com", "subjectHostname: h.example.com")+"}}") + identity() + "}"
	}
	s := "apiVersion: nodetrust.io/v1alpha1\nkind: TrustConfig\nmetadata: {name: t}\nspec:\n  default: " +
		pick("accept", "reject") + "\n  keys:\n"
	s += "  - {name: gpg, file: gpg}\n  - {name: pem, file: pem}\n  - {name: ca, path: /ca}\n"
	for _, name := range []string{"gpg-path", "gpg-path2", "pem-path", "pem-path2"} {
		s += "  - {name: " + name + ", path: /keys/" + name + "}\n"
	}
	s += "  registries:\n"
	for range 1 + rng.IntN(5) {
		require := pick("accept", "reject", "["+requirement()+"]", "["+requirement()+", "+requirement()+"]")
		s += "  - {scope: " + scope() + ", require: " + require + place()
		if rng.IntN(3) == 0 {
			s += ", mirrors: [{location: mirror.example.com:5000/" + pick("a", "b") + place() + "}]"
		}
		s += "}\n"
	}
	return s + some("  canaries:\n  - {image: 'c.example.com/x/y@sha256:"+strings.Repeat("1", 64)+"', expect: refuse}\n")
}

// TestRenderedAgreesWithLibrary: whatever is rendered for some readers, the library loads it, and lint says that
// these readers do.
func TestRenderedAgreesWithLibrary(t *testing.T) {
	files, rng := sample(t, 300)
	gpg := v4Key(t)
	read := func(p string) ([]byte, error) {
		if p == "gpg" {
			return gpg, nil
		}
		return []byte(pemKey), nil
	}
	readers := trust.Readers()
	dir := t.TempDir()
	rendered := 0
	for range files {
		text := randomConfig(rng)
		cfg, err := trust.Parse("trust.yaml", []byte(text), read)
		if err != nil {
			continue // most have no lookaside or attachments where they need them
		}
		by := []trust.Reader{readers[rng.IntN(len(readers))], readers[rng.IntN(len(readers))]}
		set, err := cfg.Files(by)
		if err != nil {
			if !strings.Contains(err.Error(), "trust.yaml:") || !strings.Contains(err.Error(), "does not support") {
				t.Fatalf("%v\n%s", err, text)
			}
			continue
		}
		rendered++
		var registries []registriesd.File
		out := map[string]string{}
		for _, f := range set {
			out[strings.TrimPrefix(f.Path, "/")] = string(f.Data)
			if f.Path == trust.PolicyPath {
				if err := library.LoadPolicy(f.Data, f.Path); err != nil {
					t.Fatalf("%v\n%s\n%s", err, text, f.Data)
				}
				continue
			}
			registries = append(registries, registriesd.File{Path: f.Path, Data: f.Data})
		}
		if err := library.Load(registries); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		root := write(t, filepath.Join(dir, fmt.Sprint(rendered)), out)
		paths := []string{filepath.Join(root, trust.PolicyPath)}
		if len(registries) > 0 {
			paths = append(paths, filepath.Join(root, trust.RegistriesDir))
		}
		r, err := Run(paths, Options{Readers: []string{by[0].Name, by[1].Name, CurrentLibrary}, Now: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		for _, reader := range r.Readers {
			if !reader.Loads {
				t.Fatalf("%+v\n%s", reader, text)
			}
		}
		for _, f := range r.Findings {
			if f.Severity == Error {
				t.Fatalf("%+v\n%s\n%s", f, text, out)
			}
		}
	}
	if rendered < files/20 {
		t.Errorf("only %d of %d configs could be rendered", rendered, files)
	}
	t.Logf("%d of %d configs could be rendered", rendered, files)
}

// renderedRow is the policy that is rendered for RHEL 7, as a row of features.json, so that old versions of the
// library are recorded loading just these bytes.
func renderedRow(t *testing.T) featureRow {
	t.Helper()
	text, err := os.ReadFile("testdata/rhel7.yaml")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := trust.Parse("rhel7.yaml", text, func(string) ([]byte, error) { return templates.CanaryKey, nil })
	if err != nil {
		t.Fatal(err)
	}
	reader, err := trust.LookupReader("rhel7")
	if err != nil {
		t.Fatal(err)
	}
	files, err := cfg.Files([]trust.Reader{reader})
	if err != nil {
		t.Fatal(err)
	}
	policy, _ := files.Get(trust.PolicyPath)
	var b bytes.Buffer
	if err := json.Compact(&b, policy.Data); err != nil {
		t.Fatal(err)
	}
	return featureRow{Name: "rendered for RHEL 7", Policy: b.Bytes()}
}

// TestRenderedIsRecorded: what is rendered today for RHEL 7 is what old versions were seen to load.
func TestRenderedIsRecorded(t *testing.T) {
	want := renderedRow(t)
	for _, row := range featureRows(t) {
		if row.Name != want.Name {
			continue
		}
		if !bytes.Equal(row.Policy, want.Policy) || row.Feature != "" || row.Rejected {
			t.Errorf("testdata/features.json has another policy. Put this into it, and run make readers:\n%s", want.Policy)
		}
		return
	}
	t.Errorf("testdata/features.json has no such row:\n%s", want.Policy)
}
