package mutation

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// honest says whether what was pulled is what was asked for, and is vouched for as every requirement wants it. It knows
// who signed what, because the test made all signatures; no signature is verified and no library is asked.
func (m *mutant) honest(p *policyFile, pulled []byte) (why string, ok bool) {
	top := m.manifests[m.repo+m.asked].body
	if d, byDigest := strings.CutPrefix(m.asked, "@"); byDigest && d != sum512(top) &&
		!slices.Contains(m.digests(top), d) {
		return "another manifest than was asked for: " + sum(top), false
	}
	if string(top) != string(pulled) && !names(top, sum(pulled)) && !names(top, sum512(pulled)) {
		return "the index doesn't name the manifest " + sum(pulled), false
	}
	for _, d := range p.requires {
		if !d.anything() && !m.vouched(d, pulled) {
			return "nobody signed " + sum(pulled) + " as " + m.reference(), false
		}
	}
	return "", true
}

// digests are those that the manifest may rightly be called by: that of its bytes and, if it is another manifest with
// nothing but a signature of its own added, the one of the other.
func (m *mutant) digests(manifest []byte) []string {
	out := []string{sum(manifest)}
	has, ok := allMembers(manifest)
	if _, signed := has["signatures"]; !ok || !signed {
		return out
	}
	delete(has, "signatures")
	others := m.wrapped
	if i := bytes.LastIndex(manifest, []byte(`,"signatures":`)); i > 0 {
		others = append(slices.Clone(others), slices.Concat(manifest[:i], []byte("}")))
	}
	for _, w := range others {
		if without, ok := allMembers(w); ok && maps.EqualFunc(has, without,
			func(a, b json.RawMessage) bool { return string(a) == string(b) }) {
			out = append(out, sum(w))
		}
	}
	return out
}

// names is true for an index that lists the digest.
func names(index []byte, digest string) bool {
	var list struct {
		Manifests []struct {
			Digest string `json:"digest"`
		} `json:"manifests"`
	}
	if json.Unmarshal(index, &list) != nil {
		return false
	}
	for _, e := range list.Manifests {
		if e.Digest == digest {
			return true
		}
	}
	return false
}

// vouched is true if a signer of the demand signed just these bytes, or what they wrap without changing it, as a
// reference that the demand takes.
func (m *mutant) vouched(d demand, pulled []byte) bool {
	return slices.ContainsFunc(append(slices.Clone(m.pool.claims), m.claims...), func(s signed) bool {
		c, ok := meaning(s.payload, s.kindOf())
		return ok && d.trusts(s) && slices.Contains(m.digests(pulled), c.digest) && d.holds(m.reference(), c.reference)
	})
}

// Identities, for references of the form HOST/REPOSITORY:TAG and HOST/REPOSITORY@DIGEST, as the mutants have them.

// repository is a reference without tag and digest.
func repository(reference string) string {
	r, _, _ := strings.Cut(reference, "@")
	if i := strings.LastIndex(r, ":"); i > strings.LastIndex(r, "/") {
		r = r[:i]
	}
	return r
}

func repoDigestOrExact(asked, signed string) bool {
	if strings.Contains(asked, "@") {
		return signed != repository(signed) && repository(asked) == repository(signed)
	}
	return asked == signed
}

func sameRepository(asked, signed string) bool { return repository(asked) == repository(signed) }

func exactly(want string) func(asked, signed string) bool {
	return func(_, signed string) bool { return signed == want }
}
