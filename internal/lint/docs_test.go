package lint

import (
	"flag"
	"fmt"
	"go/ast"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/fixture"
)

var update = flag.Bool("update", false, "write the tables of docs/lint.md anew")

// TestPage: the tables of docs/lint.md are those of the source.
func TestPage(t *testing.T) {
	const header = "| code | | what it means |"
	for _, p := range []page{pagePolicy, pageRegistries, pageKeys, pageHosts} {
		fixture.Page(t, *update, "../../docs/lint.md", string(p), header, func([]string) []string {
			lines := []string{header, "|---|---|---|"}
			for _, c := range codes {
				if c.page != p {
					continue
				}
				severity := strings.ToUpper(string(c.severity[:1]))
				severity += map[weight]string{milder: ", W", unloadable: ", L"}[c.weight]
				lines = append(lines, fmt.Sprintf("| `%s` | %s | %s |", c.code, severity, c.means))
			}
			return lines
		})
	}
}

// TestCodes_closed: the compiler's view of the source has no value of the type Code that the table lacks, none of the
// table's is unused, and none is made of anything but a literal.
func TestCodes_closed(t *testing.T) {
	fset := token.NewFileSet()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	info := types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	// What is imported is not needed for the types of this package.
	imports := importer.ForCompiler(fset, "gc", func(string) (io.ReadCloser, error) { return nil, fs.ErrNotExist })
	conf := types.Config{Importer: imports, Error: func(error) {}}
	_, _ = conf.Check("lint", fset, files, &info)
	used := map[Code]int{}
	for e, v := range info.Types {
		named, ok := v.Type.(*types.Named)
		if !ok || named.Obj().Name() != "Code" {
			continue
		}
		if v.Value != nil {
			used[Code(constant.StringVal(v.Value))]++
		} else if call, ok := e.(*ast.CallExpr); ok {
			t.Errorf("%s: a code is made at run time", fset.Position(call.Pos()))
		}
	}
	if len(used) == 0 {
		t.Fatal("no codes found")
	}
	for c := range used {
		if !slices.ContainsFunc(documentedCodes(), func(d Code) bool { return c == d }) {
			t.Errorf("code %q is not in the table", c)
		}
	}
	for _, c := range documentedCodes() {
		if used[c] < 2 { // the table's own is one
			t.Errorf("code %s is in the table only", c)
		}
	}
}

func documentedCodes() []Code {
	var out []Code
	for _, c := range codes {
		out = append(out, c.code)
	}
	return out
}
