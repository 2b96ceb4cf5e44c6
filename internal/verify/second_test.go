package verify

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/verdict"
)

// TestSettled asks for an image whose registry is down, under policies that refuse it whatever it is, and one that
// doesn't.
func TestSettled(t *testing.T) {
	w := newWorld(t)
	image := w.ref("team/app:v1")
	d := w.push("team/app", "v1")
	reject, signed := w.policy(`{"type":"reject"}`), w.policy(signedBy(w.key))
	if v := w.judge(reject, image); v.Answer != verdict.Refuse || v.Digest != d {
		t.Errorf("%s of %s while the registry is up, want refuse of %s", v.Answer, v.Digest, d)
	}
	w.registry.Stop()
	w.want(w.judge(reject, image), verdict.Refuse, verdict.RejectedByPolicy)
	w.want(w.judge(w.policy(signedBy(w.key), `{"type":"reject"}`), image), verdict.Refuse, verdict.RejectedByPolicy)
	w.want(w.judge(signed, image), verdict.Unknown, verdict.RegistryUnreachable)
	s := newSession(w.T, reject, Options{}, DefaultPerHost)
	defer s.Close()
	v, err := s.Image(context.Background(), image)
	check(t, err)
	w.want(v, verdict.Refuse, verdict.RejectedByPolicy)
}

// TestNotAsked judges without asking anybody.
func TestNotAsked(t *testing.T) {
	w := newWorld(t)
	for requirement, want := range map[string]verdict.Reason{
		signedBy(w.key): verdict.NotAsked, `{"type":"insecureAcceptAnything"}`: verdict.NotAsked,
	} {
		v, err := judgeImage(context.Background(), w.ref("team/app:v1"), "", w.policy(requirement), Options{Offline: true})
		check(t, err)
		w.want(v, verdict.Unknown, want)
	}
	v, err := judgeImage(context.Background(), w.ref("team/app:v1"), "", w.policy(`{"type":"reject"}`),
		Options{Offline: true})
	check(t, err)
	w.want(v, verdict.Refuse, verdict.RejectedByPolicy)
}

// TestServedAs serves a well-signed manifest as other types, as a static mirror does: no runtime can use it then.
func TestServedAs(t *testing.T) {
	w := newWorld(t)
	w.sign(w.key, "team/app", w.push("team/app", "v1"), w.ref("team/app:v1"), 1)
	for _, served := range []string{
		"text/plain", "application/json", "application/octet-stream",
		"application/vnd.docker.distribution.manifest.v1+json",
	} {
		w.registry.Fault(func(rw http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/manifests/") {
				rw = &typed{rw, served}
			}
			w.registry.Serve(rw, r)
		})
		for _, requirement := range []string{signedBy(w.key), `{"type":"insecureAcceptAnything"}`} {
			w.want(w.judge(w.policy(requirement), w.ref("team/app:v1")), verdict.Unknown, verdict.ManifestUnreadable)
		}
	}
	w.registry.Fault(nil)
	w.want(w.judge(w.policy(signedBy(w.key)), w.ref("team/app:v1")), verdict.Accept, "")
}

// typed is an answer of another Content-Type.
type typed struct {
	http.ResponseWriter
	as string
}

func (w *typed) WriteHeader(status int) {
	w.Header().Set("Content-Type", w.as)
	w.ResponseWriter.WriteHeader(status)
}

// TestLookAgain takes an accept back when the bytes are not those that were accepted.
func TestLookAgain(t *testing.T) {
	w := newWorld(t)
	w.sign(w.key, "team/app", w.push("team/app", "v1"), w.ref("team/app:v1"), 1)
	e, err := newEvaluation(w.ref("team/app:v1"), w.policy(signedBy(w.key)), Options{})
	check(t, err)
	e.judge(context.Background())
	if e.v.Answer == verdict.Accept {
		t.Fatal("accepted over plain HTTP that nobody allowed")
	}
	insecure := false
	e, err = newEvaluation(w.ref("team/app:v1"), w.policy(signedBy(w.key)), Options{TLSVerify: &insecure})
	check(t, err)
	e.judge(context.Background())
	if e.v.Answer != verdict.Accept {
		t.Fatalf("%s: %s", e.v.Reason, e.v.Message)
	}
	const docker = "application/vnd.docker.distribution.manifest.v2+json"
	other := []byte(`{"schemaVersion":2,"mediaType":"` + docker + `","config":{"digest":"` + e.v.Digest +
		`"},"layers":[]}`)
	e.lookAgain(other, docker, nil)
	w.want(e.finish(context.Background()), verdict.Unknown, verdict.Disagreement)
}

// TestOutdatedByDigest: what is served below a digest that it doesn't have says nothing of the image, of whatever
// form it is.
func TestOutdatedByDigest(t *testing.T) {
	w := newWorld(t)
	d := w.push("team/app", "v1")
	w.sign(w.key, "team/app", d, w.ref("team/app:v1"), 1)
	p := w.policy(signedBy(w.key))
	w.registry.Fault(func(rw http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			w.registry.Serve(rw, r)
			return
		}
		rw.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v1+json")
		_, _ = rw.Write([]byte(`{"schemaVersion":1,"name":"a","tag":"v1","architecture":"amd64","fsLayers":[],"history":[]}`))
	})
	w.want(w.judge(p, w.ref("team/app@"+d)), verdict.Unknown, verdict.ImageNotFound)
	w.want(w.judge(p, w.ref("team/app:v1")), verdict.Refuse, verdict.WeakOrUnsupported)
}
