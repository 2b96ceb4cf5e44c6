package lint

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every code in the source is explained in docs/lint.md, and the other way round.
func TestCodesAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/lint.md")
	if err != nil {
		t.Fatal(err)
	}
	_, tables, ok := strings.Cut(string(page), "## Codes")
	if !ok {
		t.Fatal("docs/lint.md has no section Codes")
	}
	documented := map[string]bool{}
	for line := range strings.Lines(tables) {
		if cell, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " | "); ok && strings.HasPrefix(line, "| `") {
			for _, m := range regexp.MustCompile("`([a-z0-9-]+)`").FindAllStringSubmatch(cell, -1) {
				documented[m[1]] = true
			}
		}
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	code := regexp.MustCompile(`(?:Code: |at\.Message = |(?:add|warn|report|w\.add)\((?:Error|Warning|sev|dead), |fatal\(|bad\(|warn\(|requirementTypes, |identityTypes, )"([a-z0-9-]+)"`)
	used := map[string]bool{}
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range code.FindAllStringSubmatch(string(b), -1) {
			used[m[1]] = true
			if !documented[m[1]] {
				t.Errorf("%s: code %s is not in docs/lint.md", f, m[1])
			}
		}
	}
	for c := range documented {
		if !used[c] {
			t.Errorf("docs/lint.md: no code %s in the source", c)
		}
	}
}
