// Command vuln runs govulncheck over all modules of the repository: for known vulnerabilities in what the shipped
// programs call, and in the modules that tests require. A module that could not be checked is said to be so.
//
// Exit status: 0 if all was checked and nothing found, 3 if something was found, 4 if nothing was found and not all
// was checked.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const (
	exitFound      = 3 // govulncheck's own
	exitNotChecked = 4
)

// own begins the paths of this repository's packages, whose programs the first module's check covers.
const own = "github.com/nodetrust/nodetrust/"

func main() {
	tags := flag.String("tags", "", "build tags of the shipped programs")
	db := flag.String("db", "", "`URL` of the vulnerability database; default govulncheck's own")
	command := flag.String("govulncheck", "govulncheck", "how govulncheck is run, with blanks between the words")
	flag.Parse()
	c := checker{command: strings.Fields(*command), tags: *tags, stdout: os.Stdout}
	if *db != "" {
		c.command = append(c.command, "-db", *db)
	}
	dirs, err := modules(".")
	if err != nil {
		fmt.Fprintln(os.Stderr, "vuln:", err)
		os.Exit(exitNotChecked)
	}
	os.Exit(c.all(dirs))
}

// modules are the folders below root that have a go.mod, the root first.
func modules(root string) ([]string, error) {
	out := []string{root}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || d.Name() == ".git"):
			return filepath.SkipDir
		case d.Name() == "go.mod" && filepath.Dir(path) != root:
			out = append(out, filepath.Dir(path))
		}
		return nil
	})
	return out, err
}

// checker runs a command that is govulncheck.
type checker struct {
	command []string
	tags    string
	stdout  io.Writer
}

// all checks modules, the first by what its programs call and the others, of which nothing is shipped, by what they
// require. It returns an exit status.
func (c checker) all(dirs []string) int {
	found, missed := false, []string{}
	for i, dir := range dirs {
		fmt.Fprintf(c.stdout, "module %s\n", dir)
		switch vulnerable, err := c.check(dir, i == 0); {
		case vulnerable:
			found = true
		case errors.Is(err, errUnreachable):
			missed = append(missed, dirs[i:]...)
			fmt.Fprintln(c.stdout, err)
			return c.sum(found, missed, len(dirs))
		case err != nil:
			missed = append(missed, dir)
			fmt.Fprintln(c.stdout, err)
		}
	}
	return c.sum(found, missed, len(dirs))
}

// args are those for a module that only tests and tools need. govulncheck does not look at what tests import, so
// these packages are named to it. A module without packages has the tools that it names.
func (checker) args(dir string) ([]string, error) {
	args := []string{"-scan", "package"}
	if files, err := filepath.Glob(filepath.Join(dir, "*.go")); err != nil || len(files) == 0 {
		return append(args, "tool"), err
	}
	list := exec.Command("go", "list", "-f", `{{range .Imports}}{{.}} {{end}}{{range .TestImports}}{{.}} {{end}}{{range .XTestImports}}{{.}} {{end}}`, "./...")
	list.Dir = dir
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("listing what %s imports: %w", dir, err)
	}
	imports := strings.Fields(string(out))
	slices.Sort(imports)
	for _, p := range slices.Compact(imports) {
		if host, _, _ := strings.Cut(p, "/"); strings.Contains(host, ".") && !strings.HasPrefix(p, own) {
			args = append(args, p)
		}
	}
	return append(args, "./..."), nil
}

func (c checker) sum(found bool, missed []string, of int) int {
	switch {
	case len(missed) == of:
		fmt.Fprintln(c.stdout, "NOT CHECKED: nothing was checked")
	case len(missed) > 0:
		fmt.Fprintf(c.stdout, "NOT CHECKED: %s\n", strings.Join(missed, ", "))
	case !found:
		fmt.Fprintf(c.stdout, "nothing that %d modules call or import has a known vulnerability\n", of)
	}
	switch {
	case found:
		return exitFound
	case len(missed) > 0:
		return exitNotChecked
	}
	return 0
}

var errUnreachable = errors.New("the vulnerability database is not reachable")

// check reports whether a module is vulnerable. An error says that this is not known.
func (c checker) check(dir string, shipped bool) (vulnerable bool, err error) {
	args := []string{"-tags", c.tags, "./..."}
	if !shipped {
		if args, err = c.args(dir); err != nil {
			return false, err
		}
	}
	cmd := exec.Command(c.command[0], append(c.command[1:len(c.command):len(c.command)], args...)...)
	stderr := new(bytes.Buffer)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, c.stdout, io.MultiWriter(c.stdout, stderr)
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return false, nil
	case errors.As(err, &exit) && exit.ExitCode() == exitFound:
		return true, nil
	case strings.Contains(stderr.String(), "fetching vulnerabilities"):
		return false, errUnreachable
	}
	return false, fmt.Errorf("running govulncheck: %w", err)
}
