package lint

import (
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/verify/library"
)

// file is a file to lint: its name for findings and its content.
type file struct {
	path string
	data []byte
}

// registries is what registries.d files say together, and where their keys stand.
type registries struct {
	registriesd.Config
	files  []file
	lines  map[string]map[registriesd.Key]int // by file and key, whose own line is 0
	broken bool
}

// lineOf is the line of a scope in the file that has it; 0 if it isn't written as such.
func (r *registries) lineOf(file, scope string) int {
	return r.lines[file][registriesd.Key{Name: scope, OfDocker: true}]
}

// registries lints effective registries.d files: no two have the same base name, and masked ones are left out.
func (l *linter) registries(files []file) *registries {
	r := &registries{
		Config: registriesd.Config{Docker: map[string]registriesd.Entry{}}, files: files,
		lines: map[string]map[registriesd.Key]int{},
	}
	for _, f := range files {
		l.registriesFile(r, f)
	}
	if err := loadRegistries(files); err != nil && !r.broken {
		r.broken = true
		name := ""
		if len(files) == 1 {
			name = files[0].path
		}
		l.add(Finding{Code: "registries-d-rejected", File: name, Message: err.Error()})
	}
	return r
}

// loadRegistries is the library's word on files together.
func loadRegistries(files []file) error {
	in := make([]registriesd.File, len(files))
	for i, f := range files {
		in[i] = registriesd.File{Path: f.path, Data: f.data}
	}
	return library.Load(in)
}

var yamlLine = regexp.MustCompile(`line (\d+): `)

func (l *linter) registriesFile(r *registries, f file) {
	add := func(sev Severity, code Code, line int, msg, hint string) {
		l.add(Finding{Severity: sev, Code: code, File: f.path, Line: line, Message: msg, Hint: hint})
	}
	if len(f.data) > maxRegistries {
		r.broken = true
		add("", "too-large", 0, fmt.Sprintf("is larger than %d bytes", maxRegistries), "")
		return
	}
	if err := loadRegistries([]file{{path: path.Base(f.path), data: f.data}}); err != nil {
		r.broken = true
		line := 1
		if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
			line, _ = strconv.Atoi(m[1])
		}
		hint := "every pull of every image fails on a node with this file"
		if strings.Contains(string(f.data), "\t") {
			hint = "YAML is not indented with tabs; " + hint
		}
		add("", "bad-yaml", line, strings.TrimPrefix(err.Error(), "parsing "+path.Base(f.path)+": "), hint)
		return
	}
	content, err := registriesd.Parse(registriesd.File{Path: f.path, Data: f.data})
	if err != nil {
		// The library took it: nothing to fear but not being able to say more.
		add(Warning, "bad-yaml", 1, err.Error(), "")
		return
	}
	if more := yamlDocuments(f.data); more > 0 {
		add("", "several-documents", more, "only the first YAML document is read", "make it a file of its own")
	}
	lines := map[registriesd.Key]int{}
	r.lines[f.path] = lines
	for _, k := range registriesd.Keys(f.data) {
		line := k.Line
		if !k.Known() {
			add("", "unknown-key", line, fmt.Sprintf(
				"%q is no key that registries.d knows here: readers drop it without a word", k.Name), didYouMeanKey(k))
		}
		k.Line = 0
		lines[k] = line
	}
	check := entryCheck{add: add, lines: lines}
	if d := content.Default; d != nil {
		line := lines[registriesd.Key{Name: registriesd.DefaultSection}]
		check.entry(*d, registriesd.Key{Scope: registriesd.DefaultSection})
		if first := r.Default; first != nil {
			r.broken = true
			add("", "duplicate-default-docker", line, fmt.Sprintf("default-docker is in %s too (line %d)", first.File,
				r.lines[first.File][registriesd.Key{Name: registriesd.DefaultSection}]),
				"every pull of every image fails: keep one")
		} else {
			r.Default = d
		}
	}
	for _, scope := range content.Scopes() {
		e, line := content.Docker[scope], r.lineOf(f.path, scope)
		check.entry(e, registriesd.Key{Scope: scope, OfDocker: true})
		if err := policy.CheckScope(scope); err != nil {
			add("", "dead-scope", line, fmt.Sprintf("docker[%q]: %v", scope, err), "")
		} else if policy.UpperCaseHost(scope) {
			add("", "upper-case-host", line, fmt.Sprintf("docker[%q]: %s", scope, upperCaseHost), "")
		}
		if first, ok := r.Docker[scope]; ok {
			r.broken = true
			add("", "duplicate-scope", line, fmt.Sprintf("docker[%q] is in %s too (line %d)", scope, first.File,
				r.lineOf(first.File, scope)), "every pull of every image fails: keep one")
			continue
		}
		r.Docker[scope] = e
	}
}

