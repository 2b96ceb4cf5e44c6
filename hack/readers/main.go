// Command readers records what old versions of the image library do, by really running them: it builds a program with
// each version, from the module proxy, and writes down what that program sees. load/main.go sees what becomes of
// policies and registries.d, for internal/lint/testdata/readers.json; fool/main.go pulls what would fool a verifier,
// for internal/trust/testdata/advisories.json. `make readers` runs it, and the tests of lint and trust hold the table
// of readers and its advisories against the records.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// loaded are the versions next to where a feature came, and some that products of the table have. 5.39.0 was never
// published.
const loaded = "5.0.0 5.4.3 5.5.1 5.6.0 5.7.0 5.8.1 5.9.0 5.10.0 5.12.0 5.17.0 5.19.1 5.21.1 5.22.0 5.23.1 5.24.0 5.25.0 5.27.0 5.29.2 5.31.1 5.32.0 5.32.2 5.33.1 5.34.0 5.34.1 5.34.3 5.35.0 5.36.2 5.38.0 5.40.0 5.41.1 5.42.0 5.42.1"

// The module moved with 5.37.
const (
	oldModule = "github.com/containers/image/v5"
	newModule = "go.podman.io/image/v5"
)

// tags leave out what needs C libraries.
const tags = "containers_image_openpgp,containers_image_docker_daemon_stub,containers_image_storage_stub,exclude_graphdriver_btrfs,exclude_graphdriver_devicemapper"

// record is what is recorded of one version.
type record struct {
	Library string          `json:"library"`
	Module  string          `json:"module"`
	Seen    json.RawMessage `json:"seen"`
}

func main() {
	features := flag.String("features", "internal/lint/testdata/features.json", "policies to load")
	out := flag.String("o", "internal/lint/testdata/readers.json", "where the record of policies is written")
	only := flag.String("only", loaded, "versions to load policies with, with blanks between; the record keeps the others")
	holes := flag.String("advisories", "internal/trust/testdata/advisories.json",
		"where the record of advisories is written; its inputs are kept")
	onlyHoles := flag.String("only-advisories", fooled,
		"versions to fool, with blanks between; the record keeps the others")
	flag.Parse()
	err := recordFeatures(*features, *out, strings.Fields(*only))
	if err == nil {
		err = recordAdvisories(*holes, strings.Fields(*onlyHoles))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "readers:", err)
		os.Exit(1)
	}
}

func recordFeatures(features, out string, versions []string) error {
	policies, err := readPolicies(features)
	if err != nil {
		return err
	}
	var records []record
	if err := readJSON(out, &records); err != nil {
		return err
	}
	if records, err = ask("load", versions, policies, records); err != nil {
		return err
	}
	return writeJSON(out, records)
}

// readJSON leaves v alone if there is no such file.
func readJSON(file string, v any) error {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", file, err)
	}
	return nil
}

func writeJSON(file string, v any) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

// ask runs a program with each of the versions, gives it the input, and returns the records with these versions in
// them, in order.
func ask(name string, versions []string, input []byte, records []record) ([]record, error) {
	for _, v := range versions {
		fmt.Fprintln(os.Stderr, name, "with containers-image", v)
		r, err := askOne(name, v, input)
		if err != nil {
			return nil, fmt.Errorf("asking version %s: %w", v, err)
		}
		records = slices.DeleteFunc(records, func(old record) bool { return old.Library == v })
		records = append(records, r)
	}
	slices.SortFunc(records, func(a, b record) int { return slices.Compare(numbers(a.Library), numbers(b.Library)) })
	return records, nil
}

// readPolicies returns the policies by the names of their features.
func readPolicies(file string) ([]byte, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var rows []struct {
		Name   string
		Policy json.RawMessage
	}
	if err := json.Unmarshal(b, &rows); err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	policies := map[string]json.RawMessage{}
	for _, r := range rows {
		policies[r.Name] = r.Policy
	}
	return json.Marshal(policies)
}

// askOne builds a program in a module of its own, which requires just this version of the library, and runs it.
func askOne(name, version string, input []byte) (record, error) {
	var none record
	dir, err := os.MkdirTemp("", "readers")
	if err != nil {
		return none, err
	}
	defer os.RemoveAll(dir)
	module := newModule
	if numbers(version)[1] < 37 {
		module = oldModule
	}
	mod := "module readers\n\ngo 1.21\n\nrequire " + module + " v" + version + "\n"
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(mod), 0o600); err != nil {
		return none, err
	}
	for _, file := range []string{name + "/main.go", "input.go"} { // both programs know the inputs
		source, err := os.ReadFile(filepath.Join("hack/readers", file))
		if err != nil {
			return none, err
		}
		text := strings.ReplaceAll(strings.Replace(string(source), "//go:build ignore\n", "", 1), oldModule, module)
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), []byte(text), 0o600); err != nil {
			return none, err
		}
	}
	program := filepath.Join(dir, name)
	build := exec.Command("go", "build", "-mod=mod", "-tags", tags, "-o", program, ".")
	build.Dir = dir
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if text, err := build.CombinedOutput(); err != nil {
		return none, fmt.Errorf("building: %w\n%s", err, text)
	}
	home := filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return none, err
	}
	run := exec.Command(program)
	run.Dir, run.Stdin = dir, bytes.NewReader(input)
	run.Env = []string{"HOME=" + home, "TMPDIR=" + dir, "PATH=/nonexistent"}
	var stderr bytes.Buffer
	run.Stderr = &stderr
	seen, err := run.Output()
	if err != nil {
		return none, fmt.Errorf("running: %w\n%s", err, stderr.String())
	}
	return record{version, module, seen}, nil
}

// numbers of a version: 5, 29 and 2 of 5.29.2.
func numbers(version string) []int {
	n := make([]int, 3)
	fmt.Sscanf(version, "%d.%d.%d", &n[0], &n[1], &n[2])
	return n
}
