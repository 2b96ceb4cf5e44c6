package verify

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/mechanism"
)

// pure is true when gpg doesn't judge.
const pure = mechanism.Name != "gpgme"

func TestImage_signatures(t *testing.T) {
	w := newWorld(t)
	other, err := w.gpg.NewKey("other", fixture.KeyOptions{})
	check(t, err)
	expired, err := w.gpg.NewKey("expired", fixture.KeyOptions{FakedTime: "20200101T000000", Expire: "1y"})
	check(t, err)
	revoked, err := w.gpg.NewKey("revoked", fixture.KeyOptions{})
	check(t, err)
	good := func(d, ref string) ([]byte, error) { return w.key.Sign(d, ref) }

	tests := []struct {
		name   string
		key    *fixture.Key // of the policy
		sign   func(digest, ref string) ([]byte, error)
		answer verdict.Answer
		reason verdict.Reason
	}{
		{"good", w.key, good, verdict.Accept, ""},
		{"wrong key", other, good, verdict.Refuse, verdict.WrongKey},
		{
			"wrong identity", w.key, func(d, _ string) ([]byte, error) { return w.key.Sign(d, w.ref("team/else:v1")) },
			verdict.Refuse, verdict.WrongIdentity,
		},
		{
			"other tag", w.key, func(d, ref string) ([]byte, error) { return w.key.Sign(d, ref+"1") }, verdict.Refuse,
			verdict.WrongIdentity,
		},
		{"wrong digest", w.key, func(_, ref string) ([]byte,
			error,
		) {
			return w.key.Sign("sha256:"+strings.Repeat("0", 64), ref)
		}, verdict.Refuse, verdict.WrongDigest},
		{"altered", w.key, func(d, ref string) ([]byte, error) {
			b, err := w.key.Sign(d, ref)
			return bytes.Replace(b, []byte("atomic container"), []byte("Atomic container"), 1), err
		}, verdict.Refuse, verdict.WrongKey},
		{"expired key", expired, func(d, ref string) ([]byte, error) {
			return expired.SignBytes(fixture.Payload(d, ref), "--faked-system-time", "20200201T000000")
		}, verdict.Refuse, verdict.KeyExpired},
		{"expired signature", w.key, func(d, ref string) ([]byte, error) {
			b, err := w.key.SignBytes(fixture.Payload(d, ref), "--default-sig-expire", "seconds=1")
			time.Sleep(2100 * time.Millisecond) // gpg's resolution is a second, and it can't sign before its key was made
			return b, err
		}, verdict.Refuse, verdict.SignatureExpired},
		{"revoked key", revoked, func(d, ref string) ([]byte, error) {
			b, err := revoked.Sign(d, ref)
			if err == nil {
				err = revoked.Revoke()
			}
			return b, err
		}, verdict.Refuse, verdict.KeyRevoked},
		{"MD5", w.key, func(d, ref string) ([]byte, error) {
			return w.key.SignBytes(fixture.Payload(d, ref), "--digest-algo", "MD5", "--allow-weak-digest-algos")
		}, verdict.Refuse, verdict.WeakOrUnsupported},
		{"no container signature", w.key, func(string, string) ([]byte,
			error,
		) {
			return w.key.SignBytes([]byte(`{"critical":{}}`))
		}, verdict.Refuse, verdict.WeakOrUnsupported},
		{"truncated", w.key, func(d, ref string) ([]byte, error) {
			b, err := w.key.Sign(d, ref)
			return b[:len(b)/2], err
		}, verdict.Refuse, verdict.WeakOrUnsupported},
		{"compressed", w.key, func(d, ref string) ([]byte, error) {
			return w.key.SignBytes(fixture.Payload(d, ref), "--compress-algo", "zlib")
		}, verdict.Accept, ""},
		{
			"armored", w.key, func(d, ref string) ([]byte, error) { return w.key.SignBytes(fixture.Payload(d, ref), "--armor") },
			verdict.Unknown, verdict.LookasideNotSignature,
		},
		{
			"HTML", w.key, func(string, string) ([]byte, error) { return []byte("<!DOCTYPE html><p>Not here"), nil },
			verdict.Unknown, verdict.LookasideNotSignature,
		},
		{
			"empty", w.key, func(string, string) ([]byte, error) { return nil, nil }, verdict.Unknown,
			verdict.LookasideNotSignature,
		},
		{"too large", w.key, func(d, ref string) ([]byte, error) {
			b, err := w.key.Sign(d, ref)
			return append(b, make([]byte, MaxSignatureSize)...), err
		}, verdict.Unknown, verdict.LookasideNotSignature},
	}
	if !pure {
		garbage := tests[0]
		garbage.name, garbage.answer, garbage.reason = "bytes after the signature", verdict.Refuse, verdict.WeakOrUnsupported
		garbage.sign = func(d, ref string) ([]byte, error) {
			b, err := w.key.Sign(d, ref)
			return append(b, "garbage"...), err
		}
		tests = append(tests, garbage)
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w.T = t
			repo := fmt.Sprintf("case/n%d", i)
			d := w.push(repo, "v1")
			b, err := tt.sign(d, w.ref(repo+":v1"))
			check(t, err)
			check(t, w.lookaside.Put(repo, d, 1, b))
			v := w.judge(w.policy(signedBy(tt.key)), w.ref(repo+":v1"))
			w.want(v, tt.answer, tt.reason)
			if len(v.Requirements) != 1 || v.Requirements[0].Answer != tt.answer || v.Requirements[0].Reason != tt.reason {
				t.Errorf("requirement %+v", v.Requirements)
			}
			if tt.reason != verdict.LookasideNotSignature &&
				(len(v.Requirements[0].Signatures) != 1 || v.Requirements[0].Signatures[0].Reason != tt.reason) {
				t.Errorf("signatures %+v", v.Requirements[0].Signatures)
			}
			if strings.Contains(v.Message, "gpgme.") || strings.Contains(v.Message, w.dir+"/nodetrust") {
				t.Errorf("message shows innards: %s", v.Message)
			}

			// The same signature behind one of another key is judged the same.
			if tt.answer == verdict.Unknown || tt.key == other {
				return
			}
			check(t, w.lookaside.Put(repo, d, 2, b))
			stranger, err := other.Sign(d, w.ref(repo+":v1"))
			check(t, err)
			check(t, w.lookaside.Put(repo, d, 1, stranger))
			v = w.judge(w.policy(signedBy(tt.key)), w.ref(repo+":v1"))
			w.want(v, tt.answer, tt.reason)
			if s := v.Requirements[0].Signatures; len(s) != 2 || s[0].Reason != verdict.WrongKey || s[1].Reason != tt.reason ||
				s[0].Signer != other.Fingerprint {
				t.Errorf("signatures %+v", s)
			}
		})
	}
}

