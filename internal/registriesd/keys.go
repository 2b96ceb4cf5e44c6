package registriesd

import (
	"slices"

	"go.yaml.in/yaml/v3"
)

// Key is a key of a file, as it is written there.
type Key struct {
	Name string
	// Scope is that of the section which has the key, DefaultSection for the default's; "" at the top, and of a scope.
	Scope string
	// OfDocker says that the key is a scope, or stands in a section of one.
	OfDocker bool
	Line     int
}

// TopKeys are the keys that readers know at the top of a file, EntryKeys those in a section.
func TopKeys() []string { return []string{DefaultSection, DockerSections} }

// EntryKeys are the keys that readers know in a section.
func EntryKeys() []string {
	return []string{"lookaside", "lookaside-staging", "sigstore", "sigstore-staging", "use-sigstore-attachments"}
}

// Known reports whether a reader knows the key. Of one that it doesn't know the image library says nothing.
func (k Key) Known() bool {
	switch {
	case k.Scope != "":
		return slices.Contains(EntryKeys(), k.Name)
	case k.OfDocker:
		return true
	}
	return slices.Contains(TopKeys(), k.Name)
}

// ForSigning reports whether readers know the key, and look at it only when they write signatures.
func (k Key) ForSigning() bool {
	return k.Scope != "" && (k.Name == "lookaside-staging" || k.Name == "sigstore-staging")
}

// ReadInstead reports whether other stands in the section of k, and names where signatures are read from.
func (k Key) ReadInstead(other Key) bool {
	return other.Scope == k.Scope && other.OfDocker == k.OfDocker &&
		(other.Name == "lookaside" || other.Name == "sigstore")
}

// Keys lists the keys of a file, in order. What an alias or a merge key brings in is listed where it is written. A
// file that is no YAML has none.
func Keys(data []byte) (out []Key) {
	var doc yaml.Node
	if yaml.Unmarshal(data, &doc) != nil || len(doc.Content) == 0 {
		return nil
	}
	section := func(scope string, ofDocker bool, n *yaml.Node) {
		eachPair(n, func(key, _ *yaml.Node) { out = append(out, Key{key.Value, scope, ofDocker, key.Line}) })
	}
	eachPair(doc.Content[0], func(key, value *yaml.Node) {
		out = append(out, Key{Name: key.Value, Line: key.Line})
		switch key.Value {
		case DockerSections:
			eachPair(value, func(scope, entry *yaml.Node) {
				out = append(out, Key{scope.Value, "", true, scope.Line})
				section(scope.Value, true, entry)
			})
		case DefaultSection:
			section(DefaultSection, false, value)
		}
	})
	return out
}

// eachPair calls f for the pairs of a mapping, but for merge keys.
func eachPair(n *yaml.Node, f func(key, value *yaml.Node)) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Tag != "!!merge" {
			f(n.Content[i], n.Content[i+1])
		}
	}
}
