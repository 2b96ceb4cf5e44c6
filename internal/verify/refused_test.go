package verify

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	ocitypes "github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/nodetrust/nodetrust/internal/verdict"
)

// spoilt answers requests whose path has this in it with a status and a body.
func (w *world) spoilt(path string, status int, body string) {
	w.registry.Fault(func(rw http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, path) {
			w.registry.Serve(rw, r)
			return
		}
		rw.WriteHeader(status)
		_, _ = rw.Write([]byte(body))
	})
}

func protocol(code, message string) string {
	return `{"errors":[{"code":` + quote(code) + `,"message":` + quote(message) + `}]}`
}

// TestImage_refused: what a registry answers is a reason of its own, and its words are told, within bounds.
func TestImage_refused(t *testing.T) {
	w := newWorld(t)
	w.push("team/app", "v1")
	image := w.ref("team/app:v1")
	p := w.policy(signedBy(w.key))
	for _, tt := range []struct {
		name   string
		path   string
		status int
		body   string
		reason verdict.Reason
		words  string
	}{
		{
			"Harbor's policy", "/manifests/", 412, protocol("PROJECTPOLICYVIOLATION", "The image is not signed by cosign."),
			verdict.RegistryRefused, "status 412: PROJECTPOLICYVIOLATION: The image is not signed by cosign.",
		},
		{
			"a known code", "/manifests/", 405, protocol("UNSUPPORTED", "no tags here"), verdict.RegistryRefused,
			"status 405: UNSUPPORTED: no tags here",
		},
		{
			"a line of text", "/manifests/", 451, "not in your country\n", verdict.RegistryRefused,
			"status 451: not in your country",
		},
		{"a page", "/manifests/", 400, "<html>No", verdict.RegistryRefused, "status 400: Bad Request"},
		{
			"JSON without end", "/manifests/", 400, protocol("X", strings.Repeat("a", 1<<20)), verdict.RegistryRefused,
			"status 400",
		},
		{"no words", "/manifests/", 418, "", verdict.RegistryRefused, "status 418: I'm a teapot"},
		{
			"many words", "/manifests/", 412, protocol("X", strings.Repeat("é", 1000)), verdict.RegistryRefused,
			"status 412: X: éé",
		},
		{
			"words for a terminal", "/manifests/", 412, protocol("X", "\x1b[2Jaccept\u202e\n"), verdict.RegistryRefused,
			"status 412: X: ?[2Jaccept?",
		},
		{
			"an echo", "/manifests/", 412, protocol("X", "Bearer abcdefghijkl is bad"), verdict.RegistryRefused,
			"status 412: X: Bearer [redacted] is bad",
		},
		{"the ping", "/v2/", 412, protocol("X", "go away"), verdict.RegistryRefused, "status 412"},
		{"an outage", "/manifests/", 503, "", verdict.RegistryUnreachable, "503"},
		{
			"an outage in words of the protocol", "/manifests/", 500, protocol("UNKNOWN", "oops"),
			verdict.RegistryUnreachable, "500",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := *w
			w.T = t
			w.spoilt(tt.path, tt.status, tt.body)
			defer w.registry.Fault(nil)
			v := w.likeImage(p, image, testOptions())
			w.want(v, verdict.Unknown, tt.reason)
			if !strings.Contains(v.Message, tt.words) || len(v.Message) > 800 || strings.Contains(v.Message, "abcdef") {
				t.Errorf("%q", v.Message)
			}
		})
	}
	// Codes that the library doesn't know: the status says what they mean.
	for status, reason := range map[int]verdict.Reason{
		401: verdict.Unauthorized, 403: verdict.Unauthorized,
		404: verdict.ImageNotFound,
	} {
		t.Run(fmt.Sprint("another code with ", status), func(t *testing.T) {
			w := *w
			w.T = t
			w.spoilt("/manifests/", status, protocol("ODD", "no"))
			defer w.registry.Fault(nil)
			w.want(w.judge(p, image), verdict.Unknown, reason)
		})
	}
	t.Run("Harbor's not found", func(t *testing.T) {
		w := *w
		w.T = t
		w.spoilt("/manifests/", 404, protocol("NOT_FOUND", "artifact team/app:v1 not found"))
		defer w.registry.Fault(nil)
		w.want(w.likeImage(p, image, testOptions()), verdict.Unknown, verdict.ImageNotFound)
	})
}

