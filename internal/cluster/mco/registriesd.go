package mco

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/nodetrust/nodetrust/internal/trust"
)

// Taken is a file of another MachineConfig whose content was merged into ours.
type Taken struct {
	Path string `json:"path"`
	// From is the MachineConfig that has it, Digest the SHA-256 of its bytes there.
	From   string `json:"from"`
	Digest string `json:"digest"`
}

func taken(o Owned) Taken {
	return Taken{o.Path, o.Owner.Name, trust.ContentDigest(o.Data)}
}

// lookup is the content of a registries.d file: Docker by scope, all else as it is written.
type lookup struct {
	Docker map[string]section `yaml:"docker,omitempty"`
	Rest   map[string]any     `yaml:",inline"`
}

// section says where signatures of a scope are looked up. Fields that no reader knows are kept.
type section map[string]any

// url is where readers take signatures from.
func (s section) url() string {
	for _, key := range []string{"lookaside", "sigstore"} {
		if u, _ := s[key].(string); u != "" {
			return u
		}
	}
	return ""
}

const attachments = "use-sigstore-attachments"

func parseLookup(data []byte) (lookup, error) {
	var l lookup
	if err := yaml.Unmarshal(data, &l); err != nil {
		return l, fmt.Errorf("parsing: %w", err)
	}
	return l, nil
}

// MergeRegistries merges the registries.d files of ours with those of the pool: a scope that both have comes to stand
// in our file alone, with what both say of it, and the other file is ours too, without that scope. So no scope is in
// two files, and nothing that the pool looks up is lost. Files without a scope of ours stay what they are.
// MachineConfigs named own are left out.
//
// The error names what can't be merged: a scope of which both say different things.
func (t Target) MergeRegistries(ours trust.FileSet, own ...string) (trust.FileSet, []Taken, error) {
	pool, err := t.Dump.Without(own...).PoolFiles(t.Pool, t.Minor)
	if err != nil {
		return nil, nil, err
	}
	m := registriesMerge{of: map[string]string{}, content: map[string]lookup{}}
	for _, f := range ours.Sorted() {
		if !isRegistries(f.Path) {
			continue
		}
		if err := m.add(f.Path, f.Data); err != nil {
			return nil, nil, err
		}
	}
	for _, p := range slices.Sorted(maps.Keys(pool)) {
		if !isRegistries(p) {
			continue
		}
		if f, same := ours.Get(p); same && bytes.Equal(f.Data, pool[p].Data) {
			continue
		}
		if err := m.join(pool[p]); err != nil {
			return nil, nil, fmt.Errorf("merging with %s of %s: %w", p, pool[p].Owner.Name, err)
		}
	}
	out := slices.Clone(ours)
	for _, p := range slices.Sorted(maps.Keys(m.content)) {
		if !slices.Contains(m.changed, p) {
			continue
		}
		data, err := m.file(p)
		if err != nil {
			return nil, nil, err
		}
		i := slices.IndexFunc(out, func(f trust.File) bool { return f.Path == p })
		if i < 0 {
			out = append(out, trust.File{Path: p, Mode: 0o644})
			i = len(out) - 1
		}
		out[i].Data = data
	}
	return out.Sorted(), m.taken, nil
}

func isRegistries(p string) bool {
	return path.Dir(p) == trust.RegistriesDir && strings.HasSuffix(p, ".yaml")
}

// registriesMerge is the result as far as it is made.
type registriesMerge struct {
	of      map[string]string // by scope: the file of ours that has it
	content map[string]lookup // by path
	changed []string          // paths that are not as they were rendered
	taken   []Taken
}

func (m *registriesMerge) add(p string, data []byte) error {
	l, err := parseLookup(data)
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	m.content[p] = l
	for s := range l.Docker {
		m.of[s] = p
	}
	return nil
}

// join merges a file of the pool, if it has to do with ours.
func (m *registriesMerge) join(o Owned) error {
	if o.Err != nil {
		return o.Err
	}
	theirs, err := parseLookup(o.Data)
	if err != nil {
		return err
	}
	mine, same := m.content[o.Path]
	shared := false
	for _, s := range slices.Sorted(maps.Keys(theirs.Docker)) {
		if err := m.overruled(s, theirs.Docker[s]); err != nil {
			return err
		}
		p, ok := m.of[s]
		if !ok {
			continue
		}
		shared = true
		both, err := unite(theirs.Docker[s], m.content[p].Docker[s])
		if err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
		m.content[p].Docker[s] = both
		m.change(p)
		delete(theirs.Docker, s)
	}
	if !same && !shared {
		return nil
	}
	m.taken = append(m.taken, taken(o))
	m.change(o.Path)
	for k, v := range mine.Rest {
		if theirs.Rest == nil {
			theirs.Rest = map[string]any{}
		}
		if _, ok := theirs.Rest[k]; ok {
			return fmt.Errorf("both have %s", k)
		}
		theirs.Rest[k] = v
	}
	if theirs.Docker == nil {
		theirs.Docker = map[string]section{}
	}
	maps.Copy(theirs.Docker, mine.Docker)
	m.content[o.Path] = theirs
	return nil
}

// overruled: a scope of ours below one of theirs that switches attachments off would take their signatures away.
func (m *registriesMerge) overruled(scope string, theirs section) error {
	if on, _ := theirs[attachments].(bool); !on {
		return nil
	}
	for _, s := range slices.Sorted(maps.Keys(m.of)) {
		v, ok := m.content[m.of[s]].Docker[s][attachments].(bool)
		if ok && !v && below(s, scope) {
			return fmt.Errorf("%s is true for %s, and false for %s in ours: sigstore signatures that are asked for would not be found", attachments, scope, s)
		}
	}
	return nil
}

// below reports whether a scope is a part of another one.
func below(scope, of string) bool {
	if domain, ok := strings.CutPrefix(of, "*"); ok {
		host, _, _ := strings.Cut(scope, "/")
		host, _, _ = strings.Cut(host, ":")
		return strings.HasSuffix(host, domain)
	}
	rest, ok := strings.CutPrefix(scope, of)
	return ok && rest != "" && (rest[0] == '/' || strings.Contains(of, "/") && (rest[0] == ':' || rest[0] == '@'))
}

func (m *registriesMerge) change(p string) {
	if !slices.Contains(m.changed, p) {
		m.changed = append(m.changed, p)
	}
}

// unite is what both sections say. It is an error if they contradict each other.
func unite(theirs, ours section) (section, error) {
	if a, b := theirs.url(), ours.url(); a != "" && b != "" && a != b {
		return nil, fmt.Errorf("signatures are looked up at %s, ours at %s", a, b)
	}
	out := maps.Clone(ours)
	if out == nil {
		out = section{}
	}
	for k, v := range theirs {
		if was, ok := out[k]; ok && !reflect.DeepEqual(was, v) {
			return nil, fmt.Errorf("%s is %v, ours %v", k, v, was)
		}
		out[k] = v
	}
	return out, nil
}

func (m *registriesMerge) file(p string) ([]byte, error) {
	l := m.content[p]
	var b bytes.Buffer
	fmt.Fprintln(&b, "# Merged by nodetrust: what the cluster has, and what the trust config adds.")
	if len(l.Docker) == 0 && len(l.Rest) == 0 {
		return b.Bytes(), nil
	}
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(l); err != nil {
		return nil, fmt.Errorf("writing %s: %w", p, err)
	}
	return b.Bytes(), enc.Close()
}
