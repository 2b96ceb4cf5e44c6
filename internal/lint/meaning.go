package lint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// meaning finds what loads and yet is likely not what was meant. It looks at the docker transport only.
func (w *policyWalk) meaning() {
	byName := map[string]policyScope{"": w.defaults}
	for _, s := range w.scopes {
		byName[s.name] = s
	}
	for _, s := range w.scopes {
		w.scopeMeaning(s, byName)
	}
	asked := payloadScopes(func(scope string) bool { _, ok := byName[scope]; return ok })
	for _, s := range w.scopes {
		if s.has(policy.SignedBy) && (asked[s.name] || belowPayload(s.name)) {
			w.add("release-payload", s.line, s.path, "%s", payloadAsked)
		}
	}
	if w.defaults.has(policy.Reject) && byName[""].accepts() {
		s := byName[""]
		w.add("default-reject-moot", s.line, s.path,
			"accepts every image of every registry that has no scope: the default reject is never asked for registries").Hint = fmt.Sprintf("remove this scope, or say %q in default too if that is meant", policy.InsecureAcceptAnything)
	}
	if !slices.ContainsFunc(append(slices.Clone(w.scopes), w.defaults),
		func(s policyScope) bool { return s.signed() || s.has(policy.Reject) }) {
		w.add("accepts-everything", w.defaults.line, w.defaults.path, "no registry needs a signature and none is rejected")
	}
}

func (w *policyWalk) scopeMeaning(s policyScope, byName map[string]policyScope) {
	if s.name == "" {
		return
	}
	if err := policy.CheckScope(s.name); err != nil {
		w.add("dead-scope", s.line, s.path, "%v", err)
		return
	}
	if policy.UpperCaseHost(s.name) {
		w.add("upper-case-host", s.line, s.path, "%s", upperCaseHost)
	}
	if official(s.name) {
		w.add("library-missing", s.line, s.path, "%s", libraryMissing).Hint = libraryHint(s.name)
	}
	if policy.IsTag(s.name) {
		w.add("tag-scope", s.line, s.path, "a pull by digest never matches it, and node runtimes often pull by digest")
	}
	if len(s.name) > 2 && s.name[:2] == "*." {
		w.feature(trust.FeatureWildcard, s.line)
	}
	if s.has(policy.SignedBy) && s.has(policy.SigstoreSigned) {
		w.add("both-signatures", s.line, s.path, "asks for a GPG signature and a sigstore signature: all entries of a list must hold")
	}
	if n := s.signers(); n > 1 {
		w.add("all-must-sign", s.line, s.path, "asks for %d signatures, by different keys: all entries of a list must hold",
			n)
	}
	if s.has(policy.InsecureAcceptAnything) && !s.accepts() {
		w.add("accept-is-idle", s.line, s.path, "insecureAcceptAnything has no effect beside other requirements: all entries of a list must hold")
	}
	if s.has(policy.Reject) && len(s.types) > 1 {
		w.add("reject-wins", s.line, s.path, "reject beside other requirements refuses everything: all entries of a list must hold")
	}
	if !s.accepts() {
		return
	}
	for _, p := range policy.Chain(policy.Docker, s.name)[1:] {
		parent, ok := byName[p]
		if !ok {
			continue
		}
		if parent.signed() {
			w.add("hole-below-signed", s.line, s.path, "accepts images without signature below the signed scope %q (line %d)",
				parent.name, parent.line).Hint = "the most specific scope is used alone; trust.yaml can say why with because:"
		}
		return
	}
}

// What is said of a scope whose host is written with upper case.
const (
	upperCaseHost = "is compared as written, while DNS ignores case: an image pulled by another spelling of the host has another scope"
)

const dockerHub = "docker.io/"

// libraryMissing is said of a scope that is official.
const libraryMissing = "is a namespace of Docker Hub and not the image of that name: images without a namespace are in docker.io/library"

func libraryHint(scope string) string {
	return fmt.Sprintf("write %q", "docker.io/library/"+strings.TrimPrefix(scope, dockerHub))
}

// official reports whether the scope has the name that people write for one of Docker Hub's widely used images. Most
// names could as well be meant as a namespace, so only a few are looked for.
func official(scope string) bool {
	name, ok := strings.CutPrefix(scope, dockerHub)
	return ok && slices.Contains([]string{
		"alpine", "busybox", "debian", "fedora", "golang", "hello-world", "httpd", "mariadb", "mysql", "nginx", "node",
		"postgres", "python", "redis", "registry", "ubuntu",
	}, name)
}
