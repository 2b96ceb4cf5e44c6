package secondlook

import (
	"fmt"
	"slices"
)

// claim is what a payload says that was signed.
type claim struct{ digest, reference string }

// The types of claims: that of simple signing, and that of sigstore signatures as cosign makes them.
const (
	simpleType = "atomic container signature"
	cosignType = "cosign container image signature"
)

// readClaim reads a payload strictly: every member that counts is there once, spelt exactly, and nothing stands
// beside it.
//
// {"critical": {"type": …, "image": {"docker-manifest-digest": …}, "identity": {"docker-reference": …}}, "optional":
// {…}}
func readClaim(payload []byte, kind string) (claim, error) {
	var c claim
	outer, err := members(payload, "critical", "optional")
	if err != nil {
		return c, err
	}
	if optional, ok := outer["optional"]; kind == simpleType && (!ok || !isObject(optional)) {
		return c, fmt.Errorf("the claim has no optional part")
	}
	critical, err := members(outer["critical"], "type", "image", "identity")
	if err != nil {
		return c, err
	}
	image, err := members(critical["image"], "docker-manifest-digest")
	if err != nil {
		return c, err
	}
	identity, err := members(critical["identity"], "docker-reference")
	if err != nil {
		return c, err
	}
	if has, err := text(critical["type"]); err != nil || has != kind {
		return c, fmt.Errorf("the claim is of type %.100q", has)
	}
	if c.digest, err = text(image["docker-manifest-digest"]); err != nil {
		return c, fmt.Errorf("the digest of the claim: %w", err)
	}
	if c.reference, err = text(identity["docker-reference"]); err != nil {
		return c, fmt.Errorf("the reference of the claim: %w", err)
	}
	return c, nil
}

// members returns the members of an object that has none but those named, each at most once.
func members(b []byte, named ...string) (map[string][]byte, error) {
	all, err := object(b)
	if err != nil {
		return nil, fmt.Errorf("the claim: %w", err)
	}
	out := map[string][]byte{}
	for _, m := range all {
		if _, twice := out[m.key]; twice {
			return nil, fmt.Errorf("the claim says %.100q twice", m.key)
		}
		if !slices.Contains(named, m.key) {
			return nil, fmt.Errorf("the claim says %.100q, which no claim has", m.key)
		}
		out[m.key] = m.value
	}
	return out, nil
}
