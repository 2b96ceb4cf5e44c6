package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/fixture"
)

// TestDocs runs the examples of README.md and docs/*.md. In a page, a block that follows a comment
//
//	<!-- file: NAME -->
//
// is that file, and a block of kind "console" is a session: lines "$ nodetrust …" are run in the page's folder, one
// after the other, and what they print (standard error after standard output) must be what follows. A line "…" stands
// for any lines, and "…" at the end of a line for any rest of it. "> FILE" at the end of a command keeps its standard
// output; "$ echo $?" shows the exit status. The folder holds corp.asc and next.asc, public keys. A file's folder
// must exist.
func TestDocs(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(pages, "../../README.md")
	p := fixture.Parts{TB: t}
	g := p.GPG()
	keys := map[string]*fixture.Key{
		"corp": p.Key(g, "corp", fixture.KeyOptions{}),
		"next": p.Key(g, "next", fixture.KeyOptions{}),
	}
	ran := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(filepath.Base(page), func(t *testing.T) {
			t.Chdir(t.TempDir())
			for name, k := range keys {
				if err := os.WriteFile(name+".asc", k.Armored, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			ran += runPage(t, string(text))
		})
	}
	if ran == 0 {
		t.Error("no page has an example: this test looks at the wrong place")
	}
}

var fence = regexp.MustCompile("(?ms)(?:^<!-- file: (\\S+) -->\n+)?^```(\\S*)[^\n]*\n(.*?)^```$")

func runPage(t *testing.T, text string) (ran int) {
	t.Helper()
	status := 0
	for _, m := range fence.FindAllStringSubmatch(text, -1) {
		name, kind, body := m[1], m[2], m[3]
		if name != "" {
			if err := os.WriteFile(name, []byte(body), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if kind != "console" {
			continue
		}
		for _, step := range strings.Split("\n"+body, "\n$ ")[1:] {
			command, want, _ := strings.Cut(step, "\n")
			want = strings.TrimSuffix(want, "\n")
			var got string
			if command == "echo $?" {
				got = fmt.Sprint(status)
			} else {
				got, status = runExample(t, command)
				ran++
			}
			if !matches(strings.Split(strings.TrimSuffix(got, "\n"), "\n"), strings.Split(want, "\n")) {
				t.Errorf("$ %s\ngot:\n%s\nthe page says:\n%s", command, got, want)
			}
		}
	}
	return ran
}

func runExample(t *testing.T, command string) (output string, status int) {
	t.Helper()
	command, file, redirected := strings.Cut(command, " > ")
	args := strings.Fields(command)
	if args[0] != "nodetrust" {
		t.Fatalf("%q: examples run nodetrust only", command)
	}
	var stdout, stderr bytes.Buffer
	status = run(t.Context(), args[1:], strings.NewReader(""), &stdout, &stderr)
	if redirected {
		if err := os.WriteFile(file, stdout.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return stderr.String(), status
	}
	return stdout.String() + stderr.String(), status
}

// matches compares lines; "…" alone on a line of want stands for any number of lines.
func matches(got, want []string) bool {
	switch {
	case len(want) == 0:
		return len(got) == 0
	case want[0] == "…":
		for i := 0; i <= len(got); i++ {
			if matches(got[i:], want[1:]) {
				return true
			}
		}
		return false
	case len(got) == 0:
		return false
	}
	start, open := strings.CutSuffix(want[0], "…")
	if got[0] != want[0] && !(open && strings.HasPrefix(got[0], start)) {
		return false
	}
	return matches(got[1:], want[1:])
}
