package release

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify"
)

func TestMain(m *testing.M) {
	verify.TakeEnv()
	os.Exit(m.Run())
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// judge is the verdict on an image.
func judge(t *testing.T, p *verify.Policy, image string, o verify.Options) verdict.Verdict {
	t.Helper()
	j, err := p.Judge(o)
	check(t, err)
	defer j.Close()
	i, err := verify.ParseImage(image)
	check(t, err)
	v, err := j.Verdict(t.Context(), i)
	check(t, err)
	return v
}

// world is a registry with a release of two images, and a store with its signature.
type world struct {
	t               *testing.T
	gpg             *fixture.GPG
	key, other      *fixture.Key
	registry        *fixture.Registry
	store           *fixture.Lookaside
	policy          *verify.Policy
	judge           *verify.Judge
	etcd, console   string
	release, digest string
}

const repository = "openshift-release-dev/ocp-release"

func newWorld(t *testing.T) *world {
	t.Helper()
	p := fixture.Parts{TB: t}
	w := &world{t: t, gpg: p.GPG(), registry: p.Registry(), store: p.Lookaside(t.TempDir())}
	w.key, w.other = p.Key(w.gpg, "release", fixture.KeyOptions{}), p.Key(w.gpg, "other", fixture.KeyOptions{})
	var err error
	w.policy, err = verify.Open(verify.Source{AcceptAll: true, RegistriesConf: w.registriesConf()}, verify.Env{})
	check(t, err)
	t.Cleanup(func() { check(t, w.policy.Close()) })
	w.judge, err = w.policy.Judge(verify.Options{Platform: "linux/amd64"})
	check(t, err)

	push := func(name string) string {
		const repo = "openshift-release-dev/ocp-v4.0-art-dev"
		return w.registry.Host + "/" + repo + "@" + p.Push(w.registry, repo, name, name)
	}
	w.etcd, w.console = push("etcd"), push("console")
	w.push(w.layer(file(referencesFile, w.references())))
	w.sign(w.key, 1)
	return w
}

func (w *world) registriesConf() string {
	return fixture.Parts{TB: w.t}.Write(filepath.Join(w.t.TempDir(), "registries.conf"),
		[]byte(fixture.Insecure(w.registry.Host)))
}

// references is the list of the payload.
func (w *world) references() []byte {
	return fmt.Appendf(nil, `{"kind":"ImageStream","apiVersion":"image.openshift.io/v1","metadata":{"name":"4.99.1"},"spec":{"tags":[
{"name":"etcd","from":{"kind":"DockerImage","name":%q}},{"name":"console","from":{"kind":"DockerImage","name":%q}}]}}`, w.etcd, w.console)
}

type entry struct {
	tar.Header
	data []byte
}

func file(name string, data []byte) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(data))}, data}
}

// layer makes a tar stream.
func (w *world) layer(entries ...entry) []byte {
	w.t.Helper()
	var b bytes.Buffer
	archive := tar.NewWriter(&b)
	for _, e := range entries {
		check(w.t, archive.WriteHeader(&e.Header))
		_, err := archive.Write(e.data)
		check(w.t, err)
	}
	check(w.t, archive.Close())
	return b.Bytes()
}

// image makes an image of layers, the lowest first.
func (w *world) image(layers ...[]byte) v1.Image {
	w.t.Helper()
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "amd64"})
	check(w.t, err)
	for _, b := range append([][]byte{w.layer(file("etc/os-release", []byte("RHCOS")))}, layers...) {
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil })
		check(w.t, err)
		img, err = mutate.AppendLayers(img, l)
		check(w.t, err)
	}
	return img
}

// push makes the release an image of layers.
func (w *world) push(layers ...[]byte) {
	w.t.Helper()
	var err error
	w.digest, err = w.registry.PushImage(repository, "4.99.1-x86_64", w.image(layers...))
	check(w.t, err)
	w.release = w.registry.Host + "/" + repository + "@" + w.digest
}

// put stores a signature of the release as number n.
func (w *world) put(n int, blob []byte) {
	dir := filepath.Join(w.store.Dir, "release", strings.Replace(w.digest, ":", "=", 1))
	check(w.t, os.MkdirAll(dir, 0o755))
	check(w.t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("signature-%d", n)), blob, 0o644))
}

