package sources

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodetrust/nodetrust/internal/audit"
	"github.com/nodetrust/nodetrust/internal/cluster"
	"github.com/nodetrust/nodetrust/internal/fixture"
)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	check(t, os.MkdirAll(filepath.Dir(path), 0o755))
	check(t, os.WriteFile(path, []byte(text), 0o644))
}

// uses lists what a source finds, a use a line: image, digest, by, role.
func uses(t *testing.T, name string, o Options) ([]string, error) {
	t.Helper()
	o.Node = "n1"
	s, err := Open(name, o)
	check(t, err)
	var out []string
	err = s.Uses(t.Context(), func(u audit.Use) error {
		digest, _, _ := strings.Cut(strings.TrimPrefix(u.Digest, "sha256:"), "aaaaaa")
		if u.Digest != "" {
			digest = u.Digest[7:8]
		}
		out = append(out, fmt.Sprintf("%s %s %s %s", u.Image, digest, u.By, u.Role))
		return nil
	})
	return out, err
}

func wantUses(t *testing.T, name string, o Options, want ...string) {
	t.Helper()
	got, err := uses(t, name, o)
	check(t, err)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func wantError(t *testing.T, name string, o Options, want string) {
	t.Helper()
	if got, err := uses(t, name, o); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %q, error %v, want %q", got, err, want)
	}
}

func TestOpen(t *testing.T) {
	for _, name := range []string{"", "clusters", "catalog", "catalog:", "cri:x"} {
		if _, err := Open(name, Options{}); err == nil {
			t.Errorf("Open(%q) is no error", name)
		}
	}
	wantError(t, Cluster, Options{Cluster: cluster.Config{Kubeconfig: kubeconfig(t, "http://127.0.0.1:1")}},
		"listing pods")
}

func TestRole(t *testing.T) {
	for _, test := range []struct {
		workload
		want audit.Role
	}{
		{workload{
			image: "quay.io/openshift-release-dev/ocp-v4.0-art-dev@" + digestA, namespace: "openshift-multus",
			kind: "DaemonSet", name: "multus",
		}, audit.Release},
		{workload{image: "quay.io/openshift-release-development/x@" + digestA}, ""},
		{
			workload{image: "mirror.corp:5000/ocp@" + digestA, namespace: "openshift-dns", kind: "DaemonSet", name: "dns"},
			audit.Release,
		},
		{workload{
			image: "mirror.corp:5000/ocp:latest", namespace: "openshift-logging", kind: "DaemonSet",
			name: "collector",
		}, ""},
		{workload{
			image: "registry.redhat.io/x/y@" + digestA, namespace: "openshift-logging", kind: "Deployment",
			name: "x",
		}, ""},
		{workload{image: "quay.io/corp/op@" + digestA, namespace: "openshift-operators", kind: "Deployment", name: "x"}, ""},
		{workload{image: "q.io/nodetrust", namespace: "nodetrust", kind: "DaemonSet", name: "x", agent: true}, audit.Agent},
		{workload{image: "registry.k8s.io/pause:3.10"}, audit.Pause},
		{workload{image: "registry.k8s.io/pause@" + digestA}, audit.Pause},
		{workload{image: "q.io/pauses:1"}, ""},
		{workload{image: "q.io/calico", namespace: "kube-system", kind: "DaemonSet", name: "calico-node"}, audit.CNI},
		{workload{image: "q.io/calico", namespace: "kube-system", kind: "Pod", name: "calico-node-xyz"}, audit.CNI},
		{workload{image: "q.io/calico", namespace: "team", kind: "DaemonSet", name: "calico-node"}, ""},
		{
			workload{image: "q.io/etcd:1", namespace: "kube-system", kind: cluster.StaticPod, name: "anything"},
			audit.ControlPlane,
		},
		{workload{image: "q.io/x:1", namespace: "default", kind: cluster.StaticPod, name: "etcd"}, ""},
		{workload{image: "q.io/dns:1", namespace: "kube-system", kind: "Deployment", name: "coredns"}, audit.ControlPlane},
		{workload{image: "q.io/app:1", namespace: "kube-system", kind: "Deployment", name: "dashboard"}, ""},
	} {
		if got := test.role(); got != test.want {
			t.Errorf("%+v is %q, want %q", test.workload, got, test.want)
		}
	}
}

