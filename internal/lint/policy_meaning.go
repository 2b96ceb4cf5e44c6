package lint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/trust"
)

// meaning finds what loads and yet is likely not what was meant. It looks at the docker transport only.
func (l *linter) meaning(p *policyFacts) {
	byName := map[string]policyScope{"": p.defaults}
	for _, s := range p.scopes {
		byName[s.name] = s
	}
	for _, s := range p.scopes {
		l.scopeMeaning(p, s, byName)
	}
	asked := payloadScopes(func(scope string) bool { _, ok := byName[scope]; return ok })
	for _, s := range p.scopes {
		if s.has(policy.SignedBy) {
			l.payload(s.name, asked, s.place)
		}
	}
	if p.defaults.has(policy.Reject) && byName[""].accepts() {
		s := byName[""]
		l.add("default-reject-moot", s.place,
			"accepts every image of every registry that has no scope: the default reject is never asked for registries").Hint = fmt.Sprintf("remove this scope, or say %q in default too if that is meant", policy.InsecureAcceptAnything)
	}
	if !slices.ContainsFunc(append(slices.Clone(p.scopes), p.defaults),
		func(s policyScope) bool { return s.signed() || s.has(policy.Reject) }) {
		l.add("accepts-everything", p.defaults.place, "no registry needs a signature and none is rejected")
	}
}

func (l *linter) scopeMeaning(p *policyFacts, s policyScope, byName map[string]policyScope) {
	if s.name == "" {
		return
	}
	if !l.scope(s.name, s.place) {
		return
	}
	l.official(s.name, s.place)
	l.tag(s.name, s.place)
	if len(s.name) > 2 && s.name[:2] == "*." {
		p.feature(trust.FeatureWildcard, s.line)
	}
	l.addIf(s.has(policy.SignedBy) && s.has(policy.SigstoreSigned), "both-signatures", s.place,
		"asks for a GPG signature and a sigstore signature: all entries of a list must hold")
	if n := s.signers(); n > 1 {
		l.add("all-must-sign", s.place, "asks for %d signatures, by different keys: all entries of a list must hold",
			n)
	}
	l.addIf(s.has(policy.InsecureAcceptAnything) && !s.accepts(), "accept-is-idle", s.place,
		"insecureAcceptAnything has no effect beside other requirements: all entries of a list must hold")
	l.addIf(s.has(policy.Reject) && len(s.types) > 1, "reject-wins", s.place,
		"reject beside other requirements refuses everything: all entries of a list must hold")
	if !s.accepts() {
		return
	}
	for _, name := range policy.Chain(policy.Docker, s.name)[1:] {
		parent, ok := byName[name]
		if !ok {
			continue
		}
		l.addIf(parent.signed(), "hole-below-signed", s.place, "accepts images without signature below the signed scope %q (line %d)",
			parent.name, parent.line).Hint = "the most specific scope is used alone; trust.yaml can say why with because:"
		return
	}
}

// scope finds what is wrong with a scope's name, and reports whether an image can have it.
func (l *linter) scope(name string, at place) bool {
	if err := policy.CheckScope(name); err != nil {
		l.add("dead-scope", at, "%v", err)
		return false
	}
	l.addIf(policy.UpperCaseHost(name), "upper-case-host", at,
		"is compared as written, while DNS ignores case: an image pulled by another spelling of the host has another scope")
	return true
}

// tag warns of a scope that has one.
func (l *linter) tag(scope string, at place) {
	l.addIf(policy.IsTag(scope), "tag-scope", at,
		"a pull by digest never matches it, and node runtimes often pull by digest")
}

// official warns of a scope that has the name which people write for one of Docker Hub's widely used images. Most
// names could as well be meant as a namespace, so only a few are looked for.
func (l *linter) official(scope string, at place) {
	name, ok := strings.CutPrefix(scope, "docker.io/")
	if ok && slices.Contains([]string{
		"alpine", "busybox", "debian", "fedora", "golang", "hello-world", "httpd", "mariadb", "mysql", "nginx", "node",
		"postgres", "python", "redis", "registry", "ubuntu",
	}, name) {
		l.add("library-missing", at, "is a namespace of Docker Hub and not the image of that name: images without a namespace are in docker.io/library").Hint = fmt.Sprintf("write %q", "docker.io/library/"+name)
	}
}

// plainHTTP warns of a place of signatures that is fetched without TLS.
func (l *linter) plainHTTP(at place) {
	l.add("insecure-lookaside", at, "http can be changed on its way: an attacker may hide signatures, or offer old ones")
}

// payloads are the repositories that hold the images of OpenShift itself. None of these has a GPG signature of its own:
// the signature of the release image vouches for their digests.
func payloads() []string {
	return []string{"quay.io/openshift-release-dev/ocp-v4.0-art-dev", "quay.io/openshift-release-dev/ocp-v5.0-art-dev"}
}

// payload says that a scope asks for GPG signatures of OpenShift's own images, if it is deciding or below a payload.
func (l *linter) payload(scope string, deciding map[string]bool, at place) {
	l.addIf(deciding[scope] || belowPayload(scope), "release-payload", at,
		"asks for GPG signatures of OpenShift's own images, which have none: a node with this can pull no part of OpenShift and breaks at its next update")
}

// payloadScopes returns those of the scopes that decide about OpenShift's own images and name them: quay.io, a part
// of it, or a wildcard above it. What says something of all registries is not meant: there are hosts without
// OpenShift.
func payloadScopes(exists func(scope string) bool) map[string]bool {
	out := map[string]bool{}
	for _, p := range payloads() {
		for _, scope := range policy.Chain(policy.Docker, p) {
			if scope != "" && exists(scope) {
				out[scope] = true
				break
			}
		}
	}
	return out
}

// belowPayload reports whether the scope is a tag or digest of OpenShift's own images.
func belowPayload(scope string) bool {
	for _, p := range payloads() {
		if rest, ok := strings.CutPrefix(scope, p); ok && rest != "" && strings.Contains(":@", rest[:1]) {
			return true
		}
	}
	return false
}
