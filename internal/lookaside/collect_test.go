package lookaside

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/ref"
	"github.com/nodetrust/nodetrust/internal/release"
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

// world is a registry with signed images, a mirror of it, and the lookaside of the registry.
type world struct {
	t                *testing.T
	key, other       *fixture.Key
	registry, mirror *fixture.Registry
	lookaside        *fixture.Lookaside
	policy           *verify.Policy
	dir              string // of the bundle
}

func newWorld(t *testing.T) *world {
	t.Helper()
	p := fixture.Parts{TB: t}
	gpg := p.GPG()
	w := &world{
		t: t, dir: filepath.Join(t.TempDir(), "bundle"),
		key: p.Key(gpg, "signer", fixture.KeyOptions{}), other: p.Key(gpg, "other", fixture.KeyOptions{}),
		registry: p.Registry(), mirror: p.Registry(), lookaside: p.Lookaside(t.TempDir()),
	}
	w.policy = w.open(w.lookaside.URL(), w.insecure(w.registry.Host))
	return w
}

// open makes a policy that demands signatures, with this lookaside for everything.
func (w *world) open(lookaside, registriesConf string) *verify.Policy {
	w.t.Helper()
	policy, registries := w.files(lookaside)
	p, err := verify.Open(verify.Source{Files: trust.FileSet{
		{Path: trust.PolicyPath, Data: policy}, {Path: "/etc/containers/registries.d/all.yaml", Data: registries},
	}, RegistriesConf: registriesConf}, verify.Env{})
	check(w.t, err)
	w.t.Cleanup(func() { check(w.t, p.Close()) })
	return p
}

func (w *world) files(lookaside string) (policy, registries []byte) {
	return fmt.Appendf(nil, `{"default":[{"type":"reject"}],"transports":{"docker":{%q:[{"type":"signedBy","keyType":"GPGKeys","keyData":%q}]}}}`,
			w.registry.Host, base64.StdEncoding.EncodeToString(w.key.Binary)),
		fmt.Appendf(nil, "default-docker: {lookaside: %q}\n", lookaside)
}

// insecure is a registries.conf for registries without TLS.
func (w *world) insecure(hosts ...string) string {
	return w.write("registries.conf", fixture.Insecure(hosts...))
}

// mirrored is a registries.conf of nodes: everything comes from below rh/ of the mirror.
func (w *world) mirrored() string {
	return w.write("mirrored.conf", fixture.Insecure(w.registry.Host)+
		fmt.Sprintf("[[registry.mirror]]\nlocation = %q\ninsecure = true\n", w.mirror.Host+"/rh"))
}

func (w *world) write(name, text string) string {
	w.t.Helper()
	return fixture.Parts{TB: w.t}.Write(filepath.Join(w.t.TempDir(), name), []byte(text))
}

func (w *world) sign(k *fixture.Key, repo, digest string, n int) {
	w.t.Helper()
	fixture.Parts{TB: w.t}.Sign(w.lookaside, k, repo, digest, w.registry.Host+"/"+repo+":v1", n)
}

// push makes an image and signs it.
func (w *world) push(repo string, keys ...*fixture.Key) (digest string) {
	w.t.Helper()
	digest = fixture.Parts{TB: w.t}.Push(w.registry, repo, "v1", repo)
	for i, k := range keys {
		w.sign(k, repo, digest, i+1)
	}
	return digest
}

func (w *world) places(image string) ([]string, error) {
	name := ref.Name(image)
	_, path, _ := strings.Cut(name, "/")
	return []string{name, w.mirror.Host + "/rh/" + path}, nil
}

func (w *world) collect(o Options, images ...string) (Result, Releases, error) {
	w.t.Helper()
	tree, err := OpenTree(w.dir)
	check(w.t, err)
	defer tree.Close()
	o.Images, o.Image.Platform = images, "linux/amd64"
	if o.Policy == nil {
		o.Policy = w.policy
	}
	if o.Places == nil {
		o.Places = w.places
	}
	return Collect(w.t.Context(), tree, o)
}

// tree lists the files of the bundle.
func (w *world) tree() (files []string) {
	w.t.Helper()
	check(w.t, filepath.WalkDir(w.dir, func(path string, d os.DirEntry, err error) error {
		rel, _ := filepath.Rel(w.dir, path)
		if err == nil && !d.IsDir() && !strings.HasPrefix(rel, stateDir) {
			files = append(files, rel)
		}
		if strings.Contains(rel, "tmp-") {
			w.t.Errorf("%s is left", rel)
		}
		return err
	}))
	return files
}

