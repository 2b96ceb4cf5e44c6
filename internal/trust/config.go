// Package trust holds the trust config: which images need signatures, by which keys, and where the signatures lie. It
// parses and validates trust.yaml and turns it into the files of a node. It does no I/O and knows no clock.
package trust

import (
	"slices"

	"github.com/nodetrust/nodetrust/internal/openpgp/key"
	"github.com/nodetrust/nodetrust/internal/policy"
)

// APIVersion and ObjectKind are those of a trust config.
const (
	APIVersion = "nodetrust.io/v1alpha1"
	ObjectKind = "TrustConfig"
)

// Config is a valid trust config. Parse returns it. Lines are those of trust.yaml, for messages.
type Config struct {
	// File is the name that was given to Parse.
	File  string
	Name  string
	Pools []string
	// Reject is spec.default: whether images without a registry entry are refused.
	Reject     bool
	Keys       []Key
	Registries []Registry
	Canaries   []Canary
	idle       []Problem
}

// Idle lists valid parts that change nothing in what nodes prove: accept-canaries that no entry covers, if the default
// accepts.
func (c *Config) Idle() []Problem { return c.idle }

// Key is a named key: a path on the nodes, or content that is shipped.
type Key struct {
	Name string
	// Path is a file that the nodes already have; empty for shipped keys.
	Path string
	// File is the parsed content of a shipped key; nil for a path.
	File *key.File
	// Fingerprints are those that the file must hold: upper-case hex.
	Fingerprints []string
	Line         int
}

// Rule is what a scope demands of its images.
type Rule string

// The rules. A signed scope has requirements, all of which must hold.
const (
	RuleAccept Rule = "accept"
	RuleReject Rule = "reject"
	RuleSigned Rule = "signed"
)

// Registry is an entry of spec.registries: one scope of the docker transport.
type Registry struct {
	Scope        string
	Rule         Rule
	Requirements []Requirement
	Location     // where signatures of the registry itself lie
	Mirrors      []Mirror
	Because      string
	Line         int
}

// Location says where signatures lie.
type Location struct {
	// Lookaside is a URL without trailing slash, or empty.
	Lookaside string
	// Attachments is use-sigstore-attachments, nil if missing.
	Attachments *bool
	lookasideAt int
	attachAt    int
}

// Mirror is a physical place from which images of a scope are pulled under their logical name.
type Mirror struct {
	Location
	// Scope is spec.registries[].mirrors[].location.
	Scope string
	Line  int
}

// Requirement is one entry of require: exactly one of SignedBy and Sigstore is set.
type Requirement struct {
	// SignedBy are names of keys, any of which may have signed.
	SignedBy []string
	Sigstore *Sigstore
	Identity policy.Identity
	Line     int
}

// Sigstore describes sigstore signatures: exactly one of Keys, Fulcio and PKI is set. All strings but issuer, email
// and host name are names of keys.
type Sigstore struct {
	Keys   []string
	Fulcio *Fulcio
	PKI    *PKI
	Rekor  []string
}

// Fulcio demands a short-lived certificate.
type Fulcio struct{ CA, OIDCIssuer, SubjectEmail string }

// PKI demands a certificate of a private authority.
type PKI struct{ Roots, Intermediates, SubjectEmail, SubjectHostname string }

// key returns the key of that name. Parse guarantees that names in requirements are known.
func (c *Config) key(name string) Key {
	if i := slices.IndexFunc(c.Keys, func(k Key) bool { return k.Name == name }); i >= 0 {
		return c.Keys[i]
	}
	return Key{}
}

// KeyPaths returns the key files that the nodes must already have, in the order of spec.keys.
func (c *Config) KeyPaths() []string {
	var paths []string
	for _, k := range c.Keys {
		if k.Path != "" {
			paths = append(paths, k.Path)
		}
	}
	return paths
}
