package render_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/internal/desired"
	"github.com/nodetrust/nodetrust/internal/trust"
	"github.com/nodetrust/nodetrust/render"
	"github.com/nodetrust/nodetrust/templates"
)

const zeros = "@sha256:0000000000000000000000000000000000000000000000000000000000000000"

// input has a shipped key, canaries, a mirror and two pools.
func input(t testing.TB, readers ...string) render.Input {
	t.Helper()
	text := `apiVersion: nodetrust.io/v1alpha1
kind: TrustConfig
metadata: {name: corp-trust}
spec:
  pools: [worker, infra]
  default: accept
  keys:
  - {name: corp, file: corp.asc}
  - {name: os, path: /etc/pki/os}
  registries:
  - scope: registry.corp:5000
    require: [{signedBy: [corp], identity: matchRepository}, {signedBy: [os]}]
    lookaside: https://registry.corp/sigs
    mirrors: [{location: mirror.corp/x, lookaside: 'https://mirror.corp/sigs'}]
  - scope: registry.corp:5000/index
    require: accept
    because: "100% \"quoted\": text"
  canaries:
  - {image: 'registry.corp:5000/a` + zeros + `', expect: accept}
  - {image: 'registry.corp:5000/b` + zeros + `', expect: refuse}
`
	cfg, err := trust.Parse("t.yaml", []byte(text), func(string) ([]byte, error) { return templates.CanaryKey, nil })
	if err != nil {
		t.Fatal(err)
	}
	list := trust.DefaultReaders()
	for i, name := range readers {
		r, err := trust.LookupReader(name)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list[:i], r)
	}
	in, err := render.New(cfg, list, "worker")
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func must(t testing.TB) func([]byte, error) []byte {
	return func(b []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

// TestMachineConfig decodes what was rendered for every version of OpenShift: the files are those of the trust config.
func TestMachineConfig(t *testing.T) {
	for _, r := range trust.Readers() {
		if r.OpenShift == 0 {
			continue
		}
		t.Run(r.Name, func(t *testing.T) {
			in := input(t, r.Name)
			mc := must(t)(render.MachineConfig(in))
			s, err := desired.Parse(mc)
			if err != nil {
				t.Fatal(err)
			}
			if s.Name != "51-worker-corp-trust" || s.Pool != "worker" || !slices.Equal(s.Canaries, in.Config.Canaries) {
				t.Errorf("got %q %q %v", s.Name, s.Pool, s.Canaries)
			}
			if got, want := s.Files.Digest(), in.Files.Digest(); got != want || len(s.Files) != 3 {
				t.Errorf("digest %s of %d files, want %s", got, len(s.Files), want)
			}
			var doc struct {
				Metadata struct{ Annotations map[string]string }
				Spec     struct {
					Config struct{ Ignition struct{ Version string } }
				}
			}
			if err := yaml.Unmarshal(mc, &doc); err != nil {
				t.Fatal(err)
			}
			if got, want := doc.Spec.Config.Ignition.Version, r.Ignition(); got != want {
				t.Errorf("Ignition version %s, want %s", got, want)
			}
			if doc.Metadata.Annotations["nodetrust.io/digest"] != in.Files.Digest() {
				t.Errorf("annotations %v", doc.Metadata.Annotations)
			}
		})
	}
}

// TestButaneCLI has the real butane program, in strict mode, make a MachineConfig of the Butane config.
func TestButaneCLI(t *testing.T) {
	if testing.Short() {
		t.Skip("builds butane")
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "butane")
	if out, err := exec.Command("go", "build", "-o", bin,
		"github.com/coreos/butane/internal").CombinedOutput(); err != nil {
		t.Fatalf("building butane: %v: %s", err, out)
	}
	for minor := 8; minor <= 22; minor++ {
		reader := fmt.Sprintf("openshift-4.%d", minor)
		in := input(t, reader)
		bu := must(t)(render.Butane(in))
		cmd := exec.Command(bin, "--strict")
		cmd.Stdin = bytes.NewReader(bu)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		mc, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v: %s", reader, err, stderr.String())
		}
		s, err := desired.Parse(mc)
		if err != nil {
			t.Fatal(err)
		}
		if s.Files.Digest() != in.Files.Digest() || s.Name != in.MachineConfigName() || s.Pool != "worker" {
			t.Errorf("%s: butane's MachineConfig %s of pool %s has other files", reader, s.Name, s.Pool)
		}
	}
}

// TestConfigMap unpacks the ConfigMap as the kubelet does.
func TestConfigMap(t *testing.T) {
	in := input(t)
	var cm struct {
		Metadata struct{ Name, Namespace string }
		Data     map[string]string
	}
	if err := yaml.Unmarshal(must(t)(render.ConfigMap(in)), &cm); err != nil {
		t.Fatal(err)
	}
	if cm.Metadata.Name != "nodetrust-worker" || cm.Metadata.Namespace != "nodetrust" {
		t.Errorf("got %+v", cm.Metadata)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "..2026"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..2026", filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	for name, text := range cm.Data {
		if err := os.WriteFile(filepath.Join(dir, "..2026", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := desired.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if s.Files.Digest() != in.Files.Digest() || !slices.Equal(s.Canaries, in.Config.Canaries) {
		t.Errorf("got %s %v", s.Files.Digest(), s.Canaries)
	}
}

func TestIgnition(t *testing.T) {
	in := input(t)
	ign := must(t)(render.Ignition(in))
	s, err := desired.Parse(ign)
	if err != nil {
		t.Fatal(err)
	}
	if s.Files.Digest() != in.Files.Digest() || s.Name != "" || s.Pool != "" {
		t.Errorf("got %+v", s)
	}
	in.Pool = ""
	if other := must(t)(render.Ignition(in)); !bytes.Equal(ign, other) {
		t.Error("the Ignition config depends on the pool")
	}
}

// TestBinary has files that are no text. None lands raw in YAML, and all come back.
func TestBinary(t *testing.T) {
	for i, data := range [][]byte{
		{},
		{0, 1, 2, 0xff},
		[]byte("\xef\xbb\xbfbom\n"), []byte("a\r\nb\t\n"),
		[]byte(" leading\n"), []byte("no newline"), []byte("trailing \n\n\n"), []byte("\n"),
	} {
		in := input(t)
		in.Files = append(in.Files, trust.File{Path: "/etc/pki/containers/key", Mode: 0o600, Data: data})
		bu := must(t)(render.Butane(in))
		if bytes.ContainsFunc(bu, func(r rune) bool { return r < ' ' && r != '\n' || r == 0xFFFD || r == 0xFEFF }) {
			t.Errorf("%d: raw bytes in YAML", i)
		}
		s, err := desired.Parse(must(t)(render.MachineConfig(in)))
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		if f, _ := s.Files.Get("/etc/pki/containers/key"); !bytes.Equal(f.Data, data) || f.Mode != 0o600 {
			t.Errorf("%d: got %q %#o, want %q 0600", i, f.Data, f.Mode, data)
		}
	}
}

func TestDeterministic(t *testing.T) {
	want := ""
	for range 10 {
		in := input(t)
		got := fmt.Sprintf("%s%s%s%s", must(t)(render.Butane(in)), must(t)(render.MachineConfig(in)),
			must(t)(render.Ignition(in)), must(t)(render.ConfigMap(in)))
		if want == "" {
			want = got
		}
		if got != want {
			t.Fatal("same input, other bytes")
		}
	}
}

// TestLimits: what the MCO or Kubernetes would refuse is refused here.
func TestLimits(t *testing.T) {
	in := input(t)
	noise := make([]byte, 1<<20)
	x := uint32(1)
	for i := range noise { // something that gzip can't shrink
		x = x*1664525 + 1013904223
		noise[i] = byte(x >> 24)
	}
	in.Files = append(in.Files, trust.File{Path: "/etc/pki/containers/a", Mode: 0o644, Data: noise})
	if _, err := render.ConfigMap(in); err == nil || !strings.Contains(err.Error(), "Kubernetes takes at most") {
		t.Errorf("ConfigMap: got %v", err)
	}
	in.Files = append(in.Files, trust.File{Path: "/etc/pki/containers/b", Mode: 0o644, Data: noise})
	if _, err := render.MachineConfig(in); err == nil || !strings.Contains(err.Error(), "the MCO takes at most") {
		t.Errorf("MachineConfig: got %v", err)
	}
}

func BenchmarkMachineConfig(b *testing.B) {
	in := input(b)
	for b.Loop() {
		must(b)(render.MachineConfig(in))
	}
}
