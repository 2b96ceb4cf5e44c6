package library

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/hostfs"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func loadDirs(dirs ...string) error {
	files, err := hostfs.ThisMachine.RegistriesD(dirs)
	if err != nil {
		return err
	}
	return Load(files)
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		path := filepath.Join(dir, name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, os.WriteFile(path, []byte(content), 0o644))
	}
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	write("a/one.yaml", "docker: {h/x: {lookaside: https://one}}\n")
	write("b/two.yaml", "docker: {h/x: {lookaside: https://two}}\n")
	if err := loadDirs(a); err != nil {
		t.Error(err)
	}
	if err := loadDirs(a, filepath.Join(dir, "none")); err != nil {
		t.Error(err)
	}
	want := `"docker" namespace "h/x" defined both in "` + a + `/one.yaml" and "` + b + `/two.yaml"`
	if err := loadDirs(a, b); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	// A file hides the one of the same name in a later directory.
	write("a/two.yaml", "default-docker: {lookaside: https://default}\n")
	if err := loadDirs(a, b); err != nil {
		t.Error(err)
	}
	write("b/broken.yaml", "docker: [\n")
	if err := loadDirs(a, b); err == nil || !strings.Contains(err.Error(), b+"/broken.yaml") {
		t.Errorf("got %v, want the name of the broken file", err)
	}
}

func TestLoadPolicy(t *testing.T) {
	for _, tt := range []struct{ name, policy, want string }{
		{"good", `{"default":[{"type":"reject"}]}`, ""},
		{"duplicate", `{"default":[{"type":"reject"}],"default":[{"type":"reject"}]}`, `Duplicate key "default"`},
		{"empty", ``, "unexpected end of JSON input"},
		{"no default", `{}`, "Default policy is missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := LoadPolicy([]byte(tt.policy), "/p.json")
			if tt.want == "" && err != nil || tt.want != "" &&
				(err == nil || !strings.Contains(err.Error(), tt.want) ||
					!strings.HasPrefix(err.Error(), `invalid policy in "/p.json": `)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