func (w *world) signature(k *fixture.Key) []byte {
	w.t.Helper()
	b, err := k.Sign(w.digest, w.registry.Host+"/"+repository+":4.99.1-x86_64")
	check(w.t, err)
	return b
}

func (w *world) sign(k *fixture.Key, n int) { w.put(n, w.signature(k)) }

func key(name string, k *fixture.Key) Key { return Key{name, k.Armored} }

func (w *world) options(keys ...Key) Options {
	s, err := OpenStore(w.store.URL() + "/release")
	check(w.t, err)
	return Options{
		Keys: keys, Sources: []Source{s}, Judge: w.judge, Timeout: time.Minute,
	}
}

// want judges the release and compares the answer.
func (w *world) want(o Options, a verdict.Answer, reason verdict.Reason, message string) Result {
	w.t.Helper()
	r, err := Verify(w.t.Context(), w.release, o)
	check(w.t, err)
	if r.Answer != a || r.Reason != reason || !strings.Contains(r.Message, message) {
		w.t.Errorf("%s %s: %s; want %s %s: %s", r.Answer, r.Reason, r.Message, a, reason, message)
	}
	if a != verdict.Accept && (len(r.Images) > 0 || r.Vouches(w.digest) != "") {
		w.t.Error("a release that is not accepted vouches for images")
	}
	return r
}

func TestVerify(t *testing.T) {
	w := newWorld(t)
	one := key("release", w.key)
	r := w.want(w.options(one), verdict.Accept, "", "signed by "+w.key.Fingerprint+"; it vouches for 2 images")
	if len(r.Images) != 2 || r.Images[0].Name != "console" || r.Images[0].Image != w.console || r.Version != "4.99.1" ||
		r.Digest != w.digest {
		t.Errorf("%+v", r)
	}
	_, d, _ := strings.Cut(w.etcd, "@")
	if r.Vouches(d) != w.release || r.Vouches(w.digest) != w.release ||
		r.Vouches("sha256:"+strings.Repeat("0", 64)) != "" || r.Vouches("") != "" {
		t.Error("vouches for others than what is in it")
	}
	for _, tag := range []struct {
		tag    string
		reason verdict.Reason
	}{{"4.99.1-x86_64", ""}, {"other", verdict.WrongIdentity}} {
		if tag.reason != "" {
			_, err := w.registry.PushImage(repository, tag.tag, w.image(w.layer(file(referencesFile, w.references()))))
			check(t, err)
		}
		r, err := Verify(t.Context(), w.registry.Host+"/"+repository+":"+tag.tag, w.options(one))
		check(t, err)
		if r.Reason != tag.reason || r.Digest != w.digest || (r.Answer == verdict.Accept) != (tag.reason == "") {
			t.Errorf("%s: %+v", tag.tag, r)
		}
	}
}

// TestVerify_keys: every key file must be satisfied, by any key in it and any of the signatures.
func TestVerify_keys(t *testing.T) {
	w := newWorld(t)
	first, second := key("first", w.key), key("second", w.other)
	w.want(w.options(second), verdict.Refuse, verdict.WrongKey, "signed by key "+w.key.Fingerprint)
	r := w.want(w.options(first, second), verdict.Refuse, verdict.WrongKey, "second: signed by key "+w.key.Fingerprint)
	if r.Verifiers[0].Answer != verdict.Accept || r.Verifiers[0].Signer != w.key.Fingerprint ||
		r.Verifiers[1].Answer != verdict.Refuse {
		t.Errorf("%+v", r.Verifiers)
	}
	w.want(w.options(Key{"ring", slices.Concat(w.other.Binary, w.key.Binary)}), verdict.Accept, "",
		"signed by "+w.key.Fingerprint)
	w.sign(w.other, 2)
	r = w.want(w.options(first, second), verdict.Accept, "", "signed by "+w.key.Fingerprint+" and "+w.other.Fingerprint)
	if s := r.Verifiers[1].Source; !strings.HasSuffix(s, "/signature-2") {
		t.Errorf("source %q", s)
	}
	w.want(w.options(Key{"none", []byte("no key")}), verdict.Refuse, verdict.KeyUnreadable, "")
	o := w.options()
	if _, err := Verify(t.Context(), w.release, o); err == nil {
		t.Error("no key is no error")
	}
}

