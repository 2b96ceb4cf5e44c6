package mutation

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify"
)

func TestMain(m *testing.M) {
	verify.TakeEnv()
	fixture.Main(m)
}

// host is the registry's name in references; registries.conf says where it is.
const host = "registry.example"

// served is a manifest as a server sends it. Without a type there is no Content-Type.
type served struct {
	body []byte
	kind string
}

// scene is what servers send, and what is asked for.
type scene struct {
	// manifests by repository and tag or digest: "team/app:v1", "team/app@sha256:…".
	manifests map[string]served
	// signatures in the lookaside, by repository and digest.
	signatures map[string][][]byte
	// blobs are those of attachments, by digest.
	blobs map[string][]byte
	// repo and asked are what is asked for: "team/app" and ":v1" or "@sha256:…".
	repo, asked string
}

func (s *scene) reference() string { return host + "/" + s.repo + s.asked }

// bench is a registry and a lookaside of one worker, which send one scene after another, and the policies that judge
// it.
type bench struct {
	dir      string
	server   *httptest.Server
	blobs    map[string][]byte
	policies []*policyFile

	mu    sync.Mutex
	scene *scene
}

// policyFile is one policy.json, opened by both.
type policyFile struct {
	requires  []demand
	path      string
	nodetrust *verify.Policy
	library   *signature.Policy
	sys       types.SystemContext
}

// demand is a requirement as the oracle knows it. Without signers everything is accepted.
type demand struct {
	signers   []*signer
	cosigners []*cosigner // instead of signers; one
	identity  string
	holds     func(asked, signed string) bool
}

func (d demand) anything() bool { return len(d.signers)+len(d.cosigners) == 0 }

func (d demand) json() string {
	switch {
	case d.anything():
		return `{"type":"insecureAcceptAnything"}`
	case d.cosigners != nil:
		return d.cosigners[0].requirement(d.identity)
	}
	return requirement(d.identity, d.signers...)
}

func newBench(t testing.TB, blobs map[string][]byte, policies [][]demand) *bench {
	t.Helper()
	b := &bench{dir: t.TempDir(), blobs: blobs, scene: &scene{}}
	b.server = httptest.NewServer(http.HandlerFunc(b.serve))
	t.Cleanup(b.server.Close)
	at := strings.TrimPrefix(b.server.URL, "http://")
	conf := b.write(t, "registries.conf", fmt.Sprintf("[[registry]]\nprefix = %q\nlocation = %q\ninsecure = true\n", host,
		at))
	b.write(t, "registries.d/lab.yaml", fmt.Sprintf("docker:\n  %s:\n    lookaside: %s/sig\n", at, b.server.URL))
	b.write(t, "attached.d/lab.yaml", fmt.Sprintf(
		"docker:\n  %s:\n    use-sigstore-attachments: true\n    lookaside: %s/sig\n", at, b.server.URL))
	for i, ds := range policies {
		p := &policyFile{requires: ds}
		var requirements []string
		registriesD := filepath.Join(b.dir, "registries.d")
		if slices.ContainsFunc(ds, func(d demand) bool { return d.cosigners != nil }) {
			registriesD = filepath.Join(b.dir, "attached.d")
		}
		for _, d := range ds {
			requirements = append(requirements, d.json())
		}
		p.path = b.write(t, fmt.Sprintf("policy-%d.json", i), fmt.Sprintf(
			`{"default":[{"type":"reject"}],"transports":{"docker":{%q:[%s]}}}`, host, strings.Join(requirements, ",")))
		var err error
		p.nodetrust, err = verify.Open(verify.Source{
			Policy: p.path, RegistriesD: []string{registriesD}, RegistriesConf: conf,
		}, verify.Env{})
		must(t, err)
		t.Cleanup(func() { p.nodetrust.Close() })
		p.sys = types.SystemContext{
			SystemRegistriesConfPath: conf, SystemRegistriesConfDirPath: filepath.Join(b.dir, "none"),
			RegistriesDirPath: registriesD,
			OSChoice:          "linux", ArchitectureChoice: "amd64", DockerAuthConfig: &types.DockerAuthConfig{},
		}
		p.library, err = signature.NewPolicyFromFile(p.path)
		must(t, err)
		b.policies = append(b.policies, p)
	}
	return b
}

func (b *bench) write(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(b.dir, name)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(content), 0o644))
	return path
}

func (b *bench) show(s *scene) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.scene = s
}

