package lint

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// FuzzRun: whatever a file holds and is called, lint answers with findings or says that it is nothing to lint, and a reader
// that doesn't load is never without an error finding.
func FuzzRun(f *testing.F) {
	config := foreignConfig("51-x", signedPolicy)
	for _, s := range []string{
		config, config + "---\n" + config, list(config), list(), signedPolicy, lookaside, "kind: TrustConfig\napiVersion: nodetrust.io/v1alpha1\nspec: {keys: [{}]}\n",
		`{"kind":"List","items":[{"kind":"MachineConfig","spec":null}]}`, "\x1f\x8b", "\x99\x01\x0d\x04", "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n=abcd\n", "kind: List\nitems: [&a [*a]]\n", "{", "[]", "ignition: {version: 3.4.0}\n",
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
