package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	ocitypes "github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/library"
)

const cosignType = "application/vnd.dev.cosign.simplesigning.v1+json"

// cosignKey signs as cosign does with a key pair.
type cosignKey struct{ *ecdsa.PrivateKey }

func newCosignKey(t testing.TB) cosignKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	return cosignKey{k}
}

func (k cosignKey) requirement(t *testing.T) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	check(t, err)
	p := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	return `{"type":"sigstoreSigned","keyData":"` + base64.StdEncoding.EncodeToString(p) +
		`","signedIdentity":{"type":"matchRepository"}}`
}

func (k cosignKey) sign(t *testing.T, digest, repo string) (payload []byte, annotations map[string]string) {
	t.Helper()
	payload = []byte(`{"critical":{"identity":{"docker-reference":` + quote(repo) +
		`},"image":{"docker-manifest-digest":` + quote(digest) +
		`},"type":"cosign container image signature"},"optional":null}`)
	return payload, k.signature(t, payload)
}

// signature is the annotation that signs a payload, whatever it is.
func (k cosignKey) signature(t *testing.T, payload []byte) map[string]string {
	t.Helper()
	sum := sha256.Sum256(payload)
	sig, err := ecdsa.SignASN1(rand.Reader, k.PrivateKey, sum[:])
	check(t, err)
	return map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(sig)}
}

