package trust_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify"
)

// world is a registry with images, a lookaside with their GPG signatures, and the keys.
//
//	team/a       signed by gpg a, cosign a
//	team/b       signed by gpg b, cosign b
//	team/both    signed by both of each
//	team/none    not signed
//	team/latest  signed by all, as team/latest:stable
//	team/moved   signed by all, as build.example.com/src/moved:v1
//	copy/app     signed by all, as logical.example.com/team/app:v1
type world struct {
	*testing.T
	dir       string
	registry  *fixture.Registry
	lookaside *fixture.Lookaside
	gpg       map[string]*fixture.Key
	cosign    map[string]*fixture.CosignKey
	digests   map[string]string
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newWorld(t *testing.T) *world {
	verify.TakeEnv()
	w := &world{
		T: t, dir: t.TempDir(), gpg: map[string]*fixture.Key{}, cosign: map[string]*fixture.CosignKey{},
		digests: map[string]string{},
	}
	home := must[*fixture.GPG](t)(fixture.NewGPG())
	t.Cleanup(home.Close)
	for _, name := range []string{"a", "b"} {
		w.gpg[name] = must[*fixture.Key](t)(home.NewKey("signer "+name, fixture.KeyOptions{}))
		w.cosign[name] = must[*fixture.CosignKey](t)(fixture.NewCosignKey())
		w.write("gpg-"+name+".asc", string(w.gpg[name].Armored))
		w.write("cosign-"+name+".pub", string(w.cosign[name].PEM))
	}
	w.registry = must[*fixture.Registry](t)(fixture.NewRegistry("127.0.0.1:0"))
	t.Cleanup(w.registry.Stop)
	w.lookaside = must[*fixture.Lookaside](t)(fixture.NewLookaside("127.0.0.1:0", t.TempDir()))
	t.Cleanup(w.lookaside.Stop)
	host := w.registry.Host
	w.image("team/a", host+"/team/a:v1", "a")
	w.image("team/b", host+"/team/b:v1", "b")
	w.image("team/both", host+"/team/both:v1", "a", "b")
	w.image("team/none", "")
	w.image("team/latest", host+"/team/latest:stable", "a", "b")
	w.image("team/moved", "build.example.com/src/moved:v1", "a", "b")
	w.image("copy/app", "logical.example.com/team/app:v1", "a", "b")
	return w
}

func (w *world) write(name, text string) string {
	p := filepath.Join(w.dir, name)
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		w.Fatal(err)
	}
	return p
}

// image pushes repo:v1 with signatures that carry the identity.
func (w *world) image(repo, identity string, keys ...string) {
	d := must[string](w.T)(w.registry.Push(repo, "v1", repo))
	w.digests[repo] = d
	var cosign []*fixture.CosignKey
	for i, name := range keys {
		sig := must[[]byte](w.T)(w.gpg[name].Sign(d, identity))
		if err := w.lookaside.Put(repo, d, i+1, sig); err != nil {
			w.Fatal(err)
		}
		cosign = append(cosign, w.cosign[name])
	}
	if len(cosign) > 0 {
		if err := w.registry.Attach(repo, d, identity, cosign...); err != nil {
			w.Fatal(err)
		}
	}
}

// config is a trust.yaml with the keys and these fields of spec. HOST and LOOKASIDE stand for the servers.
func (w *world) config(spec string) string {
	s := "apiVersion: nodetrust.io/v1alpha1\nkind: TrustConfig\nmetadata: {name: t}\nspec:\n  keys:\n"
	for _, name := range []string{"a", "b"} {
		s += fmt.Sprintf("  - {name: gpg-%[1]s, file: gpg-%[1]s.asc}\n  - {name: cosign-%[1]s, file: cosign-%[1]s.pub}\n",
			name)
		s += fmt.Sprintf("  - {name: gpg-%[1]s-path, path: /keys/gpg-%[1]s}\n  - {name: cosign-%[1]s-path, path: /keys/cosign-%[1]s}\n", name)
	}
	return s + strings.NewReplacer("HOST", w.registry.Host, "LOOKASIDE", w.lookaside.URL(), "DIGEST",
		w.digests["team/a"]).Replace(spec)
}

// open renders a config, and has verify take it as a node would that pulls from mirrors too.
func (w *world) open(t *testing.T, config string) *verify.Policy {
	t.Helper()
	p := must[*verify.Policy](t)(verify.Open(w.render(t, config, "containers-image-5.42.1"), verify.Env{}))
	t.Cleanup(func() { p.Close() })
	return p
}

