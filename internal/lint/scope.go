package lint

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/nodetrust/nodetrust/internal/trust"
)

// transportNames are the transports that policy.json may name; ostree was removed from the library but is still taken.
var transportNames = []string{
	"docker", "docker-daemon", "docker-archive", "dir", "oci", "oci-archive", "containers-storage", "atomic", "sif",
	"tarball", "ostree",
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
	if scope == "" {
		return []string{""}
	}
	return append(trust.Chain(scope)[1:], "")
}

// What is said of a scope whose host is written with upper case.
const (
	upperCaseHost     = "is compared as written, while DNS ignores case: an image pulled by another spelling of the host has another scope"
	upperCaseHostHint = "write the host in lower case, unless images are really pulled by this spelling"
)

// isTagScope reports whether the scope names one tag.
func isTagScope(scope string) bool {
	return !strings.Contains(scope, "@") && strings.Contains(scope, "/") &&
		strings.LastIndex(scope, ":") > strings.LastIndex(scope, "/")
}
