package compare

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/templates"
)

// now is when keys are looked at: after a test has made them.
var now = time.Now().Add(time.Hour)

func policyOf(t *testing.T, scope, requirements string, read ReadKey) *Policy {
	t.Helper()
	p, err := Parse([]byte(`{"default":[{"type":"reject"}],"transports":{"docker":{"`+scope+`":`+requirements+`}}}`), read,
		now)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const (
	byPath = `{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}`
	pkiA   = `{"type":"sigstoreSigned","pki":{"caRootsPath":"/ca","subjectEmail":"a@b"}}`
)

// TestCompare has what people change, with the words that they are told.
func TestCompare(t *testing.T) {
	canary := base64.StdEncoding.EncodeToString(templates.CanaryKey)
	knows := func(path string) ([]byte, error) {
		if path == "/k" {
			return templates.CanaryKey, nil
		}
		return nil, errors.New("not known")
	}
	fulcio := func(more string) string {
		return `{"type":"sigstoreSigned","fulcio":{"caPath":"/ca","oidcIssuer":"https://i","subjectEmail":"a@b"},"rekorPublicKeyPath":"/r"` + more + `}`
	}
	for _, tt := range []struct {
		name, a, b string
		want       Relation
		reason     string
	}{
		{"default identity", byPath, strings.Replace(byPath, `"/k"`,
			`"/k","signedIdentity":{"type":"matchRepoDigestOrExact"}`, 1), Equal, ""},
		{
			"looser identity", byPath, strings.Replace(byPath, `"/k"`, `"/k","signedIdentity":{"type":"matchRepository"}`, 1),
			Weaker, "b accepts identities that a does not: matchRepository, not matchRepoDigestOrExact",
		},
		{
			"stricter identity", byPath, strings.Replace(byPath, `"/k"`, `"/k","signedIdentity":{"type":"matchExact"}`, 1),
			Stronger, "a accepts identities that b does not",
		},
		{"accept", byPath, `{"type":"insecureAcceptAnything"}`, Weaker, "b accepts images without any signature"},
		{"reject", byPath, `{"type":"reject"}`, Stronger, "a accepts signed images, b refuses every image"},
		{
			"accept and reject", `{"type":"insecureAcceptAnything"}`, `{"type":"reject"}`, Stronger,
			"a accepts every image, b refuses every image",
		},
		{
			"one of several signers", byPath + `,{"type":"signedBy","keyType":"GPGKeys","keyPath":"/l"}`, byPath, Weaker,
			"b does not ask for signedBy(/l; matchRepoDigestOrExact)",
		},
		{
			"any of more keys", byPath, `{"type":"signedBy","keyType":"GPGKeys","keyPaths":["/k","/l"]}`, Weaker,
			"b accepts keys that a does not have: /l",
		},
		{
			"another key", byPath, strings.Replace(byPath, "/k", "/l", 1), Incomparable,
			"b accepts keys that a does not have: /l (the content of a key file is not known); a accepts keys that b does not have: F594A003D2A511CFBBF97AA0EE57246FCE6B18A6",
		},
		{"the same key inline", byPath, `{"type":"signedBy","keyType":"GPGKeys","keyData":"` + canary + `"}`, Equal, ""},
		{
			"a key that is not known", strings.Replace(byPath, "/k", "/l", 1),
			`{"type":"signedBy","keyType":"GPGKeys","keyData":"` + canary + `"}`, Incomparable,
			"the content of a key file is not known",
		},
		{
			"another kind", byPath, `{"type":"sigstoreSigned","keyPath":"/k"}`, Incomparable,
			"b accepts another kind of signature",
		},
		{
			"both kinds", byPath, byPath + `,{"type":"sigstoreSigned","keyPath":"/k"}`, Stronger,
			"a does not ask for sigstoreSigned",
		},
		{"X.509", byPath, strings.Replace(byPath, "GPGKeys", "X509Certificates", 1), Stronger, "b refuses every image"},
		{"no key", byPath, `{"type":"signedBy","keyType":"GPGKeys","keyPaths":[]}`, Stronger, "b refuses every image"},
		{
			"base layer", byPath, `{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"}}`, Stronger,
			"b refuses every image",
		},
		{
			"no log", `{"type":"sigstoreSigned","keyPath":"/k","rekorPublicKeyPath":"/r"}`,
			`{"type":"sigstoreSigned","keyPath":"/k"}`, Weaker, "not in the log",
		},
		{"fulcio", fulcio(""), fulcio(`,"signedIdentity":{"type":"matchRepository"}`), Weaker, "matchRepository"},
		{
			"fulcio issuer", fulcio(""), strings.Replace(fulcio(""), "https://i", "https://j", 1), Incomparable,
			"b does not ask for the issuer https://i",
		},
		{"pki", pkiA, pkiA, Equal, ""},
		{
			"pki host", pkiA, strings.Replace(pkiA, `"a@b"`, `"a@b","subjectHostname":"c"`, 1), Stronger,
			"a does not ask for the subject host name c",
		},
		{
			"pki intermediates", pkiA, strings.Replace(pkiA, `"/ca"`, `"/ca","caIntermediatesPath":"/i"`, 1), Weaker,
			"intermediate certificates",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Policies(policyOf(t, "a.b/c", "["+tt.a+"]", knows), policyOf(t, "a.b/c", "["+tt.b+"]", knows))
			got := r.Scopes[1]
			if got.Relation != tt.want || !strings.Contains(got.Reason, tt.reason) || (tt.reason == "") != (got.Reason == "") {
				t.Errorf("got %s, %q, want %s, %q", got.Relation, got.Reason, tt.want, tt.reason)
			}
			if r.Relation != tt.want {
				t.Errorf("overall %s", r.Relation)
			}
			if r.Has(Weaker) != (tt.want == Weaker) {
				t.Errorf("Has(Weaker) is %v", r.Has(Weaker))
			}
		})
	}
}

