package verify

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/verdict"
)

// TestImage_stored judges what podman itself has stored: with signatures, and without.
func TestImage_stored(t *testing.T) {
	podman, err := exec.LookPath("podman")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("needs podman and root")
	}
	w := newWorld(t)
	signed, bare := w.push("team/app", "v1"), w.push("team/bare", "v1")
	w.sign(w.key, "team/app", signed, w.ref("team/app:v1"), 1)
	w.sign(w.key, "team/bare", bare, w.ref("team/bare:v1"), 1)
	root := t.TempDir()
	graph := filepath.Join(root, "var/lib/containers/storage")
	check(t, os.MkdirAll(graph, 0o755))
	host := func(name, content string) {
		t.Helper()
		path := filepath.Join(root, name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, os.WriteFile(path, []byte(content), 0o644))
	}
	host("etc/containers/policy.json", `{"default":[`+signedBy(w.key)+`]}`)
	host("etc/containers/registries.conf", "[[registry]]\nlocation = \""+w.registry.Host+"\"\ninsecure = true\n")
	short, err := os.MkdirTemp("", "p") // podman takes a runroot of at most 50 bytes
	check(t, err)
	defer os.RemoveAll(short)
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(podman, append([]string{
			"--root", graph, "--runroot", filepath.Join(short, "run"), "--tmpdir",
			filepath.Join(short, "tmp"), "--storage-driver", "vfs",
		}, args...)...)
		// registries.d of the user replaces that of the machine for podman 4.
		cmd.Env = append(os.Environ(), "HOME="+w.dir,
			"CONTAINERS_REGISTRIES_CONF="+filepath.Join(root, "etc/containers/registries.conf"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("podman %s: %v %s", strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(string(out))
	}
	w.write(".config/containers/registries.d/lab.yaml",
		"docker:\n  "+w.registry.Host+":\n    lookaside: "+w.lookaside.URL()+"\n")
	run("pull", "--quiet", "--signature-policy", filepath.Join(root, "etc/containers/policy.json"), w.ref("team/app:v1"))
	// Pulled when nobody asked for signatures, and no lookaside was configured.
	w.write(".config/containers/registries.d/lab.yaml", "docker: {}\n")
	run("pull", "--quiet", "--signature-policy", w.write("accept.json", `{"default":[{"type":"insecureAcceptAnything"}]}`),
		w.ref("team/bare:v1"))
	id := strings.TrimPrefix(run("image", "inspect", "--format", "{{.Id}}", w.ref("team/app:v1")), "sha256:")

	open := func() *Policy {
		t.Helper()
		p, err := Open(Source{Root: root}, Env{})
		check(t, err)
		t.Cleanup(func() { p.Close() })
		return p
	}
	p := open()
	v := w.judge(p, "containers-storage:"+w.ref("team/app:v1"))
	w.want(v, verdict.Accept, "")
	if v.Judged != "containers-storage:@"+id || v.Digest != signed ||
		v.Image != "containers-storage:"+w.ref("team/app:v1") {
		t.Errorf("%+v", v)
	}
	if s := v.Requirements[0].Signatures[0]; s.Source != "containers-storage:@"+id+" signature-1" {
		t.Error(s.Source)
	}
	for _, name := range []string{id, "@" + id, id[:12]} {
		w.want(w.judge(p, "containers-storage:"+name), verdict.Accept, "")
	}
	w.want(w.judgeAs(p, "containers-storage:"+id, w.ref("team/else:v1")), verdict.Refuse,
		verdict.WrongIdentity)
	// Without stored signatures: by digest, as the registry has it now.
	v = w.judge(p, "containers-storage:"+w.ref("team/bare:v1"))
	w.want(v, verdict.Refuse, verdict.NoSignature)
	if v.Judged != "docker://"+w.ref("team/bare@"+bare) || v.Cause != verdict.NoLookaside {
		t.Errorf("%+v", v)
	}
	host("etc/containers/registries.d/lab.yaml", "docker:\n  "+w.registry.Host+":\n    lookaside: "+w.lookaside.URL()+"\n")
	w.want(w.judge(open(), "containers-storage:"+w.ref("team/bare:v1")), verdict.Accept, "")

	w.want(w.judge(p, "containers-storage:"+w.ref("team/none:v1")), verdict.Unknown, verdict.ImageNotFound)
	w.want(w.judge(p, "containers-storage:123456789012"), verdict.Unknown, verdict.ImageNotFound)

	// A storage that isn't one, or is damaged.
	files := filepath.Join(graph, "vfs-images", id)
	for _, step := range []struct {
		name  string
		spoil func()
	}{
		{"signatures cut off", func() { check(t, os.Truncate(filepath.Join(files, "signatures"), 10)) }},
		{"no manifest", func() { check(t, os.Remove(filepath.Join(files, "manifest"))) }},
		{"a pipe", func() { check(t, exec.Command("mkfifo", filepath.Join(files, "manifest")).Run()) }},
		{"an ID that leads elsewhere", func() {
			check(t, os.WriteFile(filepath.Join(graph, "vfs-images/images.json"),
				[]byte(`[{"id":"../../../etc","names":["`+w.ref("team/app:v1")+`"]}]`), 0o600))
		}},
		{"no storage", func() { check(t, os.RemoveAll(filepath.Join(root, "var/lib/containers"))) }},
	} {
		step.spoil()
		if v := w.judge(p, "containers-storage:"+w.ref("team/app:v1")); v.Answer != verdict.Unknown ||
			v.Reason != verdict.ImageNotFound && v.Reason != verdict.RegistryUnreachable {
			t.Errorf("%s: %+v", step.name, v)
		}
	}
}
