package policy

import (
	"strings"

	"github.com/nodetrust/nodetrust/internal/ref"
)

// Identity is a signedIdentity: the reference for which a signature must have been made. Members that the type lacks
// are empty.
type Identity struct {
	Type             string `json:"type"`
	DockerReference  string `json:"dockerReference,omitempty"`
	DockerRepository string `json:"dockerRepository,omitempty"`
	Prefix           string `json:"prefix,omitempty"`
	SignedPrefix     string `json:"signedPrefix,omitempty"`
}

// The types of Identity. MatchRepoDigestOrExact is the default.
const (
	MatchRepoDigestOrExact = "matchRepoDigestOrExact"
	MatchExact             = "matchExact"
	MatchRepository        = "matchRepository"
	ExactReference         = "exactReference"
	ExactRepository        = "exactRepository"
	RemapIdentity          = "remapIdentity"
)

// IdentityTypes lists the types of identities.
func IdentityTypes() []string {
	return []string{MatchRepoDigestOrExact, MatchExact, MatchRepository, ExactReference, ExactRepository, RemapIdentity}
}

// IdentityFields lists the members of an identity of a type. None may be missing.
func IdentityFields(identity string) []string {
	switch identity {
	case ExactReference:
		return []string{FieldType, FieldDockerReference}
	case ExactRepository:
		return []string{FieldType, FieldDockerRepository}
	case RemapIdentity:
		return []string{FieldType, FieldPrefix, FieldSignedPrefix}
	}
	return []string{FieldType}
}

// Reference is a docker reference in parts. Name is full, with docker.io and library/.
type Reference struct{ Name, Tag, Digest string }

func (r Reference) String() string {
	s := r.Name
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

func (r Reference) pinned() bool { return r.Tag != "" || r.Digest != "" }

// ReadReference reads a docker reference as the image library does. The caller provides it: callers that compare
// references link a reader already.
type ReadReference func(string) (Reference, error)

// Matches reports whether a signature for the reference signed may vouch for an image pulled as intended. The zero
// Reference is an image without a docker reference. An identity of unknown type matches nothing.
func (i Identity) Matches(intended Reference, signed string, read ReadReference) bool {
	s, err := read(signed)
	if err != nil {
		return false
	}
	switch i.Type {
	case ExactReference:
		want, err := read(i.DockerReference)
		return err == nil && want.pinned() && s == want
	case ExactRepository:
		want, err := read(i.DockerRepository)
		return err == nil && s.Name == want.Name
	}
	if intended == (Reference{}) {
		return false
	}
	switch i.Type {
	case MatchExact:
		return intended.pinned() && s == intended
	case MatchRepository:
		return s.Name == intended.Name
	case MatchRepoDigestOrExact:
		return matchesRepoDigestOrExact(intended, s)
	case RemapIdentity:
		intended, ok := i.Remap(intended, read)
		return ok && matchesRepoDigestOrExact(intended, s)
	}
	return false
}

// matchesRepoDigestOrExact compares exactly by tag, and only the repository if intended has a digest: the digest was
// compared with the signed one before.
func matchesRepoDigestOrExact(intended, signed Reference) bool {
	switch {
	case !signed.pinned():
		return false
	case intended.Tag != "":
		return signed == intended
	}
	return intended.Digest != "" && signed.Name == intended.Name
}

// Remap returns the reference that remapIdentity compares signatures with. With {"prefix": "mirror.example",
// "signedPrefix": "quay.io/corp"} mirror.example/app:v1 becomes quay.io/corp/app:v1. Remap returns false if the result
// is no reference.
func (i Identity) Remap(from Reference, read ReadReference) (Reference, bool) {
	if !below(i.Prefix, from.Name) {
		return from, true
	}
	text := strings.Replace(from.String(), i.Prefix, i.SignedPrefix, 1)
	out, err := read(text)
	return out, err == nil && out.String() == text // else text is short for another reference
}

func below(prefix, name string) bool {
	return name == prefix || strings.HasPrefix(name, prefix+"/")
}

// Implies reports whether a signature that matches by i also matches by j, for every image.
func (i Identity) Implies(j Identity) bool {
	if i == j {
		return true
	}
	switch j.Type {
	case MatchRepoDigestOrExact:
		return i.Type == MatchExact
	case MatchRepository:
		return i.Type == MatchExact || i.Type == MatchRepoDigestOrExact
	case ExactRepository:
		if i.Type != ExactReference {
			return false
		}
		name, _ := Repository(i.DockerReference)
		return name == j.DockerRepository
	}
	return false
}

// At returns the simplest identity that means the same at a place. A scope with a tag or digest covers one image, for
// which every identity is one reference or one repository. Elsewhere At simplifies a remapIdentity that changes
// nothing or covers the whole scope.
func (i Identity) At(p Place) Identity {
	if i.Type == RemapIdentity && i.Prefix == i.SignedPrefix {
		i = Identity{Type: MatchRepoDigestOrExact}
	}
	if p.Transport != Docker || p.Scope == "" {
		return i
	}
	name, pinned := Repository(p.Scope)
	if i.Type == RemapIdentity {
		i = i.remapped(name, pinned)
		if pinned && i.Type == RemapIdentity {
			p.Scope = i.SignedPrefix + p.Scope[len(name):]
			i = Identity{Type: MatchRepoDigestOrExact}
			name, _ = Repository(p.Scope)
		}
	}
	if !pinned {
		return i
	}
	digest := strings.Contains(p.Scope, "@")
	switch {
	case i.Type == MatchRepository, i.Type == MatchRepoDigestOrExact && digest:
		return Identity{Type: ExactRepository, DockerRepository: name}
	case i.Type == MatchRepoDigestOrExact, i.Type == MatchExact:
		return Identity{Type: ExactReference, DockerReference: p.Scope}
	}
	return i
}

// remapped simplifies a remapIdentity for one scope: to matchRepoDigestOrExact if no image of the scope has the
// prefix, to a remap of the whole scope if all have it. Otherwise it is unchanged.
func (i Identity) remapped(name string, pinned bool) Identity {
	switch {
	case below(i.Prefix, name):
		return Identity{Type: RemapIdentity, Prefix: name, SignedPrefix: i.SignedPrefix + name[len(i.Prefix):]}
	case !pinned && below(name, i.Prefix), wildcardCovers(name, i.Prefix):
		return i
	}
	return Identity{Type: MatchRepoDigestOrExact}
}

// wildcardCovers reports whether name is a wildcard that covers the host of a prefix.
func wildcardCovers(name, prefix string) bool {
	domain, ok := strings.CutPrefix(name, "*")
	host, _, _ := strings.Cut(ref.Host(prefix), ":")
	return ok && strings.HasSuffix(host, domain)
}

func (i Identity) String() string {
	var out []string
	for _, s := range []string{i.Type, i.DockerReference, i.DockerRepository, i.Prefix} {
		if s != "" {
			out = append(out, s)
		}
	}
	if i.Prefix != "" {
		out = append(out, "to", i.SignedPrefix)
	}
	return strings.Join(out, " ")
}
