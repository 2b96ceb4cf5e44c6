package probe

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/judge"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// world is a registry with images, their signatures, and a home directory with a policy that podman reads.
type world struct {
	registry  *fixture.Registry
	lookaside *fixture.Lookaside
	home      string

	signed, unsigned, foreign, moved, rejected, absent string
}

// expectation is what any runtime must say of an image.
type expectation struct {
	name, image string
	want        verdict.Answer
	reason      verdict.Reason
}

func (w *world) expectations() []expectation {
	return []expectation{
		{"signed", w.signed, verdict.Accept, ""},
		{"unsigned", w.unsigned, verdict.Refuse, verdict.NoSignature},
		{"wrong key", w.foreign, verdict.Refuse, verdict.WrongKey},
		{"wrong identity", w.moved, verdict.Refuse, verdict.WrongIdentity},
		{"rejected", w.rejected, verdict.Refuse, verdict.RejectedByPolicy},
		{"absent", w.absent, verdict.Unknown, verdict.ImageNotFound},
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if testing.Short() {
		t.Skip("makes gpg keys")
	}
	g, err := fixture.NewGPG()
	check(t, err)
	t.Cleanup(g.Close)
	signer, err := g.NewKey("signer", fixture.KeyOptions{})
	check(t, err)
	stranger, err := g.NewKey("stranger", fixture.KeyOptions{})
	check(t, err)
	w := &world{home: t.TempDir()}
	w.registry, err = fixture.NewRegistry("127.0.0.1:0")
	check(t, err)
	t.Cleanup(w.registry.Stop)
	w.lookaside, err = fixture.NewLookaside("127.0.0.1:0", t.TempDir())
	check(t, err)
	t.Cleanup(w.lookaside.Stop)

	push := func(repo string) string {
		d, err := w.registry.Push(repo, "v1", repo)
		check(t, err)
		return d
	}
	sign := func(k *fixture.Key, repo, digest, identity string) {
		sig, err := k.Sign(digest, w.registry.Host+"/"+identity)
		check(t, err)
		check(t, w.lookaside.Put(repo, digest, 1, sig))
	}
	ref := func(repo, digest string) string { return w.registry.Host + "/" + repo + "@" + digest }

	d := push("team/signed")
	sign(signer, "team/signed", d, "team/signed:v1")
	w.signed = ref("team/signed", d)
	w.unsigned = ref("team/unsigned", push("team/unsigned"))
	d = push("team/foreign")
	sign(stranger, "team/foreign", d, "team/foreign:v1")
	w.foreign = ref("team/foreign", d)
	d = push("team/moved")
	sign(signer, "team/moved", d, "team/other:v1")
	w.moved = ref("team/moved", d)
	w.rejected = ref("other/app", push("other/app"))
	w.absent = ref("team/signed", "sha256:"+strings.Repeat("0", 64))

	keyData := base64.StdEncoding.EncodeToString(signer.Binary)
	w.write(t, ".config/containers/policy.json",
		`{"default":[{"type":"reject"}],"transports":{"docker":{"`+w.registry.Host+
			`/team":[{"type":"signedBy","keyType":"GPGKeys","keyData":"`+keyData+`"}]}}}`)
	w.write(t, ".config/containers/registries.d/lab.yaml",
		"docker:\n  "+w.registry.Host+":\n    lookaside: "+w.lookaside.URL()+"\n")
	w.write(t, "registries.conf", "unqualified-search-registries = []\n[[registry]]\nlocation = \""+w.registry.Host+
		"\"\ninsecure = true\n")
	t.Setenv("HOME", w.home)
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("CONTAINERS_REGISTRIES_CONF", filepath.Join(w.home, "registries.conf"))
	return w
}

func (w *world) write(t *testing.T, name, content string) {
	t.Helper()
	path := filepath.Join(w.home, name)
	check(t, os.MkdirAll(filepath.Dir(path), 0o755))
	check(t, os.WriteFile(path, []byte(content), 0o644))
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func needPodman(t *testing.T) {
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skip("podman is not installed")
	}
}

func probePodman(t *testing.T, image string) judge.Canary {
	t.Helper()
	out, err := Run(context.Background(), []trust.Canary{{Image: image, Expect: verdict.Refuse}}, Options{Runtime: Podman})
	check(t, err)
	if len(out) != 1 || out[0].Runtime != Podman || out[0].Image != image {
		t.Fatalf("want one result of podman for %s, got %+v", image, out)
	}
	return out[0]
}

func TestPodman(t *testing.T) {
	needPodman(t)
	w := newWorld(t)
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	for _, tt := range w.expectations() {
		t.Run(tt.name, func(t *testing.T) {
			got := probePodman(t, tt.image)
			if got.Answer != tt.want || got.Reason != tt.reason ||
				got.OK != (tt.want == verdict.Refuse && tt.reason != verdict.RejectedByPolicy) {
				t.Errorf("got %s %s ok=%v (%s), want %s %s", got.Answer, got.Reason, got.OK, got.Message,
					tt.want, tt.reason)
			}
		})
	}
	policy := filepath.Join(w.home, ".config/containers/policy.json")
	good, err := os.ReadFile(policy)
	check(t, err)
	for _, tt := range []struct {
		name   string
		break_ func()
		reason verdict.Reason
	}{
		{"lookaside down", w.lookaside.Stop, verdict.LookasideUnreachable},
		{"key missing", func() {
			check(t, w.lookaside.Start())
			var p map[string]any
			check(t, json.Unmarshal(good, &p))
			req := p["transports"].(map[string]any)["docker"].(map[string]any)[w.registry.Host+
				"/team"].([]any)[0].(map[string]any)
			delete(req, "keyData")
			req["keyPath"] = "/nonexistent/key"
			b, err := json.Marshal(p)
			check(t, err)
			check(t, os.WriteFile(policy, b, 0o644))
		}, verdict.KeyMissing},
		{"policy broken", func() { check(t, os.WriteFile(policy, []byte("{"), 0o644)) }, verdict.PolicyInvalid},
		{"registries.d broken", func() {
			check(t, os.WriteFile(policy, good, 0o644))
			w.write(t, ".config/containers/registries.d/bad.yaml", "docker: [\n")
		}, verdict.RegistriesDInvalid},
		{"registries.d twice", func() {
			w.write(t, ".config/containers/registries.d/bad.yaml", "docker:\n  "+w.registry.Host+": {}\n")
		}, verdict.RegistriesDInvalid},
		{"registry down", func() {
			check(t, os.Remove(filepath.Join(w.home, ".config/containers/registries.d/bad.yaml")))
			w.registry.Stop()
		}, verdict.RegistryUnreachable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.break_()
			if got := probePodman(t, w.signed); got.Answer != verdict.Unknown || got.Reason != tt.reason || got.OK {
				t.Errorf("got %s %s (%s), want unknown %s", got.Answer, got.Reason, got.Message, tt.reason)
			}
		})
	}
	if left, _ := os.ReadDir(tmp); len(left) != 0 {
		t.Errorf("left in TMPDIR: %v", left)
	}
}

