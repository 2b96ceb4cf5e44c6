// Package ref takes references of images apart as text: "registry.example:5000/team/app:v1@sha256:…" has a host, a
// name, a tag and a digest. It checks nothing and normalises nothing: "app:v1" has the name "app", and the host
// "app".
//
// github.com/distribution/reference does more: it refuses what is no valid reference, and puts docker.io before short
// names. Statuses of pods and scopes of policies hold names of both kinds, which must stay as they were written.
package ref

import "strings"

// Name returns a reference without tag and digest. A port is no tag: "registry.example:5000/app" stays. A host alone is
// no reference: its port is taken for a tag.
func Name(reference string) string {
	name, _, _ := strings.Cut(reference, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name = name[:i]
	}
	return name
}

// Digest returns the digest of a reference, "" for a reference without one, whose image may change.
func Digest(reference string) string {
	_, digest, _ := strings.Cut(reference, "@")
	return digest
}

// Host returns what stands before the first slash: the registry, with its port, of a reference that names one.
func Host(reference string) string {
	host, _, _ := strings.Cut(reference, "/")
	return host
}
