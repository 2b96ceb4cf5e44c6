package lookaside

import (
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/nodetrust/nodetrust/internal/ref"
)

// Registry is an entry of spec.registries in trust.yaml by which nodes use the tree.
type Registry struct {
	Scope     string   `json:"scope" yaml:"scope"`
	Lookaside string   `json:"lookaside" yaml:"lookaside"`
	Mirrors   []Mirror `json:"mirrors,omitempty" yaml:"mirrors,omitempty"`
}

// Mirror is a place from which images of the scope are pulled.
type Mirror struct {
	Location  string `json:"location" yaml:"location"`
	Lookaside string `json:"lookaside" yaml:"lookaside"`
}

// URL returns the lookaside URL of a tree at path on the nodes.
func URL(path string) string { return (&url.URL{Scheme: "file", Path: path}).String() }

// Registries returns the entries by which nodes use the tree at this URL, for all images with signatures in it.
func (r Result) Registries(lookaside string) []Registry {
	mirrors := map[string][]string{} // by scope
	for _, i := range r.Images {
		if i.Signatures == 0 {
			continue
		}
		name := ref.Name(i.Verdict.Image)
		scope := i.scope(name)
		mirrors[scope] = append(mirrors[scope], "") // the scope has an entry, be it without a mirror
		for _, place := range i.Places {
			location, ok := strings.CutSuffix(place, strings.TrimPrefix(name, scope))
			switch {
			case place == name:
			case ok && location != "":
				mirrors[scope] = append(mirrors[scope], location)
			default: // the mirror has the image under a name of its own
				mirrors[name] = append(mirrors[name], place)
			}
		}
	}
	var out []Registry
	for _, scope := range slices.Sorted(maps.Keys(mirrors)) {
		e := Registry{Scope: scope, Lookaside: lookaside}
		slices.Sort(mirrors[scope])
		for _, location := range slices.Compact(mirrors[scope]) {
			if location != "" {
				e.Mirrors = append(e.Mirrors, Mirror{location, lookaside})
			}
		}
		out = append(out, e)
	}
	return out
}

// scope returns the policy's section that covers the repository, or the repository's host if only a default covers it.
func (i Image) scope(name string) string {
	if i.Scope != nil {
		switch i.Scope.Matched {
		case "exact", "repository", "namespace":
			return ref.Name(i.Scope.Name)
		case "host":
			return i.Scope.Name
		}
	}
	return ref.Host(name)
}