// render returns the files, with the keys that they name by path and with a registries.conf.
func (w *world) render(t *testing.T, config, reader string) verify.Source {
	t.Helper()
	c := must[*trust.Config](t)(trust.Parse("trust.yaml", []byte(config),
		func(p string) ([]byte, error) { return os.ReadFile(filepath.Join(w.dir, p)) }))
	files := must[trust.FileSet](t)(c.Files([]trust.Reader{must[trust.Reader](t)(trust.LookupReader(reader))}))
	s := verify.Source{Files: files, Keys: map[string]string{}, RegistriesConf: w.write("registries.conf",
		"[[registry]]\nlocation = \"logical.example.com/team\"\n[[registry.mirror]]\nlocation = \""+w.registry.Host+
			"/copy\"\ninsecure = true\n")}
	for _, name := range []string{"a", "b"} {
		s.Keys["/keys/gpg-"+name] = filepath.Join(w.dir, "gpg-"+name+".asc")
		s.Keys["/keys/cosign-"+name] = filepath.Join(w.dir, "cosign-"+name+".pub")
	}
	return s
}

// verifiedRow is a trust config, and the images of a world that it accepts; it refuses the others.
type verifiedRow struct{ name, spec, accepted string }

func (row verifiedRow) want(image string) verdict.Answer {
	if slices.Contains(strings.Fields(row.accepted), image) {
		return verdict.Accept
	}
	return verdict.Refuse
}

// verifiedRows are all that policy.json and registries.d can say, as far as it can be judged without Fulcio, Rekor
// and certificates.
func verifiedRows() []verifiedRow {
	reg := func(scope, rest string) string {
		return "  default: reject\n  registries:\n  - scope: " + scope +
			"\n    lookaside: LOOKASIDE\n    attachments: true\n" + rest
	}
	team := func(require string) string { return reg("HOST/team", "    require: "+require+"\n") }
	identity := func(require, id string) string { return team("[{" + require + ", identity: " + id + "}]") }
	const gpgA, cosignA = "signedBy: [gpg-a]", "sigstore: {keys: [cosign-a]}"
	rows := []verifiedRow{
		{"accept", team("accept"), "team/a team/b team/both team/none team/latest team/moved"},
		{"reject", team("reject"), ""},
		{"default reject", reg("HOST/team/a", "    require: accept\n"), "team/a"},
		{"default accept", strings.Replace(reg("HOST/team/a", "    require: reject\n"), "default: reject", "default: accept",
			1), "team/b team/both team/none team/latest team/moved copy/app logical"},
		{"keyData", team("[{signedBy: [gpg-a]}]"), "team/a team/both"},
		{"keyData, any of", team("[{signedBy: [gpg-a, gpg-b]}]"), "team/a team/b team/both"},
		{"keyPath", team("[{signedBy: [gpg-b-path]}]"), "team/b team/both"},
		{"keyPaths", team("[{signedBy: [gpg-a-path, gpg-b-path]}]"), "team/a team/b team/both"},
		{"several signers", team("[{signedBy: [gpg-a]}, {signedBy: [gpg-b-path]}]"), "team/both"},
		{"sigstore keyData", team("[{sigstore: {keys: [cosign-a]}}]"), "team/a team/both"},
		{"sigstore keyDatas", team("[{sigstore: {keys: [cosign-a, cosign-b]}}]"), "team/a team/b team/both"},
		{"sigstore keyPath", team("[{sigstore: {keys: [cosign-b-path]}}]"), "team/b team/both"},
		{"sigstore keyPaths", team("[{sigstore: {keys: [cosign-a-path, cosign-b-path]}}]"), "team/a team/b team/both"},
		{"sigstore, several signers", team("[{sigstore: {keys: [cosign-a]}}, {sigstore: {keys: [cosign-b]}}]"), "team/both"},
		{"GPG and sigstore", team("[{signedBy: [gpg-a]}, {sigstore: {keys: [cosign-b]}}]"), "team/both"},
		{"one image", reg("HOST/team/a@DIGEST", "    require: [{signedBy: [gpg-a]}]\n"), "team/a@"},
		{"one tag", reg("HOST/team/a:v1", "    require: [{signedBy: [gpg-a]}]\n"), "team/a"},
		{"wildcard", reg("'*.0.0.1'", "    require: [{signedBy: [gpg-a]}]\n"), "team/a team/a@ team/both"},
		{"most specific", team("reject") + "  - scope: HOST/team/a\n    require: [{signedBy: [gpg-a]}]\n", "team/a"},
		{"lookaside elsewhere", team("[{signedBy: [gpg-a]}]") +
			"  - scope: HOST/team/both\n    require: [{signedBy: [gpg-a]}]\n    lookaside: LOOKASIDE/elsewhere\n", "team/a"},
		{"attachments off below", team("[{sigstore: {keys: [cosign-a]}}]") +
			"  - scope: HOST/team/both\n    require: accept\n    attachments: false\n", "team/a team/both"},
		{
			"canary", team("[{signedBy: [gpg-a]}]") + "  canaries:\n  - {image: 'HOST/team/a@DIGEST', expect: refuse}\n",
			"team/a team/both",
		},
		{"mirror", reg("logical.example.com/team", "    require: [{signedBy: [gpg-a]}]\n    mirrors:\n    - {location: HOST/copy, lookaside: LOOKASIDE}\n"), "logical"},
		{"mirror, attachments", reg("logical.example.com/team",
			"    require: [{sigstore: {keys: [cosign-a]}, identity: matchRepository}]\n    mirrors:\n    - {location: HOST/copy}\n"), "logical"},
		{"mirror without signatures", reg("logical.example.com/team",
			"    require: [{signedBy: [gpg-a]}]\n    mirrors:\n    - {location: HOST/copy, lookaside: LOOKASIDE/none}\n"), ""},
		{"mirror pulled by its own name", reg("HOST/copy",
			"    require: [{signedBy: [gpg-a], identity: {type: remapIdentity, prefix: HOST/copy, signedPrefix: logical.example.com/team}}]\n"), "copy/app"},
	}
	for _, by := range []string{gpgA, cosignA} {
		name, _, _ := strings.Cut(by, ":")
		// Signatures of cosign carry a tag here too: the library compares them alike.
		rows = append(rows,
			verifiedRow{name + " default identity", team("[{" + by + "}]"), "team/a team/both"},
			verifiedRow{name + " matchRepoDigestOrExact", identity(by, "matchRepoDigestOrExact"), "team/a team/both"},
			verifiedRow{name + " matchExact", identity(by, "matchExact"), "team/a team/both"},
			verifiedRow{name + " matchRepository", identity(by, "matchRepository"), "team/a team/both team/latest"},
			verifiedRow{name + " exactReference", identity(by,
				"{type: exactReference, dockerReference: 'HOST/team/latest:stable'}"), "team/latest"},
			verifiedRow{name + " exactRepository", identity(by,
				"{type: exactRepository, dockerRepository: build.example.com/src/moved}"), "team/moved"},
			verifiedRow{name + " remapIdentity", identity(by,
				"{type: remapIdentity, prefix: HOST/team, signedPrefix: build.example.com/src}"), "team/moved"})
	}
	return rows
}

