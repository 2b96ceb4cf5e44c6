package trust

import (
	"fmt"
	"strconv"
	"strings"
)

// checkScope returns why a scope of the docker transport would never match an image, or nil. The grammar is that of image
// references: a scope that isn't written as references are is loaded by every reader and silently does nothing.
func checkScope(s string) error {
	if domain, ok := strings.CutPrefix(s, "*."); ok {
		switch {
		case strings.ContainsAny(domain, "/@"):
			return fmt.Errorf("a wildcard covers whole hosts, it can have no path")
		case strings.Contains(domain, ":"):
			return fmt.Errorf("never matches: a wildcard can have no port")
		case strings.Contains(domain, "*"):
			return fmt.Errorf(`never matches: "*" is allowed only as the first label of a host`)
		}
		return checkHost(domain)
	}
	rest, _, digest, err := splitReference(s)
	if err != nil {
		return err
	}
	if digest != "" && !validDigest(digest) {
		return fmt.Errorf("never matches: %q is no digest (sha256: and 64 lower-case hex digits)", digest)
	}
	return checkName(rest)
}

// checkRepository is checkScope for what must be a repository or a prefix of one: no tag, no digest, no wildcard.
func checkRepository(s string) error {
	if strings.HasPrefix(s, "*") {
		return fmt.Errorf("can be no wildcard")
	}
	rest, tag, digest, err := splitReference(s)
	if err != nil {
		return err
	}
	if tag != "" || digest != "" {
		return fmt.Errorf("can have no tag and no digest")
	}
	return checkName(rest)
}

// splitReference takes tag and digest off a reference. Only the tag is checked.
func splitReference(s string) (rest, tag, digest string, err error) {
	switch {
	case strings.Contains(s, "://"):
		return "", "", "", fmt.Errorf("never matches: it is a reference, not a URL (leave out %q)", s[:strings.Index(s, "://")+3])
	case strings.HasSuffix(s, "/"):
		return "", "", "", fmt.Errorf("never matches: leave out the trailing slash")
	case strings.Contains(s, "*"):
		return "", "", "", fmt.Errorf(`never matches: "*" is allowed only as the first label of a host, as in *.example.com; a host or path covers all below it`)
	}
	rest, digest, ok := strings.Cut(s, "@")
	if ok && digest == "" {
		return "", "", "", fmt.Errorf("never matches: it has an empty digest")
	}
	if i := strings.LastIndex(rest, ":"); i > strings.LastIndex(rest, "/") && strings.Contains(rest, "/") {
		rest, tag = rest[:i], rest[i+1:]
		if !validTag(tag) {
			return "", "", "", fmt.Errorf("never matches: %q is no tag", tag)
		}
	}
	if tag != "" && digest != "" {
		return "", "", "", fmt.Errorf("never matches: an image is looked up by tag or by digest, not both")
	}
	if (tag != "" || digest != "") && !strings.Contains(rest, "/") {
		return "", "", "", fmt.Errorf("never matches: it has no repository")
	}
	if (tag != "" || digest != "") && strings.HasPrefix(rest, "docker.io/") && strings.Count(rest, "/") == 1 {
		return "", "", "", fmt.Errorf("never matches: the full name is docker.io/library/%s", strings.TrimPrefix(rest, "docker.io/"))
	}
	return rest, tag, digest, nil
}

// checkName checks host[:port][/path…].
func checkName(s string) error {
	host, path, hasPath := strings.Cut(s, "/")
	if err := checkHost(host); err != nil {
		return err
	}
	if !strings.ContainsAny(host, ".:") && host != "localhost" {
		if !hasPath {
			return fmt.Errorf("never matches: %q names no registry host (an image of Docker Hub is docker.io/library/%s)", s, s)
		}
		return fmt.Errorf("never matches: %q is no registry host (an image of Docker Hub is docker.io/%s)", host, s)
	}
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		return fmt.Errorf("never matches: images of Docker Hub are looked up as docker.io")
	}
	if !hasPath {
		return nil
	}
	if len(s) > 255 {
		return fmt.Errorf("never matches: it is longer than 255 bytes")
	}
	for component := range strings.SplitSeq(path, "/") {
		if err := checkComponent(component); err != nil {
			return err
		}
	}
	return nil
}

func checkHost(s string) error {
	if strings.HasPrefix(s, "[") {
		return fmt.Errorf("never matches: image references can't name an IPv6 address")
	}
	name, port, hasPort := strings.Cut(s, ":")
	if name == "" {
		return fmt.Errorf("names no host")
	}
	if hasPort {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("never matches: %q is no port", port)
		}
	}
	if strings.ToLower(name) != name {
		return fmt.Errorf("never matches: hosts are compared as written, and nobody writes upper case")
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' || !only(label, "-") {
			return fmt.Errorf("never matches: %q is no host", s)
		}
	}
	return nil
}

// checkComponent checks one component of a repository's path.
func checkComponent(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("never matches: it has an empty path component")
	case strings.ToLower(s) != s:
		return fmt.Errorf("never matches: %q is in upper case, repositories are lower case", s)
	case !validComponent(s):
		return fmt.Errorf("never matches: %q is no part of a repository name", s)
	}
	return nil
}

// validComponent: runs of lower-case letters and digits, with ".", "_", "__" or any number of "-" between them.
func validComponent(s string) bool {
	const alnum = "abcdefghijklmnopqrstuvwxyz0123456789"
	for {
		rest := strings.TrimLeft(s, alnum)
		if rest == s {
			return false
		}
		if rest == "" {
			return true
		}
		s = strings.TrimLeft(rest, "._-")
		switch sep := rest[:len(rest)-len(s)]; {
		case sep == ".", sep == "_", sep == "__":
		case sep == "" || strings.Trim(sep, "-") != "":
			return false
		}
	}
}

// only reports whether s consists of lower-case letters, digits and the characters of extra.
func only(s, extra string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune(extra, r)
	})
}

func validTag(s string) bool {
	return s != "" && len(s) <= 128 && s[0] != '.' && s[0] != '-' && only(strings.ToLower(s), "._-")
}

func validDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(hex) == 64 && !strings.ContainsFunc(hex, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') })
}

// scopeHost is the host (with port) that a scope is about. A wildcard's is "*." and a domain.
func scopeHost(s string) string {
	host, _, _ := strings.Cut(s, "/")
	return host
}

// covers lists the scopes that policy.json and registries.d would look up for repository@digest or repository:tag, the
// most specific first: itself, the repository, its parents, the host, wildcards.
func covers(image string) []string {
	out := []string{image}
	rest, _, _, err := splitReference(image)
	if err != nil {
		return out
	}
	for ; ; rest = rest[:strings.LastIndex(rest, "/")] {
		if rest != image {
			out = append(out, rest)
		}
		if !strings.Contains(rest, "/") {
			break
		}
	}
	host, _, _ := strings.Cut(rest, ":")
	for {
		_, parent, ok := strings.Cut(host, ".")
		if !ok {
			return out
		}
		out = append(out, "*."+parent)
		host = parent
	}
}

// CheckScope returns why a scope of the docker transport, in policy.json or registries.d, would never match an image, or nil.
func CheckScope(s string) error { return checkScope(s) }
