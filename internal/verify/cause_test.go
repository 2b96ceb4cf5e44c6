package verify

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	ocitypes "github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// Each cause of NoSignature: the cause, and what message and hint must name.
func TestImage_cause(t *testing.T) {
	w := newWorld(t)
	cosign := newCosignKey(t)
	image := func(repo string) string { return w.ref(repo + ":v1") }
	plainDigest := w.push("team/plain", "v1")
	// An image with a cosign signature, one with a bundle, one with both GPG and nothing else.
	cosigned := w.push("team/cosigned", "v1")
	payload, annotations := cosign.sign(t, cosigned, w.ref("team/cosigned"))
	w.attach("team/cosigned", cosigned, payload, annotations)
	bundled := w.push("team/bundled", "v1")
	w.referrers("team/bundled", bundled, "application/vnd.dev.sigstore.bundle.v0.3+json")
	gpgSigned := w.push("team/gpg", "v1")
	w.sign(w.key, "team/gpg", gpgSigned, image("team/gpg"), 1)
	index, _, err := w.registry.PushIndex("team/multi", "v1", "multi", "amd64", "arm64")
	check(t, err)
	w.sign(w.key, "team/multi", index, image("team/multi"), 1)
	coIndex, _, err := w.registry.PushIndex("team/comulti", "v1", "comulti", "amd64", "arm64")
	check(t, err)
	payload, annotations = cosign.sign(t, coIndex, w.ref("team/comulti"))
	w.attach("team/comulti", coIndex, payload, annotations)
	mirror, err := fixture.NewRegistry("127.0.0.1:0")
	check(t, err)
	defer mirror.Stop()
	_, err = mirror.Push("copy/app", "v1", "mirrored")
	check(t, err)
	conf := w.write("registries.conf", fmt.Sprintf(
		"[[registry]]\nprefix = %q\nlocation = %q\n[[registry.mirror]]\nlocation = %q\ninsecure = true\n",
		"quay.example.com/team", "quay.example.com/team", mirror.Host+"/copy"))

	host := w.registry.Host
	lookaside := "lookaside: " + w.lookaside.URL()
	section := func(lines ...string) string {
		return "docker:\n  " + host + ":\n    " + strings.Join(lines, "\n    ") + "\n"
	}
	gpg, sigstore := signedBy(w.key), cosign.requirement(t)
	for _, tt := range []struct {
		name, requirement, registriesD, image string
		cause                                 verdict.Cause
		message, hint                         string
	}{
		{
			"not signed", gpg, section(lookaside), image("team/plain"), verdict.NotSigned, w.lookaside.URL() + "/team/plain",
			"lookaside URL",
		},
		{
			"no lookaside", gpg, "docker: {}\n", image("team/plain"), verdict.NoLookaside,
			"no lookaside is configured for " + host, "registries.d",
		},
		{
			"no lookaside, and cosigned", gpg, "docker: {}\n", image("team/cosigned"), verdict.NoLookaside,
			"the registry has a sigstore signature", "registries.d",
		},
		{
			"a scope without port", gpg, "docker:\n  127.0.0.1:\n    " + lookaside + "\n", image("team/plain"),
			verdict.NoLookaside, "no lookaside", "with their port",
		},
		{
			"misspelt", gpg, section("lookasid: https://sigs.example.com"), image("team/plain"), verdict.WrongRegistriesKey,
			`lab.yaml:3 has the key "lookasid"`, "lookaside",
		},
		{
			"misspelt at the top", gpg, "default:\n  " + lookaside + "\n", image("team/plain"), verdict.WrongRegistriesKey,
			`lab.yaml:1 has the key "default"`, "lookaside",
		},
		{
			"misspelt in the default", gpg, "default-docker:\n  look-aside: https://sigs.example.com\n", image("team/plain"),
			verdict.WrongRegistriesKey, `lab.yaml:2 has the key "look-aside"`, "lookaside",
		},
		{
			"staging only", gpg, section("lookaside-staging: file:///tmp/sigs"), image("team/plain"), verdict.WrongRegistriesKey,
			"it is for signing only", "lookaside",
		},
		{
			"misspelt for others", gpg, "docker:\n  quay.example.com:\n    lookasid: https://sigs.example.com\n",
			image("team/plain"), verdict.NoLookaside, "no lookaside", "",
		},
		{
			"misspelt attachments", sigstore, section(lookaside, "use-sigstore-attachment: true"), image("team/cosigned"),
			verdict.WrongRegistriesKey, `lab.yaml:4 has the key "use-sigstore-attachment"`, "use-sigstore-attachments",
		},
		{
			"attachments off", sigstore, section(lookaside), image("team/cosigned"), verdict.AttachmentsOff,
			"though the registry holds them (tag sha256-" + cosigned[7:] + ".sig)", "use-sigstore-attachments: true",
		},
		{
			"attachments off and none", sigstore, section(lookaside), image("team/plain"), verdict.AttachmentsOff,
			"and the registry holds none", "use-sigstore-attachments: true",
		},
		{
			"attachments off and a bundle", sigstore, section(lookaside), image("team/bundled"), verdict.AttachmentsOff,
			"a sigstore bundle, which runtimes don't read", "use-sigstore-attachments: true",
		},
		{
			"bundle", sigstore, section(lookaside, "use-sigstore-attachments: true"), image("team/bundled"),
			verdict.BundleFormat, "bundle format", "new-bundle-format=false",
		},
		{
			"nothing attached", sigstore, section(lookaside, "use-sigstore-attachments: true"), image("team/plain"),
			verdict.NotSigned, "has no tag sha256-" + plainDigest[7:] + ".sig", "",
		},
		{
			"GPG wanted, cosigned", gpg, section(lookaside), image("team/cosigned"), verdict.OtherKind,
			"signed, but with sigstore", "sigstoreSigned",
		},
		{
			"sigstore wanted, GPG there", sigstore, section(lookaside, "use-sigstore-attachments: true"), image("team/gpg"),
			verdict.OtherKind, "signed, but with GPG", "signedBy",
		},
		{"index", gpg, section(lookaside), image("team/multi"), verdict.OnlyIndexSigned, "index is signed", "every instance"},
		{
			"index, cosigned", sigstore, section(lookaside, "use-sigstore-attachments: true"), image("team/comulti"),
			verdict.OnlyIndexSigned, "index is signed", "cosign sign --recursive",
		},
		{
			"index, cosigned, attachments off", sigstore, section(lookaside), image("team/comulti"), verdict.AttachmentsOff, "",
			"use-sigstore-attachments: true",
		},
		{
			"index, cosigned, GPG wanted", gpg, section(lookaside, "use-sigstore-attachments: true"), image("team/comulti"),
			verdict.NotSigned, "", "",
		},
		{
			"mirror without lookaside", gpg, "docker:\n  quay.example.com:\n    " + lookaside + "\n",
			"quay.example.com/team/app:v1", verdict.MirrorUnsigned, "no lookaside is configured for the mirror", "mirror",
		},
		{
			"mirror without signatures", gpg, "docker:\n  " + mirror.Host + ":\n    " + lookaside + "\n",
			"quay.example.com/team/app:v1", verdict.MirrorUnsigned,
			"there is none at " + w.lookaside.URL() + "/copy/app", "mirror",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.T = t
			dir := t.TempDir()
			check(t, os.WriteFile(dir+"/lab.yaml", []byte(tt.registriesD), 0o644))
			p, err := openFiles(w.write("policy.json", `{"default":[`+tt.requirement+`]}`), []string{dir},
				Source{RegistriesConf: conf})
			check(t, err)
			defer p.Close()
			v := w.judge(p, tt.image)
			w.want(v, verdict.Refuse, verdict.NoSignature)
			if v.Cause != tt.cause || !strings.Contains(v.Message, tt.message) || !strings.Contains(v.Hint, tt.hint) {
				t.Errorf("cause %s, want %s\n%s\n%s", v.Cause, tt.cause, v.Message, v.Hint)
			}
		})
	}
	t.Run("a file that nobody reads", func(t *testing.T) {
		w.T = t
		dir := t.TempDir()
		check(t, os.WriteFile(dir+"/lab.yml", []byte(section(lookaside)), 0o644))
		p, err := openFiles(w.write("policy.json", `{"default":[`+gpg+`]}`), []string{dir}, Source{})
		check(t, err)
		defer p.Close()
		v := w.judge(p, image("team/gpg"))
		w.want(v, verdict.Refuse, verdict.NoSignature)
		if v.Cause != verdict.WrongRegistriesKey ||
			!strings.Contains(v.Message, "only files whose name ends in .yaml are read") {
			t.Errorf("%+v", v)
		}
	})
	t.Run("the registry's own", func(t *testing.T) {
		w.T = t
		w.registry.Fault(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("X-Registry-Supports-Signatures", "1")
			if strings.HasPrefix(r.URL.Path, "/extensions/") {
				_, _ = rw.Write([]byte(`{"signatures":[]}`))
				return
			}
			w.registry.Serve(rw, r)
		})
		defer w.registry.Fault(nil)
		v := w.judge(w.policy(gpg), image("team/gpg"))
		w.want(v, verdict.Refuse, verdict.NoSignature)
		if v.Cause != verdict.RegistryServesNone {
			t.Errorf("%+v", v)
		}
	})
	t.Run("behind a login", func(t *testing.T) {
		w.T = t
		w.registry.Fault(func(rw http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/token":
				_, _ = rw.Write([]byte(`{"token":"let-me-in"}`))
			case r.Header.Get("Authorization") != "Bearer let-me-in":
				rw.Header().Set("WWW-Authenticate", `Bearer realm="http://`+host+`/token",service="lab"`)
				rw.WriteHeader(401)
			default:
				w.registry.Serve(rw, r)
			}
		})
		defer w.registry.Fault(nil)
		v := w.judge(w.policy(gpg), image("team/cosigned"))
		w.want(v, verdict.Refuse, verdict.NoSignature)
		if v.Cause != verdict.OtherKind {
			t.Errorf("%+v", v)
		}
	})
	t.Run("a registry that is hostile afterwards", func(t *testing.T) {
		w.T = t
		defer w.registry.Fault(nil)
		for name, h := range map[string]http.HandlerFunc{
			"endless": func(rw http.ResponseWriter, r *http.Request) {
				for r.Context().Err() == nil {
					if _, err := rw.Write(make([]byte, 1<<20)); err != nil {
						return
					}
				}
			},
			"500":    func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(500) },
			"no end": func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, "/again", http.StatusFound) },
			"JSON":   func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte(`{"manifests":null}`)) },
		} {
			asked := false
			w.registry.Fault(func(rw http.ResponseWriter, r *http.Request) {
				if asked = asked || strings.HasSuffix(r.URL.Path, ".sig"); asked {
					h(rw, r)
					return
				}
				w.registry.Serve(rw, r)
			})
			v := w.judge(w.policy(gpg), image("team/plain"))
			if v.Answer != verdict.Refuse || v.Reason != verdict.NoSignature || !asked {
				t.Errorf("%s: %+v", name, v)
			}
		}
	})
}

