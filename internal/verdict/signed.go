package verdict

import (
	"fmt"

	"github.com/nodetrust/nodetrust/internal/policy"
)

// SignedFor is true if a signature stands behind an accept: a requirement that demands one accepted one of this image.
func (v Verdict) SignedFor() bool {
	if v.Answer != Accept {
		return false
	}
	for _, r := range v.Requirements {
		if r.Answer != Accept || !policy.VerifiesSignatures(r.Type) {
			continue
		}
		for _, s := range r.Signatures {
			if s.Answer == Accept {
				return true
			}
		}
	}
	return false
}

// RequireSigned returns v; of an accept that no signature stands behind it returns a refusal. The requirements keep the
// answers that the policy gave.
func (v Verdict) RequireSigned() Verdict {
	if v.Answer != Accept || v.SignedFor() {
		return v
	}
	v.Answer, v.Reason, v.Hint = Refuse, NotSignedFor, NotSignedFor.Hint()
	v.Message = fmt.Sprintf("%s accepts without a signature", v.Scope)
	return v
}

// String names the scope in a sentence.
func (s *Scope) String() string {
	switch {
	case s == nil:
		return "the policy"
	case s.Matched == "default":
		return "the policy's default"
	case s.Matched == "transport-default":
		return "the default of transport " + s.Transport
	}
	return fmt.Sprintf("scope %s of transport %s", s.Name, s.Transport)
}
