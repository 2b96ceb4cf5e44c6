package verify

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/mechanism"
)

func TestMain(m *testing.M) {
	Isolate()
	fixture.Main(m)
}

// world is a registry, a lookaside and a gpg home, with an image that is signed.
type world struct {
	*testing.T
	gpg       *fixture.GPG
	key       *fixture.Key
	registry  *fixture.Registry
	lookaside *fixture.Lookaside
	dir       string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	gpg, err := fixture.NewGPG()
	check(t, err)
	t.Cleanup(gpg.Close)
	key, err := gpg.NewKey("signer", fixture.KeyOptions{})
	check(t, err)
	registry, err := fixture.NewRegistry("127.0.0.1:0")
	check(t, err)
	t.Cleanup(registry.Stop)
	lookaside, err := fixture.NewLookaside("127.0.0.1:0", t.TempDir())
	check(t, err)
	t.Cleanup(lookaside.Stop)
	return &world{T: t, gpg: gpg, key: key, registry: registry, lookaside: lookaside, dir: t.TempDir()}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name, content string) string {
	w.Helper()
	path := w.path(name)
	check(w.T, os.MkdirAll(filepath.Dir(path), 0o755))
	check(w.T, os.WriteFile(path, []byte(content), 0o644))
	return path
}

// push stores an image and returns its digest.
func (w *world) push(repo, tag string) string {
	w.Helper()
	d, err := w.registry.Push(repo, tag, repo+tag)
	check(w.T, err)
	return d
}

// sign stores the n-th signature of an image.
func (w *world) sign(k *fixture.Key, repo, digest, reference string, n int) {
	w.Helper()
	b, err := k.Sign(digest, reference)
	check(w.T, err)
	check(w.T, w.lookaside.Put(repo, digest, n, b))
}

func (w *world) ref(s string) string { return w.registry.Host + "/" + s }

// signedBy is a requirement with the key inline.
func signedBy(k *fixture.Key, more ...string) string {
	s := `"type":"signedBy","keyType":"GPGKeys","keyData":"` + base64.StdEncoding.EncodeToString(k.Binary) + `"`
	return "{" + strings.Join(append([]string{s}, more...), ",") + "}"
}

func keyPath(path string) string {
	return `{"type":"signedBy","keyType":"GPGKeys","keyPath":` + quote(path) + `}`
}

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// policy opens a policy with these requirements for the registry, and the lookaside in registries.d.
func (w *world) policy(requirements ...string) *Policy {
	w.Helper()
	return w.policyText(fmt.Sprintf(`{"default":[{"type":"reject"}],"transports":{"docker":{%s:[%s]}}}`,
		quote(w.registry.Host), strings.Join(requirements, ",")))
}

func (w *world) policyText(text string) *Policy {
	w.Helper()
	return w.open(w.write("policy.json", text), w.lookaside.URL(), Settings{})
}

func (w *world) open(policy, lookaside string, s Settings) *Policy {
	w.Helper()
	w.write("registries.d/lab.yaml", fmt.Sprintf("docker:\n  %s:\n    lookaside: %s\n", w.registry.Host, lookaside))
	p, err := Files(policy, []string{w.path("registries.d")}, s)
	check(w.T, err)
	w.Cleanup(func() { p.Close() })
	return p
}

func (w *world) judge(p *Policy, image string) verdict.Verdict {
	w.Helper()
	return w.judgeWith(p, image, Options{})
}

func (w *world) judgeWith(p *Policy, image string, o Options) verdict.Verdict {
	w.Helper()
	insecure := false
	o.TLSVerify = &insecure
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	if o.Platform == "" {
		o.Platform = "linux/amd64"
	}
	v, err := Image(context.Background(), image, p, o)
	check(w.T, err)
	return v
}

// want fails unless the verdict is that, with mechanism, message and, unless it is an accept, a hint.
func (w *world) want(v verdict.Verdict, answer verdict.Answer, reason verdict.Reason) {
	w.Helper()
	if v.Answer != answer || v.Reason != reason {
		b, _ := json.MarshalIndent(v, "", "  ")
		w.Fatalf("got %s/%s, want %s/%s\n%s", v.Answer, v.Reason, answer, reason, b)
	}
	if v.Message == "" || v.Mechanism != mechanism.Name || (answer != verdict.Accept) != (v.Hint != "") {
		w.Fatalf("message %q, mechanism %q, hint %q", v.Message, v.Mechanism, v.Hint)
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
