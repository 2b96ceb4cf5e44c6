package layering

import (
	"bytes"
	"flag"
	"fmt"
	"go/format"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/nodetrust/nodetrust/internal/fixture"
)

var update = flag.Bool("update", false, "write the table, docs/architecture.md and docs/dependencies.md anew from the tree")

// row is what the table says of a package.
type row struct {
	Package string // from the root of the module on
	Subject string // one line, for docs/architecture.md
	Pure    bool   // bytes in, values out: no files, no network, no clock
	// Imports are our packages that it may import, Modules the others' (but for the standard library). Tests may
	// import what they like.
	Imports, Modules []string
}

// TestTable: every package has a row, and imports neither more nor less than the row allows.
func TestTable(t *testing.T) {
	rows, testModules := tree(t)
	if *update {
		write(t, "internal/layering/table_test.go", source(t, rows))
	} else {
		compare(t, rows)
	}
	for _, r := range rows {
		switch {
		case r.Subject == "":
			t.Errorf("the table says nothing of %s", r.Package)
		case len([]rune(r.Subject)) > 200:
			t.Errorf("the subject of %s is more than a line", r.Package)
		}
	}
	t.Run("architecture", func(t *testing.T) {
		const header = "| package | subject | imports of ours |"
		fixture.Page(t, *update, filepath.Join(root, "docs/architecture.md"), "", header, func([]string) []string {
			lines := []string{header, "|---|---|---|"}
			for _, r := range rows {
				subject := r.Subject
				if r.Pure {
					subject += ". Pure"
				}
				lines = append(lines, fmt.Sprintf("| `%s` | %s | %s |", r.Package, subject, names(r.Imports)))
			}
			return lines
		})
	})
	t.Run("dependencies", func(t *testing.T) {
		const header = "| module | what for, and why this one | in | licence | MB |"
		fixture.Page(t, *update, filepath.Join(root, "docs/dependencies.md"), "", header, func(old []string) []string {
			return dependencies(t, old, rows, testModules)
		})
	})
}

// tree returns the rows as the tree is, with what the table says of them, and the modules that only tests import.
func tree(t *testing.T) (rows []row, testModules []string) {
	t.Helper()
	var direct []string
	for _, f := range cgoBuild.list(t, "-m", "-f", "{{if not (or .Main .Indirect)}}{{.Path}}{{end}}", "all") {
		direct = append(direct, f...)
	}
	byPackage := map[string]*row{}
	for _, b := range []build{cgoBuild, pureBuild, darwinBuild} {
		for _, f := range b.list(t, "-e", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...") {
			pkg := strings.TrimPrefix(f[0], module)
			r := byPackage[pkg]
			if r == nil {
				r = &row{Package: pkg}
				byPackage[pkg] = r
			}
			for _, imp := range f[1:] {
				if path, ok := strings.CutPrefix(imp, module); ok {
					r.Imports = append(r.Imports, path)
				} else if m := moduleOf(t, direct, pkg, imp); m != "" {
					r.Modules = append(r.Modules, m)
				}
			}
		}
	}
	var used []string
	for _, r := range byPackage {
		r.Imports, r.Modules = set(r.Imports), set(r.Modules)
		used = append(used, r.Modules...)
		for _, known := range table {
			if known.Package == r.Package {
				r.Subject, r.Pure = known.Subject, known.Pure
			}
		}
		rows = append(rows, *r)
	}
	slices.SortFunc(rows, func(a, b row) int { return strings.Compare(a.Package, b.Package) })
	for _, m := range direct {
		if !slices.Contains(used, m) {
			testModules = append(testModules, m)
		}
	}
	return rows, testModules
}

// moduleOf returns the module of go.mod that a package is of, or "" for the standard library's.
func moduleOf(t *testing.T, direct []string, pkg, imp string) string {
	t.Helper()
	for _, m := range direct {
		if within(imp, m) {
			return m
		}
	}
	if first, _, _ := strings.Cut(imp, "/"); strings.Contains(first, ".") {
		t.Errorf("%s imports %s, which go.mod doesn't require directly", pkg, imp)
	}
	return ""
}

func set(s []string) []string {
	slices.Sort(s)
	return slices.Compact(s)
}

