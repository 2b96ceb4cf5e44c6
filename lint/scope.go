package lint

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"
)

// transportNames are the transports that policy.json may name; ostree was removed from the library but is still taken.
var transportNames = []string{
	"docker", "docker-daemon", "docker-archive", "dir", "oci", "oci-archive", "containers-storage", "atomic", "sif", "tarball", "ostree",
}

var atomicScope = regexp.MustCompile(`^[^/]*(/[^:/]*(/[^:/]*(:[^:/]*)?)?)?$`)

// checkTransportScope reports why a runtime, which links all transports, rejects the whole policy.json for this scope.
// nodetrust itself links few transports, so that its own library would take some of these.
func checkTransportScope(transport, scope string) error {
	if scope == "" {
		return nil
	}
	switch transport {
	case "dir", "oci", "oci-archive", "sif":
		switch {
		case !strings.HasPrefix(scope, "/"):
			return errors.New("must be an absolute path")
		case scope == "/":
			return errors.New(`"/" is not allowed, use ""`)
		case path.Clean(scope) != scope:
			return fmt.Errorf("must be a clean path, %s", path.Clean(scope))
		}
	case "docker-archive", "tarball":
		return fmt.Errorf(`%s has no scopes but ""`, transport)
	case "docker-daemon":
		if _, err := digest.Parse(scope); err == nil {
			return errors.New("an image ID can't be a scope")
		}
	case "atomic":
		if !atomicScope.MatchString(scope) {
			return errors.New("must be host[/namespace[/stream[:tag]]]")
		}
	case "containers-storage":
		return checkStorageScope(scope)
	}
	return nil
}

func checkStorageScope(scope string) error {
	bad := errors.New("must begin with [driver@/root] or [/root]")
	spec, rest, ok := strings.Cut(strings.TrimPrefix(scope, "["), "]")
	if !strings.HasPrefix(scope, "[") || !ok {
		return bad
	}
	driver, root, two := strings.Cut(spec, "@")
	if !two {
		driver, root = "-", spec
	}
	if driver == "" || root == "" {
		return bad
	}
	if !strings.HasPrefix(root, "/") {
		return errors.New("the storage's root must be an absolute path")
	}
	fields := strings.SplitN(rest, "@", 3)
	isDigest := func(s string) bool { _, err := digest.Parse(s); return err == nil }
	switch {
	case len(fields) == 2 && !isDigest(fields[1]) && !isDigest("sha256:"+fields[1]):
		return errors.New("what follows @ must be a digest or an image ID")
	case len(fields) == 3 && (!isDigest(fields[1]) || !isDigest("sha256:"+fields[2])):
		return errors.New("what follows @ must be a digest and an image ID")
	}
	return nil
}

// parents lists the docker scopes that would be looked up in place of scope if it weren't there, the most specific
// first, "" last.
func parents(scope string) []string {
	var out []string
	name := scope
	if domain, ok := strings.CutPrefix(scope, "*."); ok {
		for {
			_, rest, more := strings.Cut(domain, ".")
			if !more {
				return append(out, "")
			}
			out = append(out, "*."+rest)
			domain = rest
		}
	}
	if repo, _, ok := strings.Cut(name, "@"); ok {
		name = repo
		out = append(out, name)
	} else if i := strings.LastIndex(name, ":"); i > strings.LastIndex(name, "/") && strings.Contains(name, "/") {
		name = name[:i]
		out = append(out, name)
	}
	for {
		i := strings.LastIndex(name, "/")
		if i < 0 {
			break
		}
		name = name[:i]
		out = append(out, name)
	}
	host, _, _ := strings.Cut(name, ":")
	for {
		_, rest, more := strings.Cut(host, ".")
		if !more {
			return append(out, "")
		}
		out = append(out, "*."+rest)
		host = rest
	}
}

// isTagScope reports whether the scope names one tag.
func isTagScope(scope string) bool {
	return !strings.Contains(scope, "@") && strings.Contains(scope, "/") && strings.LastIndex(scope, ":") > strings.LastIndex(scope, "/")
}