func TestImage_lookaside(t *testing.T) {
	w := newWorld(t)
	d := w.push("team/app", "v1")
	image := w.ref("team/app:v1")
	w.sign(w.key, "team/app", d, image, 1)
	status := func(code int) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(code) }
	}
	sig, err := w.key.Sign(d, image)
	check(t, err)
	accept, reject := `{"type":"insecureAcceptAnything"}`, `{"type":"reject"}`
	for _, tt := range []struct {
		name   string
		fault  http.HandlerFunc
		answer verdict.Answer
		reason verdict.Reason
	}{
		{"404", status(404), verdict.Refuse, verdict.NoSignature},
		{"403", status(403), verdict.Unknown, verdict.LookasideForbidden},
		{"401", status(401), verdict.Unknown, verdict.LookasideForbidden},
		{"429", status(429), verdict.Unknown, verdict.RateLimited},
		{"500", status(500), verdict.Unknown, verdict.LookasideUnreachable},
		{
			"no end", func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(sig) }, verdict.Unknown,
			verdict.LookasideNotSignature,
		},
		{"dripping", func(rw http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = rw.Write([]byte{0x90})
				rw.(http.Flusher).Flush()
				time.Sleep(10 * time.Millisecond)
			}
		}, verdict.Unknown, verdict.Timeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.T = t
			w.lookaside.Fault(tt.fault)
			defer w.lookaside.Fault(nil)
			o := Options{Timeout: time.Minute}
			if tt.reason == verdict.Timeout {
				o.Timeout = 300 * time.Millisecond
			}
			w.want(w.judgeWith(w.policy(signedBy(w.key)), image, o), tt.answer, tt.reason)
			// A lookaside that doesn't work stops pulls that no policy guards, but a refusal stays one.
			v := w.judgeWith(w.policy(accept), image, o)
			if tt.answer == verdict.Refuse {
				w.want(v, verdict.Accept, "")
			} else {
				w.want(v, verdict.Unknown, tt.reason)
			}
			o.Timeout = max(o.Timeout, 5*time.Second) // for the manifest, on a busy machine
			w.want(w.judgeWith(w.policy(reject, signedBy(w.key)), image, o), verdict.Refuse, verdict.RejectedByPolicy)
		})
	}
	t.Run("refused", func(t *testing.T) {
		w.T = t
		w.lookaside.Stop()
		w.want(w.judge(w.policy(signedBy(w.key)), image), verdict.Unknown, verdict.LookasideUnreachable)
		check(t, w.lookaside.Start())
		w.want(w.judge(w.policy(signedBy(w.key)), image), verdict.Accept, "")
	})
	t.Run("file", func(t *testing.T) {
		w.T = t
		policy := w.write("policy.json", fmt.Sprintf(`{"default":[%s]}`, signedBy(w.key)))
		w.want(w.judge(w.open(policy, "file://"+w.lookaside.Dir, Source{}), image), verdict.Accept, "")
		w.want(w.judge(w.open(policy, "file:///nonexistent", Source{}), image), verdict.Refuse, verdict.NoSignature)
		w.want(w.judge(w.open(policy, "ftp://example.com", Source{}), image), verdict.Unknown, verdict.LookasideUnreachable)
		w.want(w.judge(w.open(policy, "https://example.com:port", Source{}), image), verdict.Unknown,
			verdict.RegistriesDInvalid)
		big := filepath.Join(t.TempDir(), "team", "app@sha256="+d[7:])
		check(t, os.MkdirAll(big, 0o755))
		check(t, os.WriteFile(filepath.Join(big, "signature-1"), make([]byte, MaxSignatureSize+1), 0o644))
		w.want(w.judge(w.open(policy, "file://"+filepath.Dir(filepath.Dir(big)), Source{}), image), verdict.Unknown,
			verdict.LookasideNotSignature)
	})
}

