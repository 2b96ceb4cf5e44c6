package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/nodetrust/nodetrust/e2e/lab"
	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// reasonWorld is a registry and a lookaside, and the policies that judge what is in them.
type reasonWorld struct {
	*testing.T
	store *lab.Store
	dir   string
	keys  map[string]*fixture.Key
}

// provoked is one way to a reason, through the built program.
type provoked struct {
	name   string
	reason verdict.Reason
	cause  verdict.Cause
	// prepare makes files and images, spoils the servers and returns the arguments.
	prepare func(w *reasonWorld) []string
	code    int
}

// pureGo marks arguments for the build that has no gpgme.
const pureGo = "(pure Go)"

// TestReasons provokes every reason and every cause through the built program, and compares the sets with those of
// docs/reasons.md.
func TestReasons(t *testing.T) {
	t.Parallel()
	w := newReasonWorld(t)
	cases := reasonCases()
	reasons, causes := documented(t)
	for _, r := range verdict.Reasons() {
		if !slices.Contains(reasons, string(r)) {
			t.Errorf("docs/reasons.md has no row for reason %s", r)
		}
		if !slices.ContainsFunc(cases, func(c provoked) bool { return c.reason == r }) {
			t.Errorf("no case provokes reason %s", r)
		}
	}
	for _, c := range verdict.Causes() {
		if !slices.Contains(causes, string(c)) {
			t.Errorf("docs/reasons.md has no row for cause %s", c)
		}
		if !slices.ContainsFunc(cases, func(p provoked) bool { return p.cause == c }) {
			t.Errorf("no case provokes cause %s", c)
		}
	}
	for _, r := range reasons {
		if !slices.Contains(verdict.Reasons(), verdict.Reason(r)) {
			t.Errorf("docs/reasons.md describes %s, which is no reason", r)
		}
	}
	for _, c := range causes {
		if !slices.Contains(verdict.Causes(), verdict.Cause(c)) {
			t.Errorf("docs/reasons.md describes %s, which is no cause", c)
		}
	}
	seen := map[string]bool{}
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if seen[c.name] {
				t.Fatal("two cases of one name")
			}
			seen[c.name] = true
			sub := *w
			sub.T, sub.dir = t, filepath.Join(w.dir, fmt.Sprint(i))
			must(t, os.MkdirAll(sub.dir, 0o755))
			defer w.store.Registry.Fault(nil)
			defer w.store.Lookaside.Fault(nil)
			args := c.prepare(&sub)
			path := theLab.Programs.Nodetrust
			if args[0] == pureGo {
				path, args = theLab.Programs.Pure, args[1:]
			}
			r := program(t, sub.dir, path, append(args, "-o", "json")...)
			got, ok := findReason(r.stdout, c.reason, c.cause)
			if r.code != c.code || !ok {
				t.Errorf("nodetrust %s: want exit status %d, reason %s %s; got %s: %v", strings.Join(args, " "), c.code, c.reason,
					c.cause, got, r)
			}
			if args[0] != "verify" {
				return
			}
			// One image: it is the answer itself that has the reason, and nothing that was accepted has one.
			var v verdict.Verdict
			must(t, json.Unmarshal([]byte(r.stdout), &v))
			if v.Reason != c.reason || v.Cause != c.cause || v.Answer == verdict.Accept || v.Message == "" || v.Hint == "" {
				t.Errorf("nodetrust %s: want reason %s %s of a refusal or unknown, with message and hint: %+v",
					strings.Join(args, " "), c.reason, c.cause, v)
			}
		})
	}
}

// documented reads the names in the first column of the tables of docs/reasons.md.
func documented(t *testing.T) (reasons, causes []string) {
	t.Helper()
	b, err := os.ReadFile("../docs/reasons.md")
	must(t, err)
	row := regexp.MustCompile("^\\| `([A-Za-z]+)` \\|")
	into := &reasons
	for line := range strings.SplitSeq(string(b), "\n") {
		switch {
		case strings.HasPrefix(line, "| reason |"):
			into = &reasons
		case strings.HasPrefix(line, "| cause |"):
			into = &causes
		}
		if m := row.FindStringSubmatch(line); m != nil {
			*into = append(*into, m[1])
		}
	}
	return reasons, causes
}

