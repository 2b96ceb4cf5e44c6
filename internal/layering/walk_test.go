package layering

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const maxHops = 12

// TestWalks: docs/architecture.md follows an image and a file through the code, in a few hops. Every function named at
// the beginning of one exists.
func TestWalks(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs/architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	walks := 0
	for section := range strings.SplitSeq(string(text), "\n## ") {
		if !strings.HasPrefix(section, "A walk: ") {
			continue
		}
		walks++
		title, body, _ := strings.Cut(section, "\n")
		t.Run(title, func(t *testing.T) { checkWalk(t, body) })
	}
	if walks != 2 {
		t.Errorf("%d walks, want 2", walks)
	}
}

var hop = regexp.MustCompile("^(\\d+)\\. (?:`([a-z/-]+)\\.([A-Za-z.]+)`: )?")

func checkWalk(t *testing.T, body string) {
	t.Helper()
	hops := 0
	for line := range strings.Lines(body) {
		m := hop.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		hops++
		switch pkg, name := m[2], m[3]; {
		case m[1] != strconv.Itoa(hops):
			t.Errorf("hop %d is numbered %s", hops, m[1])
		case name == "":
			t.Errorf("hop %d doesn't begin with a function, as in `verify.Image`: %s", hops, line)
		case !functions(t, pkg)[name]:
			t.Errorf("hop %d: there is no %s in %s", hops, name, pkg)
		}
	}
	if hops < 5 || hops > maxHops {
		t.Errorf("%d hops, want 5 to %d", hops, maxHops)
	}
}

// functions returns the functions of a package, methods as Type.Method. Its path is from the root of the module on,
// with or without "internal/".
func functions(t *testing.T, pkg string) map[string]bool {
	t.Helper()
	dir := filepath.Join(root, pkg)
	if _, err := os.Stat(dir); err != nil {
		dir = filepath.Join(root, "internal", pkg)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				found[receiver(fn)+fn.Name.Name] = true
			}
		}
	}
	return found
}

// receiver returns "Type." for a method, and nothing for a function.
func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return ""
	}
	typ := fn.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if generic, ok := typ.(*ast.IndexExpr); ok {
		typ = generic.X
	}
	return typ.(*ast.Ident).Name + "."
}
