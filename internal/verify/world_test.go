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
	"github.com/nodetrust/nodetrust/internal/verify/explain"
	"github.com/nodetrust/nodetrust/internal/verify/mechanism"
)

func TestMain(m *testing.M) {
	TakeEnv()
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
	return w.open(w.write("policy.json", text), w.lookaside.URL(), Source{})
}

func (w *world) open(policy, lookaside string, s Source) *Policy {
	w.Helper()
	w.write("registries.d/lab.yaml", fmt.Sprintf("docker:\n  %s:\n    lookaside: %s\n", w.registry.Host, lookaside))
	p, err := openFiles(policy, []string{w.path("registries.d")}, s)
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
	v, err := judgeImage(context.Background(), image, "", p, o)
	check(w.T, err)
	return v
}

// judgeAs judges an image as a reference.
func (w *world) judgeAs(p *Policy, image, as string) verdict.Verdict {
	w.Helper()
	o := testOptions()
	v, err := judgeImage(context.Background(), image, as, p, o)
	check(w.T, err)
	return v
}

func openFiles(policy string, registriesD []string, s Source) (*Policy, error) {
	s.Policy, s.RegistriesD = policy, registriesD
	return Open(s, Env{})
}

func parseAs(image, as string) (Image, error) {
	i, err := ParseImage(image)
	if err != nil {
		return i, err
	}
	return i.As(as)
}

// judgeImage is the verdict on an image that is judged for itself.
func judgeImage(ctx context.Context, image, as string, p *Policy, o Options) (v verdict.Verdict, err error) {
	i, err := parseAs(image, as)
	if err != nil {
		return v, err
	}
	j, err := p.Judge(o)
	if err != nil {
		return v, err
	}
	defer j.Close()
	return j.Verdict(ctx, i)
}

func explained(ctx context.Context, image string, p *Policy, o Options) (s explain.Story, err error) {
	i, err := ParseImage(image)
	if err != nil {
		return s, err
	}
	j, err := p.Judge(o)
	if err != nil {
		return s, err
	}
	defer j.Close()
	return j.Explain(ctx, i)
}

// newEvaluation is an image of which nothing was read yet.
func newEvaluation(image string, p *Policy, o Options) (*evaluation, error) {
	i, err := ParseImage(image)
	if err != nil {
		return nil, err
	}
	j, err := p.Judge(o)
	if err != nil {
		return nil, err
	}
	return j.evaluation(i)
}

// session judges many images, by their names.
type session struct{ *Judge }

func newSession(t *testing.T, p *Policy, o Options, perHost int) session {
	t.Helper()
	o.PerHost = perHost
	j, err := p.Judge(o)
	check(t, err)
	return session{j}
}

func (s session) Image(ctx context.Context, image string) (verdict.Verdict, error) {
	i, err := ParseImage(image)
	if err != nil {
		return verdict.Verdict{}, err
	}
	return s.Verdict(ctx, i)
}

func fingerprintOf(p *Policy, o Options, now time.Time) (string, time.Time, error) {
	j, err := p.Judge(o)
	if err != nil {
		return "", time.Time{}, err
	}
	defer j.Close()
	return j.Fingerprint(now)
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