func equals(digest string) string { return strings.Replace(digest, ":", "=", 1) }

// TestCollect: what is collected is enough for a node that has nothing but the directory, under the own name and a
// mirror's.
func TestCollect(t *testing.T) {
	w := newWorld(t)
	one := w.push("team/one", w.other, w.key)
	two := w.push("team/two", w.key)
	index, instances, err := w.registry.PushIndex("team/multi", "v1", "multi", "amd64", "arm64")
	check(t, err)
	for _, d := range instances {
		w.sign(w.key, "team/multi", d, 1)
	}
	images := []string{
		w.registry.Host + "/team/one:v1", w.registry.Host + "/team/two@" + two,
		w.registry.Host + "/team/multi:v1", w.registry.Host + "/team/multi@" + index,
	}
	r, _, err := w.collect(Options{}, images...)
	check(t, err)
	if r.Answer != verdict.Accept || len(r.Images) != 4 {
		t.Fatalf("%+v", r)
	}
	for i, want := range []int{2, 1, 2, 2} {
		if got := r.Images[i]; got.Signatures != want || got.Answer != verdict.Accept ||
			got.Verdict.Image != images[i] {
			t.Errorf("%+v, want %d signatures", got, want)
		}
	}
	var want []string
	for _, below := range []string{"rh/team/", "team/"} {
		for _, d := range instances {
			want = append(want, below+"multi@"+equals(d)+"/signature-1")
		}
		want = append(want, below+"one@"+equals(one)+"/signature-1", below+"one@"+equals(one)+"/signature-2",
			below+"two@"+equals(two)+"/signature-1")
	}
	slices.Sort(want)
	if got := w.tree(); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	// The lookaside is gone: nodes have the directory.
	w.lookaside.Stop()
	w.mirrorAll("team/one", "team/two")
	alone := w.open(URL(w.dir), w.insecure(w.registry.Host))
	mirrored := w.open(URL(w.dir), w.mirrored())
	for _, image := range images {
		v := judge(t, alone, image, verify.Options{Platform: "linux/amd64"})
		if v.Answer != verdict.Accept {
			t.Errorf("%s: %s", image, v.Message)
		}
	}
	w.registry.Requests()
	for _, image := range images[:2] {
		v := judge(t, mirrored, image, verify.Options{Platform: "linux/amd64"})
		if v.Answer != verdict.Accept || !strings.Contains(v.Lookaside.URL, "/rh/team/") {
			t.Errorf("%s through the mirror: %s %+v", image, v.Message, v.Lookaside)
		}
	}
	if asked := w.registry.Requests(); len(asked) > 0 {
		t.Errorf("the mirrored registry was asked: %q", asked)
	}
	w.podman(images[0], images[1])
}

// mirrorAll puts what Push made of the repositories into the mirror.
func (w *world) mirrorAll(repos ...string) {
	w.t.Helper()
	for _, repo := range repos {
		_, err := w.mirror.Push("rh/"+repo, "v1", repo)
		check(w.t, err)
	}
}

