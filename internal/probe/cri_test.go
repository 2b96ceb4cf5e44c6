package probe

import (
	"context"
	"encoding/base64"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// store is an image service that keeps what was pulled; what it cannot show, TestCRIO shows with a real CRI-O.
type store struct {
	runtimeapi.UnimplementedImageServiceServer
	mu     sync.Mutex
	images map[string]bool
	calls  []string
	auth   *runtimeapi.AuthConfig
	onPull func(ctx context.Context, ref string) error
	// version is what the runtime says of itself; without it, it doesn't tell.
	version func(ctx context.Context) (*runtimeapi.VersionResponse, error)
}

// versioned is the runtime service of a store, which tells the version and does nothing else.
type versioned struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	*store
}

func (v versioned) Version(ctx context.Context, r *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	if v.version == nil {
		return v.UnimplementedRuntimeServiceServer.Version(ctx, r)
	}
	return v.version(ctx)
}

func (s *store) ImageStatus(_ context.Context,
	r *runtimeapi.ImageStatusRequest,
) (*runtimeapi.ImageStatusResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, "status")
	if s.images[r.Image.Image] {
		return &runtimeapi.ImageStatusResponse{Image: &runtimeapi.Image{Id: "x"}}, nil
	}
	return &runtimeapi.ImageStatusResponse{}, nil
}

func (s *store) PullImage(ctx context.Context, r *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	s.mu.Lock()
	s.calls = append(s.calls, "pull "+r.GetSandboxConfig().GetMetadata().GetNamespace())
	s.auth = r.Auth
	s.images[r.Image.Image] = true
	s.mu.Unlock()
	if s.onPull != nil {
		if err := s.onPull(ctx, r.Image.Image); err != nil {
			return nil, err
		}
	}
	return &runtimeapi.PullImageResponse{ImageRef: r.Image.Image}, nil
}

func (s *store) RemoveImage(_ context.Context,
	r *runtimeapi.RemoveImageRequest,
) (*runtimeapi.RemoveImageResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, "remove "+r.Image.Image)
	delete(s.images, r.Image.Image)
	return &runtimeapi.RemoveImageResponse{}, nil
}

func newStore(t *testing.T, images ...string) (*store, Options) {
	t.Helper()
	dir, err := os.MkdirTemp("", "nt-cri-")
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &store{images: map[string]bool{}}
	for _, i := range images {
		s.images[i] = true
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	check(t, err)
	srv := grpc.NewServer()
	runtimeapi.RegisterImageServiceServer(srv, s)
	runtimeapi.RegisterRuntimeServiceServer(srv, versioned{store: s})
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	return s, Options{Runtime: CRI, CRISocket: "unix://" + l.Addr().String(), Root: dir}
}

func canary(name string, expect verdict.Answer) trust.Canary {
	return trust.Canary{Image: "example.com/" + name + "@sha256:" + strings.Repeat("a", 64), Expect: expect}
}

func TestCRIStore(t *testing.T) {
	a, r := canary("accept", verdict.Accept), canary("refuse", verdict.Refuse)
	for _, tt := range []struct {
		name         string
		before       []string
		change       func(*Options)
		absent, left []string
	}{
		{"both absent", nil, func(*Options) {}, []string{a.Image, r.Image}, nil},
		{"both there", []string{a.Image, r.Image}, func(*Options) {}, nil, []string{a.Image, r.Image}},
		{"kept", nil, func(o *Options) { o.KeepAccepted = true }, []string{a.Image, r.Image}, []string{a.Image}},
		{"owned", []string{a.Image, r.Image}, func(o *Options) { o.Owned = []string{r.Image} }, nil, []string{a.Image}},
		{
			"owned and kept",
			[]string{a.Image, r.Image},
			func(o *Options) { o.Owned, o.KeepAccepted = []string{a.Image, r.Image}, true }, nil,
			[]string{a.Image},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, o := newStore(t, tt.before...)
			var absent []string
			o.Announce = func(refs []string) error {
				if slices.ContainsFunc(s.calls, func(c string) bool { return strings.HasPrefix(c, "pull") }) {
					t.Error("announced after a pull")
				}
				absent = refs
				return nil
			}
			tt.change(&o)
			out, err := Run(context.Background(), []trust.Canary{a, r}, o)
			check(t, err)
			if len(out) != 2 || !out[0].OK || out[1].OK {
				t.Errorf("got %+v", out)
			}
			var left []string
			for i := range s.images {
				left = append(left, i)
			}
			slices.Sort(left)
			if !slices.Equal(left, tt.left) || !slices.Equal(absent, tt.absent) {
				t.Errorf("left %v, announced %v", left, absent)
			}
		})
	}
}