// compare says what differs between the table and the tree.
func compare(t *testing.T, rows []row) {
	t.Helper()
	packages := map[string]row{}
	for _, r := range rows {
		packages[r.Package] = r
	}
	for _, allowed := range table {
		is, ok := packages[allowed.Package]
		if !ok {
			t.Errorf("the table has %s, which doesn't exist", allowed.Package)
			continue
		}
		delete(packages, allowed.Package)
		for _, kind := range []struct{ allowed, is []string }{
			{allowed.Imports, is.Imports}, {allowed.Modules, is.Modules},
		} {
			for _, imp := range kind.is {
				if !slices.Contains(kind.allowed, imp) {
					t.Errorf("%s imports %s, which the table doesn't allow", allowed.Package, imp)
				}
			}
			for _, imp := range kind.allowed {
				if !slices.Contains(kind.is, imp) {
					t.Errorf("%s doesn't import %s, which the table allows", allowed.Package, imp)
				}
			}
		}
	}
	for pkg := range packages {
		t.Errorf("the table has no row for %s", pkg)
	}
	if !t.Failed() && !reflect.DeepEqual(table, rows) {
		t.Error("the table is not in order")
	}
}

// dependencies fills the column "in" of docs/dependencies.md: the packages that import the row's module. The other
// columns are written by hand.
func dependencies(t *testing.T, old []string, rows []row, testModules []string) []string {
	t.Helper()
	users := map[string][]string{}
	for _, r := range rows {
		for _, m := range r.Modules {
			users[m] = append(users[m], r.Package)
		}
	}
	lines := slices.Clone(old[:2])
	for _, line := range old[2:] {
		cells := strings.Split(line, "|")
		if len(cells) != 7 {
			t.Errorf("not five cells: %s", line)
			continue
		}
		m := strings.Trim(cells[1], " `")
		switch {
		case len(users[m]) > 0:
			cells[3] = " " + names(users[m]) + " "
			delete(users, m)
		case slices.Contains(testModules, m):
			cells[3] = " tests "
			testModules = slices.DeleteFunc(slices.Clone(testModules), func(s string) bool { return s == m })
		default:
			t.Errorf("docs/dependencies.md explains %s twice, or nobody imports it", m)
		}
		lines = append(lines, strings.Join(cells, "|"))
	}
	for m := range users {
		testModules = append(testModules, m)
	}
	for _, m := range testModules {
		t.Errorf("docs/dependencies.md doesn't say what %s is for", m)
	}
	return lines
}

// names is a cell with packages in it. "internal/" is left out.
func names(packages []string) string {
	if len(packages) == 0 {
		return "–"
	}
	short := make([]string, len(packages))
	for i, p := range packages {
		short[i] = "`" + strings.TrimPrefix(p, "internal/") + "`"
	}
	return strings.Join(short, ", ")
}

func write(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(root, file), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// source is the table as Go.
func source(t *testing.T, rows []row) []byte {
	t.Helper()
	var b bytes.Buffer
	b.WriteString(`package layering

// table says of every package what it is about, and what it may import. Subject and Pure are written by hand; new
// rows and the imports come from go test ./internal/layering -update, and the review of its difference.
var table = []row{
`)
	for _, r := range rows {
		fmt.Fprintf(&b, "\t{\n\t\tPackage: %q,\n\t\tSubject: %q,\n", r.Package, r.Subject)
		if r.Pure {
			b.WriteString("\t\tPure: true,\n")
		}
		list(&b, "Imports", r.Imports)
		list(&b, "Modules", r.Modules)
		b.WriteString("\t},\n")
	}
	b.WriteString("}\n")
	out, err := format.Source(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// list writes a field of strings, in lines of at most 120 characters.
func list(b *bytes.Buffer, field string, items []string) {
	if len(items) == 0 {
		return
	}
	fmt.Fprintf(b, "\t\t%s: []string{", field)
	width := 121
	for _, item := range items {
		quoted := fmt.Sprintf("%q,", item)
		if width+1+len(quoted) > 100 {
			b.WriteString("\n\t\t\t" + quoted)
			width = 3 + len(quoted)
			continue
		}
		b.WriteString(" " + quoted)
		width += 1 + len(quoted)
	}
	b.WriteString("\n\t\t},\n")
}
