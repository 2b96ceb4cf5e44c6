package lint

import (
	"strings"

	"github.com/nodetrust/nodetrust/internal/policy"
)

// payloads are the repositories that hold the images of OpenShift itself. Only the release image is signed with GPG,
// and the signature vouches for the others by digest: none of them has a signature of its own that a lookaside could
// serve.
func payloads() []string {
	return []string{"quay.io/openshift-release-dev/ocp-v4.0-art-dev", "quay.io/openshift-release-dev/ocp-v5.0-art-dev"}
}

// payload says that a scope asks for GPG signatures of OpenShift's own images, if it decides about them: it is one of
// payloadScopes, or below them.
func (l *linter) payload(scope string, deciding map[string]bool, at place) {
	if deciding[scope] || belowPayload(scope) {
		l.add("release-payload", at, "asks for GPG signatures of OpenShift's own images, which have none: a node with this can pull no part of OpenShift and breaks at its next update")
	}
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
