package desired

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/internal/trust"
)

const policy = `{"path":"/etc/containers/policy.json","mode":420,"overwrite":true,"contents":{"source":"data:,%7B%7D"}}`

// ign is an Ignition config with policy.json and the given JSON of more files.
func ign(more ...string) string {
	return `{"ignition":{"version":"3.4.0"},"storage":{"files":[` + strings.Join(append([]string{policy}, more...),
		",") + `]}}`
}

func mc(metadata, spec string) string {
	return `{"apiVersion":"machineconfiguration.openshift.io/v1","kind":"MachineConfig","metadata":{` + metadata +
		`},"spec":{"config":` + ign() + spec + `}}`
}

func TestParse(t *testing.T) {
	for _, version := range []string{"3.0.0", "3.1.0", "3.2.0", "3.3.0", "3.4.0", "3.5.0", "3.6.0"} {
		s, err := Parse([]byte(strings.Replace(ign(), "3.4.0", version, 1)))
		if err != nil {
			t.Errorf("%s: %v", version, err)
			continue
		}
		if f, ok := s.Files.Get(trust.PolicyPath); !ok || string(f.Data) != "{}" || f.Mode != 0o644 {
			t.Errorf("%s: got %+v", version, s.Files)
		}
	}
}

func TestParse_machineConfig(t *testing.T) {
	text := mc(`"name":"99-x","uid":"1","labels":{"machineconfiguration.openshift.io/role":"worker"},"annotations":{"nodetrust.io/canaries":"[{\"image\":\"a.b/c@sha256:`+strings.Repeat("0", 64)+`\",\"expect\":\"refuse\"}]"}`,
		`,"extensions":null,"fips":false,"kernelType":"","osImageURL":"","kernelArguments":[]`)
	s, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != "99-x" || s.Pool != "worker" || len(s.Files) != 1 || len(s.Canaries) != 1 {
		t.Errorf("got %+v", s)
	}
}

