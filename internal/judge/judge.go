// Package judge derives a node's state from differences and canary results. It does no I/O and knows no clock.
package judge

import "github.com/nodetrust/nodetrust/internal/verdict"

// State is the state of a node. See docs/states.md.
type State string

// The states, in the order in which they are tried: the first that holds is reported.
const (
	Contested   State = "Contested"
	Shadowed    State = "Shadowed"
	NotEnforced State = "NotEnforced"
	Blocked     State = "Blocked"
	RolledBack  State = "RolledBack"
	Held        State = "Held"
	Drifted     State = "Drifted"
	Unknown     State = "Unknown"
	Enforced    State = "Enforced"
)

// Kind is the kind of a Difference.
type Kind string

// Kinds of differences: of files of the desired set, of files that mask or repeat them, of the policy's key files.
const (
	Missing    Kind = "missing"
	Content    Kind = "content"
	Mode       Kind = "mode"
	Owner      Kind = "owner"
	Type       Kind = "type"
	Label      Kind = "label"
	Unreadable Kind = "unreadable"

	// another file is read instead of ours (~root/.config/containers/policy.json, /etc/crio/policies/*.json, …)
	Masks     Kind = "masks"
	Duplicate Kind = "duplicate" // a registries.d file repeats a scope of ours: every pull fails
	Invalid   Kind = "invalid"   // a registries.d file that doesn't parse: every pull fails

	KeyMissing    Kind = "key-missing"
	KeyUnreadable Kind = "key-unreadable"
)

// Difference is one difference between the effective and the desired file set.
type Difference struct {
	// Path is absolute, as seen on the host (without the host root).
	Path string `json:"path"`
	Kind Kind   `json:"kind"`
	// Want and Got are a digest ("sha256:…"), a mode ("0644"), "uid:gid", a type, a label or a name; never contents.
	Want string `json:"want"`
	Got  string `json:"got"`
}

// Canary is one canary's result through one runtime.
type Canary struct {
	verdict.Verdict
	// Expect is accept or refuse.
	Expect verdict.Answer `json:"expect"`
	// Runtime is cri, podman or verify.
	Runtime string `json:"runtime"`
	// Namespace is set if the pull was made under a namespaced policy.
	Namespace string `json:"namespace,omitempty"`
	// OK is true if the verdict is the expected one.
	OK bool `json:"ok"`
}

// Probe is the result of one round of canaries: the JSON of `nodetrust probe`.
type Probe struct {
	State    State    `json:"state"`
	Reason   string   `json:"reason"`
	Message  string   `json:"message"`
	Canaries []Canary `json:"canaries"`
	// Keys are the OpenPGP keys that the policy trusts.
	Keys []Key `json:"keys,omitempty"`
	// Runtimes are those that named themselves.
	Runtimes []Runtime `json:"runtimes,omitempty"`
}

// Runtime is a container runtime of a round, with the name and version that it reports and what is known of its
// verifier. Its fields are those of trust.Runtime.
type Runtime struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// Advisories are the IDs of the known holes; empty for an unknown runtime.
	Advisories []string `json:"advisories"`
	// Fixed is the first version of the image library without these holes.
	Fixed string `json:"fixed,omitempty"`
}

// Key is a trusted key and its expiry.
type Key struct {
	// Fingerprint is full, upper-case hex.
	Fingerprint string `json:"fingerprint"`
	// Expires is in Unix seconds; 0 for a key that does not expire.
	Expires int64 `json:"expires"`
}