// podman pulls with a policy and registries.d of its own, whose only lookaside is the bundle.
func (w *world) podman(images ...string) {
	t := w.t
	if _, err := exec.LookPath("podman"); err != nil || os.Geteuid() != 0 {
		t.Log("podman is not asked: it is not installed, or this is not root")
		return
	}
	home, err := os.MkdirTemp("", "nt-")
	check(t, err)
	defer os.RemoveAll(home)
	config := filepath.Join(home, ".config", "containers")
	check(t, os.MkdirAll(filepath.Join(config, "registries.d"), 0o755))
	pull := func(lookaside, conf, image string) error {
		policy, registries := w.files(lookaside)
		check(t, os.WriteFile(filepath.Join(config, "policy.json"), policy, 0o644))
		check(t, os.WriteFile(filepath.Join(config, "registries.d", "all.yaml"), registries, 0o644))
		cmd := exec.CommandContext(t.Context(), "podman", "--root", home+"/s", "--runroot", home+"/r", "--tmpdir", home+"/t",
			"--storage-driver", "vfs",
			"--cgroup-manager", "cgroupfs", "--events-backend", "none", "pull", "--quiet", image)
		cmd.Env = []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + home, "CONTAINERS_REGISTRIES_CONF=" + conf,
			"XDG_RUNTIME_DIR=" + home,
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	for _, image := range images {
		for _, conf := range []string{w.insecure(w.registry.Host), w.mirrored()} {
			if err := pull(URL(w.dir), conf, image); err != nil {
				t.Errorf("podman with the bundle: %s: %v", image, err)
			}
			if err := pull(URL(t.TempDir()), conf, image); err == nil || !strings.Contains(err.Error(), "no signature exists") {
				t.Errorf("podman without the bundle: %s: %v", image, err)
			}
		}
	}
}

// TestCollect_incomplete: an image that isn't satisfied is told, and spoils the whole.
func TestCollect_incomplete(t *testing.T) {
	w := newWorld(t)
	w.push("team/good", w.key)
	w.push("team/unsigned")
	w.push("team/foreign", w.other)
	good := w.registry.Host + "/team/good:v1"
	_, instances, err := w.registry.PushIndex("team/list", "v1", "list", "amd64", "arm64")
	check(t, err)
	w.sign(w.key, "team/list", instances[1], 1)
	for _, test := range []struct {
		image  string
		answer verdict.Answer
		reason verdict.Reason
	}{
		{w.registry.Host + "/team/unsigned:v1", verdict.Refuse, verdict.NoSignature},
		{w.registry.Host + "/team/foreign:v1", verdict.Refuse, verdict.WrongKey},
		{w.registry.Host + "/team/list:v1", verdict.Refuse, verdict.NoSignature},
		{w.registry.Host + "/team/absent:v1", verdict.Unknown, verdict.ImageNotFound},
		{w.mirror.Host + "/not/covered:v1", verdict.Unknown, verdict.RegistryUnreachable},
	} {
		r, _, err := w.collect(Options{}, good, test.image)
		check(t, err)
		if got := r.Images[1]; r.Answer != test.answer || got.Answer != test.answer || got.Reason != test.reason ||
			r.Images[0].Answer != verdict.Accept {
			t.Errorf("%s: %s; %s %s %s", test.image, r.Answer, got.Answer, got.Reason, got.Message)
		}
	}
	w.lookaside.Fault(func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "<html>") })
	r, _, err := w.collect(Options{}, w.registry.Host+"/team/unsigned:v1")
	check(t, err)
	if r.Answer == verdict.Accept {
		t.Errorf("%+v", r)
	}
	w.lookaside.Fault(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusForbidden) })
	r, _, err = w.collect(Options{}, good)
	check(t, err)
	if r.Answer != verdict.Unknown || r.Images[0].Reason != verdict.LookasideForbidden {
		t.Errorf("%+v", r)
	}
}

// TestCollect_platforms: an image for several platforms is complete only if all that runtimes choose are accepted.
func TestCollect_platforms(t *testing.T) {
	w := newWorld(t)
	const none, attestation = "", "unknown/unknown"
	for n, test := range []struct {
		name      string
		archs     []string
		signed    []int
		platforms []string
		answer    verdict.Answer
		named     []int // instances that are named as not accepted
		instances int
	}{
		{"all", []string{"amd64", "arm64"}, []int{0, 1}, nil, verdict.Accept, nil, 2},
		{"one of two", []string{"amd64", "arm64"}, []int{0}, nil, verdict.Refuse, []int{1}, 2},
		{"the other of two", []string{"amd64", "arm64"}, []int{1}, nil, verdict.Refuse, []int{0}, 2},
		{"one of three", []string{"amd64", "arm64", "s390x"}, []int{2}, nil, verdict.Refuse, []int{0, 1}, 3},
		{"not this host's", []string{"arm64", "s390x"}, []int{0, 1}, nil, verdict.Accept, nil, 2},
		{"platform", []string{"amd64", "arm64"}, []int{0}, []string{"linux/amd64"}, verdict.Accept, nil, 1},
		{
			"two platforms",
			[]string{"amd64", "arm64", "s390x"},
			[]int{0, 1},
			[]string{"linux/arm64", "linux/amd64"},
			verdict.Accept, nil, 2,
		},
		{
			"two platforms, one signed",
			[]string{"amd64", "arm64", "s390x"},
			[]int{1},
			[]string{"linux/arm64", "linux/s390x"},
			verdict.Refuse,
			[]int{2},
			2,
		},
		{"absent platform", []string{"amd64"}, []int{0}, []string{"linux/amd64", "linux/ppc64le"}, verdict.Unknown, nil, 2},
		{"attestations", []string{"amd64", attestation}, []int{0}, nil, verdict.Accept, nil, 1},
		{"nothing but attestations", []string{attestation}, []int{0}, nil, verdict.Unknown, nil, 0},
		{"unknown system of a known kind", []string{"amd64", "unknown/arm64"}, []int{0}, nil, verdict.Refuse, []int{1}, 2},
		{"no platform", []string{"amd64", none}, []int{0}, nil, verdict.Refuse, []int{1}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			repo := fmt.Sprintf("team/list%d", n)
			index, instances, err := w.registry.PushIndex(repo, "v1", repo, test.archs...)
			check(t, err)
			for _, i := range test.signed {
				w.sign(w.key, repo, instances[i], 1)
			}
			w.dir = t.TempDir()
			for range 2 { // read, and recorded
				image := w.registry.Host + "/" + repo + "@" + index
				r, _, err := w.collect(Options{Platforms: test.platforms}, image)
				check(t, err)
				got := r.Images[0]
				if r.Answer != test.answer || got.Answer != test.answer || len(got.Instances) != test.instances {
					t.Fatalf("%s: %+v", r.Answer, got)
				}
				for i, d := range instances {
					if want := slices.Contains(test.named, i); strings.Contains(got.Message, d) != want &&
						test.answer == verdict.Refuse {
						t.Errorf("%s is named: %t, want %t: %s", d, !want, want, got.Message)
					}
				}
			}
		})
	}
}