func TestImage_sigstore(t *testing.T) {
	w := newWorld(t)
	key, other := newCosignKey(t), newCosignKey(t)
	d := w.push("team/app", "v1")
	repo := w.ref("team/app")
	attach := func(signatures ...func() ([]byte, map[string]string)) {
		t.Helper()
		img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, ocitypes.OCIManifestSchema1), ocitypes.OCIConfigJSON)
		for _, s := range signatures {
			payload, annotations := s()
			var err error
			img, err = mutate.Append(img, mutate.Addendum{
				Layer: static.NewLayer(payload, cosignType), Annotations: annotations,
				History: v1.History{},
			})
			check(t, err)
		}
		tag, err := name.NewTag(repo+":"+strings.Replace(d, ":", "-", 1)+".sig", name.Insecure)
		check(t, err)
		check(t, remote.Write(tag, img))
	}
	by := func(k cosignKey, digest, repo string) func() ([]byte, map[string]string) {
		return func() ([]byte, map[string]string) { return k.sign(t, digest, repo) }
	}
	open := func(requirement, more string) *Policy {
		t.Helper()
		policy := w.write("policy.json", `{"default":[`+requirement+`]}`)
		w.write("attached/lab.yaml", "docker:\n  "+w.registry.Host+":\n    lookaside: "+w.lookaside.URL()+"\n"+more)
		p, err := openFiles(policy, []string{w.path("attached")}, Source{})
		check(t, err)
		t.Cleanup(func() { p.Close() })
		return p
	}
	const attachments = "    use-sigstore-attachments: true\n"
	p := open(key.requirement(t), attachments)
	w.want(w.likeImage(p, repo+":v1", testOptions()), verdict.Refuse, verdict.NoSignature)
	attach(by(key, d, repo))
	v := w.likeImage(p, repo+":v1", testOptions())
	w.want(v, verdict.Accept, "")
	if want := "signed by a sigstore signer that the policy names"; v.Message != want {
		t.Errorf("message %q, want %q", v.Message, want)
	}
	if s := v.Requirements[0].Signatures; len(s) != 1 || s[0].Digest != d || s[0].Reference != repo ||
		!strings.Contains(s[0].Source, ".sig layer 1") {
		t.Errorf("%+v", s)
	}
	s := newSession(w.T, p, testOptions(), DefaultPerHost)
	w.registry.Requests()
	v, err := s.Image(t.Context(), repo+":v1")
	check(t, err)
	w.want(v, verdict.Accept, "")
	if r := w.registry.Requests(); len(r) != 4 { // ping, manifest, the attachments' manifest, one of them
		t.Errorf("a session made the requests %q", r)
	}
	s.Close()
	v = w.likeImage(open(key.requirement(t), ""), repo+":v1", testOptions())
	w.want(v, verdict.Refuse, verdict.NoSignature)
	if !strings.Contains(v.Message, "use-sigstore-attachments") {
		t.Error(v.Message)
	}
	zero := "sha256:" + strings.Repeat("0", 64)
	attach(by(other, d, repo))
	w.want(w.likeImage(p, repo+":v1", testOptions()), verdict.Refuse, verdict.WrongKey)
	attach(by(key, zero, repo))
	w.want(w.likeImage(p, repo+":v1", testOptions()), verdict.Refuse, verdict.WrongDigest)
	attach(by(key, d, w.ref("team/else")))
	w.want(w.likeImage(p, repo+":v1", testOptions()), verdict.Refuse, verdict.WrongIdentity)
	attach(by(other, d, repo), by(key, zero, repo), by(key, d, w.ref("team/else")))
	v = w.likeImage(p, repo+":v1", testOptions())
	w.want(v, verdict.Refuse, verdict.WrongIdentity)
	var reasons []string
	for _, s := range v.Requirements[0].Signatures {
		reasons = append(reasons, string(s.Reason))
	}
	if strings.Join(reasons, " ") != "WrongKey WrongDigest WrongIdentity" {
		t.Error(reasons)
	}
	attach(by(other, d, repo), by(key, d, repo))
	w.want(w.likeImage(p, repo+":v1", testOptions()), verdict.Accept, "")
	// The two kinds of signature don't count for each other.
	w.want(w.likeImage(open(signedBy(w.key), attachments), repo+":v1", testOptions()), verdict.Refuse, verdict.NoSignature)
	w.sign(w.key, "team/app", d, repo+":v1", 1)
	w.want(w.likeImage(open(signedBy(w.key)+","+key.requirement(t), attachments), repo+":v1", testOptions()),
		verdict.Accept, "")
	w.want(w.likeImage(open(signedBy(w.key)+","+newCosignKey(t).requirement(t), attachments), repo+":v1", testOptions()),
		verdict.Refuse, verdict.WrongKey)

	// In a directory.
	dir := t.TempDir()
	img, err := fixture.Image("team/appv1", "amd64")
	check(t, err)
	blob, err := img.RawManifest()
	check(t, err)
	check(t, os.WriteFile(filepath.Join(dir, "manifest.json"), blob, 0o644))
	payload, annotations := key.sign(t, d, repo)
	b, err := json.Marshal(library.Attachment{MIMEType: cosignType, Payload: payload, Annotations: annotations})
	check(t, err)
	check(t, os.WriteFile(filepath.Join(dir, "signature-1"), append([]byte("\x00sigstore-json\n"), b...), 0o644))
	w.want(w.judgeAs(p, "dir:"+dir, repo+":v1"), verdict.Accept, "")
	w.want(w.judgeAs(p, "dir:"+dir, w.ref("team/else:v1")), verdict.Refuse, verdict.WrongIdentity)
}

// A registry that says it serves signatures itself is asked for them, and the lookaside is not.
func TestImage_extension(t *testing.T) {
	w := newWorld(t)
	d := w.push("team/app", "v1")
	w.sign(w.key, "team/app", d, w.ref("team/app:v1"), 1)
	sig, err := w.key.Sign(d, w.ref("team/app:v1"))
	check(t, err)
	list := `{"signatures":[]}`
	w.registry.Fault(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("X-Registry-Supports-Signatures", "1")
		if strings.HasPrefix(r.URL.Path, "/extensions/v2/team/app/signatures/") {
			_, _ = rw.Write([]byte(list))
			return
		}
		w.registry.Serve(rw, r)
	})
	p := w.policy(signedBy(w.key))
	v := w.likeImage(p, w.ref("team/app:v1"), testOptions())
	w.want(v, verdict.Refuse, verdict.NoSignature)
	if !strings.Contains(v.Message, "X-Registry-Supports-Signatures") {
		t.Error(v.Message)
	}
	list = `{"signatures":[{"schemaVersion":2,"name":"` + d + `@` + strings.Repeat("a", 32) +
		`","type":"atomic","content":"` + base64.StdEncoding.EncodeToString(sig) + `"}]}`
	v = w.likeImage(p, w.ref("team/app:v1"), testOptions())
	w.want(v, verdict.Accept, "")
	if s := v.Requirements[0].Signatures[0]; !strings.HasPrefix(s.Source, w.ref("team/app")+": signature 1") {
		t.Error(s.Source)
	}
}

