package verify

import (
	"strings"

	"go.podman.io/image/v5/docker/reference"
)

// matchesIdentity is true if the requirement's signedIdentity accepts a signature made for the reference signed, for an
// image that is intended. The library keeps its matchers to itself; TestIdentityLikeTheLibrary and a fuzz test compare
// with them. For types that are not known here it is false.
func (r requirementDoc) matchesIdentity(intended reference.Named, signed string) bool {
	id := r.SignedIdentity
	s, err := reference.ParseNormalizedNamed(signed)
	if err != nil {
		return false
	}
	switch id.Type {
	case "exactReference":
		want, err := reference.ParseNormalizedNamed(id.DockerReference)
		return err == nil && !reference.IsNameOnly(want) && !reference.IsNameOnly(s) && s.String() == want.String()
	case "exactRepository":
		want, err := reference.ParseNormalizedNamed(id.DockerRepository)
		return err == nil && s.Name() == want.Name()
	}
	if intended == nil {
		return false
	}
	switch id.Type {
	case "matchExact":
		return !reference.IsNameOnly(intended) && !reference.IsNameOnly(s) && s.String() == intended.String()
	case "matchRepository":
		return s.Name() == intended.Name()
	case "matchRepoDigestOrExact":
		return matchesRepoDigestOrExact(intended, s)
	case "remapIdentity":
		if name := intended.Name(); name == id.Prefix || strings.HasPrefix(name, id.Prefix+"/") {
			if intended, err = reference.ParseNamed(strings.Replace(intended.String(), id.Prefix, id.SignedPrefix,
				1)); err != nil {
				return false
			}
		}
		return matchesRepoDigestOrExact(intended, s)
	}
	return false
}

// MatchesIdentity is true if a signedIdentity of a type that needs nothing else (matchExact, matchRepoDigestOrExact or
// matchRepository) accepts a signature made for the reference signed, for an image that is intended.
func MatchesIdentity(kind string, intended reference.Named, signed string) bool {
	var r requirementDoc
	r.SignedIdentity.Type = kind
	return r.matchesIdentity(intended, signed)
}

// matchesRepoDigestOrExact compares exactly by tag, and by repository where a digest is intended: that the digest is
// the signed one was compared already.
func matchesRepoDigestOrExact(intended, signed reference.Named) bool {
	if reference.IsNameOnly(signed) {
		return false
	}
	if _, tagged := intended.(reference.NamedTagged); tagged {
		return signed.String() == intended.String()
	}
	if _, digested := intended.(reference.Canonical); digested {
		return signed.Name() == intended.Name()
	}
	return false
}

// wanted names what a signature must be made for, for an image that is intended; "" if nothing could be.
func (r requirementDoc) wanted(intended reference.Named) string {
	id := r.SignedIdentity
	switch {
	case id.DockerReference != "":
		return id.DockerReference
	case id.DockerRepository != "":
		return id.DockerRepository + " with any tag"
	case intended == nil:
		return ""
	}
	_, digested := intended.(reference.Canonical)
	switch id.Type {
	case "matchExact":
		return intended.String()
	case "matchRepository":
		return intended.Name() + " with any tag"
	case "remapIdentity":
		if name := intended.Name(); name == id.Prefix || strings.HasPrefix(name, id.Prefix+"/") {
			var err error
			if intended, err = reference.ParseNamed(strings.Replace(intended.String(), id.Prefix, id.SignedPrefix,
				1)); err != nil {
				return ""
			}
		}
	}
	if digested {
		return intended.Name() + " with any tag"
	}
	return intended.String()
}
