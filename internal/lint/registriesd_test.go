package lint

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodetrust/nodetrust/internal/hostfs"
	"github.com/nodetrust/nodetrust/internal/verify/library"
)

func TestRegistries(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files []string
		want  string
	}{
		{"clean", []string{"docker:\n  example.com:\n    lookaside: https://example.com/sigs\n"}, ""},
		{"empty", []string{""}, ""},
		{"comments", []string{"# nothing\n"}, ""},
		{"null sections", []string{"default-docker:\ndocker:\n"}, ""},
		{"tabs", []string{"docker:\n\texample.com: {}\n"}, "a.yaml:2 bad-yaml"},
		{"broken", []string{"docker: [\n"}, "a.yaml:1 bad-yaml"},
		{"wrong type", []string{"docker:\n  example.com:\n    lookaside: [a]\n"}, "a.yaml:3 bad-yaml"},
		{"duplicate in a file", []string{"docker:\n  example.com: {}\n  example.com: {}\n"}, "a.yaml:3 bad-yaml"},
		{"misspelt", []string{"docker:\n  example.com:\n    lookasid: https://example.com/sigs\n"}, "a.yaml:3 unknown-key"},
		{"top-level", []string{"default:\n  lookaside: https://example.com/sigs\n"}, "a.yaml:1 unknown-key"},
		{"indentation", []string{"docker:\n  example.com:\n    lookaside: https://example.com/sigs\nsigstore-staging: file:///x\n"}, "a.yaml:4 unknown-key"},
		{"no scheme", []string{"docker:\n  example.com:\n    lookaside: example.com/sigs\n"}, "a.yaml:3 bad-url"},
		{"host and port", []string{"docker:\n  example.com:\n    lookaside: example.com:8080/sigs\n"}, "a.yaml:3 bad-url"},
		{"scheme", []string{"docker:\n  example.com:\n    lookaside: ftp://example.com/sigs\n"}, "a.yaml:3 bad-url"},
		{"blank", []string{"docker:\n  example.com:\n    lookaside: \"https://example.com/sigs \"\n"}, "a.yaml:3 bad-url"},
		{
			"http",
			[]string{"docker:\n  example.com:\n    lookaside: http://example.com/sigs\n"},
			"a.yaml:3 insecure-lookaside",
		},
		{"file", []string{"docker:\n  example.com:\n    lookaside: file:///var/sigs\n"}, ""},
		{"relative file", []string{"docker:\n  example.com:\n    lookaside: file://var/sigs\n"}, "a.yaml:3 bad-url"},
		{
			"credentials",
			[]string{"docker:\n  example.com:\n    lookaside: https://me:x@example.com/sigs\n"},
			"a.yaml:3 credentials-in-url",
		},
		{"differ", []string{"docker:\n  example.com:\n    lookaside: https://a.example.com\n    sigstore: https://b.example.com\n"}, "a.yaml:4 lookaside-differs"},
		{
			"dead scope",
			[]string{"docker:\n  https://example.com/a:\n    lookaside: https://example.com/sigs\n"},
			"a.yaml:2 dead-scope",
		},
		{
			"twice",
			[]string{"docker:\n  example.com: {}\n", "docker:\n  example.org: {}\n  example.com: {}\n"},
			"b.yaml:3 duplicate-scope",
		},
		{"two defaults", []string{"default-docker: {}\n", "\ndefault-docker: {}\n"}, "b.yaml:2 duplicate-default-docker"},
		{"two documents", []string{"docker: {}\n---\ndocker:\n  example.com: {}\n"}, "a.yaml:2 several-documents"},
		{"anchors", []string{"docker:\n  example.com: &a\n    lookaside: https://example.com/sigs\n  example.org: *a\n"}, ""},
		{"merge", []string{"docker:\n  example.com: &a\n    lookaside: https://example.com/sigs\n  example.org:\n    <<: *a\n"}, ""},
		{"list", []string{"- a\n"}, "a.yaml:1 bad-yaml"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var files []file
			for i, s := range tt.files {
				files = append(files, file{path: fmt.Sprintf("%c.yaml", 'a'+i), data: []byte(s)})
			}
			l := linter{now: time.Now()}
			r := l.registries(files)
			var got []string
			for _, f := range l.sorted() {
				got = append(got, fmt.Sprintf("%s:%d %s", f.File, f.Line, f.Code))
			}
			if s := strings.Join(got, ", "); s != tt.want {
				t.Errorf("got %s, want %s\n%v", s, tt.want, l.findings)
			}
			registriesAgree(t, files, r, &l)
		})
	}
}