func kubeconfig(t *testing.T, url string) string {
	path := filepath.Join(t.TempDir(), "kubeconfig")
	write(t, path, fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"c","cluster":{"server":%q}}],"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],"users":[{"name":"u"}]}`, url))
	return path
}

func TestCluster(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1/pods":
			fmt.Fprint(w, `{"items":[
{"metadata":{"name":"web-5d4-x","namespace":"shop","labels":{"pod-template-hash":"5d4"},"ownerReferences":[{"kind":"ReplicaSet","name":"web-5d4","controller":true}]},
 "spec":{"nodeName":"w1","containers":[{"name":"c","image":"q.io/web:1"}]},"status":{"containerStatuses":[{"name":"c","imageID":"q.io/web@`+digestA+`"}]}},
{"metadata":{"name":"etcd-m1","namespace":"kube-system","annotations":{"kubernetes.io/config.mirror":"1"}},"spec":{"nodeName":"m1","containers":[{"name":"c","image":"q.io/etcd:1\u001b[2J"}]}},
{"metadata":{"name":"agent","namespace":"nodetrust","labels":{"app.kubernetes.io/name":"nodetrust-agent"}},"spec":{"containers":[{"name":"c","image":"q.io/agent:1"},{"name":"d"}]}}
]}`)
		case "/api/v1/nodes":
			fmt.Fprint(w, `{"items":[{"metadata":{"name":"w1"},"status":{"images":[{"names":["q.io/web@`+digestA+
				`","q.io/web:1"]},{"names":["q.io/pause:3"]}]}}]}`)
		}
	}))
	defer s.Close()
	wantUses(t, Cluster, Options{Cluster: cluster.Config{Kubeconfig: kubeconfig(t, s.URL)}},
		"q.io/web:1 a shop/deployment/web@w1 ",
		"q.io/etcd:1?[2J  kube-system/static-pod/etcd@m1 control-plane",
		"q.io/agent:1  nodetrust/pod/agent@ agent",
		"q.io/web:1 a cached@w1 ",
		"q.io/pause:3  cached@w1 pause",
	)
}

// runtimeOf answers as a runtime does; what a real one answers, the tests of the lab show.
type runtimeOf struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	runtimeapi.UnimplementedImageServiceServer
	containers []*runtimeapi.Container
	sandboxes  []*runtimeapi.PodSandbox
	images     []*runtimeapi.Image
	info       map[string]string
}

func (r *runtimeOf) ListContainers(context.Context,
	*runtimeapi.ListContainersRequest,
) (*runtimeapi.ListContainersResponse, error) {
	return &runtimeapi.ListContainersResponse{Containers: r.containers}, nil
}

func (r *runtimeOf) ListPodSandbox(context.Context,
	*runtimeapi.ListPodSandboxRequest,
) (*runtimeapi.ListPodSandboxResponse, error) {
	return &runtimeapi.ListPodSandboxResponse{Items: r.sandboxes}, nil
}

func (r *runtimeOf) ListImages(context.Context, *runtimeapi.ListImagesRequest) (*runtimeapi.ListImagesResponse, error) {
	return &runtimeapi.ListImagesResponse{Images: r.images}, nil
}

func (r *runtimeOf) Status(context.Context, *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	return &runtimeapi.StatusResponse{Info: r.info}, nil
}

func (r *runtimeOf) serve(t *testing.T) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "nt-cri-")
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	check(t, err)
	srv := grpc.NewServer()
	runtimeapi.RegisterImageServiceServer(srv, r)
	runtimeapi.RegisterRuntimeServiceServer(srv, r)
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	return "unix://" + l.Addr().String()
}

