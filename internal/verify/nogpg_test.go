package verify

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/fixture"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// TestImage_withoutGPG: where gpg can't be found, message and hint say so. The child is this test program.
func TestImage_withoutGPG(t *testing.T) {
	if image := os.Getenv("NODETRUST_TEST_WITHOUT_GPG"); image != "" {
		p, err := openFiles(os.Getenv("NODETRUST_TEST_POLICY"), nil, Source{})
		check(t, err)
		defer p.Close()
		v, err := judgeImage(t.Context(), image, "quay.io/corp/app:v1", p, Options{})
		check(t, err)
		check(t, json.NewEncoder(os.Stdout).Encode(v))
		return
	}
	if pure {
		t.Skip("the pure-Go mechanism needs no program")
	}
	w := newWorld(t)
	manifest := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}`
	w.write("image/version", "Directory Transport Version: 1.1\n")
	w.write("image/manifest.json", manifest)
	sig, err := w.key.SignBytes(fixture.Payload("sha256:"+strings.Repeat("0", 64), "quay.io/corp/app:v1"))
	check(t, err)
	w.write("image/signature-1", string(sig))
	cmd := exec.Command(os.Args[0], "-test.run=^TestImage_withoutGPG$")
	cmd.Env = append(os.Environ(), "PATH="+t.TempDir(), "NODETRUST_TEST_WITHOUT_GPG=dir:"+w.path("image"),
		"NODETRUST_TEST_POLICY="+w.write("policy.json", `{"default":[`+signedBy(w.key)+`]}`))
	out, err := cmd.Output()
	check(t, err)
	line, _, _ := strings.Cut(string(out), "\n")
	var v verdict.Verdict
	if err := json.Unmarshal([]byte(line), &v); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.want(v, verdict.Unknown, verdict.MechanismCannotTell)
	if !strings.HasSuffix(v.Message, "there is no program gpg in $PATH") || !strings.Contains(v.Hint, "install gpg") {
		t.Errorf("message %q, hint %q", v.Message, v.Hint)
	}
}