// A registry without HTTPS that registries.conf says nothing of is reached only where that was asked for.
func TestPodmanTLS(t *testing.T) {
	needPodman(t)
	w := newWorld(t)
	w.write(t, "registries.conf", "")
	insecure := false
	for _, tt := range []struct {
		name      string
		tlsVerify *bool
		want      verdict.Answer
	}{{"as configured", nil, verdict.Unknown}, {"insecure", &insecure, verdict.Accept}} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := Run(t.Context(), []trust.Canary{{Image: w.signed, Expect: verdict.Accept}},
				Options{Runtime: Podman, TLSVerify: tt.tlsVerify, CertDir: w.home, Platform: "linux/amd64"})
			check(t, err)
			if out[0].Answer != tt.want {
				t.Errorf("got %s %s (%s), want %s", out[0].Answer, out[0].Reason, out[0].Message, tt.want)
			}
		})
	}
}

// A registry that says in its error what podman says of an unsigned image must not pass for a refusal.
func TestPodmanLyingRegistry(t *testing.T) {
	needPodman(t)
	w := newWorld(t)
	w.registry.Fault(lyingRegistry)
	if got := probePodman(t, w.unsigned); got.Answer != verdict.Unknown {
		t.Errorf("got %s %s (%s), want unknown", got.Answer, got.Reason, got.Message)
	}
}