func TestParse_bad(t *testing.T) {
	file := func(path, rest string) string {
		return ign(fmt.Sprintf(`{"path":%q,"overwrite":true,"contents":{"source":"data:,x"}%s}`, path, rest))
	}
	ok := "/etc/containers/registries.d/x.yaml"
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	zeros := make([]byte, 1<<20)
	for range 64 {
		if _, err := z.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	gz := func(b []byte) string {
		return ign(fmt.Sprintf(`{"path":%q,"contents":{"compression":"gzip","source":"data:;base64,%s"}}`, ok,
			base64.StdEncoding.EncodeToString(b)))
	}
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "is empty"},
		{"blank", " \n", "is empty"},
		{"comment", "# x\n", "is empty"},
		{"scalar", "x\n", "neither an Ignition config nor a MachineConfig"},
		{"list", "- x\n", "neither an Ignition config nor a MachineConfig"},
		{"several documents", "a: b\n---\na: b\n", "several documents"},
		{"trailing text", ign() + "x", "text after the object"},
		{"duplicate key", `{"ignition":{"version":"3.4.0"},"ignition":{"version":"3.4.0"}}`, `key "ignition" is given twice`},
		{"duplicate key in YAML", "a: b\na: c\n", "is given twice"},
		{"alias", "a: &a b\nc: *a\n", "aliases are not supported"},
		{"deep", strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100), "nested too deeply"},
		{"deep YAML", "x: " + strings.Repeat("[", 100) + strings.Repeat("]", 100) + "\n", "nested too deeply"},
		{"large", strings.Repeat(" ", maxInput+1), "larger than"},
		{"pod", `{"apiVersion":"v1","kind":"Pod"}`, "is neither an Ignition config nor a MachineConfig, but a v1 Pod"},
		{"list of MachineConfigs", `{"apiVersion":"v1","kind":"List","items":[]}`, "but a v1 List"},
		{
			"trust config", "apiVersion: nodetrust.io/v1alpha1\nkind: TrustConfig\n",
			"but a nodetrust.io/v1alpha1 TrustConfig; render it: nodetrust render --to machineconfig",
		},
		{"ConfigMap", "apiVersion: v1\nkind: ConfigMap\n", "but a v1 ConfigMap; give the directory that it is mounted as"},
		{"no version", `{"storage":{}}`, "parsing Ignition config"},
		{"version 2", `{"ignition":{"version":"2.2.0"}}`, "parsing Ignition config"},
		{"unknown field", strings.Replace(ign(), `"mode"`, `"mod"`, 1), "mod"},
		{"no policy", `{"ignition":{"version":"3.4.0"}}`, "lacks /etc/containers/policy.json"},
		{"units", strings.Replace(ign(), `"storage"`,
			`"systemd":{"units":[{"name":"a.service","contents":"[Unit]\n"}]},"storage"`, 1), "more than files"},
		{
			"users", strings.Replace(ign(), `"storage"`, `"passwd":{"users":[{"name":"core"}]},"storage"`, 1),
			"more than files",
		},
		{"links", strings.Replace(ign(), `"files"`, `"links":[{"path":"/a","target":"/b"}],"files"`, 1), "more than files"},
		{"merge", strings.Replace(ign(), `"version":"3.4.0"`,
			`"version":"3.4.0","config":{"merge":[{"source":"https://a.b/c"}]}`, 1), "more than files"},
		{
			"spec.config missing", `{"apiVersion":"machineconfiguration.openshift.io/v1","kind":"MachineConfig","spec":{}}`,
			"no spec.config",
		},
		{"kernel arguments", mc("", `,"kernelArguments":["quiet"]`), "spec.kernelArguments"},
		{"edited", mc(`"annotations":{"nodetrust.io/digest":"sha256:00"}`, ""), "one of them was edited"},
		{"canaries", mc(`"annotations":{"nodetrust.io/canaries":"{}"}`, ""), "reading annotation nodetrust.io/canaries"},

		{"cron", file("/etc/cron.d/x", ""), "nodetrust writes only"},
		{"quadlet", file("/etc/containers/systemd/x.container", ""), "nodetrust writes only"},
		{"hidden", file("/etc/containers/registries.d/.x.yaml", ""), "nodetrust writes only"},
		{"not yaml", file("/etc/containers/registries.d/x.yml", ""), "nodetrust writes only"},
		{"below", file("/etc/containers/registries.d/x/y.yaml", ""), "nodetrust writes only"},
		{"dots", file("/etc/pki/containers/../../cron.d/x.yaml", ""), ""},
		{"relative", file("etc/containers/registries.d/x.yaml", ""), ""},
		{"control character", file("/etc/pki/containers/a\nb", ""), ""},
		{"twice", ign(policy), ""},
		{"setuid", file(ok, `,"mode":2541`), ""},
		{"writable", file(ok, `,"mode":438`), "lets others than root write"},
		{"owner", file(ok, `,"user":{"id":1000}`), "must belong to user and group 0"},
		{"group", file(ok, `,"group":{"name":"wheel"}`), "must belong to user and group 0"},
		{"no overwrite", strings.Replace(file(ok, ""), `"overwrite":true,"contents":{"source":"data:,x"`,
			`"overwrite":false,"contents":{"source":"data:,x"`, 1), "overwrite: false"},
		{"append", ign(`{"path":"` + ok + `","append":[{"source":"data:,x"}]}`), "append is not supported"},
		{"no contents", ign(`{"path":"` + ok + `"}`), "has no contents"},
		{"remote", ign(`{"path":"` + ok + `","contents":{"source":"https://a.b/c"}}`), "must be a data URL"},
		{"bad data URL", ign(`{"path":"` + ok + `","contents":{"source":"data:;base64,*"}}`), ""},
		{"compression", ign(`{"path":"` + ok + `","contents":{"compression":"xz","source":"data:,x"}}`), ""},
		{"verification", ign(`{"path":"` + ok + `","contents":{"source":"data:,x","verification":{"hash":"sha512-` +
			strings.Repeat("0", 128) + `"}}}`), "verification is not supported"},
		{"no gzip", gz([]byte("x")), "decompressing"},
		{"truncated gzip", gz(bomb.Bytes()[:100]), "decompressing"},
		{"gzip bomb", gz(bomb.Bytes()), "larger than 1048576 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Parse([]byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %+v, %v, want %q", s, err, tt.want)
			}
		})
	}
}

