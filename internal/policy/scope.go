package policy

import (
	"fmt"
	"strings"

	"github.com/nodetrust/nodetrust/internal/ref"
)

// CheckScope returns why no image has a scope of the docker transport, in policy.json or registries.d, or nil. The
// image library parses no reference that looks such a scope up; tests compare the grammar with the library's. The
// empty scope, the whole transport, has no grammar.
func CheckScope(s string) error {
	if domain, ok := strings.CutPrefix(s, "*."); ok {
		return checkWildcard(domain)
	}
	rest, tag, digest, err := SplitReference(s)
	if err != nil {
		return err
	}
	if digest != "" && !IsDigest(digest) {
		return fmt.Errorf("never matches: %q is no digest (sha256:, sha384: or sha512: and lower-case hex digits)", digest)
	}
	if err := checkName(rest); err != nil {
		return err
	}
	longest := maxName
	if tag == "" && digest == "" && onlyParent(rest) {
		longest -= len("/x")
	}
	if len(rest) > longest {
		return fmt.Errorf("never matches: it is longer than %d bytes", longest)
	}
	return nil
}

const maxName = 255

func checkWildcard(domain string) error {
	switch {
	case strings.ContainsAny(domain, "/@"):
		return fmt.Errorf("a wildcard covers whole hosts, it can have no path")
	case strings.Contains(domain, ":"):
		return fmt.Errorf("never matches: a wildcard can have no port")
	case strings.Contains(domain, "*"):
		return fmt.Errorf(`never matches: "*" is allowed only as the first label of a host`)
	case len("*."+domain+"/x") > maxName:
		return fmt.Errorf("never matches: it is longer than %d bytes", maxName-len("/x"))
	case domain == "":
		return fmt.Errorf("names no host")
	}
	return checkHost("x." + domain)
}

// onlyParent reports whether name is no repository, and only a parent of repositories.
func onlyParent(name string) bool {
	return !strings.Contains(name, "/") || strings.HasPrefix(name, "docker.io/") && strings.Count(name, "/") == 1
}

// UpperCaseHost reports whether the host of a scope has upper case. Scopes are compared as written, while DNS ignores
// case: a pull by the other spelling gets the same image under another scope.
func UpperCaseHost(scope string) bool {
	host := ref.Host(scope)
	return strings.ToLower(host) != host
}

// CheckRepository is CheckScope for a repository or a prefix of one: no tag, no digest, no wildcard.
func CheckRepository(s string) error {
	if strings.HasPrefix(s, "*") {
		return fmt.Errorf("can be no wildcard")
	}
	rest, tag, digest, err := SplitReference(s)
	if err != nil {
		return err
	}
	if tag != "" || digest != "" {
		return fmt.Errorf("can have no tag and no digest")
	}
	return checkName(rest)
}

// SplitReference splits tag and digest from a reference. It checks only the tag.
func SplitReference(s string) (rest, tag, digest string, err error) {
	switch {
	case strings.Contains(s, "://"):
		return "", "", "", fmt.Errorf("never matches: it is a reference, not a URL (leave out %q)",
			s[:strings.Index(s, "://")+3])
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
		return "", "", "", fmt.Errorf("never matches: the full name is docker.io/library/%s",
			strings.TrimPrefix(rest, "docker.io/"))
	}
	return rest, tag, digest, nil
}

func checkName(s string) error {
	host, path, hasPath := strings.Cut(s, "/")
	if host == "" {
		return fmt.Errorf("names no host")
	}
	if !strings.ContainsAny(host, ".:") && host != "localhost" {
		if !hasPath {
			return fmt.Errorf("never matches: %q names no registry host (an image of Docker Hub is docker.io/library/%s)", s, s)
		}
		return fmt.Errorf("never matches: %q is no registry host (an image of Docker Hub is docker.io/%s)", host, s)
	}
	if host == "index.docker.io" {
		return fmt.Errorf("never matches: images of Docker Hub are looked up as docker.io")
	}
	if err := checkHost(host); err != nil {
		return err
	}
	if !hasPath {
		return nil
	}
	for component := range strings.SplitSeq(path, "/") {
		if err := checkComponent(component); err != nil {
			return err
		}
	}
	return nil
}

// checkHost checks host[:port] with any port. It accepts hosts that DNS can't know, such as a_b.example: the image
// library takes them, and registries.conf may give them a location.
func checkHost(s string) error {
	if strings.HasPrefix(s, "[") {
		return fmt.Errorf("never matches: image references can't name an IPv6 address")
	}
	name, port, hasPort := strings.Cut(s, ":")
	if name == "" {
		return fmt.Errorf("names no host")
	}
	if hasPort && (port == "" || strings.Trim(port, "0123456789") != "") {
		return fmt.Errorf("never matches: %q is no port", port)
	}
	if !hasPort && validComponent(name) {
		return nil
	}
	for label := range strings.SplitSeq(strings.ToLower(name), ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' || strings.Trim(label, alphanumeric+"-") != "" {
			return fmt.Errorf("never matches: %q is no host", s)
		}
	}
	if !isASCII(s) { // U+212A is the letter k in lower case
		return fmt.Errorf("never matches: %q is no host", s)
	}
	return nil
}

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

const alphanumeric = "abcdefghijklmnopqrstuvwxyz0123456789"

// validComponent takes runs of lower-case letters and digits, with ".", "_", "__" or any number of "-" between them.
func validComponent(s string) bool {
	for {
		rest := strings.TrimLeft(s, alphanumeric)
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

func validTag(s string) bool {
	return s != "" && len(s) <= 128 && s[0] != '.' && s[0] != '-' && isASCII(s) &&
		strings.Trim(strings.ToLower(s), alphanumeric+"._-") == ""
}

// IsDigest reports whether s is a digest of an algorithm that the image library knows.
func IsDigest(s string) bool {
	algorithm, hex, _ := strings.Cut(s, ":")
	digits, ok := map[string]int{"sha256": 64, "sha384": 96, "sha512": 128}[algorithm]
	return ok && len(hex) == digits && strings.Trim(hex, "0123456789abcdef") == ""
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 })
}
