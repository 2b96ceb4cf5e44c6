package requirement

import (
	"context"
	"errors"
	"slices"

	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/openpgp"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/failure"
	"github.com/nodetrust/nodetrust/internal/verify/library"
	"github.com/nodetrust/nodetrust/internal/verify/mechanism"
	"github.com/nodetrust/nodetrust/internal/verify/signatures"
)

// allowed is the library's own word on one requirement. gpg doesn't know of contexts: when ctx ends first, gpg is given
// a moment to come to its end, so that its keyring is removed.
func (p *Policy) allowed(ctx context.Context, im Image, un types.UnparsedImage, r *Requirement) error {
	pc, err := signature.NewPolicyContext(p.only(im.Scope, r.library))
	if err != nil {
		return err
	}
	defer mechanism.WithoutAgents(p.KeyringDir)()
	err, ended := library.Within(ctx, library.Grace/2, func() error {
		ok, err := pc.IsRunningImageAllowed(ctx, un)
		if err == nil && !ok { // never, by the library's documentation
			err = errors.New("not allowed")
		}
		return errors.Join(err, pc.Destroy())
	})
	if !ended {
		p.Late.Store(true)
		return ctx.Err()
	}
	return err
}

// only returns a policy in which all sections reject but the one of this scope, which holds just these requirements:
// the library still looks the section up by itself.
func (p *Policy) only(scope verdict.Scope, reqs ...signature.PolicyRequirement) *signature.Policy {
	reject := signature.PolicyRequirements{signature.NewPRReject()}
	out := &signature.Policy{Default: reject, Transports: make(map[string]signature.PolicyTransportScopes,
		len(p.Library.Transports))}
	for t, sections := range p.Library.Transports {
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

// onceVerified is a mechanism that has judged one signature already.
type onceVerified struct {
	signature.SigningMechanism
	content []byte
	signer  string
}

func (v onceVerified) Verify([]byte) ([]byte, string, error) { return v.content, v.signer, nil }

// signed evaluates a requirement for an image whose only signature that counts is own; un is the image with that
// signature. The answer is that of allowed, with fewer processes where the requirement is one of simple signing: the
// mechanism's refusal is taken from a keyring that is there already, and so is an accept. All else is left to allowed.
func (p *Policy) signed(ctx context.Context, im Image, un types.UnparsedImage, r *Requirement,
	own signatures.Signature,
) error {
	ring := p.Keyrings.Get(r.RingData)
	if own.Simple == nil || r.Type != policy.SignedBy || ring == nil {
		return p.allowed(ctx, im, un, r)
	}
	content, signer, ids, err := p.Keyrings.Verify(ctx, ring, own.Simple)
	switch {
	case failure.Is[signature.InvalidSignatureError](err):
		return err
	case err != nil:
		return p.allowed(ctx, im, un, r)
	}
	subkey := !slices.Contains(ids, signer)
	if subkey && ring.Knows(signer) {
		ids, subkey = append(slices.Clone(ids), signer), false
	}
	mech := onceVerified{content: content, signer: signer}
	if !subkey && p.accepts(ctx, im, un, r, own.Simple, mech, ids) {
		return nil
	}
	// The library finds the primary key of a subkey, and words the refusal of digest and identity.
	err = p.allowed(ctx, im, un, r)
	if err == nil && subkey {
		ring.Learn(signer)
	}
	return err
}

// accepts reports whether the library accepts what was signed for this image: by its own reading of the content, its
// comparison of the digest, and its choice of the scope. For identities it has no function to call: see
// MatchesIdentity.
func (p *Policy) accepts(ctx context.Context, im Image, un types.UnparsedImage, r *Requirement, sig []byte,
	mech onceVerified, ids []string,
) bool {
	claimed := openpgp.PayloadClaims(mech.content)
	s, _, err := signature.VerifyImageManifestSignatureUsingKeyIdentityList(sig, im.Manifest, claimed.Reference, mech, ids)
	return err == nil && MatchesIdentity(r.Identity(), un.Reference().DockerReference(), s.DockerReference) &&
		p.scopeConfirmed(ctx, im, un)
}

// scopeConfirmed reports whether the library, too, uses the section of the policy that was looked up for the image.
func (p *Policy) scopeConfirmed(ctx context.Context, im Image, un types.UnparsedImage) bool {
	pc, err := signature.NewPolicyContext(p.only(im.Scope, signature.NewPRInsecureAcceptAnything()))
	if err != nil {
		return false
	}
	ok, err := pc.IsRunningImageAllowed(ctx, un)
	return errors.Join(err, pc.Destroy()) == nil && ok
}
