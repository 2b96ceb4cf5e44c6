package strength

import (
	"strings"

	"github.com/nodetrust/nodetrust/internal/trust"
)

// normal gives all requirements the simplest identity that means the same at the place.
func (r requirements) normal(at place) requirements {
	out := make(requirements, len(r))
	for i, q := range r {
		q.identity = q.identity.normal(at)
		out[i] = q
	}
	return out
}

// normal: a scope with a tag or digest covers one image alone, so all identities come down to one reference or one
// repository there. Elsewhere a remapIdentity that leaves everything as it is, or that covers the whole scope, is
// simplified.
func (i identity) normal(at place) identity {
	if i.Type == trust.RemapIdentity && i.Prefix == i.SignedPrefix {
		i = identity{Type: trust.MatchRepoDigestOrExact}
	}
	if at.transport != "docker" || at.scope == "" {
		return i
	}
	name, pinned := trust.Repository(at.scope)
	if i.Type == trust.RemapIdentity {
		i = i.remapped(name, pinned)
		if pinned && i.Type == trust.RemapIdentity {
			at.scope = i.SignedPrefix + at.scope[len(name):]
			i = identity{Type: trust.MatchRepoDigestOrExact}
			name, _ = trust.Repository(at.scope)
		}
	}
	if !pinned {
		return i
	}
	digest := strings.Contains(at.scope, "@")
	switch {
	case i.Type == trust.MatchRepository, i.Type == trust.MatchRepoDigestOrExact && digest:
		return identity{Type: trust.ExactRepository, DockerRepository: name}
	case i.Type == trust.MatchRepoDigestOrExact, i.Type == trust.MatchExact:
		return identity{Type: trust.ExactReference, DockerReference: at.scope}
	}
	return i
}

// remapped says what a remapIdentity does to the images of the scope name: nothing, all in the same way (then the
// prefixes are the scope and what becomes of it), or, where only some of them have the prefix, what it says.
func (i identity) remapped(name string, pinned bool) identity {
	switch {
	case covers(i.Prefix, name):
		return identity{Type: trust.RemapIdentity, Prefix: name, SignedPrefix: i.SignedPrefix + name[len(i.Prefix):]}
	case !pinned && covers(name, i.Prefix), wildcardCovers(name, i.Prefix):
		return i
	}
	return identity{Type: trust.MatchRepoDigestOrExact}
}

// wildcardCovers reports whether name is a wildcard that covers the host of a prefix.
func wildcardCovers(name, prefix string) bool {
	domain, ok := strings.CutPrefix(name, "*")
	host, _, _ := strings.Cut(prefix, "/")
	host, _, _ = strings.Cut(host, ":")
	return ok && strings.HasSuffix(host, domain)
}

// covers reports whether name is prefix or below it.
func covers(prefix, name string) bool {
	return name == prefix || strings.HasPrefix(name, prefix+"/")
}

// implies reports whether a signature that carries an identity by i carries one by j as well, whatever the image.
func (i identity) implies(j identity) bool {
	if i == j {
		return true
	}
	switch j.Type {
	case trust.MatchRepoDigestOrExact:
		return i.Type == trust.MatchExact
	case trust.MatchRepository:
		return i.Type == trust.MatchExact || i.Type == trust.MatchRepoDigestOrExact
	case trust.ExactRepository:
		if i.Type != trust.ExactReference {
			return false
		}
		name, _ := trust.Repository(i.DockerReference)
		return name == j.DockerRepository
	}
	return false
}
