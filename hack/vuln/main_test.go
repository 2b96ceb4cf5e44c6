package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAll runs a program that ends as govulncheck does: what could not be checked never looks passed.
func TestAll(t *testing.T) {
	const (
		clean       = "echo No vulnerabilities found."
		found       = "echo Vulnerability; exit 3"
		unreachable = "echo 'govulncheck: fetching vulnerabilities: no such host' >&2; exit 1"
		broken      = "echo 'govulncheck: loading packages: no' >&2; exit 1"
	)
	for _, tt := range []struct {
		name, root, other string
		status            int
		says, never       string
	}{
		{"clean", clean, clean, 0, "nothing that 2 modules call or import has a known vulnerability", "NOT CHECKED"},
		{"one is vulnerable", clean, found, exitFound, "Vulnerability", "has a known"},
		{
			"no database", unreachable, unreachable, exitNotChecked,
			"the vulnerability database is not reachable\nNOT CHECKED: nothing was checked", "has a known",
		},
		{"no database any more", clean, unreachable, exitNotChecked, "NOT CHECKED: other", "has a known"},
		{"found, then no database", found, unreachable, exitFound, "NOT CHECKED: other", "has a known"},
		{"one does not build", broken, clean, exitNotChecked, "NOT CHECKED: .", "has a known"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			for dir, script := range map[string]string{".": tt.root, "other": tt.other} {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				for name, text := range map[string]string{"go.mod": "module x\n", "end": script + "\n"} {
					if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			dirs, err := modules(".")
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			status := checker{command: []string{"sh", "end"}, stdout: &out}.all(dirs)
			if status != tt.status || !strings.Contains(out.String(), tt.says) || strings.Contains(out.String(), tt.never) {
				t.Errorf("status %d:\n%s", status, out.String())
			}
		})
	}
}

// TestArgs: what only tests import is named, and of a module without packages its tools.
func TestArgs(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module example.com/x\n\ngo 1.26\n")
	if got, err := (checker{}).args(dir); err != nil || strings.Join(got, " ") != "-scan package tool" {
		t.Errorf("without packages: %q, %v", got, err)
	}
	write("x_test.go", "package x\n\nimport (\n\t\"testing\"\n\n\t_ \"example.com/a/b\"\n\t_ \"github.com/nodetrust/nodetrust/internal/trust\"\n)\n\nfunc Test(*testing.T) {}\n")
	if got, err := (checker{}).args(dir); err != nil || strings.Join(got, " ") != "-scan package example.com/a/b ./..." {
		t.Errorf("with a test: %q, %v", got, err)
	}
}
