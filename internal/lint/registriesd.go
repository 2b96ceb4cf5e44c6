package lint

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/verify/registriesd"
)

// file is a file to lint: its name for findings and its content.
type file struct {
	path string
	data []byte
}

// registries is what registries.d files say together.
type registries struct {
	files  []file
	scopes map[string]registryEntry
	def    *registryEntry
	broken bool
}

// registryEntry has the fields of the library's; staging is for signing.
type registryEntry struct {
	Lookaside        string `yaml:"lookaside"`
	LookasideStaging string `yaml:"lookaside-staging"`
	SigStore         string `yaml:"sigstore"`
	SigStoreStaging  string `yaml:"sigstore-staging"`
	Attachments      *bool  `yaml:"use-sigstore-attachments"`

	file string
	line int
}

func (e registryEntry) url() string {
	if e.Lookaside != "" {
		return e.Lookaside
	}
	return e.SigStore
}

var (
	registriesKeys = []string{"default-docker", "docker"}
	entryKeys      = []string{"lookaside", "lookaside-staging", "sigstore", "sigstore-staging", "use-sigstore-attachments"}
)

// registries lints effective registries.d files: no two have the same base name, and masked ones are left out.
func (l *linter) registries(files []file) *registries {
	r := &registries{files: files, scopes: map[string]registryEntry{}}
	for _, f := range files {
		l.registriesFile(r, f)
	}
	if err := loadRegistries(files); err != nil && !r.broken {
		r.broken = true
		name := ""
		if len(files) == 1 {
			name = files[0].path
		}
		l.add(Finding{Severity: Error, Code: "registries-d-rejected", File: name, Message: err.Error()})
	}
	return r
}

// loadRegistries is the library's word on files together.
func loadRegistries(files []file) error {
	in := make([]registriesd.File, len(files))
	for i, f := range files {
		in[i] = registriesd.File{Path: f.path, Data: f.data}
	}
	return registriesd.Load(in)
}

var yamlLine = regexp.MustCompile(`line (\d+): `)

