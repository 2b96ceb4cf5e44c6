package differential

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/nodetrust/nodetrust/e2e/lab"
	"github.com/nodetrust/nodetrust/internal/fixture"
)

// world is what all cases share: servers, images, keys, signatures, and a node.
type world struct {
	*lab.Store
	mirror *fixture.Registry
	node   *lab.Node
	keys   map[string]*fixture.Key
	cosign map[string]*fixture.CosignKey
	images map[string][]pushed
	made   map[[sha256.Size]byte][]byte // signatures that were made already
}

// pushed is an image in the registry.
type pushed struct {
	repo, physical string
	judged, index  string   // digests: of what a runtime takes, and of the list that it is in
	others         []string // digests that a signature may be for by mistake
}

const past = "20210101T000000" // when keys were made that may have expired since

func newWorld(l *lab.Lab, gpg *fixture.GPG, dir string) (w *world, err error) {
	w = &world{
		keys: map[string]*fixture.Key{}, cosign: map[string]*fixture.CosignKey{}, images: map[string][]pushed{},
		made: map[[sha256.Size]byte][]byte{},
	}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if err := w.makeKeys(gpg); err != nil {
		return w, err
	}
	if w.Store, err = lab.NewStore(filepath.Join(dir, "lookaside")); err != nil {
		return w, err
	}
	if w.mirror, err = fixture.NewRegistry("127.0.0.1:0"); err != nil {
		return w, err
	}
	if err := w.push(); err != nil {
		return w, err
	}
	if w.node, err = l.NewNode(); err != nil {
		return w, err
	}
	conf := fmt.Sprintf(`unqualified-search-registries = []
[[registry]]
location = %[1]q
insecure = true
[[registry]]
location = %[2]q
insecure = true
[[registry]]
prefix = "%[1]s/mirrored"
location = "%[1]s/mirrored"
insecure = true
[[registry.mirror]]
location = "%[2]s/copy"
insecure = true
`, w.Registry.Host, w.mirror.Host)
	if err := os.WriteFile(w.node.Path("etc/containers/registries.conf"), []byte(conf), 0o644); err != nil {
		return w, err
	}
	return w, nil
}

func (w *world) close() error {
	w.Store.Close()
	if w.mirror != nil {
		w.mirror.Stop()
	}
	if w.node != nil {
		return w.node.Close()
	}
	return nil
}

func (w *world) makeKeys(gpg *fixture.GPG) error {
	for name, o := range map[string]fixture.KeyOptions{
		"corp":     {Algo: "rsa2048", FakedTime: past},
		"stranger": {Algo: "rsa2048", FakedTime: past},
		"expired":  {Algo: "rsa2048", FakedTime: past, Expire: "1y"},
		"revoked":  {Algo: "rsa2048"},
		"ed25519":  {Algo: "ed25519"},
		"subkey":   {Algo: "rsa2048"},
	} {
		k, err := gpg.NewKey(name, o)
		if err != nil {
			return err
		}
		w.keys[name] = k
	}
	for _, name := range []string{"corp", "stranger"} {
		k, err := fixture.NewCosignKey()
		if err != nil {
			return err
		}
		w.cosign[name] = k
	}
	sub, err := w.keys["subkey"].Subkey()
	if err != nil {
		return err
	}
	w.keys["subkey"] = sub
	return w.revoke(gpg)
}

// revoke has policies know of the revocation. In its own home the key stays as it was: gpg makes no signatures with it
// afterwards.
func (w *world) revoke(gpg *fixture.GPG) error {
	k := w.keys["revoked"]
	cert, err := os.ReadFile(filepath.Join(gpg.Home(), "openpgp-revocs.d", k.Fingerprint+".rev"))
	if err != nil {
		return err
	}
	other, err := fixture.NewGPG()
	if err != nil {
		return err
	}
	defer other.Close()
	run := func(in []byte, args ...string) ([]byte, error) {
		cmd := exec.Command("gpg", append([]string{"--homedir", other.Home(), "--batch", "--quiet", "--no-tty"}, args...)...)
		cmd.Stdin = bytes.NewReader(in)
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("gpg %s: %w", strings.Join(args, " "), err)
		}
		return out, nil
	}
	if _, err := run(k.Binary, "--import"); err != nil {
		return err
	}
	// The file's armor header is guarded by a colon against accidental import.
	if _, err := run(bytes.Replace(cert, []byte(":-----BEGIN"), []byte("-----BEGIN"), 1), "--import"); err != nil {
		return err
	}
	revoked := *k
	if revoked.Binary, err = run(nil, "--export"); err != nil {
		return err
	}
	if revoked.Armored, err = run(nil, "--export", "--armor"); err != nil {
		return err
	}
	w.keys["revoked"] = &revoked
	return nil
}

