package verify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	ocitypes "github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/nodetrust/nodetrust/internal/outside"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// A server that sends without end is cut off while it sends, whatever the status is, for Image as for a Session: what
// it could get rid of is what an evaluation may receive.
func TestImage_endless(t *testing.T) {
	w := newWorld(t)
	d := w.push("team/app", "v1")
	image := w.ref("team/app:v1")
	w.sign(w.key, "team/app", d, image, 1)
	p := w.policy(signedBy(w.key))
	chunk := bytes.Repeat([]byte("a"), 64<<10)
	for _, status := range []int{200, 400, 401, 403, 404, 405, 500} {
		for _, path := range []string{"/manifests/", "/v2/"} {
			t.Run(fmt.Sprint(status, path), func(t *testing.T) {
				w.T = t
				var sent atomic.Int64
				w.registry.Fault(func(rw http.ResponseWriter, r *http.Request) {
					if !strings.Contains(r.URL.Path, path) {
						w.registry.Serve(rw, r)
						return
					}
					rw.WriteHeader(status)
					for {
						n, err := rw.Write(chunk)
						sent.Add(int64(n))
						if err != nil {
							return
						}
					}
				})
				defer w.registry.Fault(nil)
				w.wantLittle(&sent, func() verdict.Verdict { return w.judge(p, image) })
				w.wantLittle(&sent, func() verdict.Verdict {
					insecure := false
					s := newSession(w.T, p, Options{TLSVerify: &insecure, Timeout: time.Minute}, DefaultPerHost)
					defer s.Close()
					v, err := s.Image(t.Context(), image)
					check(t, err)
					return v
				})
			})
		}
	}
}

// wantLittle judges, and wants an unknown with a text of bounded size for which the server could send a bounded
// number of bytes. The kernel takes some in that nobody reads.
func (w *world) wantLittle(sent *atomic.Int64, judge func() verdict.Verdict) {
	w.Helper()
	sent.Store(0)
	var v verdict.Verdict
	total, _ := allocated(func() { v = judge() })
	if v.Answer != verdict.Unknown || len(v.Message) > outside.Most {
		w.Errorf("%s, and a message of %d bytes: %.200s", v.Answer, len(v.Message), v.Message)
	}
	if n := sent.Load(); n > MaxReceived+ahead {
		w.Errorf("the server could send %d MiB", n>>20)
	}
	if total > 192<<20 {
		w.Errorf("%d MiB allocated", total>>20)
	}
}

// Whatever a server or a signature says, no text of it in an answer is long.
func TestExplain_longTexts(t *testing.T) {
	w := newWorld(t)
	d := w.push("team/app", "v1")
	image := w.ref("team/app:v1")
	p := w.policy(signedBy(w.key))
	for name, body := range map[string]string{
		"brackets": strings.Repeat("[", 4<<20-1),
		"message":  `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"` + strings.Repeat("a", 3<<20) + `"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			w.T = t
			w.registry.Fault(func(rw http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/v2/" {
					w.registry.Serve(rw, r)
					return
				}
				rw.Header().Set("Content-Type", string(ocitypes.OCIImageIndex))
				if name == "message" {
					rw.WriteHeader(http.StatusNotFound)
				}
				_, _ = rw.Write([]byte(body))
			})
			defer w.registry.Fault(nil)
			w.wantShort(p, image)
		})
	}
	t.Run("claims", func(t *testing.T) {
		w.T = t
		w.sign(w.key, "team/app", d, w.ref("team/")+strings.Repeat("a", 40<<10), 1)
		w.wantShort(p, image)
	})
}

// wantShort wants the whole story of an image, which is not accepted, in few bytes.
func (w *world) wantShort(p *Policy, image string) {
	w.Helper()
	insecure := false
	s, err := explained(w.Context(), image, p, Options{TLSVerify: &insecure, Timeout: time.Minute})
	check(w.T, err)
	b, err := json.Marshal(s)
	check(w.T, err)
	if s.Answer == verdict.Accept || len(b) > 16<<10 {
		w.Errorf("%s, told in %d bytes", s.Answer, len(b))
	}
}

// An image that takes more than a session receives without further ado is judged all the same.
func TestSession_heavy(t *testing.T) {
	w := newWorld(t)
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, ocitypes.OCIManifestSchema1), ocitypes.OCIConfigJSON)
	large := mutate.Annotations(img, map[string]string{"large": strings.Repeat("a", 2<<20)}).(v1.Image)
	d, err := w.registry.PushImage("team/large", "v1", large)
	check(t, err)
	w.sign(w.key, "team/large", d, w.ref("team/large:v1"), 1)
	p := w.policy(signedBy(w.key))
	w.want(w.likeImage(p, w.ref("team/large:v1"), testOptions()), verdict.Accept, "")
}