// registriesAgree compares lint's word with what the library says of the same files in a real directory.
func registriesAgree(t *testing.T, files []file, r *registries, l *linter) {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f.path), f.data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	onDisk, err := hostfs.ThisMachine.RegistriesD([]string{dir})
	if err == nil {
		err = library.Load(onDisk)
	}
	if (err != nil) != r.broken {
		t.Fatalf("broken is %v, the library says %v\n%v\n%v", r.broken, err, files, l.findings)
	}
	if r.broken && !slices.ContainsFunc(l.findings, func(f Finding) bool { return f.Severity == Error }) {
		t.Fatalf("the library says %v and there is no error finding", err)
	}
}

func registriesSeeds() []string {
	return []string{
		"default-docker:\n  lookaside: file:///a\ndocker:\n  a.b:\n    lookaside: https://a.b/s\n    use-sigstore-attachments: true\n",
		"docker:\n  a.b/c: &x\n    sigstore: https://a.b/s\n  c.d: *x\n  e.f:\n    <<: *x\n    lookaside: \"http://a\"\n",
		"# comment\ndefault-docker: {sigstore-staging: 'file:///b'}\n", "{}", "docker: {}\n---\ndocker: {a.b: {}}\n",
	}
}

func TestRegistriesAgreeWithLibrary(t *testing.T) {
	n, rng := sample(t, 500)
	all := registriesSeeds()
	pieces := []string{
		"\n", "  ", "\t", "docker:", "default-docker:", "a.b:", "lookaside:", "[", "]", "{", "}", "*x",
		"&x", "- ", "'", "\"", ": ", "null", "true", "!!binary ", "<<: *x\n", "---\n", "? ", "|", ">", "%", "0x1", "#",
		"\x00", "\xff",
	}
	broken := 0
	for range n {
		var files []file
		for i := range 1 + rng.IntN(2) {
			s := all[rng.IntN(len(all))]
			for range rng.IntN(3) {
				at := rng.IntN(len(s) + 1)
				end := at + rng.IntN(min(6, len(s)-at)+1)
				s = s[:at] + pieces[rng.IntN(len(pieces))] + s[end:]
			}
			files = append(files, file{path: fmt.Sprintf("%c.yaml", 'a'+i), data: []byte(s)})
		}
		l := linter{now: time.Now()}
		r := l.registries(files)
		registriesAgree(t, files, r, &l)
		if r.broken {
			broken++
		}
	}
	t.Logf("%d of %d load", n-broken, n)
	if broken < n/10 || broken > n*9/10 {
		t.Errorf("%d of %d samples are broken: the sample shows little", broken, n)
	}
}

func FuzzRegistries(f *testing.F) {
	for _, s := range registriesSeeds() {
		f.Add([]byte(s), []byte("docker: {a.b: {}}"))
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		files := []file{{path: "a.yaml", data: a}, {path: "b.yaml", data: b}}
		l := linter{now: time.Now()}
		r := l.registries(files)
		if len(a) <= maxRegistries && len(b) <= maxRegistries {
			registriesAgree(t, files, r, &l)
		}
	})
}

func write(t *testing.T, root string, files map[string]string) string {
	t.Helper()
	for name, content := range files {
		p := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}