func (w *world) push() error {
	push := func(kind string, r *fixture.Registry, repo, physical, seed string) error {
		d, err := r.Push(repo, "v1", seed)
		w.images[kind] = append(w.images[kind], pushed{repo: repo, physical: physical, judged: d})
		return err
	}
	for _, repo := range []string{"app", "team/app", "team/deep/er/app"} {
		if err := push("single", w.Registry, repo, w.Registry.Host+"/"+repo, repo); err != nil {
			return err
		}
	}
	if err := push("mirror lacks it", w.Registry, "mirrored/origin", w.Registry.Host+"/mirrored/origin",
		"origin"); err != nil {
		return err
	}
	if err := push("mirrored", w.mirror, "copy/app", w.mirror.Host+"/copy/app", "mirrored"); err != nil {
		return err
	}
	w.images["mirrored"][0].repo = "mirrored/app"
	for _, repo := range []string{"list", "team/list"} {
		index, instances, err := w.Registry.PushIndex(repo, "v1", repo, "amd64", "arm64")
		if err != nil {
			return err
		}
		w.images["list"] = append(w.images["list"], pushed{
			repo: repo, physical: w.Registry.Host + "/" + repo, judged: instances[0], index: index,
			others: []string{index, instances[1]},
		})
	}
	for _, c := range []struct {
		repo, as string
		by       []*fixture.CosignKey
	}{
		{"signed/app", "signed/app:v1", []*fixture.CosignKey{w.cosign["corp"]}},
		{"signed/other", "signed/other:v1", []*fixture.CosignKey{w.cosign["stranger"]}},
		{"signed/both", "signed/both:v1", []*fixture.CosignKey{w.cosign["stranger"], w.cosign["corp"]}},
		{"signed/renamed", "signed/app:v1", []*fixture.CosignKey{w.cosign["corp"]}},
	} {
		if err := push("cosigned", w.Registry, c.repo, w.Registry.Host+"/"+c.repo, c.repo); err != nil {
			return err
		}
		images := w.images["cosigned"]
		if err := w.Registry.Attach(c.repo, images[len(images)-1].judged, w.Registry.Host+"/"+c.as, c.by...); err != nil {
			return err
		}
	}
	for _, images := range w.images {
		for i := range images {
			images[i].others = append(images[i].others, "sha256:"+strings.Repeat("0", 64))
		}
	}
	return nil
}

// signature makes a signature, or what somebody took for one.
func (w *world) signature(who, form, digest, as string) ([]byte, error) {
	key := sha256.Sum256(fmt.Append(nil, who, "\n", form, "\n", digest, "\n", as))
	if b, ok := w.made[key]; ok {
		return b, nil
	}
	b, err := w.sign(who, form, digest, as)
	if err != nil {
		return nil, err
	}
	w.made[key] = b
	return b, nil
}

func (w *world) sign(who, form, digest, as string) ([]byte, error) {
	k, payload := w.keys[who], fixture.Payload(digest, as)
	var extra []string
	if who == "expired" {
		extra = []string{"--faked-system-time", "20210601T000000"}
	}
	good := func(more ...string) ([]byte, error) { return k.SignBytes(payload, append(more, extra...)...) }
	switch form {
	case "truncated":
		b, err := good()
		return b[:len(b)/2], err
	case "trailing":
		b, err := good()
		return append(b, "more"...), err
	case "twice":
		b, err := good()
		return append(b[:len(b):len(b)], b...), err
	case "armored":
		return good("--armor")
	case "HTML":
		return []byte("<!doctype html><title>Not here</title>"), nil
	case "empty":
		return nil, nil
	case "MD5":
		return good("--digest-algo", "MD5", "--allow-weak-digest-algos")
	case "SHA1":
		return good("--digest-algo", "SHA1")
	case "compressed":
		return good("--compress-algo", "zlib")
	case "outdated":
		if who != "corp" && who != "stranger" {
			return good()
		}
		return good("--faked-system-time", "20210601T000000", "--default-sig-expire", "30d")
	case "no payload":
		return k.SignBytes([]byte(`{"critical":{"type":"something else"}}`), extra...)
	case "large":
		b, err := good()
		return append(b, make([]byte, 70<<10)...), err
	}
	return good()
}

