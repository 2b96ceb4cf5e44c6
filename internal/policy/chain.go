package policy

import "strings"

// Place is a scope of a transport in policy.json. The empty scope is the whole transport, the empty place the policy's
// default.
type Place struct{ Transport, Scope string }

// Chain lists the scopes that readers look up for a scope of a transport, the most specific first, up to the
// transport's own, "". For an image the chain begins with its identity. For quay.io/corp/app:v1 of docker it is
//
//	quay.io/corp/app:v1  quay.io/corp/app  quay.io/corp  quay.io  *.io  ""
//
// The part of a chain behind a scope is the rest of the scope's own chain. So a policy decides on an image as on the
// first scope of its chain that the policy has.
func Chain(transport, scope string) []string {
	if scope == "" {
		return []string{""}
	}
	out := []string{scope}
	switch transport {
	case Docker, DockerDaemon, Atomic:
		out = dockerChain(scope)
	case ContainersStorage:
		out = append(out, storageParents(scope)...)
	default:
		out = append(out, pathParents(scope)...)
	}
	return append(out, "")
}

func dockerChain(scope string) []string {
	names := Names(scope)
	out := names
	if names[0] != scope {
		out = append([]string{scope}, names...)
	}
	host, _, _ := strings.Cut(strings.TrimPrefix(names[len(names)-1], "*."), ":")
	for {
		_, parent, ok := strings.Cut(host, ".")
		if !ok {
			return out
		}
		out = append(out, "*."+parent)
		host = parent
	}
}

// storageParents takes scopes of containers-storage: "[driver@root]name" or "[root]".
func storageParents(scope string) (out []string) {
	i := strings.Index(scope, "]")
	if !strings.HasPrefix(scope, "[") || i < 0 {
		return nil
	}
	store, name := scope[:i+1], scope[i+1:]
	if name != "" {
		for _, n := range Names(name) {
			if n != name {
				out = append(out, store+n)
			}
		}
		out = append(out, store)
	}
	if _, root, ok := strings.Cut(store, "@"); ok {
		out = append(out, "["+root)
	}
	return out
}

// pathParents takes paths of directories and archives; those of oci have ":" and a name at the end.
func pathParents(scope string) (out []string) {
	for strings.HasPrefix(scope, "/") {
		scope = scope[:max(strings.LastIndex(scope, "/"), strings.LastIndex(scope, ":"))]
		if scope != "" {
			out = append(out, scope)
		}
	}
	return out
}

// Names lists the repository of a scope of the docker transport, its parents and its host: for quay.io/corp/app:v1
// quay.io/corp/app, quay.io/corp and quay.io.
func Names(scope string) []string {
	name, _ := Repository(scope)
	out := []string{name}
	for i := strings.LastIndex(name, "/"); i >= 0; i = strings.LastIndex(name, "/") {
		name = name[:i]
		out = append(out, name)
	}
	return out
}

// Repository removes tag and digest from a scope, and reports whether there were any.
func Repository(scope string) (name string, pinned bool) {
	name, _, pinned = strings.Cut(scope, "@")
	if IsTag(name) {
		return name[:strings.LastIndex(name, ":")], true
	}
	return name, pinned
}

// IsTag reports whether the scope of the docker transport names one tag.
func IsTag(scope string) bool {
	return !strings.Contains(scope, "@") && strings.Contains(scope, "/") &&
		strings.LastIndex(scope, ":") > strings.LastIndex(scope, "/")
}