// TestCompare_missing: what one of the policies doesn't name falls back to what covers it there.
func TestCompare_missing(t *testing.T) {
	a := policyOf(t, "a.b", "["+byPath+"]", nil)
	b := policyOf(t, "a.b/open", `[{"type":"insecureAcceptAnything"}]`, nil)
	r := Policies(a, b)
	var got []string
	for _, s := range r.Scopes {
		got = append(got, s.Transport+" "+s.Scope+" "+string(s.Relation)+" | "+s.A+" | "+s.B)
	}
	want := []string{
		"  equal | reject | reject",
		"docker a.b stronger | signedBy(/k; matchRepoDigestOrExact) | reject (default)",
		"docker a.b/open weaker | signedBy(/k; matchRepoDigestOrExact) (a.b) | accept",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if r.Relation != Incomparable || !r.Has(Weaker) {
		t.Errorf("got %s", r.Relation)
	}
}

func TestCompare_deadScope(t *testing.T) {
	a := policyOf(t, "https://a.b/", "["+byPath+"]", nil)
	b := policyOf(t, "a.b", "["+byPath+"]", nil)
	for _, s := range Policies(a, b).Scopes {
		if s.Scope == "https://a.b/" && (s.Relation != Equal || !strings.HasPrefix(s.Reason, "no image has this scope")) {
			t.Errorf("got %+v", s)
		}
	}
}

// TestCompare_liveScope: what looks dead, and what the image library looks up all the same, is a hole.
func TestCompare_liveScope(t *testing.T) {
	reject, err := Parse([]byte(`{"default":[{"type":"reject"}]}`), nil, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, scope := range []string{
		"Registry.example.com", "*.Example.com", "quay.io:0", "quay.io:99999/a", "registry-1.docker.io/a", "a_b.example",
		"quay.io/a/b@sha384:" + strings.Repeat("0a", 48), "quay.io/a/b@sha512:" + strings.Repeat("0a", 64),
	} {
		if r := Policies(reject, policyOf(t, scope, `[{"type":"insecureAcceptAnything"}]`, nil)); r.Relation != Weaker {
			t.Errorf("%s: %s", scope, r.Relation)
		}
	}
}

// FuzzParse: nothing panics, a policy equals itself, and what it merges with itself does too.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"default":[{"type":"reject"}],"transports":{"docker":{"a.b/c:v1":[` + byPath +
		`]},"oci":{"/a:b":[{"type":"reject"}]}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse(data, nil, now)
		if err != nil {
			return
		}
		if r := Policies(p, p); r.Relation != Equal {
			t.Errorf("a policy is %s than itself", r.Relation)
		}
		_, _ = policy.Merge(data, data)
	})
}
