package verify

import (
	"bytes"
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	ocitypes "github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// compressed is a compressed data packet around b.
func compressed(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z, err := packet.SerializeCompressed(nopCloser{&out}, packet.CompressionZLIB, nil)
	check(t, err)
	_, err = z.Write(b)
	check(t, err)
	check(t, z.Close())
	return out.Bytes()
}

type nopCloser struct{ *bytes.Buffer }

func (nopCloser) Close() error { return nil }

// allocated runs f and returns how many bytes it allocated in all, and how much larger the heap has become.
func allocated(f func()) (total, heap int64) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc), int64(after.HeapSys) - int64(before.HeapSys)
}

// Whatever a lookaside sends: never accepted, and little is read of it.
func TestImage_hostileLookaside(t *testing.T) {
	w := newWorld(t)
	d := w.push("team/app", "v1")
	image := w.ref("team/app:v1")
	good, err := w.key.Sign(d, image)
	check(t, err)
	large := append(bytes.Clone(good), make([]byte, 4<<20-len(good))...)
	p := w.policy(signedBy(w.key))
	number := func(r *http.Request) int {
		n, _ := strconv.Atoi(r.URL.Path[strings.LastIndex(r.URL.Path, "-")+1:])
		return n
	}
	for _, tt := range []struct {
		name   string
		serve  http.HandlerFunc
		answer verdict.Answer
		reason verdict.Reason
		most   int // requests, of the fetcher and then of the library
	}{
		{
			"128 of 4 MiB", func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(large) }, verdict.Unknown,
			verdict.LookasideNotSignature, 4,
		},
		{"128 of 4 MiB, each on a connection of its own", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Connection", "close")
			_, _ = rw.Write(large)
		}, verdict.Unknown, verdict.LookasideNotSignature, 4},
		{
			"128", func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(good) }, verdict.Unknown,
			verdict.LookasideNotSignature, 129 + 128,
		},
		{"one of 4 MiB", func(rw http.ResponseWriter, r *http.Request) {
			if number(r) == 2 {
				rw.WriteHeader(404)
				return
			}
			_, _ = rw.Write(large)
		}, verdict.Unknown, verdict.LookasideNotSignature, 1 + 2},
		{"endless", func(rw http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = rw.Write(large)
			}
		}, verdict.Unknown, verdict.LookasideNotSignature, 1 + 1},
		{"endless page where the end should be", func(rw http.ResponseWriter, r *http.Request) {
			if number(r) == 1 {
				_, _ = rw.Write(good)
				return
			}
			rw.WriteHeader(404)
			for r.Context().Err() == nil {
				if _, err := rw.Write(large); err != nil {
					return
				}
			}
		}, verdict.Accept, "", 2},
		{"redirect to a file", func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "file://"+w.lookaside.Dir+r.URL.Path, http.StatusFound)
		}, verdict.Unknown, verdict.LookasideUnreachable, 1 + 1},
		{"redirects without end", func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, r.URL.Path+"?again", http.StatusFound)
		}, verdict.Unknown, verdict.LookasideUnreachable, 10 + 10},
		{"endless headers", func(rw http.ResponseWriter, r *http.Request) {
			conn, _, err := rw.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			_, _ = fmt.Fprint(conn, "HTTP/1.1 200 OK\r\n")
			for i := 0; ; i++ {
				if _, err := fmt.Fprintf(conn, "X-%d: %s\r\n", i, strings.Repeat("a", 4000)); err != nil {
					return
				}
			}
		}, verdict.Unknown, verdict.LookasideUnreachable, 1 + 1},
		{"half a body", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", "1000")
			_, _ = rw.Write(good[:100])
		}, verdict.Unknown, verdict.LookasideUnreachable, 1 + 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.T = t
			check(t, w.lookaside.Put("team/app", d, 1, good)) // where the redirect to a file points
			w.lookaside.Fault(tt.serve)
			defer w.lookaside.Fault(nil)
			w.lookaside.Requests()
			var v verdict.Verdict
			total, heap := allocated(func() { v = w.judgeWith(p, image, Options{Timeout: time.Minute}) })
			w.want(v, tt.answer, tt.reason)
			if n := len(w.lookaside.Requests()); n > tt.most {
				t.Errorf("%d requests, want at most %d", n, tt.most)
			}
			// The server is in this process and shares its figures, but keeps nothing.
			if total > 192<<20 || heap > 64<<20 {
				t.Errorf("%d MiB allocated, heap grew by %d MiB", total>>20, heap>>20)
			}
		})
	}
	t.Run("redirect to another host", func(t *testing.T) {
		w.T = t
		// Runtimes follow it; what comes must be signed all the same.
		content := good
		other := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if number(r) > 1 {
				rw.WriteHeader(404)
				return
			}
			_, _ = rw.Write(content)
		})
		second := newWorld(t)
		second.lookaside.Fault(other)
		w.lookaside.Fault(func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, second.lookaside.URL()+r.URL.Path, http.StatusFound)
		})
		defer w.lookaside.Fault(nil)
		w.want(w.judge(p, image), verdict.Accept, "")
		content, err = second.key.Sign(d, image)
		check(t, err)
		w.want(w.judge(p, image), verdict.Refuse, verdict.WrongKey)
		content = []byte("<html>")
		w.want(w.judge(p, image), verdict.Unknown, verdict.LookasideNotSignature)
	})
}

