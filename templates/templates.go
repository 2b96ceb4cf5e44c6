// Package templates holds constant texts of output: comments, presets, and the key of refuse-canaries.
package templates

import (
	_ "embed"
	"fmt"
	"strings"
)

// CanaryKey is the OpenPGP public key (armored, RSA-3072, v4) that refuse-canaries are carved out with. Its secret half
// was destroyed when it was made, so nothing is ever signed with it. It must never change: each change would change
// the bytes of every rendered policy.
//
//go:embed canary.asc
var CanaryKey []byte

// Redhat is the starter trust config of `nodetrust init --preset redhat`.
//
//go:embed redhat.yaml
var Redhat []byte

// Bundle is the frame of the script that brings files to a host, as a text/template.
//
//go:embed bundle.sh
var Bundle string

//go:embed comment.txt
var comment string

// Comment returns the comment above rendered YAML. Source is the name of the trust config.
func Comment(source string) string {
	return fmt.Sprintf(strings.TrimSpace(comment), source)
}