// A registry that never answers costs the deadline, and no process outlives it.
func TestPodmanHangs(t *testing.T) {
	needPodman(t)
	w := newWorld(t)
	asked := make(chan struct{}, 1)
	w.registry.Fault(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case asked <- struct{}{}:
		default:
		}
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-asked
		cancel()
	}()
	out, err := Run(ctx, []trust.Canary{{Image: w.signed, Expect: verdict.Refuse}}, Options{Runtime: Podman})
	check(t, err)
	if out[0].Answer != verdict.Unknown || out[0].Reason != verdict.Timeout {
		t.Errorf("got %+v", out[0])
	}
	if left := running(uint32(os.Geteuid()), func(p string) bool {
		return strings.HasPrefix(p, "podman") &&
			strings.Contains(p, w.signed)
	}); len(left) > 0 {
		t.Errorf("left running: %q", left)
	}
}

// An unprivileged process that may not gain privileges, as the agent starts it, can probe too, and leaves nothing
// behind.
func TestPodmanUnprivileged(t *testing.T) {
	needPodman(t)
	if os.Getenv("NODETRUST_TEST_CHILD") != "" {
		probeAsChild(t)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root to become uid 65532")
	}
	w := newWorld(t)
	dir, err := os.MkdirTemp("", "nt-probe-")
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	check(t, os.CopyFS(filepath.Join(dir, "home"), os.DirFS(w.home)))
	bin := filepath.Join(dir, "probe.test")
	b, err := os.ReadFile("/proc/self/exe")
	check(t, err)
	check(t, os.WriteFile(bin, b, 0o755))
	// As long as the agent's folder for its child may be.
	tmp := filepath.Join(dir, "tmp", "nodetrust-child-1234567-1234567890", "more")
	check(t, os.MkdirAll(tmp, 0o700))
	check(t, filepath.Walk(dir, func(p string, _ os.FileInfo, err error) error {
		return errors.Join(err, os.Chown(p, 65532, 0))
	}))
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("setpriv is not installed")
	}
	cmd := exec.Command(setpriv, "--reuid", "65532", "--regid", "0", "--clear-groups", "--no-new-privs", "--inh-caps=-all",
		bin, "-test.run", "^TestPodmanUnprivileged$", "-test.v")
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(dir, "home"), "TMPDIR=" + tmp,
		"CONTAINERS_REGISTRIES_CONF=" + filepath.Join(dir, "home/registries.conf"),
		"NODETRUST_TEST_CHILD=" + w.signed + " " + w.unsigned,
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Errorf("left in TMPDIR: %v", left)
	}
	if _, err := os.Stat(filepath.Join(dir, "home/.config/cni")); err == nil {
		t.Error("podman wrote into the home directory")
	}
	if left := running(65532, func(p string) bool { return strings.Contains(p, dir) }); len(left) > 0 {
		t.Errorf("left running: %q", left)
	}
}

func probeAsChild(t *testing.T) {
	signed, unsigned, _ := strings.Cut(os.Getenv("NODETRUST_TEST_CHILD"), " ")
	out, err := Run(context.Background(), []trust.Canary{
		{Image: signed, Expect: verdict.Accept},
		{Image: unsigned, Expect: verdict.Refuse},
	}, Options{Runtime: Podman})
	check(t, err)
	for _, c := range out {
		if !c.OK {
			t.Errorf("%s: %s %s: %s", c.Image, c.Answer, c.Reason, c.Message)
		}
	}
}

// running lists those of a user's processes that are meant, as processesOf does. What was killed is given time to go.
func running(uid uint32, is func(string) bool) []string {
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		left := slices.DeleteFunc(processesOf(uid), func(p string) bool { return !is(p) })
		if len(left) == 0 || time.Now().After(end) {
			return left
		}
	}
}

// processesOf lists the command lines and environments of a user's processes.
func processesOf(uid uint32) []string {
	var out []string
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		fi, err := os.Stat(d)
		if err != nil || fi.Sys().(*syscall.Stat_t).Uid != uid {
			continue
		}
		cmdline, _ := os.ReadFile(d + "/cmdline")
		environ, _ := os.ReadFile(d + "/environ")
		out = append(out, strings.ReplaceAll(string(cmdline)+" "+string(environ), "\x00", " "))
	}
	return out
}