// TestCollect_resumed: an interrupted bundle is gone on with; what is named by digest is not read twice.
func TestCollect_resumed(t *testing.T) {
	w := newWorld(t)
	first := w.registry.Host + "/team/first@" + w.push("team/first", w.key)
	second := w.registry.Host + "/team/second@" + w.push("team/second", w.key)
	tree, err := OpenTree(w.dir)
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	w.lookaside.Fault(func(rw http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "second") {
			cancel()
			<-r.Context().Done()
			return
		}
		w.lookaside.Serve(rw, r)
	})
	// One after the other: the second ends it.
	o := Options{Policy: w.policy, Places: w.places, Image: verify.Options{Platform: "linux/amd64"}}
	o.Images = []string{first}
	_, _, err = Collect(ctx, tree, o)
	check(t, err)
	o.Images = []string{first, second}
	if _, _, err := Collect(ctx, tree, o); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	check(t, tree.Close())
	w.lookaside.Fault(nil)
	if files := w.tree(); len(files) != 2 {
		t.Errorf("%q", files)
	}
	// As a killed one leaves it.
	check(t, os.MkdirAll(filepath.Join(w.dir, stateDir, "tmp-X"), 0o755))
	w.registry.Requests()
	w.lookaside.Requests()
	r, _, err := w.collect(Options{}, first, second)
	check(t, err)
	if r.Answer != verdict.Accept || len(w.tree()) != 4 || r.Images[0].Added != 0 || r.Images[1].Added != 2 {
		t.Errorf("%+v", r)
	}
	for _, asked := range append(w.registry.Requests(), w.lookaside.Requests()...) {
		if strings.Contains(asked, "first") {
			t.Errorf("%s was asked again", asked)
		}
	}
	// Again: nothing is asked, nothing written, unless told so.
	if _, _, err = w.collect(Options{}, first, second); err != nil ||
		len(w.registry.Requests())+len(w.lookaside.Requests()) > 0 {
		t.Errorf("asked again, %v", err)
	}
	w.sign(w.other, "team/first", first[strings.Index(first, "@")+1:], 2)
	r, _, err = w.collect(Options{Refresh: true}, first, second)
	check(t, err)
	if r.Images[0].Added != 2 || r.Images[0].Signatures != 2 || r.Images[1].Added != 0 {
		t.Errorf("%+v", r)
	}
	// What was tampered with is read anew.
	records, err := filepath.Glob(filepath.Join(w.dir, stateDir, "*.json"))
	check(t, err)
	for _, name := range records {
		b, err := os.ReadFile(name)
		check(t, err)
		check(t, os.WriteFile(name, bytes.Replace(b, []byte(`"Manifest":"`), []byte(`"Manifest":"AAAA`), 1), 0o644))
	}
	w.registry.Requests()
	if r, _, err := w.collect(Options{}, first, second); err != nil || r.Answer != verdict.Accept ||
		len(w.registry.Requests()) == 0 {
		t.Errorf("%v %+v", err, r)
	}
}

