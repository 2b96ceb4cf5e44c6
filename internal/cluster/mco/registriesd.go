package mco

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/nodetrust/nodetrust/internal/policy"

	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/trust"
	"go.yaml.in/yaml/v3"
)

// Taken is a file of another MachineConfig whose content was merged into ours.
type Taken struct {
	Path string `json:"path"`
	// From is the MachineConfig of the file, Digest the SHA-256 of its bytes there.
	From   string `json:"from"`
	Digest string `json:"digest"`
}

func taken(o Owned) Taken {
	return Taken{o.Path, o.Owner.Name, trust.ContentDigest(o.Data)}
}

// MergeRegistries merges our registries.d files with the pool's, so that no scope is in two files and none is lost. A
// shared scope moves to our file with the content of both, and we take over the other file without the scope. Files
// without a shared scope stay unchanged. MachineConfigs named own are left out.
//
// The error names scopes of which both files say different things.
func (t Target) MergeRegistries(ours trust.FileSet, own ...string) (trust.FileSet, []Taken, error) {
	pool, err := t.Dump.Without(own...).PoolFiles(t.Pool, t.Minor)
	if err != nil {
		return nil, nil, err
	}
	m := registriesMerge{of: map[string]string{}, content: map[string]registriesd.Config{}}
	for _, f := range ours.Sorted() {
		if !registriesd.Is(f.Path, trust.RegistriesDir) {
			continue
		}
		if err := m.add(f.Path, f.Data); err != nil {
			return nil, nil, err
		}
	}
	for _, p := range slices.Sorted(maps.Keys(pool)) {
		if !registriesd.Is(p, trust.RegistriesDir) {
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

type registriesMerge struct {
	of      map[string]string             // by scope: the file of ours that has it
	content map[string]registriesd.Config // by path
	changed []string                      // paths whose content is not the rendered one
	taken   []Taken
}

func (m *registriesMerge) add(p string, data []byte) error {
	c, err := registriesd.Parse(registriesd.File{Path: p, Data: data})
	if err != nil {
		return fmt.Errorf("%s: parsing: %w", p, err)
	}
	m.content[p] = c
	for s := range c.Docker {
		m.of[s] = p
	}
	return nil
}

// join merges a file of the pool if it shares scopes with ours.
func (m *registriesMerge) join(o Owned) error {
	if o.Err != nil {
		return o.Err
	}
	theirs, err := registriesd.Parse(registriesd.File{Path: o.Path, Data: o.Data})
	if err != nil {
		return fmt.Errorf("parsing: %w", err)
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
	for k, v := range mine.Unknown {
		if _, ok := theirs.Unknown[k]; ok {
			return fmt.Errorf("both have %s", k)
		}
		if theirs.Unknown == nil {
			theirs.Unknown = map[string]yaml.Node{}
		}
		theirs.Unknown[k] = v
	}
	if theirs.Default != nil && mine.Default != nil {
		return fmt.Errorf("both have %s", registriesd.DefaultSection)
	}
	if theirs.Default == nil {
		theirs.Default = mine.Default
	}
	if theirs.Docker == nil {
		theirs.Docker = map[string]registriesd.Entry{}
	}
	maps.Copy(theirs.Docker, mine.Docker)
	m.content[o.Path] = theirs
	return nil
}

// overruled returns an error if a scope of ours below one of theirs turns off the attachments that theirs needs.
func (m *registriesMerge) overruled(scope string, theirs registriesd.Entry) error {
	if !theirs.HasAttachments() {
		return nil
	}
	for _, s := range slices.Sorted(maps.Keys(m.of)) {
		if e := m.content[m.of[s]].Docker[s]; e.Attachments != nil && !*e.Attachments && s != scope &&
			slices.Contains(policy.Chain(policy.Docker, s), scope) {
			return fmt.Errorf("use-sigstore-attachments is true for %s, and false for %s in ours: sigstore signatures that are asked for would not be found", scope, s)
		}
	}
	return nil
}

func (m *registriesMerge) change(p string) {
	if !slices.Contains(m.changed, p) {
		m.changed = append(m.changed, p)
	}
}

// unite merges two sections, unknown keys included, and returns an error if they contradict each other.
func unite(theirs, ours registriesd.Entry) (registriesd.Entry, error) {
	if a, b := theirs.URL(), ours.URL(); a != "" && b != "" && a != b {
		return ours, fmt.Errorf("signatures are looked up at %s, ours at %s", a, b)
	}
	out := ours
	for _, f := range []struct {
		key    string
		theirs string
		out    *string
	}{
		{"lookaside", theirs.Lookaside, &out.Lookaside},
		{"lookaside-staging", theirs.LookasideStaging, &out.LookasideStaging},
		{"sigstore", theirs.SigStore, &out.SigStore},
		{"sigstore-staging", theirs.SigStoreStaging, &out.SigStoreStaging},
	} {
		if f.theirs != "" && *f.out != "" && f.theirs != *f.out {
			return ours, fmt.Errorf("%s is %v, ours %v", f.key, f.theirs, *f.out)
		}
		*f.out = cmp.Or(*f.out, f.theirs)
	}
	if a, b := theirs.Attachments, ours.Attachments; a != nil && b != nil && *a != *b {
		return ours, fmt.Errorf("use-sigstore-attachments is %v, ours %v", *a, *b)
	}
	out.Attachments = cmp.Or(ours.Attachments, theirs.Attachments)
	out.Unknown = maps.Clone(theirs.Unknown)
	for k, v := range ours.Unknown {
		var a, b any
		if was, ok := theirs.Unknown[k]; ok {
			if err := errors.Join(was.Decode(&a), v.Decode(&b)); err != nil {
				return ours, err
			}
			if !reflect.DeepEqual(a, b) {
				return ours, fmt.Errorf("%s is %v, ours %v", k, a, b)
			}
		}
		if out.Unknown == nil {
			out.Unknown = map[string]yaml.Node{}
		}
		out.Unknown[k] = v
	}
	return out, nil
}

func (m *registriesMerge) file(p string) ([]byte, error) {
	b, err := m.content[p].YAML()
	if err != nil {
		return nil, fmt.Errorf("writing %s: %w", p, err)
	}
	return append([]byte("# Merged by nodetrust: what the cluster has, and what the trust config adds.\n"), b...), nil
}