// TestImage_attachmentsUnreadable: an image that is there, whose attachments can't be looked for.
func TestImage_attachmentsUnreadable(t *testing.T) {
	w := newWorld(t)
	cosign := newCosignKey(t)
	image := w.ref("team/app:v1")
	d := w.push("team/app", "v1")
	payload, annotations := cosign.sign(t, d, w.ref("team/app"))
	w.attach("team/app", d, payload, annotations)
	open := func(requirement string) *Policy {
		w.write("attached.d/lab.yaml", fmt.Sprintf("docker:\n  %s:\n    use-sigstore-attachments: true\n", w.registry.Host))
		p, err := openFiles(w.write("policy.json", `{"default":[`+requirement+`]}`), []string{w.path("attached.d")}, Source{})
		check(t, err)
		t.Cleanup(func() { p.Close() })
		return p
	}
	sigstore, accept, gpg := open(cosign.requirement(t)), open(`{"type":"insecureAcceptAnything"}`), open(signedBy(w.key))
	for _, tt := range []struct {
		name   string
		path   string
		status int
		body   string
		absent bool // to the library it is just not there
	}{
		{"Artifactory's 403", ".sig", 403, protocol("DENIED", "The client does not have permission for manifest"), false},
		{"403 without words", ".sig", 403, "", false},
		{"401", ".sig", 401, protocol("UNAUTHORIZED", "log in"), false},
		{
			"a repository that isn't there", ".sig", 404,
			protocol("NAME_UNKNOWN", "repository name not known to registry"), false,
		},
		{"Harbor's policy", ".sig", 412, protocol("PROJECTPOLICYVIOLATION", "The image is not signed by cosign."), false},
		{"500", ".sig", 500, "oops", false},
		{"no manifest", ".sig", 200, "<html>", false},
		{"the layer", "/blobs/", 403, protocol("DENIED", "no"), false},
		{"404", ".sig", 404, "", true},
		{"404 of the protocol", ".sig", 404, protocol("MANIFEST_UNKNOWN", "manifest unknown"), true},
		{"Harbor's 404", ".sig", 404, protocol("NOT_FOUND", "artifact not found"), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := *w
			w.T = t
			w.spoilt(tt.path, tt.status, tt.body)
			defer w.registry.Fault(nil)
			if tt.absent {
				w.want(w.likeImage(accept, image, testOptions()), verdict.Accept, "")
				w.want(w.likeImage(sigstore, image, testOptions()), verdict.Refuse, verdict.NoSignature)
				return
			}
			for p, hint := range map[*Policy]string{
				accept: "use-sigstore-attachments: false",
				gpg:    "use-sigstore-attachments: false", sigstore: "right to read the tag",
			} {
				v := w.likeImage(p, image, testOptions())
				w.want(v, verdict.Unknown, verdict.AttachmentsUnreadable)
				if !strings.Contains(v.Hint, hint) || strings.Contains(v.Hint+v.Message, "authfile") ||
					!strings.Contains(v.Message, "sigstore attachments: ") {
					t.Errorf("%s\n%s", v.Message, v.Hint)
				}
			}
			s, err := explained(t.Context(), image, accept, testOptions())
			check(t, err)
			if len(s.Asked) == 0 {
				t.Error("nothing asked")
			}
			for _, a := range s.Asked {
				if strings.HasPrefix(a.URL, "file:") && a.Answer != "not there" {
					t.Errorf("the lookaside is told of as %+v", a)
				}
			}
		})
	}
}

// TestImage_strangeAttachments: no container signature, whoever made it.
func TestImage_strangeAttachments(t *testing.T) {
	w := newWorld(t)
	cosign, other := newCosignKey(t), newCosignKey(t)
	image, repo := w.ref("team/app:v1"), w.ref("team/app")
	d := w.push("team/app", "v1")
	w.write("attached.d/lab.yaml", fmt.Sprintf("docker:\n  %s:\n    use-sigstore-attachments: true\n", w.registry.Host))
	p, err := openFiles(w.write("policy.json", `{"default":[`+cosign.requirement(t)+`]}`), []string{w.path("attached.d")},
		Source{})
	check(t, err)
	t.Cleanup(func() { p.Close() })
	good, annotations := cosign.sign(t, d, repo)
	for _, tt := range []struct {
		name        string
		mime        ocitypes.MediaType
		payload     []byte
		annotations map[string]string
		reason      verdict.Reason
		message     string
	}{
		{
			"another media type", "application/vnd.in-toto+json", good, annotations, verdict.WeakOrUnsupported,
			`of type "application/vnd.in-toto+json" is no container signature`,
		},
		{
			"no JSON, by the right key", cosignType, []byte("hello"), cosign.signature(t, []byte("hello")),
			verdict.WeakOrUnsupported, "an accepted key made the signature, but",
		},
		{
			"another JSON, by the right key", cosignType, []byte(`{"critical":{}}`),
			cosign.signature(t, []byte(`{"critical":{}}`)), verdict.WeakOrUnsupported,
			"an accepted key made the signature, but",
		},
		{
			"no JSON, by another key", cosignType, []byte("hello"), other.signature(t, []byte("hello")), verdict.WrongKey,
			"no accepted key",
		},
		{
			"no base64", cosignType, good,
			map[string]string{"dev.cosignproject.cosign/signature": "%"},
			verdict.WeakOrUnsupported, "base64",
		},
		{"no annotation", cosignType, good, nil, verdict.WeakOrUnsupported, "annotation"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := *w
			w.T = t
			w.attachAs(tt.mime, "team/app", d, tt.payload, tt.annotations)
			v := w.likeImage(p, image, testOptions())
			w.want(v, verdict.Refuse, tt.reason)
			if !strings.Contains(v.Message, tt.message) {
				t.Error(v.Message)
			}
		})
	}
}