// TestCollect_signedSince: an image by digest that lacked a signature is read again.
func TestCollect_signedSince(t *testing.T) {
	w := newWorld(t)
	digest := w.push("team/late")
	image := w.registry.Host + "/team/late@" + digest
	r, _, err := w.collect(Options{}, image)
	check(t, err)
	if r.Answer != verdict.Refuse || r.Images[0].Reason != verdict.NoSignature {
		t.Errorf("%+v", r)
	}
	w.lookaside.Fault(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusForbidden) })
	r, _, err = w.collect(Options{}, image)
	check(t, err)
	if got := r.Images[0]; got.Answer != verdict.Unknown || got.Reason != verdict.LookasideForbidden ||
		got.Cause != "" {
		t.Errorf("%+v", got)
	}
	w.lookaside.Fault(nil)
	w.sign(w.key, "team/late", digest, 1)
	r, _, err = w.collect(Options{}, image)
	check(t, err)
	if r.Answer != verdict.Accept || r.Images[0].Signatures != 1 || r.Images[0].Added != 2 {
		t.Errorf("%+v", r)
	}
}

// TestCollect_release: signatures of releases come from their stores, and go to ConfigMaps.
func TestCollect_release(t *testing.T) {
	w := newWorld(t)
	digest := w.push("ocp/release")
	image := w.registry.Host + "/ocp/release@" + digest
	sig, err := w.key.Sign(digest, w.registry.Host+"/ocp/release:v1")
	check(t, err)
	manifests, err := release.Manifests(map[string][][]byte{digest: {sig}})
	check(t, err)
	maps, err := release.ParseConfigMaps("maps", manifests)
	check(t, err)
	is := func(repository string) bool { return strings.HasSuffix(repository, "/release") }
	r, found, err := w.collect(Options{Releases: []release.Source{maps}, IsRelease: is}, image)
	check(t, err)
	if r.Answer != verdict.Accept || len(found[digest]) != 1 || !bytes.Equal(found[digest][0], sig) ||
		len(w.tree()) != 2 {
		t.Errorf("%+v", r)
	}
	w.dir = t.TempDir()
	r, found, err = w.collect(Options{Releases: []release.Source{maps}}, image)
	check(t, err)
	if r.Answer != verdict.Refuse || len(found) != 0 {
		t.Errorf("%+v", r)
	}
	store, err := release.OpenStore("http://127.0.0.1:1")
	check(t, err)
	r, _, err = w.collect(Options{Releases: []release.Source{store}, IsRelease: is}, image)
	check(t, err)
	if r.Answer != verdict.Unknown || r.Images[0].Reason != verdict.LookasideUnreachable {
		t.Errorf("%+v", r)
	}
	// A web page is no signature, and doesn't get into the tree.
	w.lookaside.Fault(func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "<html>") })
	pages, err := release.OpenStore(w.lookaside.URL())
	check(t, err)
	w.dir = t.TempDir()
	w.policy = w.open(URL(t.TempDir()), w.insecure(w.registry.Host))
	r, _, err = w.collect(Options{Releases: []release.Source{pages, maps}, IsRelease: is}, image)
	check(t, err)
	if r.Answer != verdict.Accept || len(w.tree()) != 2 {
		t.Errorf("%+v: %q", r, w.tree())
	}
	w.dir = t.TempDir()
	r, _, err = w.collect(Options{Releases: []release.Source{pages}, IsRelease: is}, image)
	check(t, err)
	if r.Answer != verdict.Unknown || r.Images[0].Reason != verdict.LookasideNotSignature || len(w.tree()) != 0 {
		t.Errorf("%+v: %q", r, w.tree())
	}
	// One that can't be reached does no harm where another has what is needed.
	for _, sources := range [][]release.Source{{store, maps}, {maps, store}} {
		w.dir = t.TempDir()
		r, found, err = w.collect(Options{Releases: sources, IsRelease: is}, image)
		check(t, err)
		if r.Answer != verdict.Accept || len(found[digest]) != 1 {
			t.Errorf("%+v", r)
		}
	}
}