// findReason looks for a verdict with this reason and cause, which may be inside of another object.
func findReason(stdout string, want verdict.Reason, cause verdict.Cause) (got string, ok bool) {
	var doc any
	if err := json.Unmarshal([]byte(stdout), &doc); err != nil {
		return err.Error(), false
	}
	var walk func(any) bool
	walk = func(v any) bool {
		switch v := v.(type) {
		case []any:
			return slices.ContainsFunc(v, walk)
		case map[string]any:
			if r, isText := v["reason"].(string); isText {
				got += " " + r
				if c, isText := v["cause"].(string); isText {
					got += "/" + c
				}
				if r == string(want) && (cause == "" || v["cause"] == string(cause)) {
					return true
				}
			}
			for _, inner := range v {
				if walk(inner) {
					return true
				}
			}
		}
		return false
	}
	return got, walk(doc)
}

func newReasonWorld(t *testing.T) *reasonWorld {
	t.Helper()
	w := &reasonWorld{T: t, dir: t.TempDir(), keys: map[string]*fixture.Key{"corp": corp, "stranger": stranger}}
	var err error
	w.store, err = lab.NewStore(filepath.Join(w.dir, "lookaside"))
	must(t, err)
	t.Cleanup(w.store.Close)
	w.keys["expired"], err = gpg.NewKey("expired", fixture.KeyOptions{FakedTime: "20200101T000000", Expire: "1y"})
	must(t, err)
	w.keys["revoked"], err = gpg.NewKey("revoked", fixture.KeyOptions{})
	must(t, err)
	return w
}

func (w *reasonWorld) write(name, content string) string {
	w.Helper()
	path := filepath.Join(w.dir, name)
	must(w.T, os.MkdirAll(filepath.Dir(path), 0o755))
	must(w.T, os.WriteFile(path, []byte(content), 0o644))
	return path
}

// image pushes team/NAME:v1 and stores signatures.
func (w *reasonWorld) image(signatures ...[]byte) (ref, digest string) {
	w.Helper()
	repo := w.repo()
	digest, err := w.store.Registry.Push(repo, "v1", repo)
	must(w.T, err)
	for i, s := range signatures {
		must(w.T, w.store.Lookaside.Put(repo, digest, i+1, s))
	}
	return w.store.Registry.Host + "/" + repo + ":v1", digest
}

// repo is a repository of the case's own.
func (w *reasonWorld) repo() string { return "team/c" + filepath.Base(w.dir) }

// signed is an image with a signature that key makes, for digest and reference unless those are given.
func (w *reasonWorld) signed(key *fixture.Key, digest, reference string, gpgArgs ...string) (ref string) {
	w.Helper()
	ref, d := w.image()
	if digest != "" {
		d, digest = digest, d
	} else {
		digest = d
	}
	if reference == "" {
		reference = ref
	}
	b, err := key.SignBytes(fixture.Payload(d, reference), gpgArgs...)
	must(w.T, err)
	must(w.T, w.store.Lookaside.Put(w.repo(), digest, 1, b))
	return ref
}

func requirement(k *fixture.Key) string {
	return fmt.Sprintf(`{"type":"signedBy","keyType":"GPGKeys","keyData":%q}`, base64.StdEncoding.EncodeToString(k.Binary))
}

// verify are arguments that judge ref by one requirement, with the lookaside in registries.d unless other lines are
// given.
func (w *reasonWorld) verify(ref, requirement string, registriesD ...string) []string {
	w.Helper()
	section := fmt.Sprintf("docker:\n  %s:\n    lookaside: %s\n", w.store.Registry.Host, w.store.Lookaside.URL())
	if len(registriesD) > 0 {
		section = strings.Join(registriesD, "\n") + "\n"
	}
	w.write("registries.d/lab.yaml", section)
	policy := w.write("policy.json", fmt.Sprintf(`{"default":[%s]}`, requirement))
	return []string{
		"verify", "--policy", policy, "--registries-d", filepath.Join(w.dir, "registries.d"),
		"--tls-verify=false", "--platform", "linux/amd64", ref,
	}
}