func TestVerify_wrongSignatures(t *testing.T) {
	w := newWorld(t)
	o := w.options(key("release", w.key))
	b, err := w.key.Sign("sha256:"+strings.Repeat("1", 64), w.registry.Host+"/"+repository+":x")
	check(t, err)
	w.put(1, b)
	w.want(o, verdict.Refuse, verdict.WrongDigest, "signed for sha256:1111")
	b, err = w.key.Sign(w.digest, w.registry.Host+"/elsewhere/ocp-release:x")
	check(t, err)
	w.put(1, b)
	w.want(o, verdict.Refuse, verdict.WrongIdentity, "elsewhere")
	o.As = w.registry.Host + "/elsewhere/ocp-release"
	w.want(o, verdict.Accept, "", "signed by")
	o.As = ""
	good := fixture.Payload(w.digest, w.registry.Host+"/"+repository+":4.99.1-x86_64")
	for _, payload := range [][]byte{
		good[:bytes.LastIndex(good, []byte(`,"optional":`))],
		bytes.Replace(good, []byte(`"critical":`), []byte(`"Critical":`), 1),
	} {
		if !bytes.HasSuffix(payload, []byte("}}")) {
			payload = append(slices.Clone(payload), '}')
		}
		b, err := w.key.SignBytes(payload)
		check(t, err)
		w.put(1, b)
		w.want(o, verdict.Refuse, verdict.WeakOrUnsupported, "no container signature")
	}
	w.put(1, w.key.Binary)
	w.want(o, verdict.Unknown, verdict.LookasideNotSignature, "is no signature")
	check(t, os.RemoveAll(filepath.Join(w.store.Dir, "release")))
	w.want(o, verdict.Refuse, verdict.NoSignature, "no signature")
	// A good one behind a bad one.
	w.put(1, b)
	w.sign(w.key, 2)
	w.want(o, verdict.Accept, "", "signed by")
}

func TestVerify_storeFaults(t *testing.T) {
	w := newWorld(t)
	o := w.options(key("release", w.key))
	good := w.store.Serve
	for _, test := range []struct {
		name    string
		fault   http.HandlerFunc
		reason  verdict.Reason
		message string
	}{
		{"HTML", func(rw http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, "-1") {
				http.NotFound(rw, r)
				return
			}
			fmt.Fprint(rw, "<html>welcome</html>")
		}, verdict.LookasideNotSignature, "signature-1 is no signature"},
		{"endless", func(rw http.ResponseWriter, r *http.Request) {
			for b := make([]byte, 4096); r.Context().Err() == nil; {
				if _, err := rw.Write(b); err != nil {
					return
				}
			}
		}, verdict.LookasideNotSignature, "more than 65536 bytes"},
		{
			"403", func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusForbidden) },
			verdict.LookasideForbidden, "403",
		},
		{
			"429", func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusTooManyRequests) },
			verdict.RateLimited, "429",
		},
		{
			"500", func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusInternalServerError) },
			verdict.LookasideUnreachable, "500",
		},
		{
			"redirects", func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, r.URL.Path, http.StatusFound) },
			verdict.LookasideUnreachable, "too many redirects",
		},
		{"to a file", func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "file:///etc/passwd", http.StatusFound)
		}, verdict.LookasideUnreachable, "file"},
		{"cut off", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", "1000")
			_, _ = rw.Write([]byte("short"))
		}, verdict.LookasideUnreachable, "EOF"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := *w
			w.t = t
			w.store.Fault(test.fault)
			defer w.store.Fault(nil)
			r := w.want(o, verdict.Unknown, test.reason, test.message)
			if len(r.Problems) != 1 {
				t.Errorf("problems %q", r.Problems)
			}
			// Another store makes good for it.
			dir := filepath.Join(w.store.Dir, "release")
			copied, err := OpenStore("file://" + dir)
			check(t, err)
			o := o
			o.Sources = append(slices.Clip(o.Sources), copied)
			w.want(o, verdict.Accept, "", "signed by")
		})
	}
	t.Run("dripping", func(t *testing.T) {
		w := *w
		w.t = t
		w.store.Fault(func(rw http.ResponseWriter, r *http.Request) {
			rw.WriteHeader(http.StatusOK)
			rw.(http.Flusher).Flush()
			<-r.Context().Done()
		})
		defer w.store.Fault(nil)
		o := o
		o.Timeout = time.Second
		w.want(o, verdict.Unknown, verdict.Timeout, "")
	})
	w.store.Fault(good)
	w.store.Stop()
	w.want(o, verdict.Unknown, verdict.LookasideUnreachable, "refused")
}

