// Package registriesd knows the grammar of registries.d files: where the signatures of an image are looked up. It is
// pure, so that whoever reads, merges or writes such a file may import it. Whether the image library loads a file is
// asked elsewhere: package library below verify.
package registriesd

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// DefaultLookaside is what the image library reads for root when no registries.d file names a lookaside.
const DefaultLookaside = "file:///var/lib/containers/sigstore"

// Keys at the top of a file: DefaultSection is that of the section for images that no scope covers, DockerSections is
// that of the sections by scope.
const (
	DefaultSection = "default-docker"
	DockerSections = "docker"
)

// HomeDir is the directory of root's own files, below root's home.
const HomeDir = ".config/containers/registries.d"

// Dirs returns the directories of the system's files. A file hides files of its base name in later directories.
func Dirs() []string {
	return []string{
		"/etc/containers/registries.rootful.d", "/etc/containers/registries.d",
		"/usr/share/containers/registries.rootful.d", "/usr/share/containers/registries.d",
	}
}

// File is a registries.d file as it was read once.
type File struct {
	Path string // as seen on the host
	Data []byte
}

// Config is what registries.d files say.
type Config struct {
	Default *Entry           `yaml:"default-docker,omitempty"`
	Docker  map[string]Entry `yaml:"docker,omitempty"` // by scope
	// Unknown are the other keys, which readers drop.
	Unknown map[string]yaml.Node `yaml:",inline"`
}

// Entry is a section: where the signatures of the images of one scope are.
type Entry struct {
	Lookaside        string `yaml:"lookaside,omitempty"`
	LookasideStaging string `yaml:"lookaside-staging,omitempty"` // for signing only, as SigStoreStaging
	SigStore         string `yaml:"sigstore,omitempty"`          // the old name of Lookaside
	SigStoreStaging  string `yaml:"sigstore-staging,omitempty"`
	Attachments      *bool  `yaml:"use-sigstore-attachments,omitempty"`
	// Unknown are the other keys, which readers drop.
	Unknown map[string]yaml.Node `yaml:",inline"`

	// File is the path of the file that has the section.
	File string `yaml:"-"`
}

// URL is where signatures are read from, "" if the section doesn't say.
func (e Entry) URL() string { return cmp.Or(e.Lookaside, e.SigStore) }

// HasAttachments reports whether the section says that sigstore attachments are read.
func (e Entry) HasAttachments() bool { return e.Attachments != nil && *e.Attachments }

// Is reports whether a path has the form of a file that readers of the directory dir read.
func Is(p, dir string) bool { return path.Dir(p) == dir && strings.HasSuffix(p, ".yaml") }

// Parse reads a file as the image library does: the first YAML document, in which unknown keys are no error.
func Parse(f File) (Config, error) {
	var c Config
	if err := yaml.Unmarshal(f.Data, &c); err != nil {
		return Config{}, err
	}
	if c.Default != nil {
		c.Default.File = f.Path
	}
	for scope, e := range c.Docker {
		e.File = f.Path
		c.Docker[scope] = e
	}
	return c, nil
}

// Merge merges files that the image library loads together: no section is in two of them. Unknown keys are left out.
func Merge(files []File) (Config, error) {
	out := Config{Docker: map[string]Entry{}}
	for _, f := range files {
		one, err := Parse(f)
		if err != nil {
			return out, fmt.Errorf("parsing %s: %w", f.Path, err)
		}
		if one.Default != nil {
			out.Default = one.Default
		}
		maps.Copy(out.Docker, one.Docker)
	}
	return out, nil
}

// Scopes are those that have a section, sorted.
func (c Config) Scopes() []string { return slices.Sorted(maps.Keys(c.Docker)) }

// Lookup returns the lookaside for an image, and the file that names it; and whether sigstore attachments are read.
// scopes are those of the image, the most specific one first. Each key is inherited alone: with
//
//	default-docker: {lookaside: https://a}
//	docker: {h/x: {use-sigstore-attachments: true}}
//
// an image of h/x has the lookaside https://a and attachments. Where no file names a lookaside, the result is
// DefaultLookaside and no file.
func (c Config) Lookup(scopes []string) (base, file string, attachments bool) {
	var decided *bool
	look := func(e Entry) {
		if base == "" && e.URL() != "" {
			base, file = e.URL(), e.File
		}
		if decided == nil {
			decided = e.Attachments
		}
	}
	for _, scope := range scopes {
		look(c.Docker[scope])
	}
	if c.Default != nil {
		look(*c.Default)
	}
	return cmp.Or(base, DefaultLookaside), file, decided != nil && *decided
}

// expand makes values of unknown keys independent of anchors elsewhere in the file that they come from.
func expand(unknown map[string]yaml.Node) error {
	for k, n := range unknown {
		var v any
		if err := errors.Join(n.Decode(&v), n.Encode(v)); err != nil {
			return fmt.Errorf("key %s: %w", k, err)
		}
		unknown[k] = n
	}
	return nil
}

// YAML writes the config, without a comment. One that says nothing is empty.
func (c Config) YAML() ([]byte, error) {
	if c.Default == nil && len(c.Docker)+len(c.Unknown) == 0 {
		return nil, nil
	}
	err := expand(c.Unknown)
	if c.Default != nil {
		err = errors.Join(err, expand(c.Default.Unknown))
	}
	for _, e := range c.Docker {
		err = errors.Join(err, expand(e.Unknown))
	}
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(c); err != nil {
		return nil, err
	}
	return b.Bytes(), enc.Close()
}
