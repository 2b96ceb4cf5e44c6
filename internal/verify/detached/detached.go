// Package detached judges signature files without an image: one container signature, made by one of the keys, for
// what is wanted.
package detached

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/docker/reference"

	"github.com/nodetrust/nodetrust/internal/openpgp"
	"github.com/nodetrust/nodetrust/internal/openpgp/key"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/mechanism"
	"github.com/nodetrust/nodetrust/internal/verify/requirement"
)

// Result is the answer on one signature file.
type Result struct {
	verdict.Outcome
	// Signer is a full fingerprint, or a 16-digit key ID where only that is known.
	Signer string `json:"signer"`
	// Digest and Reference are what the signature is for: claims, unless the verdict is accept.
	Digest    string `json:"digest"`
	Reference string `json:"reference"`
	// Creator and Timestamp (seconds since 1970) are what the signer says of the signature; they are there only if one of
	// the keys made it.
	Creator   string `json:"creator,omitempty"`
	Timestamp *int64 `json:"timestamp,omitempty"`
}

// Wanted is what a signature must be for.
type Wanted struct {
	// Digest is a manifest digest; any if empty.
	Digest string
	// Reference is a docker reference; any if empty. If it has a digest, that one must have been signed, and its tag
	// doesn't count, as for runtimes.
	Reference string
	// Identity says how references are compared: matchExact, matchRepoDigestOrExact or matchRepository, as in
	// policy.json. The first two need a tag or a digest: a default would be a guess. Empty is matchRepoDigestOrExact, as
	// in policy.json.
	Identity string
}

func (w Wanted) rule() string { return cmp.Or(w.Identity, policy.MatchRepoDigestOrExact) }

// Verify judges one signature file: a simple signature made by one of the keys (each the content of a key file), for
// what is wanted. Readers that have these keys, and an image of that manifest under that reference, give the same
// answer. An error means that what is wanted can't be used. Nothing is said of the image, and nothing of a key that
// isn't given.
func Verify(ctx context.Context, blob []byte, keys [][]byte, w Wanted) (Result, error) {
	want, err := w.reference()
	if err != nil {
		return Result{}, err
	}
	if err := w.checkDigests(want); err != nil {
		return Result{}, err
	}
	var d Result
	d.judge(ctx, blob, keys, func(p openpgp.Payload) { d.compare(p, want, w) })
	return d, nil
}

func (d *Result) set(a verdict.Answer, reason verdict.Reason, format string, args ...any) {
	d.Answer, d.Reason, d.Message = a, reason, fmt.Sprintf(format, args...)
}

// judge calls proven with the content of a signature that one of the keys made; in all other cases it answers itself.
func (d *Result) judge(ctx context.Context, blob []byte, keys [][]byte, proven func(openpgp.Payload)) {
	known, err := mechanism.Keys(keys)
	if err != nil {
		d.set(verdict.Unknown, verdict.MechanismCannotTell, "what the key files hold can't be told: %s", mechanism.Text(err))
		return
	}
	message, gateErr := openpgp.MessageIn(blob)
	c := openpgp.ReadClaims(message)
	d.Signer, d.Digest, d.Reference = cmp.Or(known.ByID[c.Signer], c.Signer), c.Digest, c.Reference
	switch {
	case len(known.Primary) == 0:
		d.set(verdict.Refuse, verdict.KeyUnreadable, "no public key inside the key files")
		return
	case gateErr != nil:
		d.set(verdict.Unknown, verdict.LookasideNotSignature, "the file is %s: that is no signature (readers say: %v)",
			describe(blob), gateErr)
		return
	}
	if err := openpgp.CheckUnpacked(message, openpgp.MaxUnpacked); err != nil {
		d.set(verdict.Unknown, verdict.LookasideNotSignature, "the file is %v: that is no signature", err)
		return
	}
	signed, signer, err := mechanism.Verify(ctx, message, keys, known)
	if err != nil {
		d.refused(err, message, c, known)
		return
	}
	d.Signer = cmp.Or(known.ByID[signer], signer)
	p, err := openpgp.ReadPayload(signed)
	if err != nil {
		d.set(verdict.Refuse, verdict.WeakOrUnsupported, "well signed, but no container signature: %v", err)
		return
	}
	d.Digest, d.Reference, d.Creator, d.Timestamp = p.Digest.String(), p.Reference, p.Creator, p.Timestamp
	proven(p)
}