// tag stores an image that isn't one.
func (w *world) tag(repo, tag string, img remote.Taggable) {
	w.Helper()
	ref, err := name.NewTag(w.ref(repo)+":"+tag, name.Insecure)
	check(w.T, err)
	check(w.T, remote.Put(ref, img))
}

// attach stores a sigstore signature of an image as cosign does.
func (w *world) attach(repo, digest string, payload []byte, annotations map[string]string) {
	w.Helper()
	w.attachAs(cosignType, repo, digest, payload, annotations)
}

// attachAs stores an attachment of a media type.
func (w *world) attachAs(mime ocitypes.MediaType, repo, digest string, payload []byte, annotations map[string]string) {
	w.Helper()
	img, err := mutate.Append(mutate.ConfigMediaType(mutate.MediaType(empty.Image, ocitypes.OCIManifestSchema1),
		ocitypes.OCIConfigJSON),
		mutate.Addendum{Layer: static.NewLayer(payload, mime), Annotations: annotations})
	check(w.T, err)
	_, err = w.registry.PushImage(repo, strings.Replace(digest, ":", "-", 1)+".sig", img)
	check(w.T, err)
}

// referrers stores a list of one referrer as the tag that stands for the API in registries without it.
func (w *world) referrers(repo, digest, artifactType string) {
	w.Helper()
	w.tag(repo, strings.Replace(digest, ":", "-", 1), rawIndex(fmt.Sprintf(
		`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":2,"artifactType":%q}]}`,
		ocitypes.OCIImageIndex, ocitypes.OCIManifestSchema1, digest, artifactType)))
}

type rawIndex string

func (r rawIndex) RawManifest() ([]byte, error)           { return []byte(r), nil }
func (r rawIndex) MediaType() (ocitypes.MediaType, error) { return ocitypes.OCIImageIndex, nil }