func TestCRI(t *testing.T) {
	labels := func(name, namespace string) map[string]string {
		return map[string]string{"io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": namespace}
	}
	const id = "1111111111111111111111111111111111111111111111111111111111111111"
	r := &runtimeOf{
		info: map[string]string{"config": `{"sandboxImage":"q.io/sandbox:1"}`},
		sandboxes: []*runtimeapi.PodSandbox{
			{Id: "s1", Annotations: map[string]string{"kubernetes.io/config.source": "file"}},
			{Id: "s2", Labels: map[string]string{"app.kubernetes.io/name": "nodetrust-agent"}},
		},
		containers: []*runtimeapi.Container{
			{PodSandboxId: "s1", Labels: labels("etcd-n1", "kube-system"), Image: &runtimeapi.ImageSpec{Image: id}, ImageId: id},
			{
				PodSandboxId: "s2", Labels: labels("agent-x", "nodetrust"),
				Image: &runtimeapi.ImageSpec{Image: id, UserSpecifiedImage: "q.io/agent@" + digestB},
			},
			{PodSandboxId: "gone", Labels: labels("web-x", "shop"), Image: &runtimeapi.ImageSpec{Image: "q.io/web:1"}},
			// As CRI-O has a pod that names q.io/etcd:1.
			{
				PodSandboxId: "s3", Labels: labels("db-x", "shop"), Image: &runtimeapi.ImageSpec{Image: "q.io/etcd@" + digestA},
				ImageId: id, ImageRef: id,
			},
			{
				PodSandboxId: "s3", Labels: labels("odd-x", "shop"), Image: &runtimeapi.ImageSpec{Image: "sha256:" + digestB},
				ImageRef: "q.io/gone@" + digestB,
			},
		},
		images: []*runtimeapi.Image{
			{
				Id: "sha256:" + id, RepoTags: []string{"q.io/etcd:1", "other.io/etcd:1"},
				RepoDigests: []string{"q.io/etcd@" + digestA},
			},
			{Id: "x", RepoDigests: []string{"quay.io/openshift-release-dev/ocp@" + digestB}},
		},
	}
	socket := r.serve(t)
	wantUses(t, CRI, Options{CRISocket: socket},
		"q.io/etcd:1 a kube-system/static-pod/etcd@n1 control-plane",
		"other.io/etcd:1  kube-system/static-pod/etcd@n1 control-plane",
		"q.io/agent@"+digestB+" b nodetrust/pod/agent-x@n1 agent",
		"q.io/web:1  shop/pod/web-x@n1 ",
		"q.io/etcd@"+digestA+" a shop/pod/db-x@n1 ",
		"q.io/etcd:1 a shop/pod/db-x@n1 ",
		"q.io/gone@"+digestB+"  shop/pod/odd-x@n1 ",
		"q.io/sandbox:1  cri@n1 pause",
		"q.io/etcd:1 a cri@n1 ",
		"other.io/etcd:1  cri@n1 ",
		"quay.io/openshift-release-dev/ocp@"+digestB+" b cri@n1 release",
	)
	wantError(t, CRI, Options{CRISocket: filepath.Join(t.TempDir(), "none")}, "asking the runtime at")
	r.images = []*runtimeapi.Image{{RepoTags: []string{strings.Repeat("x", maxReference+1)}}}
	r.containers = nil
	wantError(t, CRI, Options{CRISocket: socket}, "longer than")
}

func TestStaticPods(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, ManifestsDir)
	wantError(t, StaticPods, Options{Root: root}, "static pods: openat /etc/kubernetes/manifests: no such file")
	write(t, filepath.Join(dir, "etcd.yaml"), `
apiVersion: v1
kind: Pod
metadata: {name: etcd, namespace: kube-system}
spec:
  initContainers: [{name: i, image: q.io/init:1}]
  containers: [{name: c, image: q.io/etcd:1}]
  volumes: [{name: d, hostPath: {path: /}}, {name: v, image: {reference: q.io/v:1}}]
`)
	write(t, filepath.Join(dir, "list.json"), `{"kind":"PodList","items":[{"metadata":{"name":"a"},"spec":{"containers":[{"image":"q.io/a:1"}]}}]}`)
	write(t, filepath.Join(dir, ".hidden"), "{")
	write(t, filepath.Join(dir, "directory", "x"), "{")
	check(t, os.Symlink("nowhere", filepath.Join(dir, "dangling")))
	wantUses(t, StaticPods, Options{Root: root},
		"q.io/init:1  kube-system/static-pod/etcd@n1 control-plane",
		"q.io/etcd:1  kube-system/static-pod/etcd@n1 control-plane",
		"q.io/v:1  kube-system/static-pod/etcd@n1 control-plane",
		"q.io/a:1  default/static-pod/a@n1 ",
	)
	for name, spoil := range map[string]func(path string) error{
		"no YAML":  func(p string) error { return os.WriteFile(p, []byte("{"), 0o644) },
		"a pipe":   func(p string) error { return syscall.Mkfifo(p, 0o644) },
		"too big":  func(p string) error { return os.WriteFile(p, make([]byte, maxManifest+1), 0o644) },
		"bomb":     func(p string) error { return os.WriteFile(p, []byte(aliasBomb), 0o644) },
		"outwards": func(p string) error { return os.Symlink("../../../../../../etc/passwd", p) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, "z")
			check(t, spoil(path))
			defer os.Remove(path)
			wantError(t, StaticPods, Options{Root: root}, " /etc/kubernetes/manifests/z")
		})
	}
}

