package verify

import (
	"context"
	"errors"
	"slices"

	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/openpgp"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/verdict"
)

// onceVerified is a mechanism that has judged one signature already.
type onceVerified struct {
	signature.SigningMechanism
	content []byte
	signer  string
}

func (v onceVerified) Verify([]byte) ([]byte, string, error) { return v.content, v.signer, nil }

// signed evaluates a requirement for an image whose only signature that counts is own; un is the image with it. It is
// allowed with fewer processes where the requirement is one of simple signing: the mechanism's refusal is taken from a
// keyring that is there already, and so is an accept. Everything else is for the library to say.
func (e *evaluation) signed(ctx context.Context, un types.UnparsedImage, r *requirement, own sig, blob []byte) error {
	if own.simple == nil || r.Type != policy.SignedBy {
		return e.allowed(ctx, un, r)
	}
	ring := e.policy.keys.Get(r.ringData)
	if ring == nil {
		return e.allowed(ctx, un, r)
	}
	content, signer, ids, err := e.policy.keys.Verify(ctx, ring, own.simple)
	var invalid signature.InvalidSignatureError
	switch {
	case errors.As(err, &invalid):
		return err
	case err != nil:
		return e.allowed(ctx, un, r)
	}
	subkey := !slices.Contains(ids, signer)
	if subkey && ring.Knows(signer) {
		ids, subkey = append(slices.Clone(ids), signer), false
	}
	if !subkey && e.accepts(ctx, un, r, own.simple, blob, onceVerified{content: content, signer: signer}, ids) {
		return nil
	}
	// The library finds the primary key of a subkey, and words the refusal of digest and identity.
	err = e.allowed(ctx, un, r)
	if err == nil && subkey {
		ring.Learn(signer)
	}
	return err
}

// accepts is true if the library accepts what was signed for this image: its own reading of the content, its comparison
// of the digest, and its choice of the scope; only of identities it gives nothing to call (see MatchesIdentity).
func (e *evaluation) accepts(ctx context.Context, un types.UnparsedImage, r *requirement, sig, blob []byte,
	mech onceVerified, ids []string,
) bool {
	claimed := openpgp.PayloadClaims(mech.content)
	s, _, err := signature.VerifyImageManifestSignatureUsingKeyIdentityList(sig, blob, claimed.Reference, mech, ids)
	if err != nil {
		return false
	}
	return MatchesIdentity(r.Identity(), un.Reference().DockerReference(), s.DockerReference) && e.scopeConfirmed(ctx, un)
}

// scopeConfirmed is true if the library, too, uses the section of the policy that was looked up for the image.
func (e *evaluation) scopeConfirmed(ctx context.Context, un types.UnparsedImage) bool {
	one := e.policy.only(e.sec.scope, signature.NewPRInsecureAcceptAnything())
	pc, err := signature.NewPolicyContext(one)
	if err != nil {
		return false
	}
	ok, err := pc.IsRunningImageAllowed(ctx, un)
	return errors.Join(err, pc.Destroy()) == nil && ok
}

// only returns a policy in which all sections reject but the one of this scope, which holds just these requirements.
func (p *Policy) only(scope verdict.Scope, reqs ...signature.PolicyRequirement) *signature.Policy {
	reject := signature.PolicyRequirements{signature.NewPRReject()}
	out := &signature.Policy{Default: reject, Transports: make(map[string]signature.PolicyTransportScopes,
		len(p.library.Transports))}
	for t, sections := range p.library.Transports {
		c := make(signature.PolicyTransportScopes, len(sections))
		for name := range sections {
			c[name] = reject
		}
		out.Transports[t] = c
	}
	if scope.Matched == "default" {
		out.Default = reqs
	} else {
		out.Transports[scope.Transport][scope.Name] = reqs
	}
	return out
}
