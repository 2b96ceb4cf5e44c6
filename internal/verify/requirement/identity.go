package requirement

import (
	"go.podman.io/image/v5/docker/reference"

	"github.com/nodetrust/nodetrust/internal/policy"
)

// MatchesIdentity reports whether an identity accepts a signature made for the reference signed, for an image that is
// intended. The library keeps its matchers to itself; TestIdentityLikeTheLibrary and a fuzz test compare the two.
func MatchesIdentity(id policy.Identity, intended reference.Named, signed string) bool {
	return id.Matches(parts(intended), signed, readReference)
}

// readReference reads references as the library does.
func readReference(s string) (policy.Reference, error) {
	named, err := reference.ParseNormalizedNamed(s)
	return parts(named), err
}

func parts(named reference.Named) (r policy.Reference) {
	if named == nil {
		return r
	}
	r.Name = named.Name()
	if tagged, ok := named.(reference.NamedTagged); ok {
		r.Tag = tagged.Tag()
	}
	if digested, ok := named.(reference.Canonical); ok {
		r.Digest = digested.Digest().String()
	}
	return r
}

// expected names what a signature must be made for, for an image that is intended; "" if nothing could be.
func expected(id policy.Identity, intended reference.Named) string {
	const anyTag = " with any tag"
	ref := parts(intended)
	switch {
	case id.DockerReference != "":
		return id.DockerReference
	case id.DockerRepository != "":
		return id.DockerRepository + anyTag
	case intended == nil:
		return ""
	}
	switch id.Type {
	case policy.MatchExact:
		return ref.String()
	case policy.MatchRepository:
		return ref.Name + anyTag
	case policy.RemapIdentity:
		var ok bool
		if ref, ok = id.Remap(ref, readReference); !ok {
			return ""
		}
	}
	if ref.Digest != "" {
		return ref.Name + anyTag
	}
	return ref.String()
}