// A round that is cut short still removes what it pulled, and nothing of it is an answer.
func TestCRICancelled(t *testing.T) {
	s, o := newStore(t)
	ctx, cancel := context.WithCancel(context.Background())
	s.onPull = func(ctx context.Context, _ string) error {
		cancel()
		<-ctx.Done()
		return errors.New("SignatureValidationFailed: late")
	}
	out, err := Run(ctx, []trust.Canary{canary("a", verdict.Accept), canary("r", verdict.Refuse)}, o)
	check(t, err)
	for _, c := range out {
		if c.Answer != verdict.Unknown || c.Reason != verdict.Timeout {
			t.Errorf("got %+v", c)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.images) != 0 {
		t.Errorf("left: %v (calls %v)", s.images, s.calls)
	}
}

func TestCRINamespaces(t *testing.T) {
	s, o := newStore(t)
	dir := filepath.Join(o.Root, "etc/crio/policies")
	check(t, os.MkdirAll(dir, 0o755))
	for _, n := range []string{"b.json", "a.json", "notes.txt"} {
		check(t, os.WriteFile(filepath.Join(dir, n), nil, 0o644))
	}
	out, err := Run(context.Background(), []trust.Canary{canary("a", verdict.Accept)}, o)
	check(t, err)
	var pulls []string
	for _, c := range s.calls {
		if ns, ok := strings.CutPrefix(c, "pull "); ok {
			pulls = append(pulls, ns)
		}
	}
	if !slices.Equal(pulls, []string{"", "a", "b"}) || len(out) != 3 || out[2].Namespace != "b" {
		t.Errorf("pulled for %q, got %+v", pulls, out)
	}
	// A directory that can't be listed may hide policies: that is no success.
	check(t, os.RemoveAll(dir))
	check(t, os.WriteFile(dir, nil, 0o644))
	out, err = Run(context.Background(), []trust.Canary{canary("a", verdict.Accept)}, o)
	check(t, err)
	if last := out[len(out)-1]; last.Answer != verdict.Unknown || last.OK {
		t.Errorf("got %+v", last)
	}
}

func TestAuthfile(t *testing.T) {
	login := func(s string) string { return `{"auth":"` + base64.StdEncoding.EncodeToString([]byte(s)) + `"}` }
	path := filepath.Join(t.TempDir(), "auth.json")
	check(t, os.WriteFile(path, []byte(`{"auths":{"example.com":`+login("host:1:2")+`,"example.com/a":`+login("repo:x")+
		`,"https://index.docker.io/v1/":`+login("hub:y")+`}}`), 0o600))
	c, err := readAuthfile(path)
	check(t, err)
	for ref, want := range map[string]string{
		"example.com/a@sha256:1": "repo x", "example.com/a/b@sha256:1": "repo x", "example.com/b@sha256:1": "host 1:2",
		"docker.io/library/x@sha256:1": "hub y", "example.org/a@sha256:1": "", "example.com:5000/a@sha256:1": "",
	} {
		got := ""
		if a := c.forImage(ref); a != nil {
			got = a.Username + " " + a.Password
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", ref, got, want)
		}
	}
	s, o := newStore(t)
	o.Authfile = path
	_, err = Run(context.Background(), []trust.Canary{canary("a", verdict.Accept)}, o)
	check(t, err)
	if s.auth.GetUsername() != "repo" {
		t.Errorf("the runtime got %v", s.auth)
	}
	check(t, os.WriteFile(path, []byte(`{"auths":{"h":{"auth":"secret!"}}}`), 0o600))
	if _, err := readAuthfile(path); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v, want an error without the login", err)
	}
}
