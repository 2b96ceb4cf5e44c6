package layering

import (
	"go/scanner"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

const maxWidth = 120

// TestLines: Go lines end at 120 characters. Raw strings, and lines that are mostly one string literal, may be longer:
// they are data, or a text that is better found as a whole.
func TestLines(t *testing.T) {
	files := 0
	for _, file := range goFiles(t, root) {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		files++
		for _, n := range wide(src) {
			t.Errorf("%s:%d is longer than %d characters", strings.TrimPrefix(file, root+"/"), n, maxWidth)
		}
	}
	if files < 100 {
		t.Errorf("only %d files: this test looks at the wrong place", files)
	}
}

// goFiles returns the Go files below dir, testdata left aside.
func goFiles(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || d.Name() == "bin" || len(d.Name()) > 2 && d.Name()[0] == '.'):
			return filepath.SkipDir
		case !d.IsDir() && strings.HasSuffix(path, ".go"):
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// wide returns the numbers of the lines that are too long.
func wide(src []byte) []int {
	lines := strings.Split(string(src), "\n")
	free := map[int]bool{}
	fset := token.NewFileSet()
	file := fset.AddFile("", fset.Base(), len(src))
	var s scanner.Scanner
	s.Init(file, src, nil, 0)
	for {
		pos, tok, lit := s.Scan()
		if tok == token.EOF {
			break
		}
		if tok != token.STRING {
			continue
		}
		first := file.Line(pos)
		if lit[0] == '`' {
			for n := range strings.Count(lit, "\n") + 1 {
				free[first+n] = true
			}
		} else if utf8.RuneCountInString(lit) > maxWidth/2 {
			free[first] = true
		}
	}
	var found []int
	for i, line := range lines {
		if utf8.RuneCountInString(line) > maxWidth && !free[i+1] {
			found = append(found, i+1)
		}
	}
	return found
}

func TestWide(t *testing.T) {
	long := strings.Repeat("x", maxWidth)
	for name, c := range map[string]struct {
		src  string
		want int
	}{
		"code":           {"var x = f(" + long + ")", 1},
		"comment":        {"// " + long, 1},
		"at the limit":   {long, 0},
		"characters":     {strings.Repeat("é", maxWidth), 0},
		"a string":       {"\treturn f(\"" + long + "\")", 0},
		"short strings":  {"f(" + strings.Repeat("\"short\", ", maxWidth/8) + ")", 1},
		"raw string":     {"var x = `\n" + long + long + "\n`", 0},
		"after a string": {"var x = `\n`\n// " + long, 1},
	} {
		t.Run(name, func(t *testing.T) {
			if got := wide([]byte(c.src)); len(got) != c.want {
				t.Errorf("too long: %v, want %d", got, c.want)
			}
		})
	}
}
