package e2e

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/verdict"
)

// TestStored: what CRI-O has stored is judged there, with nobody asked, if it was stored with signatures; else by its
// digest in the registry; and the answer says which.
func TestStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.installKey()
	w.write("etc/containers/policy.json", []byte(acceptAnything))
	must(t, w.node.StartCRIO(""))
	w.write("etc/containers/storage.conf", []byte("[storage]\ndriver = \"vfs\"\ngraphroot = \""+
		filepath.Join(filepath.Dir(w.node.Root), "crio/root")+"\"\n"))

	// Before anything is enforced: without signatures.
	must(t, w.node.Pull(w.unsigned, ""))
	must(t, w.node.Pull(w.wrongKey, ""))
	w.write("trust.yaml", []byte(w.trustYAML()))
	if r := program(t, w.dir, theLab.Programs.Nodetrust, "render", "--to", "files", "-o", w.node.Root,
		w.node.Path("trust.yaml")); r.code != 0 {
		t.Fatalf("render: %v", r)
	}
	index, instances, err := w.store.Registry.PushIndex("team/multi", "v1", "multi", "amd64", "arm64")
	must(t, err)
	multi := w.store.Registry.Host + "/team/multi:v1"
	for _, d := range instances {
		sig, err := corp.Sign(d, multi)
		must(t, err)
		must(t, w.store.Lookaside.Put("team/multi", d, 1, sig))
	}
	multiByDigest := w.store.Registry.Host + "/team/multi@" + index
	for _, image := range []string{w.signed, multi, multiByDigest} {
		must(t, w.node.Pull(image, ""))
	}
	judge := func(image string) (v verdict.Verdict, code int) {
		t.Helper()
		cmd := w.node.Command(t.Context(), theLab.Programs.Nodetrust, "verify", "-o", "json", "containers-storage:"+image)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		_ = cmd.Run()
		if err := json.Unmarshal(stdout.Bytes(), &v); err != nil {
			t.Fatalf("%s: %v: %s%s", image, err, &stdout, &stderr)
		}
		return v, cmd.ProcessState.ExitCode()
	}
	for _, tt := range []struct {
		name, image, judged string
		code                int
		reason              verdict.Reason
	}{
		{"signed", w.signed, "containers-storage:@", 0, ""},
		{"multi-arch", multi, "containers-storage:@", 0, ""},
		// What is stored is the instance, which doesn't prove that it is of this index.
		{"multi-arch by digest", multiByDigest, "docker://" + w.store.Registry.Host + "/team/multi@" + instances[0], 0, ""},
		{"unsigned", w.unsigned, "docker://" + w.store.Registry.Host + "/team/unsigned@sha256:", 3, verdict.NoSignature},
		{
			"signed by a stranger", w.wrongKey, "docker://" + w.store.Registry.Host + "/team/wrongkey@sha256:", 3,
			verdict.WrongKey,
		},
		{"not there", w.canaryTag, "", 4, verdict.ImageNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if v, code := judge(tt.image); code != tt.code || v.Reason != tt.reason || !strings.HasPrefix(v.Judged, tt.judged) ||
				(v.Judged == "") != (tt.judged == "") {
				t.Errorf("exit status %d, judged %q: %+v", code, v.Judged, v)
			}
		})
	}
	w.store.Registry.Stop()
	w.store.Lookaside.Stop()
	for image, want := range map[string]int{w.signed: 0, multi: 0, w.unsigned: 4} {
		if v, code := judge(image); code != want {
			t.Errorf("%s, with nobody to ask: exit status %d, want %d: %+v", image, code, want, v)
		}
	}
}
