package verify

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/fetch"
)

func testOptions() Options {
	insecure := false
	return Options{TLSVerify: &insecure, Timeout: time.Minute, Platform: "linux/amd64"}
}

// likeImage fails unless a session, and the library alone without keyrings that are used again, give the verdict that
// Image gives, in every field. The words of a registry that refuses are the fetcher's to tell.
func (w *world) likeImage(p *Policy, image string, o Options) verdict.Verdict {
	w.Helper()
	judge := func(f func() (verdict.Verdict, error)) (verdict.Verdict, string) {
		v, err := f()
		check(w.T, err)
		b, err := json.MarshalIndent(v, "", " ")
		check(w.T, err)
		return v, string(b)
	}
	v, want := judge(func() (verdict.Verdict, error) { return judgeImage(context.Background(), image, "", p, o) })
	s := newSession(w.T, p, o, DefaultPerHost)
	defer s.Close()
	if _, got := judge(func() (verdict.Verdict, error) { return s.Image(context.Background(), image) }); got != want {
		w.Errorf("%s: the session says\n%s\nImage says\n%s", image, got, want)
	}
	p.Keyrings.Off = true
	defer func() { p.Keyrings.Off = false }()
	_, got := judge(func() (verdict.Verdict, error) {
		alone, err := libraryAlone(image, p, o)
		if v.Reason == verdict.RegistryRefused || v.Reason == verdict.AttachmentsUnreadable {
			alone.Message = v.Message
		}
		return alone, err
	})
	if got != want {
		w.Errorf("%s: the library, without keyrings that are used again\n%s\nImage says\n%s", image, got, want)
	}
	return v
}

