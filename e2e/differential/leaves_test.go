package differential

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/e2e/lab"
	"github.com/nodetrust/nodetrust/internal/fixture"
)

// TestLeavesNothing: after 2,000 verifications, after ^C and after kill -9 there is no gpg-agent, no keyring, and so
// no inotify instance either; what a killed one had, the next one removes.
func TestLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	p, err := lab.BuildPrograms(context.Background(), t.TempDir())
	must(t, err)
	policy, registriesD, refs := manyTags(t, dir, 2000)
	list := filepath.Join(dir, "images.txt")
	must(t, os.WriteFile(list, []byte(strings.Join(refs, "\n")+"\n"), 0o644))
	tmp := filepath.Join(dir, "tmp")
	must(t, os.Mkdir(tmp, 0o700))
	start := func(args ...string) *exec.Cmd {
		t.Helper()
		cmd := exec.Command(p.Nodetrust, append(args, "--policy", policy, "--registries-d", registriesD, "--tls-verify=false",
			"-o", "json")...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + tmp, "LANG=C"}
		cmd.Stdout, cmd.Stderr = &bytes.Buffer{}, &bytes.Buffer{}
		must(t, cmd.Start())
		return cmd
	}
	audit := func() *exec.Cmd { return start("audit", "--no-cache", "--images-from", list) }
	files := func() []string {
		t.Helper()
		left, err := filepath.Glob(filepath.Join(tmp, "*"))
		must(t, err)
		return left
	}
	nothing := func(when string) {
		t.Helper()
		if left := files(); len(left) > 0 {
			t.Errorf("%s %v is left", when, left)
		}
		if left := processesOf(t, tmp); len(left) > 0 {
			t.Errorf("%s %q is left", when, left)
		}
	}

	cmd := audit()
	if err := cmd.Wait(); err != nil || strings.Count(fmt.Sprint(cmd.Stdout), `"verdict": "accept"`) < 2000 {
		t.Fatalf("%v\n%s\n%.2000s", err, cmd.Stderr, cmd.Stdout)
	}
	nothing("after 2,000 verifications")

	cmd = audit()
	keyringIn(t, tmp)
	must(t, cmd.Process.Signal(os.Interrupt))
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 4 {
		t.Errorf("after ^C: exit status %d, want 4\n%s", code, cmd.Stderr)
	}
	nothing("after ^C")

	cmd = audit()
	keyringIn(t, tmp)
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !ws.Signaled() {
		t.Fatalf("it ended by itself: %v", cmd.ProcessState)
	}
	if left := processesOf(t, tmp); len(left) > 0 {
		t.Errorf("after kill -9 %q is left", left)
	}
	if len(files()) == 0 {
		t.Error("after kill -9 there was nothing to remove: this test looks at the wrong thing")
	}
	must(t, start("verify", refs[0]).Wait())
	nothing("after kill -9 and one more verification")
}

// keyringIn waits until a keyring is in use.
func keyringIn(t *testing.T, tmp string) {
	t.Helper()
	must(t, lab.Poll(lab.Patience, func() error {
		if found, _ := filepath.Glob(filepath.Join(tmp, "*/gpg/*/pubring.kbx")); len(found) == 0 {
			return fmt.Errorf("no keyring below %s", tmp)
		}
		return nil
	}))
}

// processesOf names the processes that were started with a temporary directory, or have one below it in their command
// line, after giving them some time to end.
func processesOf(t *testing.T, tmp string) (left []string) {
	t.Helper()
	_ = lab.Poll(time.Minute, func() error {
		left = nil
		procs, err := filepath.Glob("/proc/[0-9]*")
		must(t, err)
		for _, p := range procs {
			env, err := os.ReadFile(filepath.Join(p, "environ"))
			cmdline, _ := os.ReadFile(filepath.Join(p, "cmdline"))
			if err == nil && (bytes.Contains(env, []byte("TMPDIR="+tmp)) || bytes.Contains(cmdline, []byte(tmp+"/"))) {
				left = append(left, string(bytes.ReplaceAll(cmdline, []byte{0}, []byte(" "))))
			}
		}
		if len(left) > 0 {
			return fmt.Errorf("%q", left)
		}
		return nil
	})
	return left
}

// manyTags is a signed image with n tags, and a policy that accepts it under each.
func manyTags(t *testing.T, dir string, n int) (policy, registriesD string, refs []string) {
	t.Helper()
	gpg, err := fixture.NewGPG()
	must(t, err)
	t.Cleanup(gpg.Close)
	key, err := gpg.NewKey("signer", fixture.KeyOptions{Algo: "rsa2048"})
	must(t, err)
	registry, err := fixture.NewRegistry("127.0.0.1:0")
	must(t, err)
	t.Cleanup(registry.Stop)
	lookaside, err := fixture.NewLookaside("127.0.0.1:0", filepath.Join(dir, "lookaside"))
	must(t, err)
	t.Cleanup(lookaside.Stop)
	img, err := fixture.Image("many", "amd64")
	must(t, err)
	digest, err := registry.PushImage("team/app", "v1", img)
	must(t, err)
	raw, err := img.RawManifest()
	must(t, err)
	mediaType, err := img.MediaType()
	must(t, err)
	for i := range n {
		tag := fmt.Sprintf("v%d", i)
		req, err := http.NewRequest(http.MethodPut, "http://"+registry.Host+"/v2/team/app/manifests/"+tag,
			bytes.NewReader(raw))
		must(t, err)
		req.Header.Set("Content-Type", string(mediaType))
		res, err := http.DefaultClient.Do(req)
		must(t, err)
		res.Body.Close()
		if res.StatusCode != http.StatusCreated {
			t.Fatalf("pushing %s: %s", tag, res.Status)
		}
		refs = append(refs, registry.Host+"/team/app:"+tag)
	}
	sig, err := key.Sign(digest, registry.Host+"/team/app:v1")
	must(t, err)
	must(t, lookaside.Put("team/app", digest, 1, sig))
	policy, registriesD = filepath.Join(dir, "policy.json"), filepath.Join(dir, "registries.d")
	must(t, os.WriteFile(policy, fmt.Appendf(nil,
		`{"default":[{"type":"signedBy","keyType":"GPGKeys","keyData":%q,"signedIdentity":{"type":"matchRepository"}}]}`,
		base64.StdEncoding.EncodeToString(key.Binary)), 0o644))
	must(t, os.Mkdir(registriesD, 0o755))
	must(t, os.WriteFile(filepath.Join(registriesD, "lab.yaml"),
		fmt.Appendf(nil, "docker:\n  %s:\n    lookaside: %s\n", registry.Host, lookaside.URL()), 0o644))
	return policy, registriesD, refs
}