func TestOpenStore(t *testing.T) {
	for _, bad := range []string{"ftp://x/y", "https://", "file://host/x", "file:x", "http://%zz", "docker://x"} {
		if _, err := OpenStore(bad); err == nil {
			t.Errorf("OpenStore(%q) is no error", bad)
		}
	}
	for _, bad := range []string{
		"http://user:secret@%zz", "http://user:secret@", "https:user:secret@host/x",
		"ftp://user:secret@host/x", "file://user:secret@host/x",
	} {
		if _, err := OpenStore(bad); err == nil || strings.Contains(err.Error(), "secret") ||
			!strings.Contains(err.Error(), "xxxxx@") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestVerify_configMaps: signatures of a cluster do as well as those of a store.
func TestVerify_configMaps(t *testing.T) {
	w := newWorld(t)
	sig := base64.StdEncoding.EncodeToString(w.signature(w.key))
	hex := strings.TrimPrefix(w.digest, "sha256:")
	manifest := `apiVersion: v1
kind: Secret
metadata: {name: other}
data: [odd]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: unlabelled, namespace: openshift-config-managed}
binaryData: {sha256-` + hex + `: AAAA}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: signatures
  namespace: openshift-config-managed
  labels: {release.openshift.io/verification-signatures: ""}
binaryData:
  sha256-` + strings.Repeat("0", 64) + `-1: AAAA
  sha256-` + hex + `-1: ` + sig + `
`
	c, err := ParseConfigMaps("maps.yaml", []byte(manifest))
	check(t, err)
	o := w.options(key("release", w.key))
	o.Sources = []Source{c}
	r := w.want(o, verdict.Accept, "", "signed by")
	if want := "maps.yaml: ConfigMap openshift-config-managed/signatures key sha256-" + hex +
		"-1"; r.Verifiers[0].Source != want {
		t.Errorf("source %q, want %q", r.Verifiers[0].Source, want)
	}
	list, err := json.Marshal(map[string]any{"kind": "List", "items": []any{map[string]any{
		"kind": "ConfigMap", "metadata": map[string]any{"labels": map[string]string{ConfigMapLabel: "x"}},
		"binaryData": map[string]string{"sha256-" + hex: "!"},
	}}})
	check(t, err)
	c, err = ParseConfigMaps("maps.json", list)
	check(t, err)
	o.Sources = []Source{c}
	w.want(o, verdict.Unknown, verdict.LookasideNotSignature, "base64")
	for _, bad := range []string{"", "kind: ConfigMap", "{", "- 1"} {
		if _, err := ParseConfigMaps("bad", []byte(bad)); err == nil {
			t.Errorf("%q is no error", bad)
		}
	}
}

// TestVerify_payload: what the list is read from, and what makes it no list.
func TestVerify_payload(t *testing.T) {
	w := newWorld(t)
	good := file(referencesFile, w.references())
	lower := w.layer(good)
	whiteout := func(name string) []byte { return w.layer(file(name, nil)) }
	tagged := strings.Replace(string(w.references()), w.etcd, w.registry.Host+"/x:tag", 1)
	link := entry{Header: tar.Header{Name: referencesFile, Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}}
	dir := entry{Header: tar.Header{Name: "release-manifests", Typeflag: tar.TypeSymlink, Linkname: "/"}}
	for _, test := range []struct {
		name    string
		layers  [][]byte
		message string // empty: accept
	}{
		{"in a lower layer", [][]byte{lower, w.layer(file("other", nil))}, ""},
		{"named from the root", [][]byte{w.layer(file("./release-manifests/../release-manifests/image-references",
			w.references()))}, ""},
		{"the upper one counts", [][]byte{w.layer(file(referencesFile, []byte("{"))), lower}, ""},
		{"the later one counts", [][]byte{w.layer(file(referencesFile, []byte("{")), good)}, ""},
		{"written again after removal", [][]byte{w.layer(file("release-manifests/.wh..wh..opq", nil), good)}, ""},
		{"removed", [][]byte{lower, whiteout("release-manifests/.wh.image-references")}, "was removed"},
		{"folder removed", [][]byte{lower, whiteout(".wh.release-manifests")}, "was removed"},
		{"folder emptied", [][]byte{lower, whiteout("release-manifests/.wh..wh..opq")}, "was removed"},
		{"none", nil, "holds no release-manifests"},
		{"a link", [][]byte{w.layer(link)}, "no regular file"},
		{"folder is a link", [][]byte{lower, w.layer(dir)}, "no directory"},
		{"no JSON", [][]byte{w.layer(file(referencesFile, []byte("{")))}, "parsing"},
		{"other kind", [][]byte{w.layer(file(referencesFile, []byte(`{"kind":"Pod"}`)))}, "no ImageStream"},
		{"empty", [][]byte{w.layer(file(referencesFile, []byte(`{"kind":"ImageStream"}`)))}, "has 0 images"},
		{"by tag", [][]byte{w.layer(file(referencesFile, []byte(tagged)))}, "not named by digest"},
		{"large", [][]byte{w.layer(file(referencesFile, make([]byte, maxReferences+1)))}, "larger than"},
		{"no tar", [][]byte{bytes.Repeat([]byte("no tar"), 512)}, "reading the release image"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := *w
			w.t = t
			w.push(test.layers...)
			w.sign(w.key, 1)
			o := w.options(key("release", w.key))
			if test.message == "" {
				if r := w.want(o, verdict.Accept, "", "vouches for 2 images"); len(r.Images) != 2 {
					t.Errorf("%+v", r.Images)
				}
				return
			}
			reason := verdict.ImageNotFound
			if test.name == "no tar" {
				reason = verdict.RegistryUnreachable
			}
			w.want(o, verdict.Unknown, reason, test.message)
			o.SignatureOnly = true
			w.want(o, verdict.Accept, "", "signed by")
		})
	}
}

// TestVerify_registryFaults: a registry that serves something else than the digests say is never believed.
func TestVerify_registryFaults(t *testing.T) {
	w := newWorld(t)
	o := w.options(key("release", w.key))
	bomb := func() []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		archive := tar.NewWriter(z)
		check(t, archive.WriteHeader(&tar.Header{Name: "zeros", Typeflag: tar.TypeReg, Size: maxUnpacked + 1<<20}))
		_, _ = io.CopyN(archive, zeros{}, 64<<20)
		check(t, z.Close())
		return b.Bytes()
	}()
	forged := w.layer(file(referencesFile, []byte(strings.ReplaceAll(string(w.references()), "etcd", "evil"))))
	for _, test := range []struct {
		name    string
		blob    []byte
		reason  verdict.Reason
		message string
	}{
		{"another layer", forged, verdict.RegistryUnreachable, "another content than its digest says"},
		{"empty layer", nil, verdict.RegistryUnreachable, ""},
		{"unfinished bomb", bomb, verdict.RegistryUnreachable, "reading the release image"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := *w
			w.t = t
			w.registry.Fault(func(rw http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "/blobs/") {
					_, _ = rw.Write(test.blob)
					return
				}
				w.registry.Serve(rw, r)
			})
			defer w.registry.Fault(nil)
			w.want(o, verdict.Unknown, test.reason, test.message)
		})
	}
	t.Run("another manifest", func(t *testing.T) {
		w := *w
		w.t = t
		w.registry.Fault(func(rw http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/manifests/") {
				r.URL.Path = "/v2/openshift-release-dev/ocp-v4.0-art-dev/manifests/etcd"
			}
			w.registry.Serve(rw, r)
		})
		defer w.registry.Fault(nil)
		w.want(o, verdict.Unknown, verdict.ImageNotFound, "the signatures hold, but")
	})
	w.registry.Stop()
	w.want(o, verdict.Unknown, verdict.RegistryUnreachable, "the signatures hold, but")
	o.SignatureOnly = true
	w.want(o, verdict.Accept, "", "signed by")
	r, err := Verify(t.Context(), w.registry.Host+"/"+repository+":4.99.1-x86_64", o)
	check(t, err)
	if r.Answer != verdict.Unknown || r.Reason != verdict.RegistryUnreachable {
		t.Errorf("%+v", r)
	}
}