// references are the names under which the images of the world are pulled.
func (w *world) references() map[string]string {
	out := map[string]string{
		"logical": "logical.example.com/team/app:v1",
		"team/a@": w.registry.Host + "/team/a@" + w.digests["team/a"],
	}
	for repo := range w.digests {
		out[repo] = w.registry.Host + "/" + repo + ":v1"
	}
	return out
}

// TestVerified renders each thing, and has real images judged by it.
func TestVerified(t *testing.T) {
	w := newWorld(t)
	for _, tt := range verifiedRows() {
		t.Run(tt.name, func(t *testing.T) {
			p := w.open(t, w.config(tt.spec))
			for name, reference := range w.references() {
				if name == "team/a@" && !strings.Contains(tt.accepted, "@") {
					continue // a digest is another question where identities are asked for: see the rows that name it
				}
				insecure := false
				j := must[*verify.Judge](t)(p.Judge(
					verify.Options{TLSVerify: &insecure, Platform: "linux/amd64", Timeout: time.Minute}))
				v := must[verdict.Verdict](t)(j.Verdict(t.Context(), must[verify.Image](t)(verify.ParseImage(reference))))
				if want := tt.want(name); v.Answer != want {
					t.Errorf("%s: got %s/%s, want %s: %s", name, v.Answer, v.Reason, want, v.Message)
				}
			}
		})
	}
}

