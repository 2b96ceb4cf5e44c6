package lint

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// FuzzRun: whatever a file holds and is called, lint answers with findings or says that it is nothing to lint, and a
// reader that doesn't load is never without an error finding.
func FuzzRun(f *testing.F) {
	config := foreignConfig("51-x", signedPolicy)
	for _, s := range []string{
		config, config + "---\n" + config, list(config), list(), signedPolicy, lookaside,
		"kind: TrustConfig\napiVersion: nodetrust.io/v1alpha1\nspec: {keys: [{}]}\n",
		`{"kind":"List","items":[{"kind":"MachineConfig","spec":null}]}`, "\x1f\x8b", "\x99\x01\x0d\x04",
		"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n=abcd\n", "kind: List\nitems: [&a [*a]]\n", "{", "[]",
		"ignition: {version: 3.4.0}\n",
	} {
		f.Add(true, s)
		f.Add(false, s)
	}
	f.Fuzz(func(t *testing.T, isYAML bool, data string) {
		name := "policy.json"
		if isYAML {
			name = "x.yaml"
		}
		p := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(p, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Run([]string{p}, Options{Now: time.Now(), Readers: []string{"rhel7", CurrentLibrary}})
		var input *InputError
		if err != nil {
			if !errors.As(err, &input) {
				t.Fatal(err)
			}
			return
		}
		if r.Clean() {
			return
		}
		errs := 0
		for _, f := range r.Findings {
			if f.Code == "" || f.Message == "" {
				t.Fatalf("empty finding %+v", f)
			}
			if f.Severity == Error {
				errs++
			}
		}
		for _, reader := range r.Readers {
			if reader.Reader == CurrentLibrary && !reader.Loads && errs == 0 {
				t.Fatalf("%+v has no error finding", reader)
			}
		}
	})
}

// hostFiles are those of a host that are read by --root.
var hostFiles = []string{
	"etc/containers/policy.json", "etc/containers/registries.d/a.yaml", "root/.config/containers/registries.d/b.yaml",
	"etc/containers/registries.conf", "etc/crio/crio.conf",
	"etc/crio/policies/a.json", "etc/systemd/system/crio.service", "etc/pki/corp.gpg", "etc/environment",
}

// FuzzHost: the same for each file of a host.
func FuzzHost(f *testing.F) {
	for i, s := range []string{
		signedPolicy, lookaside, "docker: {}\n",
		"[[registry]]\nlocation = \"example.com\"\n[[registry.mirror]]\nlocation = \"m\"\ninsecure = true\n",
		"[crio.image]\nsignature_policy = \"/x\"\n", `{"default":` + accept + `}`,
		"[Service]\nEnvironment=HOME=/x \\\n HOME=/y\n", string(postQuantumKey()), "HOME=/x\n",
	} {
		f.Add(uint8(i), s)
	}
	f.Fuzz(func(t *testing.T, which uint8, data string) {
		root := write(t, t.TempDir(), map[string]string{
			"etc/containers/policy.json": signedPolicy, "etc/containers/registries.d/a.yaml": lookaside,
			hostFiles[int(which)%len(hostFiles)]: data,
		})
		r, err := Run(nil, Options{Root: root, Now: time.Now(), Readers: []string{"rhel7", "cri-o-1.34", CurrentLibrary}})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Readers) != 3 {
			t.Fatalf("%+v", r.Readers)
		}
		for _, reader := range r.Readers {
			if !reader.Loads && r.Clean() {
				t.Fatalf("%+v, and the report is clean", reader)
			}
		}
	})
}

// TestMutatedHosts is a sample of what FuzzHost looks for at length.
func TestMutatedHosts(t *testing.T) {
	n, rng := sample(t, 200)
	texts := append(seeds(), registriesSeeds()...)
	texts = append(texts, "[[registry]]\nlocation = \"example.com\"\n[[registry.mirror]]\nlocation = \"m\"\n",
		"[crio.image]\nsignature_policy = \"/x\"\n", "[Service]\nEnvironment=HOME=/x\n")
	dir := t.TempDir()
	for i := range n {
		data := mutate(rng, texts[rng.IntN(len(texts))])
		root := write(t, filepath.Join(dir, strconv.Itoa(i)),
			map[string]string{"etc/containers/policy.json": signedPolicy, hostFiles[rng.IntN(len(hostFiles))]: data})
		if _, err := Run(nil, Options{Root: root, Now: time.Now(), Readers: []string{"rhel7", CurrentLibrary}}); err != nil {
			t.Fatalf("%v\n%s", err, data)
		}
	}
}