// TestLayer_bounds: a layer that unpacks to more than is read ends with an error.
func TestLayer_bounds(t *testing.T) {
	w := newWorld(t)
	w.push(w.layer(file("zeros", make([]byte, 1<<20))))
	image, err := verify.ParseImage(w.release)
	check(t, err)
	c, err := w.judge.Open(t.Context(), image)
	check(t, err)
	defer c.Close()
	for _, test := range []struct {
		packed, unpacked int64
		ok               bool
	}{{1 << 20, 2 << 20, true}, {1 << 20, 1 << 20, false}, {100, 2 << 20, false}} {
		l, err := c.Layer(t.Context(), c.Layers()-1, test.packed, test.unpacked)
		if err == nil {
			_, err = io.Copy(io.Discard, l)
			l.Close()
		}
		if (err == nil) != test.ok {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestTrustConfig: what is written for a release loads, refuses everything else, and accepts exactly its images.
func TestTrustConfig(t *testing.T) {
	w := newWorld(t)
	r := w.want(w.options(key("release", w.key)), verdict.Accept, "", "")
	b, err := r.TrustConfig()
	check(t, err)
	cfg, err := trust.Parse("release", b, nil)
	check(t, err)
	if !cfg.Reject || len(cfg.Registries) != 3 {
		t.Errorf("%s", b)
	}
	data, err := r.Policy()
	check(t, err)
	p, err := verify.Open(verify.Source{
		Files: trust.FileSet{{Path: trust.PolicyPath, Data: data}}, RegistriesConf: w.registriesConf(),
	}, verify.Env{})
	check(t, err)
	defer p.Close()
	stranger, err := w.registry.Push("openshift-release-dev/ocp-v4.0-art-dev", "stranger", "stranger")
	check(t, err)
	for image, want := range map[string]verdict.Answer{
		w.etcd: verdict.Accept, w.console: verdict.Accept, w.release: verdict.Accept,
		w.registry.Host + "/openshift-release-dev/ocp-v4.0-art-dev@" + stranger: verdict.Refuse,
		w.registry.Host + "/openshift-release-dev/ocp-v4.0-art-dev:etcd":        verdict.Refuse,
	} {
		v := judge(t, p, image, verify.Options{Platform: "linux/amd64"})
		if v.Answer != want {
			t.Errorf("%s: %s %s, want %s", image, v.Answer, v.Message, want)
		}
	}
	r.Answer = verdict.Unknown
	if _, err := r.TrustConfig(); err == nil {
		t.Error("a release that is not accepted is trusted")
	}
	if _, err := r.Policy(); err == nil {
		t.Error("a release that is not accepted is trusted")
	}
}

// TestVerify_genuine judges a signature that Red Hat made, by Red Hat's own keys.
func TestVerify_genuine(t *testing.T) {
	real := os.Getenv("NODETRUST_REALDATA")
	if real == "" {
		t.Skip("NODETRUST_REALDATA is not set")
	}
	const digest = "sha256:0da6316466d60a3a4535d5fed3589feb0391989982fba59d47d4c729912d6363"
	store, err := OpenStore(filepath.Join(real, "signatures"))
	check(t, err)
	judge := func(release string, keys ...string) Result {
		t.Helper()
		o := Options{Sources: []Source{store}, SignatureOnly: true}
		for _, name := range keys {
			b, err := os.ReadFile(filepath.Join(real, "keys", name))
			check(t, err)
			o.Keys = append(o.Keys, Key{name, b})
		}
		r, err := Verify(t.Context(), release, o)
		check(t, err)
		return r
	}
	release := Repository + "@" + digest
	for _, test := range []struct {
		release string
		keys    []string
		answer  verdict.Answer
		reason  verdict.Reason
	}{
		{release, []string{"RPM-GPG-KEY-redhat9-release"}, verdict.Accept, ""},
		{release, []string{"RPM-GPG-KEY-redhat9-release", "RPM-GPG-KEY-redhat8-release"}, verdict.Accept, ""},
		{release, []string{"RPM-GPG-KEY-redhat9-beta"}, verdict.Refuse, verdict.WrongKey},
		{release, []string{"RPM-GPG-KEY-redhat9-release", "RPM-GPG-KEY-redhat9-beta"}, verdict.Refuse, verdict.WrongKey},
		{
			"quay.io/openshift-release-dev/other@" + digest,
			[]string{"RPM-GPG-KEY-redhat9-release"},
			verdict.Refuse,
			verdict.WrongIdentity,
		},
		{
			Repository + "@sha256:" + strings.Repeat("0", 64),
			[]string{"RPM-GPG-KEY-redhat9-release"},
			verdict.Refuse,
			verdict.NoSignature,
		},
	} {
		r := judge(test.release, test.keys...)
		if r.Answer != test.answer || r.Reason != test.reason {
			t.Errorf("%s by %s: %+v", test.release, test.keys, r)
		}
	}
	const redHat = "567E347AD0044ADE55BA8A5F199E2F91FD431D51"
	if r := judge(release, "RPM-GPG-KEY-redhat9-release"); r.Verifiers[0].Signer != redHat {
		t.Errorf("%+v", r.Verifiers)
	}
}

func TestVerify_interrupted(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	w.registry.Fault(func(rw http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			cancel()
			<-r.Context().Done()
			return
		}
		w.registry.Serve(rw, r)
	})
	r, err := Verify(ctx, w.release, w.options(key("release", w.key)))
	check(t, err)
	if r.Answer != verdict.Unknown || r.Reason != verdict.Timeout {
		t.Errorf("%s %s %s", r.Answer, r.Reason, r.Message)
	}
}

// TestVerify_local: a copy on this machine is judged by the same signatures, as the release that it is a copy of.
func TestVerify_local(t *testing.T) {
	w := newWorld(t)
	img := w.image(w.layer(file(referencesFile, w.references())))
	dir, oci := t.TempDir(), t.TempDir()
	put := func(name string, b []byte, err error) {
		t.Helper()
		check(t, err)
		check(t, os.WriteFile(filepath.Join(dir, name), b, 0o644))
	}
	b, err := img.RawManifest()
	put("manifest.json", b, err)
	put("version", []byte("Directory Transport Version: 1.1\n"), nil)
	b, err = img.RawConfigFile()
	check(t, err)
	name, err := img.ConfigName()
	put(name.Hex, b, err)
	layers, err := img.Layers()
	check(t, err)
	for _, l := range layers {
		d, err := l.Digest()
		check(t, err)
		r, err := l.Compressed()
		check(t, err)
		b, err := io.ReadAll(r)
		put(d.Hex, b, err)
	}
	path, err := layout.Write(oci, empty.Index)
	check(t, err)
	check(t, path.AppendImage(img))

	o := w.options(key("release", w.key))
	for _, release := range []string{"dir:" + dir, "oci:" + oci} {
		r, err := Verify(t.Context(), release, o)
		check(t, err)
		if r.Answer != verdict.Refuse || r.Reason != verdict.WrongIdentity {
			t.Errorf("%s: %s %s", release, r.Answer, r.Message)
		}
		named := o
		named.As = w.registry.Host + "/" + repository
		r, err = Verify(t.Context(), release, named)
		check(t, err)
		if r.Answer != verdict.Accept || r.Digest != w.digest || len(r.Images) != 2 {
			t.Errorf("%s: %s %s", release, r.Answer, r.Message)
		}
		policy, err := r.TrustConfig()
		check(t, err)
		if want := named.As + "@" + w.digest; !bytes.Contains(policy, []byte(want)) {
			t.Errorf("%s: the release image is not %s in\n%s", release, want, policy)
		}
	}
	// A layer that was exchanged is noticed.
	d, err := layers[1].Digest()
	check(t, err)
	put(d.Hex, w.layer(file(referencesFile, []byte("{}"))), nil)
	o.As = w.registry.Host + "/" + repository
	r, err := Verify(t.Context(), "dir:"+dir, o)
	check(t, err)
	if r.Answer != verdict.Unknown || len(r.Images) != 0 {
		t.Errorf("%+v", r)
	}
}