// TestVerified_skopeo has Debian's skopeo copy the images by the same rendered files, where they ask for GPG
// signatures only: it is built without sigstore.
func TestVerified_skopeo(t *testing.T) {
	have, err := exec.Command("skopeo", "--version").Output()
	if err != nil || !strings.Contains(string(have), " 1.9.3") {
		t.Skip("skopeo 1.9.3 is not installed")
	}
	w := newWorld(t)
	for _, tt := range verifiedRows() {
		if strings.Contains(tt.spec, "sigstore:") || strings.Contains(tt.spec, "mirrors:") &&
			strings.Contains(tt.name, "attachments") {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			spec := strings.ReplaceAll(strings.ReplaceAll(tt.spec, "    attachments: true\n", ""),
				"    attachments: false\n", "")
			s := w.render(t, w.config(spec), "skopeo-1.9")
			text := ""
			var registries trust.FileSet
			for _, f := range s.Files {
				if f.Path == trust.PolicyPath {
					text = string(f.Data)
				} else {
					registries = append(registries, f)
				}
			}
			for path, file := range s.Keys {
				text = strings.ReplaceAll(text, `"`+path+`"`, `"`+file+`"`)
			}
			dir := t.TempDir()
			for name, data := range map[string]string{"policy.json": text, "registries.d/none": ""} {
				if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			for _, f := range registries {
				if err := os.WriteFile(filepath.Join(dir, "registries.d", filepath.Base(f.Path)), f.Data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			for name, reference := range w.references() {
				if name == "team/a@" && !strings.Contains(tt.accepted, "@") {
					continue
				}
				cmd := exec.CommandContext(t.Context(), "skopeo", "--policy", dir+"/policy.json", "--registries.d",
					dir+"/registries.d", "--registries-conf", s.RegistriesConf, "copy", "--src-tls-verify=false",
					"docker://"+reference, "dir:"+filepath.Join(dir, "out",
						strings.NewReplacer("/", "_", ":", "_", "@", "_").Replace(name)))
				if err := os.MkdirAll(filepath.Join(dir, "out"), 0o755); err != nil {
					t.Fatal(err)
				}
				out, err := cmd.CombinedOutput()
				got := verdict.Accept
				switch {
				case err != nil && strings.Contains(string(out), "Source image rejected"):
					got = verdict.Refuse
				case err != nil:
					t.Fatalf("%s: %s", name, out)
				}
				if want := tt.want(name); got != want {
					t.Errorf("%s: skopeo says %s, want %s: %s", name, got, want, out)
				}
			}
		})
	}
}

// TestLocalTransports: under a default of reject images still go from one local place to another, as image builds,
// podman save and updates of the operating system have them go. Debian's skopeo does it; what comes out of storage is
// what podman save reads.
func TestLocalTransports(t *testing.T) {
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("skopeo is not installed")
	}
	c := must[*trust.Config](t)(trust.Parse("trust.yaml",
		[]byte("apiVersion: nodetrust.io/v1alpha1\nkind: TrustConfig\nmetadata: {name: t}\nspec: {default: reject}\n"), nil))
	files := must[trust.FileSet](t)(c.Files(trust.DefaultReaders()))
	rendered, _ := files.Get(trust.PolicyPath)
	dir := must[string](t)(os.MkdirTemp("", "nt")) // the storage driver takes no long names
	t.Cleanup(func() { os.RemoveAll(dir) })
	img := must[v1.Image](t)(fixture.Image("local", "amd64"))
	path := must[layout.Path](t)(layout.Write(filepath.Join(dir, "oci"), empty.Index))
	if err := path.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	policies := map[string][]byte{"rendered": rendered.Data, "bare": []byte(`{"default":[{"type":"reject"}]}`)}
	for name, data := range policies {
		if err := os.WriteFile(filepath.Join(dir, name+".json"), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	copied := func(t *testing.T, policy, from, to string) error {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "skopeo", "--policy", filepath.Join(dir, policy+".json"), "copy", from,
			to).CombinedOutput()
		if err != nil && !strings.Contains(string(out), "is rejected by policy") {
			t.Fatalf("skopeo copy %s %s: %s", from, to, out)
		}
		return err
	}
	steps := [][2]string{
		{"oci:" + dir + "/oci", "dir:" + dir + "/dir"},
		{"dir:" + dir + "/dir", "docker-archive:" + dir + "/a.tar"},
		{"docker-archive:" + dir + "/a.tar", "oci-archive:" + dir + "/o.tar"},
		{"oci-archive:" + dir + "/o.tar", "dir:" + dir + "/last"},
	}
	if os.Getuid() == 0 {
		storage := "containers-storage:[vfs@" + dir + "/s+" + dir + "/r]localhost/x:1"
		steps = append(steps, [2]string{"dir:" + dir + "/last", storage}, [2]string{storage, "dir:" + dir + "/saved"})
	}
	for _, s := range steps {
		transport, _, _ := strings.Cut(s[0], ":")
		t.Run(transport, func(t *testing.T) {
			if copied(t, "bare", s[0], s[1]+"-bare") == nil {
				t.Errorf("a policy that only rejects lets images out of %s: the test shows nothing", transport)
			}
			if err := copied(t, "rendered", s[0], s[1]); err != nil {
				t.Errorf("the rendered policy refuses images of %s", transport)
			}
		})
	}
}
