package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// forge serves an attacker's manifest wherever the image ref (REPO:v1, with this digest) is asked for. Its own
// signature's payload is the honest manifest; its layer is another image's, which the registry has.
func (w *reasonWorld) forge(shape fixture.Shape, contentType, digest string) (body []byte) {
	w.Helper()
	must(w.T, w.unforged(func() error { _, err := w.store.Registry.Push(w.repo(), "evil", "evil"); return err }))
	evil, err := fixture.Image("evil", "amd64")
	must(w.T, err)
	m, err := evil.Manifest()
	must(w.T, err)
	layers := make([]fixture.Blob, len(m.Layers))
	for i, l := range m.Layers {
		layers[i] = fixture.Blob{MediaType: string(l.MediaType), Digest: l.Digest.String(), Size: l.Size}
	}
	honest := w.get("/v2/" + w.repo() + "/manifests/" + digest)
	body, err = fixture.Forge(honest, fixture.Forgery{
		Shape: shape, Name: w.repo(), Tag: "v1", Layers: layers,
		Config: fixture.Blob{MediaType: string(m.Config.MediaType), Digest: m.Config.Digest.String(), Size: m.Config.Size},
	})
	must(w.T, err)
	w.store.Registry.Fault(func(rw http.ResponseWriter, r *http.Request) {
		at, ok := strings.CutPrefix(r.URL.Path, "/v2/"+w.repo()+"/manifests/")
		if !ok || at != "v1" && at != digest {
			w.store.Registry.Serve(rw, r)
			return
		}
		rw.Header()["Content-Type"] = nil
		if contentType != "" {
			rw.Header().Set("Content-Type", contentType)
		}
		_, _ = rw.Write(body)
	})
	return body
}

func (w *reasonWorld) unforged(f func() error) error {
	w.store.Registry.Fault(nil)
	return f()
}

func (w *reasonWorld) get(path string) []byte {
	w.Helper()
	r, err := http.Get("http://" + w.store.Registry.Host + path)
	must(w.T, err)
	defer r.Body.Close()
	b := make([]byte, 0, 4096)
	buf := make([]byte, 4096)
	for {
		n, err := r.Body.Read(buf)
		b = append(b, buf[:n]...)
		if err != nil {
			return b
		}
	}
}

// TestForged: every command that judges images refuses the forged manifest, by tag and by digest. What the attack is
// worth is seen by a runtime's tool of before it was known: where Debian's skopeo 1.9.3 is installed, it pulls the
// attacker's layer.
func TestForged(t *testing.T) {
	t.Parallel()
	w := newReasonWorld(t)
	for i, f := range []struct {
		shape       fixture.Shape
		contentType string
	}{
		{fixture.Schema1, "application/vnd.docker.distribution.manifest.v1+prettyjws"},
		{fixture.Schema1, "application/vnd.docker.distribution.manifest.v1+json"},
		{fixture.Schema1, ""},
		{fixture.OCIImage, "application/vnd.oci.image.manifest.v1+json"},
		{fixture.Schema2, "application/vnd.docker.distribution.manifest.v2+json"},
	} {
		t.Run(fmt.Sprintf("%s as %q", f.shape, f.contentType), func(t *testing.T) {
			sub := *w
			sub.T, sub.dir = t, filepath.Join(w.dir, fmt.Sprintf("forged%d", i))
			must(t, os.MkdirAll(sub.dir, 0o755))
			defer w.store.Registry.Fault(nil)
			ref, digest := sub.image()
			sig, err := corp.Sign(digest, ref)
			must(t, err)
			must(t, sub.store.Lookaside.Put(sub.repo(), digest, 1, sig))
			byDigest := strings.TrimSuffix(ref, ":v1") + "@" + digest
			policy := sub.verify(ref, requirement(corp))
			policy = policy[1 : len(policy)-1] // without command and image

			sub.refuses(policy, ref, byDigest, true)
			body := sub.forge(f.shape, f.contentType, digest)
			sub.refuses(policy, ref, byDigest, false)
			sub.fooled(policy, ref, body)
			sub.fooled(policy, byDigest, body)
		})
	}
}

// refuses has every command judge the image, which is honest or not.
func (w *reasonWorld) refuses(policy []string, ref, byDigest string, honest bool) {
	w.Helper()
	code := 3
	if honest {
		code = 0
	}
	for _, image := range []string{ref, byDigest} {
		list := w.write("images.txt", image+"\n")
		common := append([]string{"-o", "json"}, policy...)
		for _, args := range [][]string{
			{"verify", image},
			{"explain", image},
			{"audit", "--no-cache", "--images-from", list},
			{"signatures", "bundle", "--to", filepath.Join(w.T.TempDir(), "bundle"), image},
		} {
			r := program(w.T, w.dir, theLab.Programs.Nodetrust, append(args, common...)...)
			want, reason := code, verdict.ManifestForged
			if args[0] == "signatures" && !honest { // it reads images for their signatures, and can't read this one
				want, reason = 4, verdict.ManifestUnreadable
			}
			if _, found := findReason(r.stdout, reason, ""); r.code != want || found == honest {
				w.Errorf("nodetrust %s: honest %v: %v", strings.Join(args, " "), honest, r)
			}
		}
	}
	canaries := w.write("canaries.json", fmt.Sprintf(`[{"image":%q,"expect":"accept"}]`, byDigest))
	r := program(w.T, w.dir, theLab.Programs.Nodetrust,
		append([]string{"probe", "-o", "json", "--runtime", "verify", "--canaries", canaries}, policy...)...)
	var out struct {
		Canaries []struct {
			Verdict verdict.Answer `json:"verdict"`
			Reason  verdict.Reason `json:"reason"`
		} `json:"canaries"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &out); err != nil || len(out.Canaries) != 1 {
		w.Fatalf("nodetrust probe: %v: %v", err, r)
	}
	if c := out.Canaries[0]; honest != (c.Verdict == verdict.Accept) || honest == (c.Reason == verdict.ManifestForged) {
		w.Errorf("nodetrust probe: honest %v: %v", honest, r)
	}
}

// fooled fails unless skopeo 1.9.3 pulls what is forged: else it would not be the attack.
func (w *reasonWorld) fooled(policy []string, ref string, body []byte) {
	w.Helper()
	version, err := exec.Command("skopeo", "--version").Output()
	if err != nil || !strings.Contains(string(version), " 1.9.3") {
		w.Logf("no skopeo 1.9.3, which is known to be fooled: %s %v", version, err)
		return
	}
	dir := filepath.Join(w.T.TempDir(), "pulled")
	cmd := exec.Command("skopeo", "--policy", policy[1], "--registries.d", policy[3], "copy", "--src-tls-verify=false",
		"docker://"+ref, "dir:"+dir)
	out, err := cmd.CombinedOutput()
	pulled, readErr := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil || readErr != nil || string(pulled) != string(body) {
		w.Errorf("skopeo 1.9.3 is not fooled by %s: %v %v\n%s", ref, err, readErr, out)
	}
}