// A signature that unpacks to more than any container signature needs is not given to gpg, which would unpack it all.
func TestImage_hostilePackets(t *testing.T) {
	w := newWorld(t)
	d := w.push("team/app", "v1")
	image := w.ref("team/app:v1")
	p := w.policy(signedBy(w.key))
	good, err := w.key.Sign(d, image)
	check(t, err)
	bomb := append([]byte(strings.TrimSuffix(string(fixture.Payload(d, image)), "}")),
		bytes.Repeat([]byte(" "), 96<<20)...)
	bomb = append(bomb, '}')
	for _, algo := range []string{"zip", "zlib", "bzip2"} {
		t.Run("bomb "+algo, func(t *testing.T) {
			w.T = t
			b, err := w.key.SignBytes(bomb, "--compress-algo", algo, "--compress-level", "9", "--bzip2-compress-level", "9")
			check(t, err)
			check(t, w.lookaside.Put("team/app", d, 1, b))
			var v verdict.Verdict
			total, heap := allocated(func() { v = w.judgeWith(p, image, Options{MaxSignatureSize: 4 << 20}) })
			w.want(v, verdict.Unknown, verdict.LookasideNotSignature)
			if total > 32<<20 || heap > 32<<20 {
				t.Errorf("%d MiB allocated, heap grew by %d MiB", total>>20, heap>>20)
			}
		})
	}
	bomb = nil
	t.Run("packed often", func(t *testing.T) {
		w.T = t
		b := good
		for range 40 {
			b = compressed(t, b)
		}
		check(t, w.lookaside.Put("team/app", d, 1, b))
		if v := w.judge(p, image); v.Answer == verdict.Accept {
			t.Errorf("%+v", v)
		}
	})
	t.Run("cut off anywhere", func(t *testing.T) {
		w.T = t
		packed, err := w.key.SignBytes(fixture.Payload(d, image), "--compress-algo", "zlib")
		check(t, err)
		for _, b := range [][]byte{good, packed} {
			for n := 0; n < len(b); n += 37 {
				check(t, w.lookaside.Put("team/app", d, 1, b[:n]))
				if v := w.judge(p, image); v.Answer == verdict.Accept {
					t.Fatalf("%d of %d bytes are accepted", n, len(b))
				}
			}
		}
	})
}