// yamlDocuments returns the line of a second document, 0 if there is none.
func yamlDocuments(data []byte) int {
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	var n yaml.Node
	if dec.Decode(&n) != nil {
		return 0
	}
	var second yaml.Node
	if dec.Decode(&second) != nil {
		return 0
	}
	return max(second.Line, 1)
}

func didYouMeanKey(k registriesd.Key) string {
	known := registriesd.TopKeys()
	if k.Scope != "" {
		known = registriesd.EntryKeys()
	}
	switch {
	case nearest(k.Name, known) != "":
		return fmt.Sprintf("did you mean %q?", nearest(k.Name, known))
	case slices.Contains(registriesd.EntryKeys(), k.Name) || slices.Contains(registriesd.TopKeys(), k.Name):
		return "check the indentation"
	}
	return ""
}

// entryCheck checks the values of the sections of one file.
type entryCheck struct {
	add   func(sev Severity, code Code, line int, msg, hint string)
	lines map[registriesd.Key]int // by key, whose own line is 0
}

// entry checks the section whose keys are like key.
func (c entryCheck) entry(e registriesd.Entry, key registriesd.Key) {
	line := func(name string) int {
		key.Name = name
		return c.lines[key]
	}
	for _, u := range []struct{ key, value string }{
		{"lookaside", e.Lookaside},
		{"lookaside-staging", e.LookasideStaging},
		{"sigstore", e.SigStore},
		{"sigstore-staging", e.SigStoreStaging},
	} {
		if u.value != "" {
			c.url(u.value, line(u.key), fmt.Sprintf("%s: %s", key.Scope, u.key))
		}
	}
	if e.Lookaside != "" && e.SigStore != "" && e.Lookaside != e.SigStore {
		c.add("", "lookaside-differs", line("sigstore"),
			key.Scope+": lookaside and sigstore are two names of the same setting and differ: old readers use sigstore, others lookaside", "write the same URL in both")
	}
}

func (c entryCheck) url(s string, line int, at string) {
	bad := func(code Code, msg, hint string) { c.add("", code, line, at+": "+msg, hint) }
	if strings.TrimSpace(s) != s {
		bad("bad-url", "has blanks around it", "")
		return
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		bad("bad-url", "is no URL", "")
		return
	case u.Scheme == "" || u.Opaque != "":
		bad("bad-url", "has no scheme: it loads, and fails when it is fetched",
			"write https://…, or file:///… for a directory")
		return
	case !slices.Contains([]string{"https", "http", "file"}, u.Scheme):
		bad("bad-url", fmt.Sprintf("readers support https, http and file, not %s", u.Scheme), "")
		return
	case u.Scheme == "file" && (u.Host != "" || !strings.HasPrefix(u.Path, "/")):
		bad("bad-url", "a file URL has three slashes", "write file:///…")
		return
	case u.Scheme != "file" && u.Host == "":
		bad("bad-url", "names no host", "")
		return
	}
	if u.User != nil {
		c.add("", "credentials-in-url", line, at+": holds credentials", "every process on the node can read this file")
	}
	if u.RawQuery != "" || u.Fragment != "" {
		c.add(Warning, "bad-url", line, at+": a query or fragment is kept in front of nothing: paths are appended to the path", "")
	}
	if u.Scheme == "http" {
		c.add("", "insecure-lookaside", line, at+
			": http can be changed on its way: an attacker may hide signatures, or offer old ones", "")
	}
}