// refused says why the mechanism didn't accept a signature.
func (d *Result) refused(err error, message []byte, c openpgp.Claims, known key.Index) {
	if errors.Is(err, context.Canceled) {
		d.set(verdict.Unknown, verdict.Timeout, "interrupted")
		return
	}
	a, reason := mechanism.Reason(err, c, known)
	if openpgp.IsDetached(message) && reason != verdict.Timeout {
		d.set(verdict.Refuse, verdict.WeakOrUnsupported,
			"a detached signature with no content inside: readers want a signed message (gpg --sign)")
		return
	}
	text := mechanism.Signature{Claims: c, Signer: d.Signer, Keys: known, Source: "key files given"}.Explain(reason, err)
	d.set(a, reason, "%s", cmp.Or(text, err.Error()))
}

// compare answers on a signature that is good.
func (d *Result) compare(p openpgp.Payload, want reference.Named, w Wanted) {
	_, unusable := reference.ParseNormalizedNamed(d.Reference)
	digested, byDigest := want.(reference.Digested)
	switch {
	case p.Digest.Algorithm() != digest.Canonical:
		d.set(verdict.Refuse, verdict.WrongDigest, "signed for %s: readers compare SHA-256 alone", d.Digest)
	case w.Digest != "" && d.Digest != w.Digest:
		d.set(verdict.Refuse, verdict.WrongDigest, "signed for %s, not for %s", d.Digest, w.Digest)
	case byDigest && p.Digest != digested.Digest():
		d.set(verdict.Refuse, verdict.WrongDigest, "signed for %s, not for %s", d.Digest, digested.Digest())
	case unusable != nil:
		d.set(verdict.Refuse, verdict.WrongIdentity, "signed as %q, which is no reference: no identity accepts it",
			d.Reference)
	case want != nil && !requirement.MatchesIdentity(policy.Identity{Type: w.rule()}, want, d.Reference):
		d.set(verdict.Refuse, verdict.WrongIdentity, "signed as %s, which %s does not accept for %s", d.Reference,
			w.rule(), want)
	case d.Signer == "":
		d.set(verdict.Unknown, verdict.MechanismCannotTell, "well signed, but nobody knows by whom")
	default:
		d.set(verdict.Accept, "", "signed by %s", d.Signer)
	}
}

// checkDigests reports a digest that no signature can be compared with.
func (w Wanted) checkDigests(want reference.Named) error {
	var list []digest.Digest
	if w.Digest != "" {
		d, err := digest.Parse(w.Digest)
		if err != nil {
			return fmt.Errorf("digest %q: %w", w.Digest, err)
		}
		list = append(list, d)
	}
	if digested, ok := want.(reference.Digested); ok {
		list = append(list, digested.Digest())
	}
	for _, d := range list {
		if d.Algorithm() != digest.Canonical {
			return fmt.Errorf("digest %q: signatures name SHA-256 digests, and which one is this manifest's can't be told without it", d)
		}
	}
	return nil
}

func (w Wanted) reference() (reference.Named, error) {
	switch w.Identity {
	case "":
	case policy.MatchExact, policy.MatchRepoDigestOrExact, policy.MatchRepository:
		if w.Reference == "" {
			return nil, fmt.Errorf("identity %s: needs a reference to compare with", w.Identity)
		}
	default:
		return nil, fmt.Errorf("identity %q: must be matchExact, matchRepoDigestOrExact or matchRepository", w.Identity)
	}
	if w.Reference == "" {
		return nil, nil
	}
	named, err := reference.ParseNormalizedNamed(strings.TrimPrefix(w.Reference, "docker://"))
	if err != nil {
		return nil, fmt.Errorf("reference %q: %w", w.Reference, err)
	}
	if w.rule() != policy.MatchRepository && reference.IsNameOnly(named) {
		return nil, fmt.Errorf("reference %q: %s needs a tag or a digest; matchRepository compares repositories alone",
			w.Reference, w.rule())
	}
	if digested, ok := named.(reference.Digested); ok {
		return reference.WithDigest(reference.TrimNamed(named), digested.Digest())
	}
	return named, nil
}