func TestExtract(t *testing.T) {
	foreign := `{"path":"/etc/cron.d/x","mode":438,"user":{"id":7},"contents":{"source":"data:,x"}}`
	all := func(string) bool { return true }
	s, err := Extract([]byte(ign(foreign)), all)
	if err != nil {
		t.Fatal(err)
	}
	if f, ok := s.Files.Get("/etc/cron.d/x"); !ok || f.Mode != 0o666 || f.UID != 7 || len(s.Files) != 2 {
		t.Errorf("got %+v", s.Files)
	}
	if s, err = Extract([]byte(mc(`"name":"x"`, `,"kernelArguments":["quiet"]`)), all); err != nil || s.Name != "x" ||
		len(s.Files) != 1 {
		t.Errorf("got %+v, %v", s, err)
	}
	if s, err = Extract([]byte(ign(`{"path":"/a","contents":{"source":"https://a.b/c"}}`)),
		func(p string) bool { return p != "/a" }); err != nil || len(s.Files) != 1 {
		t.Errorf("got %+v, %v", s, err)
	}
	for _, text := range []string{
		"", "x", `{"kind":"Pod"}`, ign(`{"path":"/a","contents":{"source":"https://a.b/c"}}`),
		ign(`{"path":"/a","append":[{"source":"data:,x"}]}`),
	} {
		if s, err := Extract([]byte(text), all); err == nil {
			t.Errorf("%s: got %+v, want an error", text, s)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if _, err := Load(filepath.Join(dir, "gone")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: got %v", err)
	}
	if _, err := Load(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("empty directory: got %v", err)
	}
	path := write(IgnitionFile, ign())
	for _, p := range []string{path, dir} {
		if s, err := Load(p); err != nil || len(s.Files) != 1 || len(s.Canaries) != 0 {
			t.Errorf("%s: got %+v, %v", p, s, err)
		}
	}
	write(CanariesFile, "[]")
	if _, err := Load(dir); err != nil {
		t.Errorf("no canaries: %v", err)
	}
	write(CanariesFile, "{")
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, CanariesFile)) {
		t.Errorf("bad canaries: got %v", err)
	}
	if _, err := Load(write("large", strings.Repeat(" ", maxInput+1))); err == nil ||
		!strings.Contains(err.Error(), "larger than") {
		t.Errorf("large: got %v", err)
	}
}