// aliasBomb doubles a list thirty times.
var aliasBomb = func() string {
	s := "spec: &a0 [x]\n"
	for i := range 30 {
		s += fmt.Sprintf("k%d: &a%d [*a%d, *a%d]\n", i, i+1, i, i)
	}
	return s
}()

func TestCatalog(t *testing.T) {
	dir := t.TempDir()
	name := Catalog + dir
	wantError(t, name, Options{}, "no file-based catalog")
	write(t, filepath.Join(dir, "foo", "catalog.json"), `
{"schema":"olm.package","name":"foo","image":{"odd":1}}
{"schema":"olm.bundle","package":"foo","name":"foo.v1","image":"q.io/foo-bundle@`+digestA+`","properties":[{"type":"x","value":{"name":1}}],
 "relatedImages":[{"name":"","image":"q.io/foo-bundle@`+digestA+`"},{"name":"op","image":"q.io/foo:1"},{"name":"none","image":""}]}
`)
	write(t, filepath.Join(dir, "bar.yaml"), `---
schema: olm.bundle
package: bar
name: bar.v2
image: q.io/bar:2
---
schema: other
relatedImages: none
---
schema: olm.bundle
package: bar
name: bar.v3
image: q.io/bar:3
relatedImages:
- image: q.io/x:1
`)
	write(t, filepath.Join(dir, "README.md"), "no document")
	write(t, filepath.Join(dir, "..2026", "bar.yaml"), "{")
	wantUses(t, name, Options{},
		"q.io/bar:2  catalog:bar/bar.v2 ", "q.io/bar:3  catalog:bar/bar.v3 ", "q.io/x:1  catalog:bar/bar.v3 ",
		"q.io/foo-bundle@"+digestA+"  catalog:foo/foo.v1 ", "q.io/foo:1  catalog:foo/foo.v1 ",
	)
	for _, test := range []struct{ name, text, want string }{
		{"too big.json", `{"schema":"` + strings.Repeat("x", maxDocument) + `"}`, "more than"},
		{"too big.yaml", "schema: '" + strings.Repeat("x", maxDocument+4096) + "'", "more than"},
		{"cut off.json", `{"schema":"olm.bundle"`, "cut off.json"},
		{"bomb.yaml", "schema: olm.bundle\nrelatedImages: *a30\n", "bomb.yaml"},
	} {
		t.Run(test.name, func(t *testing.T) {
			write(t, filepath.Join(dir, test.name), test.text)
			defer os.Remove(filepath.Join(dir, test.name))
			wantError(t, name, Options{}, test.want)
		})
	}
}

// TestCatalog_many: a file of many documents is read although all of them together are more than one may be.
func TestCatalog_many(t *testing.T) {
	dir := t.TempDir()
	pad := strings.Repeat("x", 3<<20)
	var text strings.Builder
	for i := range 8 {
		fmt.Fprintf(&text, "{\"schema\":\"olm.bundle\",\"name\":\"%d\",\"image\":\"q.io/a:%d\",\"pad\":%q}\n", i, i, pad)
	}
	write(t, filepath.Join(dir, "catalog.json"), text.String())
	got, err := uses(t, Catalog+dir, Options{})
	if err != nil || len(got) != 8 {
		t.Errorf("%d, %v", len(got), err)
	}
}