// A registry that sends too much of everything.
func TestImage_hostileRegistry(t *testing.T) {
	w := newWorld(t)
	d := w.push("team/app", "v1")
	image := w.ref("team/app:v1")
	w.sign(w.key, "team/app", d, image, 1)
	p := w.policy(signedBy(w.key))
	big := bytes.Repeat([]byte("a"), 1<<20)
	for _, tt := range []struct {
		name   string
		serve  http.HandlerFunc
		reason verdict.Reason
	}{
		{"endless manifest", func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/" {
				w.registry.Serve(rw, r)
				return
			}
			for r.Context().Err() == nil {
				if _, err := rw.Write(big); err != nil {
					return
				}
			}
		}, verdict.RegistryUnreachable},
		{"manifest of 4 MiB of brackets", func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/" {
				w.registry.Serve(rw, r)
				return
			}
			rw.Header().Set("Content-Type", string(ocitypes.OCIImageIndex))
			_, _ = rw.Write(bytes.Repeat([]byte("["), 4<<20-1))
		}, verdict.ManifestUnreadable},
		{"huge challenge", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("WWW-Authenticate", "Bearer "+strings.Repeat(`realm="http://127.0.0.1:1/",service="x",`, 20000))
			rw.WriteHeader(401)
		}, verdict.RegistryUnreachable},
		{"many challenges", func(rw http.ResponseWriter, _ *http.Request) {
			for range 20000 {
				rw.Header().Add("WWW-Authenticate", `Bearer realm="`+w.lookaside.URL()+`/token",service="x"`)
			}
			rw.WriteHeader(401)
		}, ""},
		{"endless token", func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/token" {
				rw.Header().Set("WWW-Authenticate", `Bearer realm="http://`+w.registry.Host+`/token",service="x"`)
				rw.WriteHeader(401)
				return
			}
			for r.Context().Err() == nil {
				if _, err := rw.Write(big); err != nil {
					return
				}
			}
		}, verdict.RegistryUnreachable},
		{"realm that is a file", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("WWW-Authenticate", `Bearer realm="file:///etc/passwd",service="x"`)
			rw.WriteHeader(401)
		}, verdict.RegistryUnreachable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.T = t
			w.registry.Fault(tt.serve)
			defer w.registry.Fault(nil)
			var v verdict.Verdict
			total, heap := allocated(func() { v = w.judgeWith(p, image, Options{Timeout: time.Minute}) })
			if tt.reason != "" {
				w.want(v, verdict.Unknown, tt.reason)
			} else if v.Answer != verdict.Unknown {
				t.Errorf("%+v", v)
			}
			if total > 192<<20 || heap > 64<<20 {
				t.Errorf("%d MiB allocated, heap grew by %d MiB", total>>20, heap>>20)
			}
		})
	}
	t.Run("attachments without end", func(t *testing.T) {
		w.T = t
		img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, ocitypes.OCIManifestSchema1), ocitypes.OCIConfigJSON)
		var layers []mutate.Addendum
		for i := range 24 {
			payload := append(bytes.Repeat([]byte{'x'}, 4<<20-16), []byte(fmt.Sprintf("%016d", i))...)
			layers = append(layers, mutate.Addendum{Layer: static.NewLayer(payload, cosignType), History: v1.History{}})
		}
		img, err := mutate.Append(img, layers...)
		check(t, err)
		tag, err := name.NewTag(w.ref("team/app:")+strings.Replace(d, ":", "-", 1)+".sig", name.Insecure)
		check(t, err)
		check(t, remote.Write(tag, img))
		w.write("attached/lab.yaml", "docker:\n  "+w.registry.Host+":\n    lookaside: "+w.lookaside.URL()+
			"\n    use-sigstore-attachments: true\n")
		p, err := openFiles(w.path("policy.json"), []string{w.path("attached")}, Source{})
		check(t, err)
		defer p.Close()
		var v verdict.Verdict
		w.registry.Requests()
		_, heap := allocated(func() { v = w.judge(p, image) })
		w.want(v, verdict.Unknown, verdict.AttachmentsUnreadable)
		if n := len(w.registry.Requests()); n > 10 || heap > 64<<20 {
			t.Errorf("%d requests, heap grew by %d MiB", n, heap>>20)
		}
	})
}
