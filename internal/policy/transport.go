package policy

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// Transports that nodetrust treats specially.
const (
	Docker            = "docker"
	DockerDaemon      = "docker-daemon"
	Atomic            = "atomic"
	ContainersStorage = "containers-storage"
)

// Transports lists the transports that policy.json may name. ostree was removed from the image library, but loads in
// policies.
func Transports() []string {
	return []string{
		Docker, DockerDaemon, "docker-archive", "dir", "oci", "oci-archive", ContainersStorage, Atomic, "sif", "tarball",
		"ostree",
	}
}

// CheckTransportScope returns why a runtime, which links all transports, rejects a whole policy.json for a scope.
// nodetrust links few transports, so its own library accepts more.
func CheckTransportScope(transport, scope string) error {
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
	case DockerDaemon:
		if IsDigest(scope) {
			return errors.New("an image ID can't be a scope")
		}
	case Atomic:
		parts := strings.Split(scope, "/")
		if len(parts) > 3 || len(parts) > 1 && strings.Contains(parts[1], ":") ||
			len(parts) > 2 && strings.Count(parts[2], ":") > 1 {
			return errors.New("must be host[/namespace[/stream[:tag]]]")
		}
	case ContainersStorage:
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
	switch {
	case len(fields) == 2 && !IsDigest(fields[1]) && !IsDigest("sha256:"+fields[1]):
		return errors.New("what follows @ must be a digest or an image ID")
	case len(fields) == 3 && (!IsDigest(fields[1]) || !IsDigest("sha256:"+fields[2])):
		return errors.New("what follows @ must be a digest and an image ID")
	}
	return nil
}