// Whatever a registry sends that says it serves signatures: no accept, little is read, and it is named, not the
// lookaside, though that has a good signature.
func TestImage_extensionHostile(t *testing.T) {
	w := newWorld(t)
	d := w.push("team/app", "v1")
	w.sign(w.key, "team/app", d, w.ref("team/app:v1"), 1)
	good, err := w.key.Sign(d, w.ref("team/app:v1"))
	check(t, err)
	entry := func(version int, kind string, content []byte) string {
		return fmt.Sprintf(`{"schemaVersion":%d,"name":"%s@%s","type":%q,"content":%q}`, version, d, strings.Repeat("a", 32),
			kind, base64.StdEncoding.EncodeToString(content))
	}
	list := func(entries ...string) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = rw.Write([]byte(`{"signatures":[` + strings.Join(entries, ",") + `]}`))
		}
	}
	status := func(code int) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(code) }
	}
	many := make([]string, MaxSignatures+1)
	for i := range many {
		many[i] = entry(2, "atomic", good)
	}
	p := w.policy(signedBy(w.key))
	for _, tt := range []struct {
		name   string
		serve  http.HandlerFunc
		answer verdict.Answer
		reason verdict.Reason
	}{
		{
			"a good one behind one that is none", list(entry(2, "atomic", []byte("hello")), entry(2, "atomic", good)),
			verdict.Accept, "",
		},
		{"none that is one", list(entry(2, "atomic", []byte("hello"))), verdict.Refuse, verdict.WeakOrUnsupported},
		{"another version", list(entry(1, "atomic", good)), verdict.Refuse, verdict.NoSignature},
		{"another type", list(entry(2, "other", good)), verdict.Refuse, verdict.NoSignature},
		{
			"web page", func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte("<!DOCTYPE html>")) },
			verdict.Unknown, verdict.LookasideNotSignature,
		},
		{"too many", list(many...), verdict.Unknown, verdict.LookasideNotSignature},
		{"too large", list(entry(2, "atomic", make([]byte, 2<<20))), verdict.Unknown, verdict.LookasideNotSignature},
		{"endless", func(rw http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := rw.Write(bytes.Repeat([]byte(" "), 1<<20)); err != nil {
					return
				}
			}
		}, verdict.Unknown, verdict.LookasideNotSignature},
		{"to a file", func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "file://"+w.lookaside.Dir, http.StatusFound)
		}, verdict.Unknown, verdict.LookasideUnreachable},
		{"401", status(401), verdict.Unknown, verdict.Unauthorized},
		{"403", status(403), verdict.Unknown, verdict.Unauthorized},
		{"404", status(404), verdict.Unknown, verdict.LookasideNotSignature},
		{"500", status(500), verdict.Unknown, verdict.LookasideUnreachable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.T = t
			w.registry.Fault(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("X-Registry-Supports-Signatures", "1")
				if strings.HasPrefix(r.URL.Path, "/extensions/v2/team/app/signatures/") {
					tt.serve(rw, r)
					return
				}
				w.registry.Serve(rw, r)
			})
			w.lookaside.Requests()
			var v verdict.Verdict
			total, heap := allocated(func() { v = w.likeImage(p, w.ref("team/app:v1"), testOptions()) })
			w.want(v, tt.answer, tt.reason)
			if strings.Contains(v.Message, w.lookaside.URL()+"/team/app@") || tt.answer == verdict.Unknown &&
				!strings.Contains(v.Hint, "X-Registry-Supports-Signatures") {
				t.Errorf("%s\n%s", v.Message, v.Hint)
			}
			if asked := w.lookaside.Requests(); len(asked) > 0 {
				t.Errorf("the lookaside was asked: %v", asked)
			}
			if total > 192<<20 || heap > 64<<20 {
				t.Errorf("%d MiB allocated, heap grew by %d MiB", total>>20, heap>>20)
			}
		})
	}
}
