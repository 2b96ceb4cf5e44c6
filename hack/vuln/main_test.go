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
		{"clean", clean, clean, 0, "no known vulnerability in 2 modules", "NOT CHECKED"},
		{"one is vulnerable", clean, found, exitFound, "Vulnerability", "no known"},
		{"no database", unreachable, unreachable, exitNotChecked, "the vulnerability database is not reachable\nNOT CHECKED: nothing was checked", "no known"},
		{"no database any more", clean, unreachable, exitNotChecked, "NOT CHECKED: other", "no known"},
		{"found, then no database", found, unreachable, exitFound, "NOT CHECKED: other", "no known"},
		{"one does not build", broken, clean, exitNotChecked, "NOT CHECKED: .", "no known"},
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
