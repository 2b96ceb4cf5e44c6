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

	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/verify/library"
)

// file is a file to lint: its name for findings and its content, or err, which says why it can't be read.
type file struct {
	path string
	data []byte
	err  error
}

// registries is what registries.d files say together, and where their keys stand.
type registries struct {
	registriesd.Config
	files  []file
	lines  map[string]map[registriesd.Key]int // by file and key, whose own line is 0
	broken bool
	// lookasideBelow and attachmentsBelow have the scopes above those of sections that name one.
	lookasideBelow, attachmentsBelow map[string]bool
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
	r.lookasideBelow = r.above(func(e registriesd.Entry) bool { return e.URL() != "" })
	r.attachmentsBelow = r.above(registriesd.Entry.HasAttachments)
	if err := loadRegistries(files); err != nil && !r.broken {
		r.broken = true
		name := ""
		if len(files) == 1 {
			name = files[0].path
		}
		l.add("registries-d-rejected", place{file: name}, "%v", err)
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
	at := func(line int) place { return place{file: f.path, line: line} }
	if len(f.data) > maxRegistries {
		r.broken = true
		l.add("too-large", place{file: f.path}, "is larger than %d bytes", maxRegistries)
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
		l.add("bad-yaml", at(line), "%s", strings.TrimPrefix(err.Error(), "parsing "+path.Base(f.path)+": ")).Hint = hint
		return
	}
	content, err := registriesd.Parse(registriesd.File{Path: f.path, Data: f.data})
	if err != nil {
		// The library took it: nothing to fear but not being able to say more.
		l.add("bad-yaml", at(1), "%v", err).Severity = Warning
		return
	}
	if more := yamlDocuments(f.data); more > 0 {
		l.add("several-documents", at(more), "only the first YAML document is read")
	}
	lines := map[registriesd.Key]int{}
	r.lines[f.path] = lines
	for _, k := range registriesd.Keys(f.data) {
		line := k.Line
		if !k.Known() {
			l.add("unknown-key", at(line), "%q is no key that registries.d knows here: readers drop it without a word",
				k.Name).Hint = didYouMeanKey(k)
		}
		k.Line = 0
		lines[k] = line
	}
	check := entryCheck{l, f.path, lines}
	if d := content.Default; d != nil {
		line := lines[registriesd.Key{Name: registriesd.DefaultSection}]
		check.entry(*d, registriesd.Key{Scope: registriesd.DefaultSection})
		if first := r.Default; first != nil {
			r.broken = true
			l.add("duplicate-default-docker", at(line), "default-docker is in %s too (line %d)", first.File,
				r.lines[first.File][registriesd.Key{Name: registriesd.DefaultSection}])
		} else {
			r.Default = d
		}
	}
	for _, scope := range content.Scopes() {
		e, line := content.Docker[scope], r.lineOf(f.path, scope)
		check.entry(e, registriesd.Key{Scope: scope, OfDocker: true})
		l.scope(scope, at(line).in(fmt.Sprintf("docker[%q]", scope)))
		if first, ok := r.Docker[scope]; ok {
			r.broken = true
			l.add("duplicate-scope", at(line), "docker[%q] is in %s too (line %d)", scope, first.File,
				r.lineOf(first.File, scope))
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
	*linter
	file  string
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
			c.url(u.value, place{c.file, line(u.key), key.Scope + ": " + u.key})
		}
	}
	differ := e.Lookaside != "" && e.SigStore != "" && e.Lookaside != e.SigStore
	c.addIf(differ, "lookaside-differs", place{file: c.file, line: line("sigstore")},
		"%s: lookaside and sigstore are two names of the same setting and differ: old readers use sigstore, others lookaside", key.Scope)
}

func (c entryCheck) url(s string, at place) {
	if strings.TrimSpace(s) != s {
		c.add("bad-url", at, "has blanks around it")
		return
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		c.add("bad-url", at, "is no URL")
		return
	case u.Scheme == "" || u.Opaque != "":
		c.add("bad-url", at,
			"has no scheme: it loads, and fails when it is fetched").Hint = "write https://…, or file:///… for a directory"
		return
	case !slices.Contains([]string{"https", "http", "file"}, u.Scheme):
		c.add("bad-url", at, "readers support https, http and file, not %s", u.Scheme)
		return
	case u.Scheme == "file" && (u.Host != "" || !strings.HasPrefix(u.Path, "/")):
		c.add("bad-url", at, "a file URL has three slashes").Hint = "write file:///…"
		return
	case u.Scheme != "file" && u.Host == "":
		c.add("bad-url", at, "names no host")
		return
	}
	c.addIf(u.User != nil, "credentials-in-url", at, "holds credentials")
	c.addIf(u.RawQuery != "" || u.Fragment != "", "bad-url", at,
		"a query or fragment is kept in front of nothing: paths are appended to the path").Severity = Warning
	if u.Scheme == "http" {
		c.plainHTTP(at)
	}
}
