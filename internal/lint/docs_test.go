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
	documented := map[string]bool{}
	for _, code := range documentedCodes(t) {
		documented[code] = true
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	code := regexp.MustCompile(`(?:Code: |at\.Message = |(?:add|warn|report|w\.add)\((?:Error|Warning|sev|dead), |fatal\(|bad\(|warn\(|Types\(\), )"([a-z0-9-]+)"`)
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
