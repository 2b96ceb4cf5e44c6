package secondlook

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
)

// name is a docker reference: HOST/PATH with a tag, a digest, both or none. docker.io and library/ are filled in.
type name struct {
	repository, tag, digest string
}

func (n name) String() string {
	s := n.repository
	if n.tag != "" {
		s += ":" + n.tag
	}
	if n.digest != "" {
		s += "@" + n.digest
	}
	return s
}

// bare reports whether the name has neither tag nor digest.
func (n name) bare() bool { return n.tag == "" && n.digest == "" }

// The grammar of references, as the distribution specification and the reference library's documentation give it.
var (
	hostname  = lazily(`^(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?$`)
	component = lazily(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$`)
	tagged    = lazily(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	digested  = lazily(`^[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}$`)
	imageID   = lazily(`^[a-f0-9]{64}$`)
)

// lazily compiles an expression when it is first used: a program that judges no image doesn't wait for it.
func lazily(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}

// parseName reads a docker reference.
func parseName(s string) (name, error) {
	var n name
	bad := func() (name, error) { return name{}, fmt.Errorf("%q is no docker reference", s) }
	if imageID().MatchString(s) {
		return bad()
	}
	rest, digest, hasDigest := strings.Cut(s, "@")
	if hasDigest {
		if !digested().MatchString(digest) {
			return bad()
		}
		n.digest = digest
	}
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		if n.tag = rest[i+1:]; !tagged().MatchString(n.tag) {
			return bad()
		}
		rest = rest[:i]
	}
	host, path, found := strings.Cut(rest, "/")
	if !found || !strings.ContainsAny(host, ".:") && host != "localhost" && strings.ToLower(host) == host {
		host, path = "docker.io", rest
	}
	if host == "index.docker.io" {
		host = "docker.io"
	}
	if host == "docker.io" && !strings.Contains(path, "/") {
		path = "library/" + path
	}
	if !hostname().MatchString(host) {
		return bad()
	}
	for c := range strings.SplitSeq(path, "/") {
		if !component().MatchString(c) {
			return bad()
		}
	}
	n.repository = host + "/" + path
	return n, nil
}

// Identity is a signedIdentity of policy.json.
type Identity struct {
	// Type is matchExact, matchRepoDigestOrExact, matchRepository, exactReference, exactRepository or remapIdentity.
	Type string
	// Reference, Repository, Prefix and SignedPrefix are what the type has.
	Reference, Repository, Prefix, SignedPrefix string
}

// Accepts reports whether a signature made for the reference signed may vouch for an image that is pulled as asked.
// asked is "" for an image without a docker reference. The rules are those of containers-policy.json(5).
func (id Identity) Accepts(asked, signed string) bool {
	have, err := parseName(signed)
	if err != nil {
		return false
	}
	switch id.Type {
	case "exactReference":
		want, err := parseName(id.Reference)
		return err == nil && !want.bare() && have == want
	case "exactRepository":
		want, err := parseName(id.Repository)
		return err == nil && have.repository == want.repository
	}
	want, err := parseName(asked)
	if err != nil {
		return false
	}
	switch id.Type {
	case "matchExact":
		return !want.bare() && have == want
	case "matchRepository":
		return have.repository == want.repository
	case "matchRepoDigestOrExact":
		return repoDigestOrExact(want, have)
	case "remapIdentity":
		if rest, ok := strings.CutPrefix(want.repository, id.Prefix); ok && (rest == "" || rest[0] == '/') {
			if want, err = parseName(strings.Replace(want.String(), id.Prefix, id.SignedPrefix, 1)); err != nil {
				return false
			}
		}
		return repoDigestOrExact(want, have)
	}
	return false
}

// repoDigestOrExact compares exactly by tag, and by repository where a digest is pulled.
func repoDigestOrExact(want, have name) bool {
	switch {
	case have.bare():
		return false
	case want.tag != "":
		return have == want
	case want.digest != "":
		return have.repository == want.repository
	}
	return false
}