func TestImage_registry(t *testing.T) {
	w := newWorld(t)
	d := w.push("team/app", "v1")
	image := w.ref("team/app:v1")
	w.sign(w.key, "team/app", d, image, 1)
	p := w.policy(signedBy(w.key))
	answer := func(code int, body string) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/" && code != 401 {
				w.registry.Serve(rw, r)
				return
			}
			rw.Header().Set("Retry-After", "0")
			rw.WriteHeader(code)
			_, _ = rw.Write([]byte(body))
		}
	}
	for _, tt := range []struct {
		name   string
		fault  http.HandlerFunc
		reason verdict.Reason
	}{
		{"401", answer(401, `{"errors":[{"code":"UNAUTHORIZED","message":"log in"}]}`), verdict.Unauthorized},
		{"403", answer(403, `{"errors":[{"code":"DENIED","message":"no"}]}`), verdict.Unauthorized},
		{"403 without JSON", answer(403, "no"), verdict.Unauthorized},
		{"404", answer(404, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"gone"}]}`), verdict.ImageNotFound},
		{"404 without JSON", answer(404, "gone"), verdict.ImageNotFound},
		{"429", answer(429, "slow down"), verdict.RateLimited},
		{"500", answer(500, "oops"), verdict.RegistryUnreachable},
		{"silent", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, verdict.Timeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.T = t
			w.registry.Fault(tt.fault)
			defer w.registry.Fault(nil)
			o := Options{Timeout: time.Minute}
			if tt.reason == verdict.Timeout {
				o.Timeout = 300 * time.Millisecond
			}
			w.want(w.judgeWith(p, image, o), verdict.Unknown, tt.reason)
		})
	}
	t.Run("429 for longer than the timeout", func(t *testing.T) {
		w.T = t
		w.registry.Fault(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(429) })
		defer w.registry.Fault(nil)
		// Long enough for the first answer on a busy machine, and shorter than the library would go on.
		w.want(w.judgeWith(p, image, Options{Timeout: 5 * time.Second}), verdict.Unknown, verdict.RateLimited)
	})
	w.T = t
	w.want(w.judge(p, w.ref("team/app:none")), verdict.Unknown, verdict.ImageNotFound)
	w.want(w.judge(p, w.ref("team/app@sha256:"+strings.Repeat("1", 64))), verdict.Unknown, verdict.ImageNotFound)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	v, err := judgeImage(ctx, image, "", p, Options{})
	check(t, err)
	w.want(v, verdict.Unknown, verdict.Timeout)
	w.registry.Stop()
	w.want(w.judge(p, image), verdict.Unknown, verdict.RegistryUnreachable)
}

func TestImage_keys(t *testing.T) {
	w := newWorld(t)
	signed := w.push("team/app", "v1")
	w.push("team/bare", "v1")
	w.sign(w.key, "team/app", signed, w.ref("team/app:v1"), 1)
	armored := w.write("key.asc", string(w.key.Armored))
	binary := w.write("key.gpg", string(w.key.Binary))
	other, err := w.gpg.NewKey("other", fixture.KeyOptions{})
	check(t, err)
	otherFile := w.write("other.gpg", string(other.Binary))
	keyPaths := func(paths ...string) string {
		for i := range paths {
			paths[i] = quote(paths[i])
		}
		return `{"type":"signedBy","keyType":"GPGKeys","keyPaths":[` + strings.Join(paths, ",") + `]}`
	}
	for _, tt := range []struct {
		name, requirement string
		answer            verdict.Answer
		reason            verdict.Reason
		unsigned          verdict.Reason // for an image without signature; NoSignature if empty
	}{
		{"armored", keyPath(armored), verdict.Accept, "", ""},
		{"binary", keyPath(binary), verdict.Accept, "", ""},
		{"second of two", keyPaths(otherFile, binary), verdict.Accept, "", ""},
		{"missing", keyPath(w.path("none")), verdict.Unknown, verdict.KeyMissing, verdict.KeyMissing},
		{"one of two missing", keyPaths(binary, w.path("none")), verdict.Unknown, verdict.KeyMissing, verdict.KeyMissing},
		{"empty", keyPath(w.write("empty", "")), verdict.Refuse, verdict.KeyUnreadable, verdict.KeyUnreadable},
		{
			"garbage", keyPath(w.write("garbage", "this is no key\n")), verdict.Refuse, verdict.KeyUnreadable,
			verdict.KeyUnreadable,
		},
		{"directory", keyPath(w.dir), verdict.Refuse, verdict.KeyUnreadable, verdict.KeyUnreadable},
		{"none", keyPaths(), verdict.Refuse, verdict.KeyUnreadable, verdict.KeyUnreadable},
		{
			"unimplemented type", strings.Replace(signedBy(w.key), "GPGKeys", "X509Certificates", 1), verdict.Refuse,
			verdict.WeakOrUnsupported, verdict.WeakOrUnsupported,
		},
		{
			"base layer", `{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchRepository"}}`, verdict.Refuse,
			verdict.WeakOrUnsupported, verdict.WeakOrUnsupported,
		},
		{
			"sigstore key missing", `{"type":"sigstoreSigned","keyPath":` + quote(w.path("none")) + `}`, verdict.Unknown,
			verdict.KeyMissing, verdict.KeyMissing,
		},
		{
			"sigstore key garbage", `{"type":"sigstoreSigned","keyPath":` + quote(w.path("garbage")) + `}`, verdict.Refuse,
			verdict.KeyUnreadable, verdict.KeyUnreadable,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.T = t
			p := w.policy(tt.requirement)
			w.want(w.judge(p, w.ref("team/app:v1")), tt.answer, tt.reason)
			if tt.unsigned == "" {
				tt.unsigned = verdict.NoSignature
			}
			answer := verdict.Refuse
			if tt.unsigned == verdict.KeyMissing {
				answer = verdict.Unknown
			}
			w.want(w.judge(p, w.ref("team/bare:v1")), answer, tt.unsigned)
		})
	}
	t.Run("below a root", func(t *testing.T) {
		w.T = t
		root := t.TempDir()
		check(t, os.MkdirAll(filepath.Join(root, "etc/pki"), 0o755))
		check(t, os.MkdirAll(filepath.Join(root, "usr/share"), 0o755))
		check(t, os.WriteFile(filepath.Join(root, "usr/share/key"), w.key.Armored, 0o644))
		check(t, os.Symlink("/usr/share/key", filepath.Join(root, "etc/pki/key"))) // absolute, as the host means it
		policy := w.write("policy.json", `{"default":[`+keyPath("/etc/pki/key")+`]}`)
		w.want(w.judge(w.open(policy, w.lookaside.URL(), Source{Root: root}), w.ref("team/app:v1")), verdict.Accept, "")
		w.want(w.judge(w.open(policy, w.lookaside.URL(), Source{}), w.ref("team/app:v1")), verdict.Unknown,
			verdict.KeyMissing)
		w.want(w.judge(w.open(policy, w.lookaside.URL(), Source{Keys: map[string]string{"/etc/pki/key": binary}}),
			w.ref("team/app:v1")), verdict.Accept, "")
	})
	t.Run("two requirements", func(t *testing.T) {
		w.T = t
		w.want(w.judge(w.policy(signedBy(w.key), keyPath(binary)), w.ref("team/app:v1")), verdict.Accept, "")
		w.want(w.judge(w.policy(signedBy(w.key), signedBy(other)), w.ref("team/app:v1")), verdict.Refuse, verdict.WrongKey)
		w.want(w.judge(w.policy(keyPath(w.path("none")), signedBy(other)), w.ref("team/app:v1")), verdict.Refuse,
			verdict.WrongKey)
		w.want(w.judge(w.policy(keyPath(w.path("none")), signedBy(w.key)), w.ref("team/app:v1")), verdict.Unknown,
			verdict.KeyMissing)
	})
}