// set puts a case before everybody.
func (w *world) set(c Case) error {
	write := func(path string, b []byte) error {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return os.WriteFile(path, b, 0o644)
	}
	for _, dir := range []string{
		w.Lookaside.Dir, w.node.Path("etc/containers/registries.d"),
		w.node.Path("etc/pki/rpm-gpg"), w.node.Path("var/lib/containers/sigstore"),
	} {
		if err := empty(dir); err != nil {
			return err
		}
	}
	if err := write(w.node.Path("etc/containers/policy.json"), []byte(c.Policy)); err != nil {
		return err
	}
	for dir, files := range map[string]map[string][]byte{
		w.Lookaside.Dir: c.Signatures,
		w.node.Path("var/lib/containers/sigstore"): c.Stored,
		w.node.Path("etc/pki/rpm-gpg"):             c.Keys,
		w.node.Path("etc/containers/registries.d"): bytesOf(c.Registries),
	} {
		for name, b := range files {
			if err := write(filepath.Join(dir, name), b); err != nil {
				return err
			}
		}
	}
	w.Lookaside.Fault(w.lookasideFault(c.Lookaside))
	w.Registry.Fault(registryFault(w.Registry, c.Registry))
	w.mirror.Fault(registryFault(w.mirror, c.Registry))
	return nil
}

func bytesOf(files map[string]string) map[string][]byte {
	out := map[string][]byte{}
	for name, s := range files {
		out[name] = []byte(s)
	}
	return out
}

// empty removes what is in a directory, which is made if it isn't there: a mount must keep its directory.
func empty(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) lookasideFault(kind string) http.HandlerFunc {
	switch kind {
	case "403", "500":
		return status(kind)
	case "HTML":
		return func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte("<!doctype html>")) }
	case "cut off":
		return func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", "1000")
			_, _ = rw.Write([]byte{0x90})
		}
	case "redirect": // to where the same is served
		return func(rw http.ResponseWriter, r *http.Request) {
			if rest, ok := strings.CutPrefix(r.URL.Path, "/moved"); ok {
				r.URL.Path = rest
				w.Lookaside.Serve(rw, r)
				return
			}
			http.Redirect(rw, r, "/moved"+r.URL.Path, http.StatusFound)
		}
	}
	return nil
}

func registryFault(r *fixture.Registry, kind string) http.HandlerFunc {
	if kind == "" {
		return nil
	}
	return func(rw http.ResponseWriter, req *http.Request) {
		switch {
		case !strings.Contains(req.URL.Path, "/manifests/"):
			r.Serve(rw, req)
		case kind == "other manifest":
			rw.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v2+json")
			_, _ = rw.Write([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"layers":[]}`))
		case strings.Contains(kind, "/"): // the content type of all manifests, as a static mirror may have it
			answer := httptest.NewRecorder()
			r.Serve(answer, req)
			if rw.Header().Set("Content-Type", kind); answer.Code != http.StatusOK {
				rw.Header().Set("Content-Type", "application/json")
			}
			rw.WriteHeader(answer.Code)
			_, _ = rw.Write(answer.Body.Bytes())
		default:
			status(kind)(rw, req)
		}
	}
}

// Content types that manifests are served as, whatever they are.
const (
	ociIndex = "application/vnd.oci.image.index.v1+json"
	schema1  = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

func status(code string) http.HandlerFunc {
	n := 0
	_, _ = fmt.Sscan(code, &n)
	return func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "fault", n) }
}