// TestLoad_revision: once the volume has been swapped, nothing of the old revision is read.
func TestLoad_revision(t *testing.T) {
	dir := t.TempDir()
	for _, rev := range []string{"..1", "..2"} {
		if err := os.Mkdir(filepath.Join(dir, rev), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, text := range map[string]string{
		"..1/desired.ign": "old", "..1/canaries.json": "old",
		"..2/desired.ign": ign(),
	} {
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// The kubelet removes links of vanished keys only after the swap: this one still names the old revision.
	for name, target := range map[string]string{
		"..data": "..2", "desired.ign": "..data/desired.ign",
		"canaries.json": "..1/canaries.json",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := Load(dir); err != nil || len(s.Files) != 1 {
		t.Errorf("got %+v, %v", s, err)
	}
}

// TestReal: of the MachineConfigs of a real cluster none holds only what nodetrust may write, and each is refused for
// the right reason.
func TestReal(t *testing.T) {
	dir := os.Getenv("NODETRUST_REALDATA")
	if dir == "" {
		t.Skip("NODETRUST_REALDATA is not set")
	}
	f, err := os.Open(filepath.Join(dir, "machineconfigs", "4.16.0-single-node-mc.yaml.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Items []yaml.Node
	}
	if err := yaml.NewDecoder(z).Decode(&list); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"00-worker":                      "spec.osImageURL",
		"97-worker-generated-kubelet":    "spec.kernelArguments",
		"98-worker-generated-kubelet":    "/etc/kubernetes/kubelet.conf",
		"99-worker-generated-registries": "/etc/containers/registries.conf",
		"99-worker-ssh":                  "more than files",
	}
	extracted := 0
	for _, item := range list.Items {
		var o struct {
			Metadata struct{ Name string }
		}
		if err := item.Decode(&o); err != nil {
			t.Fatal(err)
		}
		b, err := yaml.Marshal(&item)
		if err != nil {
			t.Fatal(err)
		}
		e, err := Extract(b, func(path string) bool { return path == trust.PolicyPath })
		if err != nil {
			t.Errorf("%s: %v", o.Metadata.Name, err)
			continue
		}
		if f, ok := e.Files.Get(trust.PolicyPath); ok && bytes.Contains(f.Data, []byte("insecureAcceptAnything")) &&
			e.Name == o.Metadata.Name {
			extracted++
		}
		text, ok := want[o.Metadata.Name]
		if !ok {
			continue
		}
		delete(want, o.Metadata.Name)
		if s, err := Parse(b); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: got %+v, %v, want %q", o.Metadata.Name, s, err, text)
		}
	}
	if len(want) != 0 {
		t.Errorf("not found: %v", want)
	}
	// The container runtime's of both pools, and the rendered ones, hold the policy that every cluster starts with.
	if extracted < 4 {
		t.Errorf("policy.json extracted from %d MachineConfigs, want 4 or more", extracted)
	}
}

// FuzzParse checks that nothing panics and that a result keeps its promises.
func FuzzParse(f *testing.F) {
	f.Add([]byte(ign()))
	f.Add([]byte(mc(`"name":"x"`, "")))
	f.Add([]byte("ignition: {version: 3.4.0}\nstorage: {files: [" + policy + "]}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse(data)
		if err != nil {
			return
		}
		e, err := Extract(data, func(string) bool { return true })
		if err != nil || e.Files.Digest() != s.Files.Digest() {
			t.Errorf("extracted %+v, %v", e, err)
		}
		seen := map[string]bool{}
		for _, file := range s.Files {
			if seen[file.Path] || !allowed(file.Path) || file.Mode&^0o755 != 0 || file.UID != 0 || file.GID != 0 ||
				len(file.Data) > maxFile {
				t.Errorf("got %+v", file)
			}
			seen[file.Path] = true
		}
		if !seen[trust.PolicyPath] {
			t.Error("no policy.json")
		}
	})
}

// TestLoad_pipe: nobody writes into it.
func TestLoad_pipe(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, IgnitionFile)
	if err := syscall.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{dir, fifo} {
		done := make(chan error, 1)
		go func() { _, err := Load(p); done <- err }()
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), "no regular file") {
				t.Errorf("%s: %v", p, err)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s: waits for a writer", p)
		}
	}
}

// TestParse_manyValues: who may write the ConfigMap could else take the memory of every agent with one megabyte of
// nothing.
func TestParse_manyValues(t *testing.T) {
	for name, data := range map[string]string{
		"files":       `{"ignition":{"version":"3.4.0"},"storage":{"files":[` + strings.Repeat("{},", 1<<16) + `{}]}}`,
		"a list":      `{"x":[` + strings.Repeat("0,", 1<<17) + `0]}`,
		"YAML, short": "x: [" + strings.Repeat("a,", 1<<18) + "a]",
		"YAML, lines": "x:\n" + strings.Repeat("- a\n", 1<<18),
		"YAML, nests": "x: " + strings.Repeat("[", 1<<18),
	} {
		if _, err := Parse([]byte(data)); !errors.Is(err, errTooMany) {
			t.Errorf("%s: %.100v", name, err)
		}
	}
}