func (b *bench) serve(rw http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	s := b.scene
	b.mu.Unlock()
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	if repo, name, ok := strings.Cut(path, "/manifests/"); ok {
		sep := ":"
		if strings.Contains(name, ":") {
			sep = "@"
		}
		m, ok := s.manifests[repo+sep+name]
		if !ok {
			rw.Header().Set("Content-Type", "application/json")
			rw.WriteHeader(http.StatusNotFound)
			_, _ = rw.Write([]byte(`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"none"}]}`))
			return
		}
		rw.Header()["Content-Type"] = nil
		if m.kind != "" {
			rw.Header().Set("Content-Type", m.kind)
		}
		_, _ = rw.Write(m.body)
		return
	}
	if _, d, ok := strings.Cut(path, "/blobs/"); ok {
		for _, blobs := range []map[string][]byte{b.blobs, s.blobs} {
			if blob, ok := blobs[d]; ok {
				_, _ = rw.Write(blob)
				return
			}
		}
		rw.WriteHeader(http.StatusNotFound)
		return
	}
	if at, ok := strings.CutPrefix(r.URL.Path, "/sig/"); ok {
		// REPO@ALGORITHM=HEX/signature-N
		var n int
		dir, name, _ := strings.Cut(at, "/signature-")
		_, err := fmt.Sscanf(name, "%d", &n)
		sigs := s.signatures[strings.Replace(dir, "=", ":", 1)]
		if err != nil || n < 1 || n > len(sigs) {
			rw.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = rw.Write(sigs[n-1])
		return
	}
	if r.URL.Path != "/v2/" {
		rw.WriteHeader(http.StatusNotFound)
	}
}

// panicked is an error for code that fell over.
type panicked struct{ what string }

func (p *panicked) Error() string { return p.what }

// caught runs f, and makes an error of a panic.
func caught(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &panicked{fmt.Sprintf("panic: %v\n%s", r, debug.Stack())}
		}
	}()
	return f()
}

// library pulls what is asked for as far as the manifest, and returns its bytes. The steps are those of the library's
// copy.Image from docker:// to dir:, in its order; configuration and layers are not fetched, for nodetrust says
// nothing of them, but must have names. copy itself would bring 40 modules into go.mod.
func (b *bench) library(p *policyFile, s *scene) (pulled []byte, err error) {
	err = caught(func() (err error) {
		pulled, err = pull(p, s.reference())
		return err
	})
	return pulled, err
}

func pull(p *policyFile, reference string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ref, err := docker.ParseReference("//" + reference)
	if err != nil {
		return nil, err
	}
	pc, err := signature.NewPolicyContext(p.library)
	if err != nil {
		return nil, err
	}
	defer pc.Destroy()
	src, err := ref.NewImageSource(ctx, &p.sys)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	top := image.UnparsedInstance(src, nil)
	body, kind, err := top.Manifest(ctx)
	if err != nil {
		return nil, err
	}
	if !manifest.MIMETypeIsMultiImage(kind) {
		return pullOne(ctx, p, pc, top)
	}
	list, err := manifest.ListFromBlob(body, kind)
	if err != nil {
		return nil, err
	}
	chosen, err := list.ChooseInstance(&p.sys)
	if err != nil {
		return nil, err
	}
	return pullOne(ctx, p, pc, image.UnparsedInstance(src, &chosen))
}

func pullOne(ctx context.Context, p *policyFile, pc *signature.PolicyContext,
	one *image.UnparsedImage,
) ([]byte, error) {
	body, kind, err := one.Manifest(ctx)
	if err != nil {
		return nil, err
	}
	if manifest.MIMETypeIsMultiImage(kind) {
		return nil, errors.New("a manifest list instead of a manifest for a single image")
	}
	if ok, err := pc.IsRunningImageAllowed(ctx, one); !ok || err != nil {
		return nil, fmt.Errorf("source image rejected: %w", err)
	}
	img, err := image.FromUnparsedImage(ctx, &p.sys, one)
	if err != nil {
		return nil, err
	}
	if _, err = img.Signatures(ctx); err != nil {
		return nil, err
	}
	blobs := img.LayerInfos()
	if m := manifest.NormalizedMIMEType(kind); m != manifest.DockerV2Schema1MediaType &&
		m != manifest.DockerV2Schema1SignedMediaType {
		blobs = append(blobs, img.ConfigInfo()) // dir: would take an image without one
	}
	for _, b := range blobs {
		if err := b.Digest.Validate(); err != nil {
			return nil, err
		}
	}
	return body, nil
}

// nodetrust's verdict, as verify gives it.
func (b *bench) nodetrust(p *policyFile, s *scene) (verdict.Verdict, error) {
	return judge(p.nodetrust, s.reference(), "", options)
}

// audited is the verdict of an audit, which judges images together.
func (b *bench) audited(p *policyFile, s *scene) (v verdict.Verdict, err error) {
	o := options
	o.PerHost = verify.DefaultPerHost
	return judge(p.nodetrust, s.reference(), "", o)
}

// judge is the verdict on an image, judged as a reference if one is given.
func judge(p *verify.Policy, image, as string, o verify.Options) (v verdict.Verdict, err error) {
	j, err := p.Judge(o)
	if err != nil {
		return v, err
	}
	defer j.Close()
	i, err := verify.ParseImage(image)
	if err != nil {
		return v, err
	}
	if i, err = i.As(as); err != nil {
		return v, err
	}
	err = caught(func() (err error) {
		v, err = j.Verdict(context.Background(), i)
		return err
	})
	return v, err
}

var options = verify.Options{Platform: "linux/amd64", Timeout: time.Minute}
