package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/fixture"
)

// TestNode shows that the lab's runtimes judge by the scratch host root, without any program of nodetrust.
func TestNode(t *testing.T) {
	if reason := Unfit(); reason != "" {
		if os.Getenv("NODETRUST_E2E") == "all" {
			t.Fatal(reason)
		}
		t.Skip(reason)
	}
	l := &Lab{Dir: t.TempDir(), start: newStarter()}
	defer l.Close()
	gpg, err := fixture.NewGPG()
	must(t, err)
	defer gpg.Close()
	key, err := gpg.NewKey("signer", fixture.KeyOptions{Algo: "rsa2048"})
	must(t, err)
	reg, err := fixture.NewRegistry("127.0.0.1:0")
	must(t, err)
	defer reg.Stop()
	look, err := fixture.NewLookaside("127.0.0.1:0", t.TempDir())
	must(t, err)
	defer look.Stop()
	signed, err := reg.Push("team/signed", "v1", "signed")
	must(t, err)
	_, err = reg.Push("team/unsigned", "v1", "unsigned")
	must(t, err)
	sig, err := key.Sign(signed, reg.Host+"/team/signed:v1")
	must(t, err)
	must(t, look.Put("team/signed", signed, 1, sig))

	n, err := l.NewNode(reg.Host)
	must(t, err)
	closed := false
	defer func() {
		if !closed {
			must(t, n.Close())
		}
	}()
	must(t, os.WriteFile(n.Path("etc/pki/rpm-gpg/KEY"), key.Armored, 0o644))
	must(t, os.WriteFile(n.Path("etc/containers/policy.json"), []byte(
		`{"default":[{"type":"reject"}],"transports":{"docker":{"`+reg.Host+
			`/team":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/etc/pki/rpm-gpg/KEY"}]}}}`), 0o644))
	must(t, os.WriteFile(n.Path("etc/containers/registries.d/lab.yaml"),
		fmt.Appendf(nil, "docker:\n  %s:\n    lookaside: %s\n", reg.Host, look.URL()), 0o644))
	must(t, n.StartCRIO(""))

	good, bad := reg.Host+"/team/signed:v1", reg.Host+"/team/unsigned:v1"
	if err := n.Pull(good, ""); err != nil {
		t.Errorf("CRI-O: signed image: %v", err)
	}
	if err := n.Pull(bad, ""); err == nil || !strings.Contains(err.Error(), "SignatureValidationFailed") {
		t.Errorf("CRI-O: unsigned image: got %v, want SignatureValidationFailed", err)
	}
	if out, err := n.Podman("pull", "-q", good); err != nil {
		t.Errorf("podman: signed image: %v\n%s", err, out)
	}
	if out, err := n.Podman("pull", "-q", bad); err == nil || !strings.Contains(out, "A signature was required") {
		t.Errorf("podman: unsigned image: got %v\n%s", err, out)
	}
	images, err := n.Images()
	must(t, err)
	if len(images) != 2 || images[0] != good {
		t.Errorf("images: got %q, want the signed one by tag and digest", images)
	}
	if out, err := n.Command(context.Background(), "sh", "-c",
		"touch /etc/x 2>&1; ls -ld /etc/containers/policy.json").CombinedOutput(); !bytes.Contains(out, []byte("Read-only")) {
		t.Errorf("the node's /etc can be written: %s %v", out, err)
	}

	// What a pull has started may still be ending.
	must(t, Poll(Patience, func() error {
		procs, err := n.Processes()
		if err == nil && (len(procs) != 1 || !strings.Contains(procs[0].Command, "crio")) {
			err = fmt.Errorf("processes: got %v, want CRI-O alone", procs)
		}
		return err
	}))
	must(t, n.Close())
	closed = true
	if left, err := n.Processes(); err == nil && len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