func (l *linter) registriesFile(r *registries, f file) {
	add := func(sev Severity, code string, line int, msg, hint string) {
		l.add(Finding{Severity: sev, Code: code, File: f.path, Line: line, Message: msg, Hint: hint})
	}
	if len(f.data) > maxRegistries {
		r.broken = true
		add(Error, "too-large", 0, fmt.Sprintf("is larger than %d bytes", maxRegistries), "")
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
		add(Error, "bad-yaml", line, strings.TrimPrefix(err.Error(), "parsing "+path.Base(f.path)+": "), hint)
		return
	}
	var doc yaml.Node
	var content struct {
		DefaultDocker *registryEntry           `yaml:"default-docker"`
		Docker        map[string]registryEntry `yaml:"docker"`
	}
	if err := errors.Join(yaml.Unmarshal(f.data, &doc), yaml.Unmarshal(f.data, &content)); err != nil {
		// The library took it: nothing to fear but not being able to say more.
		add(Warning, "bad-yaml", 1, err.Error(), "")
		return
	}
	if more := yamlDocuments(f.data); more > 0 {
		add(Error, "several-documents", more, "only the first YAML document is read", "make it a file of its own")
	}
	if len(doc.Content) == 0 {
		return
	}
	w := registriesWalk{add: add}
	w.root(doc.Content[0])

	if d := content.DefaultDocker; d != nil {
		d.file, d.line = f.path, w.line("default-docker")
		w.entry(*d, "default-docker")
		if r.def != nil {
			r.broken = true
			add(Error, "duplicate-default-docker", d.line,
				fmt.Sprintf("default-docker is in %s too (line %d)", r.def.file, r.def.line),
				"every pull of every image fails: keep one")
		} else {
			r.def = d
		}
	}
	for _, scope := range sortedKeys(content.Docker) {
		e := content.Docker[scope]
		e.file, e.line = f.path, w.line("docker", scope)
		w.entry(e, "docker", scope)
		if err := policy.CheckScope(scope); err != nil {
			add(Error, "dead-scope", e.line, fmt.Sprintf("docker[%q]: %v", scope, err), "")
		} else if policy.UpperCaseHost(scope) {
			add(Warning, "upper-case-host", e.line, fmt.Sprintf("docker[%q]: %s", scope, upperCaseHost), upperCaseHostHint)
		}
		if first, ok := r.scopes[scope]; ok {
			r.broken = true
			add(Error, "duplicate-scope", e.line, fmt.Sprintf("docker[%q] is in %s too (line %d)", scope, first.file,
				first.line), "every pull of every image fails: keep one")
			continue
		}
		r.scopes[scope] = e
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

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// registriesWalk checks the keys of one file, and remembers where they stand.
type registriesWalk struct {
	add   func(sev Severity, code string, line int, msg, hint string)
	lines map[string]int
}

func (w *registriesWalk) line(keys ...string) int { return w.lines[strings.Join(keys, "\x00")] }

func (w *registriesWalk) root(n *yaml.Node) {
	w.lines = map[string]int{}
	w.mapping(n, func(key *yaml.Node, value *yaml.Node) {
		w.lines[key.Value] = key.Line
		switch key.Value {
		case "default-docker":
			w.fields(value, "default-docker")
		case "docker":
			w.mapping(value, func(scope, entry *yaml.Node) {
				w.lines["docker\x00"+scope.Value] = scope.Line
				w.fields(entry, "docker", scope.Value)
			})
		default:
			w.unknown(key, registriesKeys)
		}
	})
}

func (w *registriesWalk) fields(n *yaml.Node, at ...string) {
	w.mapping(n, func(key, _ *yaml.Node) {
		w.lines[strings.Join(append(slices.Clone(at), key.Value), "\x00")] = key.Line
		if !slices.Contains(entryKeys, key.Value) {
			w.unknown(key, entryKeys)
		}
	})
}

func (w *registriesWalk) unknown(key *yaml.Node, known []string) {
	hint := didYouMeanKey(key.Value, known)
	w.add(Error, "unknown-key", key.Line, fmt.Sprintf(
		"%q is no key that registries.d knows here: readers drop it without a word", key.Value), hint)
}

func didYouMeanKey(s string, known []string) string {
	switch {
	case nearest(s, known) != "":
		return fmt.Sprintf("did you mean %q?", nearest(s, known))
	case slices.Contains(entryKeys, s) || slices.Contains(registriesKeys, s):
		return "check the indentation"
	}
	return ""
}

// mapping calls f for the pairs of a mapping, following one alias; merge keys are looked into.
func (w *registriesWalk) mapping(n *yaml.Node, f func(key, value *yaml.Node)) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Tag == "!!merge" {
			continue // what it merges in is checked where it is written
		}
		f(key, value)
	}
}

// entry checks the values of one section.
func (w *registriesWalk) entry(e registryEntry, at ...string) {
	name := at[len(at)-1]
	for _, u := range []struct{ key, value string }{
		{"lookaside", e.Lookaside},
		{"lookaside-staging", e.LookasideStaging},
		{"sigstore", e.SigStore},
		{"sigstore-staging", e.SigStoreStaging},
	} {
		if u.value != "" {
			w.url(u.value, w.line(append(slices.Clone(at), u.key)...), fmt.Sprintf("%s: %s", name, u.key))
		}
	}
	if e.Lookaside != "" && e.SigStore != "" && e.Lookaside != e.SigStore {
		w.add(Warning, "lookaside-differs", w.line(append(slices.Clone(at), "sigstore")...),
			name+": lookaside and sigstore are two names of the same setting and differ: old readers use sigstore, others lookaside", "write the same URL in both")
	}
}

func (w *registriesWalk) url(s string, line int, at string) {
	bad := func(code, msg, hint string) { w.add(Error, code, line, at+": "+msg, hint) }
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
		w.add(Warning, "credentials-in-url", line, at+": holds credentials", "every process on the node can read this file")
	}
	if u.RawQuery != "" || u.Fragment != "" {
		w.add(Warning, "bad-url", line, at+": a query or fragment is kept in front of nothing: paths are appended to the path", "")
	}
	if u.Scheme == "http" {
		w.add(Warning, "insecure-lookaside", line, at+
			": http can be changed on its way: an attacker may hide signatures, or offer old ones", "use https")
	}
}
