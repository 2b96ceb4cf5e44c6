package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBadInput: each is said clearly, ends with exit status 2 and writes nothing.
func TestBadInput(t *testing.T) {
	dir := t.TempDir()
	write := func(name, data string) string {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(data), 0o644))
		return path
	}
	write("corp.asc", string(corp.Armored))
	write("nokey.asc", "this is no key\n")
	write("empty.asc", "")
	const head = "apiVersion: nodetrust.io/v1alpha1\nkind: TrustConfig\nmetadata: {name: t}\nspec:\n  pools: [worker]\n  default: accept\n"
	keys := "  keys:\n  - name: corp\n    file: corp.asc\n    fingerprints: [" + corp.Fingerprint + "]\n"
	const registry = "  registries:\n  - scope: registry.example.com\n    require:\n    - signedBy: [corp]\n    lookaside: https://registry.example.com/sigstore\n"
	good := head + keys + registry
	digest := "@sha256:" + strings.Repeat("0", 64)

	if r := program(t, dir, theLab.Programs.Nodetrust, "render", "--to", "files", "-o", filepath.Join(dir, "good"),
		write("good.yaml", good)); r.code != 0 {
		t.Fatalf("the config that the others are made from: %v", r)
	}

	for _, tt := range []struct {
		name, file, says string
	}{
		{"missing", filepath.Join(dir, "absent.yaml"), "no such file"},
		{"empty", write("empty.yaml", ""), "empty"},
		{"a directory", dir, "directory"},
		{"ten megabytes", write("big.yaml", good+"# "+strings.Repeat("x", 10<<20)+"\n"), "big.yaml"},
		{"tabs", write("tabs.yaml", strings.Replace(good, "  pools", "\tpools", 1)), "tab"},
		{"unknown field", write("unknown.yaml", good+"    atachments: true\n"), "atachments"},
		{"duplicate key", write("dup.yaml", good+"    lookaside: https://other.example.com/sigstore\n"), "lookaside"},
		{
			"bad URL", write("url.yaml", strings.Replace(good, "https://registry", "gopher://registry", 1)),
			"url.yaml:15: spec.registries[0].lookaside:",
		},
		{"unknown key name", write("name.yaml", strings.Replace(good, "signedBy: [corp]", "signedBy: [crop]", 1)), "crop"},
		{"a key file without keys", write("nokey.yaml", strings.Replace(good, "corp.asc", "nokey.asc", 1)), "nokey.asc"},
		{"an empty key file", write("emptykey.yaml", strings.Replace(good, "corp.asc", "empty.asc", 1)), "empty.asc"},
		{"a key file that lacks the fingerprint", write("fpr.yaml",
			strings.Replace(good, corp.Fingerprint, stranger.Fingerprint, 1)), stranger.Fingerprint},
		{
			"duplicate scopes", write("scopes.yaml", good+strings.TrimPrefix(registry, "  registries:\n")),
			"registry.example.com",
		},
		{"a canary without digest", write("canary.yaml",
			good+"  canaries:\n  - image: registry.example.com/app:v1\n    expect: accept\n"), "digest"},
	} {
		t.Run("trust.yaml "+tt.name, func(t *testing.T) {
			out := filepath.Join(dir, "out")
			r := program(t, dir, theLab.Programs.Nodetrust, "render", "--to", "files", "-o", out, tt.file)
			complains(t, r, tt.says)
			if _, err := os.Lstat(out); !os.IsNotExist(err) {
				t.Errorf("something was written to %s (%v)", out, err)
				must(t, os.RemoveAll(out))
			}
			complains(t, program(t, dir, theLab.Programs.Nodetrust, "render", "--to", "machineconfig", tt.file), tt.says)
		})
	}
	t.Run("every problem at once", func(t *testing.T) {
		file := write("many.yaml", strings.NewReplacer("signedBy: [corp]", "signedBy: [crop]", "https://registry",
			"gopher://registry").Replace(good))
		r := program(t, dir, theLab.Programs.Nodetrust, "render", "--to", "machineconfig", file)
		complains(t, r, "crop")
		complains(t, r, "lookaside")
	})

	registriesD := filepath.Join(dir, "registries.d")
	must(t, os.Mkdir(registriesD, 0o755))
	loads := write("policy.json", acceptAnything)
	for _, tt := range []struct {
		name, policy, image, says string
	}{
		{
			"policy.json with duplicate keys", write("dup.json",
				`{"default":[{"type":"reject"}],"default":[{"type":"insecureAcceptAnything"}]}`),
			"registry.example.com/app" + digest, "default",
		},
		{
			"policy.json that is cut off", write("cut.json", `{"default":[{"type":"rej`), "registry.example.com/app" + digest,
			"cut.json",
		},
		{
			"policy.json that is missing", filepath.Join(dir, "absent.json"), "registry.example.com/app" + digest,
			"absent.json",
		},
		{"an image that doesn't parse", loads, "docker://Registry.example.com/App:v1:v2", "App"},
		{"an empty image", loads, "", ""},
		{"an image with an unknown transport", loads, "gopher://thing", "gopher"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, command := range []string{"verify", "explain"} {
				complains(t, program(t, dir, theLab.Programs.Nodetrust, command, "--policy", tt.policy, "--registries-d",
					registriesD, tt.image), tt.says)
			}
		})
	}
}

// complains checks for exit status 2, a message that says what is wrong, and nothing else.
func complains(t *testing.T, r result, says string) {
	t.Helper()
	if r.code != 2 {
		t.Errorf("want exit status 2: %v", r)
	}
	if r.stdout != "" {
		t.Errorf("a failed command wrote a result: %v", r)
	}
	if !strings.HasPrefix(r.stderr, "nodetrust: error: ") || !strings.Contains(r.stderr, says) {
		t.Errorf("want a message with %q: %v", says, r)
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(r.stderr, "\n"), "\n") {
		if !strings.HasPrefix(line, "nodetrust: error: ") && !strings.HasPrefix(line, "nodetrust: hint: ") {
			t.Errorf("stderr has a line in another voice: %q", line)
		}
	}
}