// libraryAlone has only the library read the image; a fetcher answers what is asked to explain the verdict.
func libraryAlone(image string, p *Policy, o Options) (verdict.Verdict, error) {
	e, err := newEvaluation(image, p, o)
	if err != nil {
		return verdict.Verdict{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.Timeout)
	defer cancel()
	f := fetch.One()
	defer f.Close()
	if src, err := f.Open(ctx, e.image()); err == nil {
		e.beside = src
	}
	e.judge(ctx)
	return e.finish(ctx), nil
}

// TestSession_likeImage compares the three ways to a verdict: by a session, by Image, and by the library alone.
func TestSession_likeImage(t *testing.T) {
	w := newWorld(t)
	other, err := w.gpg.NewKey("other", fixture.KeyOptions{})
	check(t, err)
	expired, err := w.gpg.NewKey("expired", fixture.KeyOptions{FakedTime: "20200101T000000", Expire: "1y"})
	check(t, err)
	primary, err := w.gpg.NewKey("primary", fixture.KeyOptions{})
	check(t, err)
	subkey, err := primary.Subkey()
	check(t, err)

	digests := map[string]string{}
	put := func(repo string, sigs ...func(d string) ([]byte, error)) string {
		t.Helper()
		d := w.push(repo, "v1")
		digests[repo] = d
		for i, f := range sigs {
			b, err := f(d)
			check(t, err)
			check(t, w.lookaside.Put(repo, d, i+1, b))
		}
		return w.ref(repo + ":v1")
	}
	by := func(k *fixture.Key, ref string) func(d string) ([]byte, error) {
		return func(d string) ([]byte, error) { return k.Sign(d, ref) }
	}
	both := fixture.Key{Binary: append(append([]byte{}, other.Binary...), w.key.Binary...)}
	exact := func(id string) string { return `"signedIdentity":{"type":` + id + `}` }
	images := []string{
		put("good", by(w.key, w.ref("good:v1"))),
		put("unsigned"),
		put("wrong-key", by(other, w.ref("wrong-key:v1"))),
		put("wrong-name", by(w.key, w.ref("good:v1"))),
		put("wrong-digest", func(string) ([]byte, error) {
			return w.key.Sign("sha256:"+strings.Repeat("0", 64), w.ref("wrong-digest:v1"))
		}),
		put("expired", func(d string) ([]byte, error) {
			return expired.SignBytes(fixture.Payload(d, w.ref("expired:v1")), "--faked-system-time", "20200201T000000")
		}),
		put("three", by(other, w.ref("three:v1")), by(w.key, w.ref("else:v1")), by(w.key, w.ref("three:v1"))),
		put("subkey", by(subkey, w.ref("subkey:v1"))),
		put("garbage", func(string) ([]byte, error) { return []byte("\x90garbage"), nil }),
		put("key", func(string) ([]byte, error) { return w.key.Binary, nil }),
		put("html", func(string) ([]byte, error) { return []byte("<html>"), nil }),
		put("large", func(string) ([]byte, error) { return append([]byte{0x90}, make([]byte, MaxSignatureSize)...), nil }),
		put("no-json", func(string) ([]byte, error) { return w.key.SignBytes([]byte(`{"critical":{}}`)) }),
		w.ref("nowhere:v1"),
		w.ref("good:v2"),
	}
	images = append(images, w.ref("good@"+digests["good"]), w.ref("wrong-name@"+digests["wrong-name"]),
		w.ref("good@sha256:"+strings.Repeat("1", 64)))
	list, instances, err := w.registry.PushIndex("list", "v1", "list", "amd64", "arm64")
	check(t, err)
	w.sign(w.key, "list", instances[0], w.ref("list:v1"), 1)
	only, _, err := w.registry.PushIndex("list-only", "v1", "list-only", "amd64", "arm64")
	check(t, err)
	w.sign(w.key, "list-only", only, w.ref("list-only:v1"), 1)
	_, _, err = w.registry.PushIndex("other-arch", "v1", "other-arch", "s390x")
	check(t, err)
	images = append(images, w.ref("list:v1"), w.ref("list@"+list), w.ref("list@"+instances[1]), w.ref("list-only:v1"),
		w.ref("other-arch:v1"))

	for name, requirements := range map[string]string{
		"one":       signedBy(w.key),
		"two":       signedBy(w.key, exact(`"matchRepository"`)) + "," + signedBy(other, exact(`"matchRepository"`)),
		"any":       signedBy(&both, exact(`"matchExact"`)),
		"subkey":    signedBy(subkey),
		"expired":   signedBy(expired),
		"accept":    `{"type":"insecureAcceptAnything"}`,
		"reject":    `{"type":"reject"}`,
		"no key":    `{"type":"signedBy","keyType":"GPGKeys","keyPath":"/nowhere/key"}`,
		"bad key":   `{"type":"signedBy","keyType":"GPGKeys","keyData":"` + "Z2FyYmFnZQ==" + `"}`,
		"repo":      signedBy(w.key, exact(`"exactRepository","dockerRepository":`+quote(w.ref("good")))),
		"reference": signedBy(w.key, exact(`"exactReference","dockerReference":`+quote(w.ref("good:v1")))),
		"remap": signedBy(w.key, exact(`"remapIdentity","prefix":`+quote(w.ref("wrong-name"))+`,"signedPrefix":`+
			quote(w.ref("good")))),
	} {
		t.Run(name, func(t *testing.T) {
			w := *w
			w.T = t
			p := w.policy(requirements)
			for _, image := range images {
				w.likeImage(p, image, testOptions())
			}
		})
	}
}

// Mirrors, authentication and faults: what a session doesn't know it leaves to the library.
func TestSession_likeImageWhereItIsUnusual(t *testing.T) {
	w := newWorld(t)
	d := w.push("team/app", "v1")
	w.sign(w.key, "team/app", d, w.ref("team/app:v1"), 1)
	image := w.ref("team/app:v1")
	status := func(prefix string, code int) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, prefix) {
				http.Error(rw, "fault", code)
				return
			}
			w.registry.Serve(rw, r)
		}
	}
	for name, fault := range map[string]http.HandlerFunc{
		"ping 500":     status("/v2/", 500),
		"manifest 401": status("/manifests/", 401),
		"manifest 403": status("/manifests/", 403),
		"manifest 404": status("/manifests/", 404),
		"manifest 500": status("/manifests/", 500),
		"other manifest": func(rw http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/manifests/") {
				rw.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
				_, _ = rw.Write([]byte(`{"schemaVersion":2}`))
				return
			}
			w.registry.Serve(rw, r)
		},
		"huge manifest": func(rw http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/manifests/") {
				_, _ = rw.Write(make([]byte, maxManifest+1))
				return
			}
			w.registry.Serve(rw, r)
		},
		"serves signatures": func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("X-Registry-Supports-Signatures", "1")
			if strings.HasPrefix(r.URL.Path, "/extensions/") {
				_, _ = rw.Write([]byte(`{"signatures":[]}`))
				return
			}
			w.registry.Serve(rw, r)
		},
	} {
		t.Run("registry/"+name, func(t *testing.T) {
			w := *w
			w.T = t
			w.registry.Fault(fault)
			defer w.registry.Fault(nil)
			p := w.policy(signedBy(w.key))
			w.likeImage(p, image, testOptions())
			w.likeImage(p, w.ref("team/app@"+d), testOptions())
		})
	}
	for name, fault := range map[string]http.HandlerFunc{
		"403":  func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(403) },
		"500":  func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(500) },
		"HTML": func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte("<!doctype html>")) },
		"endless": func(rw http.ResponseWriter, r *http.Request) {
			r.URL.Path = "/team/app@" + strings.Replace(d, ":", "=", 1) + "/signature-1"
			w.lookaside.Serve(rw, r)
		},
		"cut off": func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", "100")
			_, _ = rw.Write([]byte{0x90})
		},
		"to the registry": func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "http://"+w.registry.Host+"/v2/", http.StatusFound)
		},
		"to a file": func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "file:///etc/passwd", http.StatusFound)
		},
		"round and round": func(rw http.ResponseWriter,
			r *http.Request,
		) {
			http.Redirect(rw, r, r.URL.Path, http.StatusFound)
		},
	} {
		t.Run("lookaside/"+name, func(t *testing.T) {
			w := *w
			w.T = t
			w.lookaside.Fault(fault)
			defer w.lookaside.Fault(nil)
			w.likeImage(w.policy(signedBy(w.key)), image, testOptions())
			w.likeImage(w.policy(`{"type":"insecureAcceptAnything"}`), image, testOptions())
			w.likeImage(w.policy(`{"type":"reject"}`), image, testOptions())
		})
	}
	t.Run("lookaside/no URL", func(t *testing.T) {
		w := *w
		w.T = t
		w.likeImage(w.open(w.write("policy.json", `{"default":[`+keyPath("/nowhere/key")+`]}`), "127.0.0.1:99", Source{}),
			image, testOptions())
	})
	t.Run("mirrors", func(t *testing.T) {
		mirror, err := fixture.NewRegistry("127.0.0.1:0")
		check(t, err)
		defer mirror.Stop()
		w := *w
		w.T = t
		conf := w.write("mirrors.conf", fmt.Sprintf(
			"[[registry]]\nlocation = %q\n[[registry.mirror]]\nlocation = %q\ninsecure = true\n", w.registry.Host,
			mirror.Host+"/copy"))
		w.write("mirrored.d/lab.yaml", fmt.Sprintf("docker:\n  %s:\n    lookaside: %s\n  %s:\n    lookaside: %s/mirror\n",
			w.registry.Host, w.lookaside.URL(), mirror.Host, w.lookaside.URL()))
		p, err := openFiles(w.write("mirrored.json", `{"default":[`+signedBy(w.key)+`]}`), []string{w.path("mirrored.d")},
			Source{RegistriesConf: conf})
		check(t, err)
		defer p.Close()
		w.want(w.likeImage(p, image, testOptions()), verdict.Accept, "")
		_, err = mirror.Push("copy/team/app", "v1", "team/appv1")
		check(t, err)
		w.want(w.likeImage(p, image, testOptions()), verdict.Refuse, verdict.NoSignature)
		w.sign(w.key, "mirror/copy/team/app", d, image, 1)
		w.want(w.likeImage(p, image, testOptions()), verdict.Accept, "")
		mirror.Stop()
		w.want(w.likeImage(p, image, testOptions()), verdict.Accept, "")
	})
	t.Run("tokens", func(t *testing.T) {
		w := *w
		w.T = t
		w.registry.Fault(bearer(w.registry, "user", "secret"))
		defer w.registry.Fault(nil)
		p := w.policy(signedBy(w.key))
		w.want(w.likeImage(p, image, testOptions()), verdict.Unknown, verdict.Unauthorized)
		o := testOptions()
		o.AuthFile = w.write("auth.json", `{"auths":{"`+w.registry.Host+`":{"auth":"dXNlcjpzZWNyZXQ="}}}`)
		w.want(w.likeImage(p, image, o), verdict.Accept, "")
	})
}