func (w *reasonWorld) tag(tag string, img remote.Taggable) {
	w.Helper()
	ref, err := name.NewTag(w.store.Registry.Host+"/"+w.repo()+":"+tag, name.Insecure)
	must(w.T, err)
	must(w.T, remote.Put(ref, img))
}

type raw string

func (r raw) RawManifest() ([]byte, error)        { return []byte(r), nil }
func (r raw) MediaType() (types.MediaType, error) { return types.OCIImageIndex, nil }

func answers(code int) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(code) }
}

// manifests answers requests for manifests with a status, and others as usual.
func (w *reasonWorld) manifests(code int) {
	w.store.Registry.Fault(func(rw http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/manifests/") {
			rw.Header().Set("Retry-After", "0")
			rw.WriteHeader(code)
			return
		}
		w.store.Registry.Serve(rw, r)
	})
}

func reasonCases() []provoked {
	// sigstoreSigned needs a key that parses; what it signs is not needed here.
	const sigstore = `{"type":"sigstoreSigned","keyData":"LS0tLS1CRUdJTiBQVUJMSUMgS0VZLS0tLS0KTUZrd0V3WUhLb1pJemowQ0FRWUlLb1pJemowREFRY0RRZ0FFZ0hraDhIYitLWVFoQzlmdStkMG1IR0hxV2xGMQpiZFdFUDRONGJQUTBkTk5FWGZ2YzVjREljV21jUjlkL3M0cUpvTW5iZ2FMdWcxOEtRdVlEekRBb3h3PT0KLS0tLS1FTkQgUFVCTElDIEtFWS0tLS0tCg=="}`
	zero := "sha256:" + strings.Repeat("0", 64)
	return []provoked{
		{"wrong key", verdict.WrongKey, "", func(w *reasonWorld) []string {
			return w.verify(w.signed(stranger, "", ""),
				requirement(corp))
		}, 3},
		{"altered", verdict.WrongKey, "", func(w *reasonWorld) []string {
			ref, d := w.image()
			b, err := corp.Sign(d, ref)
			must(w.T, err)
			must(w.T, w.store.Lookaside.Put(w.repo(), d, 1, []byte(strings.Replace(string(b), "atomic container",
				"Atomic container", 1))))
			return w.verify(ref, requirement(corp))
		}, 3},
		{"wrong identity", verdict.WrongIdentity, "", func(w *reasonWorld) []string {
			return w.verify(w.signed(corp, "", w.store.Registry.Host+"/team/else:v1"), requirement(corp))
		}, 3},
		{"wrong digest", verdict.WrongDigest, "", func(w *reasonWorld) []string {
			return w.verify(w.signed(corp, zero, ""),
				requirement(corp))
		}, 3},
		{"expired key", verdict.KeyExpired, "", func(w *reasonWorld) []string {
			return w.verify(w.signed(w.keys["expired"], "", "", "--faked-system-time", "20200201T000000"),
				requirement(w.keys["expired"]))
		}, 3},
		{"expired signature", verdict.SignatureExpired, "", func(w *reasonWorld) []string {
			args := w.verify(w.signed(corp, "", "", "--default-sig-expire", "seconds=1"), requirement(corp))
			time.Sleep(2100 * time.Millisecond) // gpg's resolution is a second, and it can't sign before its key was made
			return args
		}, 3},
		{"revoked key", verdict.KeyRevoked, "", func(w *reasonWorld) []string {
			ref := w.signed(w.keys["revoked"], "", "")
			must(w.T, w.keys["revoked"].Revoke())
			return w.verify(ref, requirement(w.keys["revoked"]))
		}, 3},
		{"no key inside", verdict.KeyUnreadable, "", func(w *reasonWorld) []string {
			return w.verify(w.signed(corp, "", ""), fmt.Sprintf(`{"type":"signedBy","keyType":"GPGKeys","keyPath":%q}`,
				w.write("key.asc", "this is no key\n")))
		}, 3},
		{"MD5", verdict.WeakOrUnsupported, "", func(w *reasonWorld) []string {
			return w.verify(w.signed(corp, "", "", "--digest-algo", "MD5", "--allow-weak-digest-algos"), requirement(corp))
		}, 3},
		{"cut off", verdict.WeakOrUnsupported, "", func(w *reasonWorld) []string {
			b, err := corp.Sign(zero, "example.com/a:b")
			must(w.T, err)
			ref, _ := w.image(b[:len(b)/2])
			return w.verify(ref, requirement(corp))
		}, 3},
		{"nobody asks for a signature", verdict.NotSignedFor, "", func(w *reasonWorld) []string {
			return append(w.verify(w.signed(corp, "", ""), `{"type":"insecureAcceptAnything"}`), "--require-signed")
		}, 3},
		{"a manifest with a signature of its own", verdict.ManifestForged, "", func(w *reasonWorld) []string {
			ref, d := w.image()
			b, err := corp.Sign(d, ref)
			must(w.T, err)
			must(w.T, w.store.Lookaside.Put(w.repo(), d, 1, b))
			w.forge(fixture.Schema1, "application/vnd.docker.distribution.manifest.v1+prettyjws", d)
			return w.verify(ref, requirement(corp))
		}, 3},
		{"rejected", verdict.RejectedByPolicy, "", func(w *reasonWorld) []string {
			return w.verify(w.signed(corp, "", ""),
				`{"type":"reject"}`)
		}, 3},

		{"not signed", verdict.NoSignature, verdict.NotSigned, func(w *reasonWorld) []string {
			ref, _ := w.image()
			return w.verify(ref, requirement(corp))
		}, 3},
		{"no lookaside", verdict.NoSignature, verdict.NoLookaside, func(w *reasonWorld) []string {
			return w.verify(w.signed(corp, "", ""), requirement(corp), "docker: {}")
		}, 3},
		{"misspelt key", verdict.NoSignature, verdict.WrongRegistriesKey, func(w *reasonWorld) []string {
			return w.verify(w.signed(corp, "", ""), requirement(corp), "docker:", "  "+w.store.Registry.Host+":",
				"    lookasid: "+w.store.Lookaside.URL())
		}, 3},
		{"only the index is signed", verdict.NoSignature, verdict.OnlyIndexSigned, func(w *reasonWorld) []string {
			index, _, err := w.store.Registry.PushIndex(w.repo(), "v1", w.repo(), "amd64", "arm64")
			must(w.T, err)
			ref := w.store.Registry.Host + "/" + w.repo() + ":v1"
			b, err := corp.Sign(index, ref)
			must(w.T, err)
			must(w.T, w.store.Lookaside.Put(w.repo(), index, 1, b))
			return w.verify(ref, requirement(corp))
		}, 3},
		{"attachments off", verdict.NoSignature, verdict.AttachmentsOff, func(w *reasonWorld) []string {
			ref, d := w.image()
			w.tag(strings.Replace(d, ":", "-", 1)+".sig", empty.Image)
			return w.verify(ref, sigstore)
		}, 3},
		{"a bundle", verdict.NoSignature, verdict.BundleFormat, func(w *reasonWorld) []string {
			ref, d := w.image()
			w.tag(strings.Replace(d, ":", "-", 1), raw(
				fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":2,"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json"}]}`,
					types.OCIImageIndex, types.OCIManifestSchema1, d)))
			return w.verify(ref, sigstore, "docker:", "  "+w.store.Registry.Host+":", "    use-sigstore-attachments: true",
				"    lookaside: "+w.store.Lookaside.URL())
		}, 3},
		{"another kind of signature", verdict.NoSignature, verdict.OtherKind, func(w *reasonWorld) []string {
			ref, d := w.image()
			img, err := mutate.AppendLayers(empty.Image,
				static.NewLayer([]byte("{}"), "application/vnd.dev.cosign.simplesigning.v1+json"))
			must(w.T, err)
			w.tag(strings.Replace(d, ":", "-", 1)+".sig", mutate.MediaType(img, types.OCIManifestSchema1))
			return w.verify(ref, requirement(corp))
		}, 3},
		{"a mirror without signatures", verdict.NoSignature, verdict.MirrorUnsigned, func(w *reasonWorld) []string {
			w.image()
			conf := w.write("registries.conf", fmt.Sprintf(
				"[[registry]]\nprefix = \"quay.example.com\"\nlocation = \"quay.example.com\"\n[[registry.mirror]]\nlocation = %q\ninsecure = true\n", w.store.Registry.Host))
			args := w.verify("quay.example.com/"+w.repo()+":v1", requirement(corp), "docker:", "  quay.example.com:",
				"    lookaside: "+w.store.Lookaside.URL())
			return append(args, "--registries-conf", conf)
		}, 3},
		{"a registry that serves signatures", verdict.NoSignature, verdict.RegistryServesNone, func(w *reasonWorld) []string {
			ref := w.signed(corp, "", "")
			w.store.Registry.Fault(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("X-Registry-Supports-Signatures", "1")
				if strings.HasPrefix(r.URL.Path, "/extensions/") {
					_, _ = rw.Write([]byte(`{"signatures":[]}`))
					return
				}
				w.store.Registry.Serve(rw, r)
			})
			return w.verify(ref, requirement(corp))
		}, 3},
		{"a layout", verdict.NoSignature, verdict.NotInLayout, func(w *reasonWorld) []string {
			img, err := fixture.Image("layout", "amd64")
			must(w.T, err)
			manifest, err := img.RawManifest()
			must(w.T, err)
			d, err := img.Digest()
			must(w.T, err)
			w.write("layout/oci-layout", `{"imageLayoutVersion":"1.0.0"}`)
			w.write("layout/index.json", fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
				types.OCIManifestSchema1, d, len(manifest)))
			w.write("layout/blobs/sha256/"+d.Hex, string(manifest))
			return w.verify("oci:"+filepath.Join(w.dir, "layout"), requirement(corp))
		}, 3},

		{"nothing is asked", verdict.NotAsked, "", func(w *reasonWorld) []string {
			args := w.verify(w.signed(corp, "", ""), requirement(corp))
			return append([]string{"explain", "--offline"}, args[1:]...)
		}, 4},
		{"only the index has attachments", verdict.NoSignature, verdict.OnlyIndexSigned, func(w *reasonWorld) []string {
			index, _, err := w.store.Registry.PushIndex(w.repo(), "v1", w.repo(), "amd64", "arm64")
			must(w.T, err)
			img, err := mutate.AppendLayers(empty.Image,
				static.NewLayer([]byte("{}"), "application/vnd.dev.cosign.simplesigning.v1+json"))
			must(w.T, err)
			w.tag(strings.Replace(index, ":", "-", 1)+".sig", mutate.MediaType(img, types.OCIManifestSchema1))
			return w.verify(w.store.Registry.Host+"/"+w.repo()+":v1", sigstore, "docker:", "  "+w.store.Registry.Host+":",
				"    use-sigstore-attachments: true", "    lookaside: "+w.store.Lookaside.URL())
		}, 3},
		{"key file missing", verdict.KeyMissing, "", func(w *reasonWorld) []string {
			ref, _ := w.image()
			return w.verify(ref, `{"type":"signedBy","keyType":"GPGKeys","keyPath":"/nonexistent/key"}`)
		}, 4},
		{"lookaside 500", verdict.LookasideUnreachable, "", func(w *reasonWorld) []string {
			args := w.verify(w.signed(corp, "", ""), requirement(corp))
			w.store.Lookaside.Fault(answers(500))
			return args
		}, 4},
		{"lookaside not there", verdict.LookasideUnreachable, "", func(w *reasonWorld) []string {
			return w.verify(w.signed(corp, "", ""), requirement(corp), "docker:", "  "+w.store.Registry.Host+":",
				"    lookaside: http://127.0.0.1:1")
		}, 4},
		{"lookaside redirects to a file", verdict.LookasideUnreachable, "", func(w *reasonWorld) []string {
			args := w.verify(w.signed(corp, "", ""), requirement(corp))
			w.store.Lookaside.Fault(func(rw http.ResponseWriter, r *http.Request) {
				http.Redirect(rw, r, "file://"+w.store.Lookaside.Dir+r.URL.Path, http.StatusFound)
			})
			return args
		}, 4},
		{"lookaside 403", verdict.LookasideForbidden, "", func(w *reasonWorld) []string {
			args := w.verify(w.signed(corp, "", ""), requirement(corp))
			w.store.Lookaside.Fault(answers(403))
			return args
		}, 4},
		{"HTML with 200", verdict.LookasideNotSignature, "", func(w *reasonWorld) []string {
			ref, _ := w.image([]byte("<!DOCTYPE html><title>Sign in</title>"))
			return w.verify(ref, requirement(corp))
		}, 4},
		{"signatures without end", verdict.LookasideNotSignature, "", func(w *reasonWorld) []string {
			args := w.verify(w.signed(corp, "", ""), requirement(corp))
			w.store.Lookaside.Fault(func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(make([]byte, 4<<20)) })
			return args
		}, 4},
		{"registry 500", verdict.RegistryUnreachable, "", func(w *reasonWorld) []string {
			args := w.verify(w.signed(corp, "", ""), requirement(corp))
			w.manifests(500)
			return args
		}, 4},
		{"registry not there", verdict.RegistryUnreachable, "", func(w *reasonWorld) []string {
			return w.verify("127.0.0.1:1/team/app:v1", requirement(corp))
		}, 4},
		{"registry refuses", verdict.RegistryRefused, "", func(w *reasonWorld) []string {
			args := w.verify(w.signed(corp, "", ""), requirement(corp))
			w.manifests(412)
			return args
		}, 4},
		{"attachments refused", verdict.AttachmentsUnreadable, "", func(w *reasonWorld) []string {
			args := w.verify(w.signed(corp, "", ""), requirement(corp), "docker:", "  "+w.store.Registry.Host+":",
				"    use-sigstore-attachments: true", "    lookaside: "+w.store.Lookaside.URL())
			w.store.Registry.Fault(func(rw http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, ".sig") {
					rw.WriteHeader(403)
					return
				}
				w.store.Registry.Serve(rw, r)
			})
			return args
		}, 4},
		{"image not there", verdict.ImageNotFound, "", func(w *reasonWorld) []string {
			return w.verify(w.store.Registry.Host+"/team/none:v1", requirement(corp))
		}, 4},
		{"401", verdict.Unauthorized, "", func(w *reasonWorld) []string {
			args := w.verify(w.signed(corp, "", ""), requirement(corp))
			w.manifests(401)
			return args
		}, 4},
		{"429", verdict.RateLimited, "", func(w *reasonWorld) []string {
			args := w.verify(w.signed(corp, "", ""), requirement(corp))
			w.manifests(429)
			return args
		}, 4},
		{"lookaside 429", verdict.RateLimited, "", func(w *reasonWorld) []string {
			args := w.verify(w.signed(corp, "", ""), requirement(corp))
			w.store.Lookaside.Fault(answers(429))
			return args
		}, 4},
		{"silent registry", verdict.Timeout, "", func(w *reasonWorld) []string {
			args := w.verify(w.signed(corp, "", ""), requirement(corp))
			w.store.Registry.Fault(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
			return append(args, "--timeout", "500ms")
		}, 4},
		{"dripping lookaside", verdict.Timeout, "", func(w *reasonWorld) []string {
			args := w.verify(w.signed(corp, "", ""), requirement(corp))
			w.store.Lookaside.Fault(func(rw http.ResponseWriter, r *http.Request) {
				for tick := time.NewTicker(20 * time.Millisecond); r.Context().Err() == nil; <-tick.C {
					_, _ = rw.Write([]byte{0x90})
					rw.(http.Flusher).Flush()
				}
			})
			return append(args, "--timeout", "500ms")
		}, 4},
		{"a manifest without its type", verdict.ManifestUnreadable, "", func(w *reasonWorld) []string {
			args := w.verify(w.signed(corp, "", ""), requirement(corp))
			w.store.Registry.Fault(func(rw http.ResponseWriter, r *http.Request) {
				if !strings.Contains(r.URL.Path, "/manifests/") {
					w.store.Registry.Serve(rw, r)
					return
				}
				answer := httptest.NewRecorder()
				w.store.Registry.Serve(answer, r)
				rw.Header().Set("Content-Type", "text/plain")
				_, _ = rw.Write(answer.Body.Bytes())
			})
			return args
		}, 4},
		// What the pure-Go mechanism reads of two messages in one file is the first; gpg and the second look take neither.
		{"two signatures in one file", verdict.Disagreement, "", func(w *reasonWorld) []string {
			ref, d := w.image()
			b, err := corp.Sign(d, ref)
			must(w.T, err)
			must(w.T, w.store.Lookaside.Put(w.repo(), d, 1, append(b, b...)))
			return append([]string{pureGo}, w.verify(ref, requirement(corp))...)
		}, 4},
		{
			"policy doesn't load", verdict.PolicyInvalid, "",
			func(w *reasonWorld) []string { return w.verify(w.signed(corp, "", ""), "") }, 2,
		},
		{"registries.d doesn't load", verdict.RegistriesDInvalid, "", func(w *reasonWorld) []string {
			return w.verify(w.signed(corp, "", ""), requirement(corp), "docker: [")
		}, 2},
		{"a hash that only gpg knows", verdict.MechanismCannotTell, "", func(w *reasonWorld) []string {
			args := w.verify(w.signed(corp, "", "", "--digest-algo", "RIPEMD160"), requirement(corp))
			return append([]string{pureGo}, args...)
		}, 4},
		{"a file of the list is missing", verdict.FileMissing, "", func(w *reasonWorld) []string {
			b, err := corp.SignBytes([]byte(strings.Repeat("0", 64) + "  oc.tar.gz\n"))
			must(w.T, err)
			return []string{
				"verify-checksums", "--key", w.write("corp.asc", string(corp.Armored)),
				w.write("sha256sum.txt.gpg", string(b)),
			}
		}, 4},
		{"a release vouches", verdict.TrustedByRelease, "", func(w *reasonWorld) []string {
			// A payload image that nobody asks a signature of, and the signed release that names its digest.
			_, d := w.image()
			image := w.store.Registry.Host + "/" + w.repo() + "@" + d
			release, err := fixture.ImageOf("amd64", nil,
				fixture.File{Name: "release-manifests/image-references", Data: fmt.Appendf(nil,
					`{"kind":"ImageStream","apiVersion":"image.openshift.io/v1","metadata":{"name":"4.99.1"},"spec":{"tags":[{"name":"etcd","from":{"kind":"DockerImage","name":%q}}]}}`, image)})
			must(w.T, err)
			const repo = "openshift-release-dev/ocp-release"
			digest, err := w.store.Registry.PushImage(repo, "4.99.1-x86_64", release)
			must(w.T, err)
			b, err := corp.Sign(digest, w.store.Registry.Host+"/"+repo+":4.99.1-x86_64")
			must(w.T, err)
			w.write("store/"+strings.Replace(digest, ":", "=", 1)+"/signature-1", string(b))
			conf := w.write("registries.conf", fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n",
				w.store.Registry.Host))
			return []string{
				"audit", "--policy", w.write("policy.json", `{"default":[{"type":"insecureAcceptAnything"}]}`), "--registries-conf",
				conf, "--platform", "linux/amd64",
				"--cache-dir", filepath.Join(w.dir, "cache"), "--images-from", w.write("images.txt", image+"\n"),
				"--release", w.store.Registry.Host + "/" + repo + "@" + digest, "--release-key",
				w.write("release.asc", string(corp.Armored)), "--store", filepath.Join(w.dir, "store"),
			}
		}, 0},
		{"no runtime", verdict.RuntimeFailed, "", func(w *reasonWorld) []string {
			canaries := w.write("canaries.json", `[{"image":"127.0.0.1:1/a@sha256:`+strings.Repeat("0", 64)+
				`","expect":"accept"}]`)
			return []string{
				"probe", "--canaries", canaries, "--runtime", "cri", "--cri-socket", filepath.Join(w.dir, "no.sock"),
				"--root", w.dir,
			}
		}, 4},
	}
}