// TestPodman lists a real podman's store: of an image that was pulled, a container of it, and an image that was made
// here.
func TestPodman(t *testing.T) {
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skip("podman is not installed")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: podman without root needs a range of user IDs")
	}
	dir, err := os.MkdirTemp("", "nt-podman-")
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	conf, policy := filepath.Join(dir, "storage.conf"), filepath.Join(dir, "policy.json")
	write(t, conf, fmt.Sprintf("[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = %q\n", filepath.Join(dir, "g"),
		filepath.Join(dir, "r")))
	write(t, policy, `{"default":[{"type":"insecureAcceptAnything"}]}`)
	environ := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "CONTAINERS_STORAGE_CONF=" + conf,
		"XDG_RUNTIME_DIR=" + dir,
	}
	podman := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "podman", args...)
		cmd.Env = environ
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("podman %q: %v: %s", args, err, out)
		}
	}
	r, err := fixture.NewRegistry("127.0.0.1:0")
	check(t, err)
	defer r.Stop()
	digest, err := r.Push("team/app", "v1", "podman")
	check(t, err)
	image := r.Host + "/team/app:v1"
	podman("pull", "--quiet", "--tls-verify=false", "--signature-policy", policy, image)
	podman("create", "--name", "shop", "--network", "none", image)
	// Its lock is one of 2048 for all of the machine's podmans, and would outlive the store.
	defer podman("rm", "shop")
	podman("tag", image, "localhost/made:here")

	s, err := Open(Podman, Options{Environ: environ, Node: "h"})
	check(t, err)
	var got []audit.Use
	check(t, s.Uses(t.Context(), func(u audit.Use) error { got = append(got, u); return nil }))
	want := []audit.Use{
		{Image: image, Digest: digest, By: "podman/shop@h"},
		{Image: image, Digest: digest, By: "podman@h"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestPodman_fails(t *testing.T) {
	dir := t.TempDir()
	fake := func(text string) Options {
		write(t, filepath.Join(dir, "podman"), "#!/bin/sh\n"+text+"\n")
		check(t, os.Chmod(filepath.Join(dir, "podman"), 0o755))
		return Options{Environ: []string{"PATH=" + dir + ":/usr/bin:/bin"}}
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	wantError(t, Podman, fake("echo no store >&2; exit 125"), "no store")
	wantError(t, Podman, fake("echo '{'"), "running podman images")
	wantError(t, Podman, fake("head -c 70000000 /dev/zero"), "more than")
	s, err := Open(Podman, fake("sleep 60"))
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Uses(ctx, func(audit.Use) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestPodman_sudo: the store of the user who called sudo is listed as that user, if there is one.
func TestPodman_sudo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it becomes another user")
	}
	s := podmanSource{environ: []string{"SUDO_UID=65534"}, host: "h"}
	if _, ok, err := s.caller(); ok || err != nil {
		t.Errorf("nobody, who has no home, has a store: %v", err)
	}
	if _, ok, err := (podmanSource{environ: []string{"SUDO_UID=4294967294"}}).caller(); ok || err == nil {
		t.Error("a user that there isn't is no error")
	}
	home := t.TempDir()
	if hasStore(home) {
		t.Error("an empty home has a store")
	}
	check(t, os.MkdirAll(filepath.Join(home, ".local/share/containers/storage"), 0o755))
	if !hasStore(home) {
		t.Error("a home with a store has none")
	}
	dir, err := os.MkdirTemp("", "nt-") // which another user may enter
	check(t, err)
	defer os.RemoveAll(dir)
	check(t, os.Chmod(dir, 0o755))
	write(t, filepath.Join(dir, "podman"), "#!/bin/sh\n[ $1 = images ] || exec echo '[]'\necho '[{\"Id\":\"'$1'\",\"Names\":[\"q.io/'$(id -u)-$(id -g)-$HOME'\"]}]'\n")
	check(t, os.Chmod(filepath.Join(dir, "podman"), 0o755))
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	u := podmanUser{
		name: "nobody", environ: []string{"PATH=/usr/bin:/bin", "HOME=x"},
		credential: &syscall.Credential{Uid: 65534, Gid: 65533},
	}
	var got []string
	check(t, s.store(t.Context(), u, func(u audit.Use) error { got = append(got, u.Image+" "+u.By); return nil }))
	if want := []string{"q.io/65534-65533-x podman:nobody@h"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