// bearer makes a registry want a token for each repository, from itself.
func bearer(r *fixture.Registry, user, password string) http.HandlerFunc {
	return func(rw http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/token" {
			if u, p, _ := req.BasicAuth(); u != user || p != password {
				rw.WriteHeader(http.StatusUnauthorized)
				return
			}
			fmt.Fprintf(rw, `{"token":%q}`, req.URL.Query().Get("scope"))
			return
		}
		if repo, _, ok := strings.Cut(strings.TrimPrefix(req.URL.Path, "/v2/"), "/manifests/"); !ok ||
			req.Header.Get("Authorization") != "Bearer repository:"+repo+":pull" {
			rw.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="lab"`)
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		r.Serve(rw, req)
	}
}

// TestSession_requests counts: each image is fetched once, whoever asks, at most so many requests at a time are made
// of a host, and none again for what the session knows.
func TestSession_requests(t *testing.T) {
	w := newWorld(t)
	const images = 24
	refs := make([]string, images)
	for i := range refs {
		repo := fmt.Sprintf("team/app%d", i%3)
		tag := itoa(i)
		d := w.push(repo, tag)
		w.sign(w.key, repo, d, w.ref(repo+":"+tag), 1)
		refs[i] = w.ref(repo + ":" + tag)
	}
	auth := w.write("auth.json", `{"auths":{"`+w.registry.Host+`":{"auth":"dXNlcjpzZWNyZXQ="}}}`)
	p := w.policy(signedBy(w.key))
	o := testOptions()
	o.AuthFile = auth
	s := newSession(w.T, p, o, 4)
	defer s.Close()

	var now, most atomic.Int64
	var connections sync.Map
	count := func(next http.HandlerFunc) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) {
			connections.Store(r.RemoteAddr, true)
			n := now.Add(1)
			defer now.Add(-1)
			for {
				if old := most.Load(); n <= old || most.CompareAndSwap(old, n) {
					break
				}
			}
			runtime.Gosched()
			next(rw, r)
		}
	}
	w.registry.Fault(count(bearer(w.registry, "user", "secret")))
	w.registry.Requests()
	w.lookaside.Requests()
	var wg sync.WaitGroup
	for i := range 3 * images {
		wg.Go(func() {
			v, err := s.Image(context.Background(), refs[i%images])
			if err != nil || v.Answer != verdict.Accept {
				t.Errorf("%v %+v", err, v)
			}
		})
	}
	wg.Wait()
	got := map[string]int{}
	for _, r := range append(w.registry.Requests(), w.lookaside.Requests()...) {
		switch {
		case strings.HasSuffix(r, "/v2/"):
			got["ping"]++
		case strings.Contains(r, "/token"):
			got["token"]++
		case strings.Contains(r, "/manifests/"):
			got["manifest"]++
		default:
			got["signature"]++
		}
	}
	if want := map[string]int{
		"ping": 1, "token": 3, "manifest": images,
		"signature": 2 * images,
	}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("requests %v, want %v", got, want)
	}
	if n := most.Load(); n > 4 {
		t.Errorf("%d requests at a time", n)
	}
	n := 0
	for range connections.Range {
		n++
	}
	if n > images/2 { // there are some more than requests at a time where one was opened that was not needed any more
		t.Errorf("%d connections for more than %d requests", n, images)
	}
	// The same image by its digest: its manifest by that name, and nothing else.
	v, err := s.Image(context.Background(), refs[0])
	check(t, err)
	v, err = s.Image(context.Background(), w.ref("team/app0@"+v.Digest))
	check(t, err)
	w.want(v, verdict.Accept, "")
	if r := append(w.registry.Requests(), w.lookaside.Requests()...); len(r) != 1 {
		t.Errorf("requests %v", r)
	}
}

// TestSession_interrupted: ^C ends a session in a moment, leaves nothing, and isn't taken for what is known of an
// image.
func TestSession_interrupted(t *testing.T) {
	w := newWorld(t)
	d := w.push("team/app", "v1")
	w.sign(w.key, "team/app", d, w.ref("team/app:v1"), 1)
	p := w.policy(signedBy(w.key))
	s := newSession(w.T, p, testOptions(), DefaultPerHost)
	defer s.Close()
	ctx, cancel := context.WithCancel(context.Background())
	w.lookaside.Fault(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	v, err := s.Image(ctx, w.ref("team/app:v1"))
	check(t, err)
	w.want(v, verdict.Unknown, verdict.Timeout)
	v, err = s.Image(ctx, w.ref("team/app:v2"))
	check(t, err)
	w.want(v, verdict.Unknown, verdict.Timeout)
	w.lookaside.Fault(nil)
	v, err = s.Image(context.Background(), w.ref("team/app:v1"))
	check(t, err)
	w.want(v, verdict.Accept, "")
}

// TestPolicy_keyrings: many images take one keyring for each core, and nothing of them stays.
func TestPolicy_keyrings(t *testing.T) {
	if pure {
		t.Skip("the pure-Go mechanism has no keyrings on disk")
	}
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	w := newWorld(t)
	d := w.push("team/app", "v1")
	w.sign(w.key, "team/app", d, w.ref("team/app:v1"), 1)
	p := w.policy(signedBy(w.key))
	for range 4 * runtime.GOMAXPROCS(0) {
		w.want(w.judge(p, w.ref("team/app:v1")), verdict.Accept, "")
	}
	made, err := filepath.Glob(filepath.Join(tmp, "containers-ephemeral-gpg-*"))
	check(t, err)
	if len(made) == 0 || len(made) > max(2, runtime.GOMAXPROCS(0)) {
		t.Errorf("keyrings %v", made)
	}
	check(t, p.Close())
	for _, dir := range made {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s was left", dir)
		}
	}
}

// TestSession_asManyAsTheLibrary: the library gives up with 128 signatures at a lookaside, whether or not there are
// more.
func TestSession_asManyAsTheLibrary(t *testing.T) {
	w := newWorld(t)
	p := w.policy(signedBy(w.key))
	d := w.push("team/app", "v1")
	sig, err := w.key.Sign(d, w.ref("team/app:v1"))
	check(t, err)
	for n := 1; n <= 128; n++ {
		check(t, w.lookaside.Put("team/app", d, n, sig))
		switch n {
		case 127:
			w.want(w.likeImage(p, w.ref("team/app:v1"), testOptions()), verdict.Accept, "")
		case 128:
			w.want(w.likeImage(p, w.ref("team/app:v1"), testOptions()), verdict.Unknown, verdict.LookasideNotSignature)
		}
	}
}