// TestTree_hostile: nothing is written or read outside of the directory, whatever names and links there are.
func TestTree_hostile(t *testing.T) {
	outside := t.TempDir()
	dir := filepath.Join(t.TempDir(), "tree")
	tree, err := OpenTree(dir)
	check(t, err)
	defer tree.Close()
	const digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	sig := [][]byte{[]byte("s")}
	for _, name := range []string{
		"", ".", "..", "../x", "a/../../x", "/etc", "a//b", "a/", ".nodetrust", "a/.hidden",
		"a@sha256=x", "a:b", `a\b`,
	} {
		if n, err := tree.Put(name, digest, sig); err == nil || n != 0 {
			t.Errorf("Put(%q) is no error", name)
		}
		if _, err := tree.Signatures(name, digest); err == nil {
			t.Errorf("Signatures(%q) is no error", name)
		}
	}
	for _, d := range []string{"", "sha256:", "sha256:../x", "md5:abc", "sha256:" + strings.Repeat("/", 64)} {
		if _, err := tree.Put("a", d, sig); err == nil {
			t.Errorf("digest %q is no error", d)
		}
	}
	check(t, os.Symlink(outside, filepath.Join(dir, "link")))
	if _, err := tree.Put("link/app", digest, sig); err == nil {
		t.Error("writes through a link to the outside")
	}
	check(t, os.MkdirAll(filepath.Join(dir, "a@"+equals(digest)), 0o755))
	check(t, os.WriteFile(filepath.Join(outside, "file"), []byte("secret"), 0o644))
	check(t, os.Symlink(filepath.Join(outside, "file"), filepath.Join(dir, "a@"+equals(digest), "signature-1")))
	if _, err := tree.Signatures("a", digest); err == nil {
		t.Error("reads through a link to the outside")
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
		t.Errorf("%v %v", left, err)
	}
	// An empty directory, as somebody may have made it, is filled file by file.
	check(t, os.MkdirAll(filepath.Join(dir, "b@"+equals(digest)), 0o755))
	many := [][]byte{[]byte("1"), []byte("2"), []byte("1")}
	if n, err := tree.Put("b", digest, many); err != nil || n != 2 {
		t.Errorf("%d, %v", n, err)
	}
	if got, err := tree.Signatures("b", digest); err != nil || len(got) != 2 || string(got[1]) != "2" {
		t.Errorf("%q, %v", got, err)
	}
	var flood [][]byte
	for i := range verify.MaxSignatures + 1 {
		flood = append(flood, fmt.Append(nil, i))
	}
	if _, err := tree.Put("c", digest, flood); err == nil {
		t.Error("takes more signatures than a runtime reads")
	}
	check(t, os.WriteFile(filepath.Join(dir, "b@"+equals(digest), "signature-3"),
		make([]byte, verify.MaxSignatureSize+1), 0o644))
	if _, err := tree.Signatures("b", digest); err == nil {
		t.Error("reads a file larger than a signature")
	}
}

func TestRegistries(t *testing.T) {
	image := func(name, scope, matched string, signatures int, mirrors ...string) Image {
		return Image{
			Verdict:    verdict.Verdict{Image: name, Scope: &verdict.Scope{Name: scope, Matched: matched}},
			Places:     append([]string{ref.Name(name)}, mirrors...),
			Signatures: signatures,
		}
	}
	r := Result{Images: []Image{
		image("registry.redhat.io/ubi9/ubi:9.4", "registry.redhat.io", "host", 1, "mirror.corp:5000/redhat/ubi9/ubi"),
		image("registry.redhat.io/ubi8/ubi@sha256:0", "registry.redhat.io", "host", 1, "mirror.corp:5000/redhat/ubi8/ubi",
			"other.corp/ubi8/ubi"),
		image("quay.io/corp/app:1", "", "default", 2),
		image("quay.io/odd/app:1", "quay.io/odd/app:1", "exact", 1, "mirror.corp:5000/elsewhere"),
		image("docker.io/library/unsigned:1", "", "default", 0),
	}}
	const url = "file:///sigs"
	got := fmt.Sprintf("%v", r.Registries(url))
	want := fmt.Sprintf("%v", []Registry{
		{"quay.io", url, nil},
		{"quay.io/odd/app", url, []Mirror{{"mirror.corp:5000/elsewhere", url}}},
		{"registry.redhat.io", url, []Mirror{{"mirror.corp:5000/redhat", url}, {"other.corp", url}}},
	})
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := URL("/a b/c"); got != "file:///a%20b/c" {
		t.Errorf("URL is %s", got)
	}
}

// TestTree_modes: everybody may read a tree, whoever made it.
func TestTree_modes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tree")
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	tree, err := OpenTree(dir)
	check(t, err)
	defer tree.Close()
	const digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	_, err = tree.Put("a/b/c", digest, [][]byte{[]byte("s")})
	check(t, err)
	check(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || strings.Contains(path, stateDir) {
			return err
		}
		st, err := d.Info()
		if want := map[bool]os.FileMode{true: 0o755, false: 0o644}[d.IsDir()]; err == nil && st.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", path, st.Mode().Perm(), want)
		}
		return err
	}))
}
