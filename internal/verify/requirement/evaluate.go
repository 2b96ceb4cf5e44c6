package requirement

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/failure"
	"github.com/nodetrust/nodetrust/internal/verify/library"
	"github.com/nodetrust/nodetrust/internal/verify/mechanism"
	"github.com/nodetrust/nodetrust/internal/verify/signatures"
)

// Image is an image that was read, as requirements are evaluated for it.
type Image struct {
	// Unparsed has all signatures of the image. Logical is the reference whose scope and identity count.
	Unparsed types.UnparsedImage
	Logical  types.ImageReference
	// Manifest has the digest Digest.
	Manifest []byte
	Digest   string
	// Scope is that of the section for Logical.
	Scope verdict.Scope
}

// New returns the requirement as verdicts have it before the image was read.
func (r *Requirement) New() verdict.Requirement {
	return verdict.Requirement{
		Type: r.Type, Keys: r.KeyNames(), Identity: r.Identity().Type,
		Answer: verdict.Unknown, Reason: verdict.RegistryUnreachable,
	}
}

// Settled returns the answer where it doesn't hang on signatures.
func (r *Requirement) Settled() (a verdict.Answer, reason verdict.Reason, settled bool) {
	switch {
	case r.Type == policy.Reject:
		return verdict.Refuse, verdict.RejectedByPolicy, true
	case r.Type == policy.InsecureAcceptAnything:
		return verdict.Accept, "", true
	case r.Reason == verdict.KeyMissing:
		return verdict.Unknown, r.Reason, true
	}
	return verdict.Refuse, r.Reason, r.Reason != ""
}

// Own returns the signatures that the requirement looks at: each kind ignores the other's.
func (r *Requirement) Own(all []signatures.Signature) (own []signatures.Signature) {
	for _, s := range all {
		if r.Type == policy.SignedBy && s.Simple != nil || r.Type == policy.SigstoreSigned && s.Sigstore != nil {
			own = append(own, s)
		}
	}
	return own
}

// Evaluate fills in the answer on a requirement, and on those of the image's signatures that the requirement looks at.
func (p *Policy) Evaluate(ctx context.Context, im Image, r *Requirement, all []signatures.Signature,
	out *verdict.Requirement,
) {
	own := r.Own(all)
	out.Signatures = make([]verdict.Signature, len(own))
	for j, s := range own {
		out.Signatures[j] = r.claimed(s)
	}
	un := im.Unparsed
	if un.Reference() != im.Logical {
		un = image.UnparsedInstanceWithReference(un, im.Logical)
	}
	switch {
	case r.Reason != "":
		out.Answer, out.Reason, _ = r.Settled()
		for j := range out.Signatures {
			s := &out.Signatures[j]
			s.Answer, s.Reason, s.Message = out.Answer, out.Reason, r.Message
		}
	case len(own) == 0:
		out.Answer, out.Reason = r.unsigned(p.allowed(ctx, im, un, r))
	case len(own) == 1:
		err := p.signed(ctx, im, un, r, own[0])
		r.conclude(&out.Signatures[0], own[0], im, err)
		out.Answer, out.Reason = out.Signatures[0].Answer, out.Signatures[0].Reason
	default:
		p.each(ctx, im, r, own, out)
	}
}

// claimed is the signature as it claims to be.
func (r *Requirement) claimed(s signatures.Signature) verdict.Signature {
	expires := s.Claims.Expires
	// Other certificates than those of a PKI need to have held when the signature was logged only.
	if s.Sigstore != nil && r.PKI != nil {
		expires = s.CertificatesExpire()
	}
	return verdict.Signature{
		Source: s.Source, Answer: verdict.Unknown, Packet: s.Claims.Packet,
		Signer: cmp.Or(r.GPG.ByID[s.Claims.Signer], s.Claims.Signer),
		Digest: s.Claims.Digest, Reference: s.Claims.Reference, Expires: expires,
	}
}

// unsigned returns the answer where no signature counts; err is the library's.
func (r *Requirement) unsigned(err error) (verdict.Answer, verdict.Reason) {
	refused := failure.Is[signature.PolicyRequirementError](err)
	switch {
	case err == nil:
		return verdict.Accept, ""
	case refused && r.Type == policy.Reject:
		return verdict.Refuse, verdict.RejectedByPolicy
	case refused:
		return verdict.Refuse, verdict.NoSignature
	case failure.TimedOut(err):
		return verdict.Unknown, verdict.Timeout
	}
	return verdict.Unknown, verdict.MechanismCannotTell
}

// nearest ranks the reasons why signatures weren't accepted by how far the evaluation came: the last tells most about
// what is missing for an accept.
var nearest = []verdict.Reason{
	verdict.WrongKey, verdict.WeakOrUnsupported, verdict.KeyUnreadable, verdict.KeyRevoked, verdict.KeyExpired,
	verdict.SignatureExpired,
	verdict.WrongDigest, verdict.WrongIdentity,
}

// each evaluates every signature alone: the library folds the reasons of several into one text. The requirement holds
// if one of them is accepted, as for the library.
func (p *Policy) each(ctx context.Context, im Image, r *Requirement, own []signatures.Signature,
	out *verdict.Requirement,
) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, min(4, runtime.GOMAXPROCS(0)))
	for j := range own {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			err := ctx.Err()
			if err == nil {
				err = p.alone(ctx, im, r, own[j])
			}
			r.conclude(&out.Signatures[j], own[j], im, err)
		})
	}
	wg.Wait()
	out.Answer, out.Reason = verdict.Refuse, ""
	for _, s := range out.Signatures {
		switch {
		case s.Answer == verdict.Accept:
			out.Answer, out.Reason = verdict.Accept, ""
			return
		case s.Answer == verdict.Unknown:
			out.Answer, out.Reason = verdict.Unknown, s.Reason
		case out.Answer == verdict.Refuse && slices.Index(nearest, s.Reason) >= slices.Index(nearest, out.Reason):
			out.Reason = s.Reason
		}
	}
}

// alone evaluates a requirement as if own were the image's only signature.
func (p *Policy) alone(ctx context.Context, im Image, r *Requirement, own signatures.Signature) error {
	if own.Simple != nil {
		return p.signed(ctx, im, oneSignature{im, own.Simple}, r, own)
	}
	// The library takes sigstore signatures from its own sources only, such as a directory.
	file, err := own.Sigstore.File()
	if err != nil {
		return err
	}
	ref, err := library.WriteDir(p.Temp, im.Manifest, [][]byte{file})
	if err != nil {
		return err
	}
	src, err := ref.NewImageSource(ctx, &p.System)
	if err != nil {
		return err
	}
	defer src.Close()
	// The directory is one of its own, which knows no instances.
	return p.allowed(ctx, im, image.UnparsedInstanceWithReference(image.UnparsedInstance(src, nil), im.Logical), r)
}

// oneSignature is an image with one simple signature.
type oneSignature struct {
	Image
	simple []byte
}

func (o oneSignature) Reference() types.ImageReference { return o.Logical }

func (o oneSignature) Manifest(context.Context) ([]byte, string, error) {
	return o.Image.Manifest, manifest.GuessMIMEType(o.Image.Manifest), nil
}

func (o oneSignature) Signatures(context.Context) ([][]byte, error) { return [][]byte{o.simple}, nil }

// reason returns why the library didn't accept the signature of a manifest alone: by the type of err, and only where
// that leaves several causes by what the signature claims. The library compares digest and then identity after the
// cryptographic check of a simple signature, so at that point the claims are proven.
func (r *Requirement) reason(err error, s signatures.Signature, blob []byte) (verdict.Answer, verdict.Reason) {
	refused, ok := errors.AsType[signature.PolicyRequirementError](err)
	timedOut := failure.TimedOut(err)
	switch {
	case s.Simple != nil && (!ok || timedOut || refused == mechanism.ErrNoKey):
		return mechanism.Reason(err, s.Claims, r.GPG)
	case timedOut:
		return verdict.Unknown, verdict.Timeout
	case s.Sigstore != nil && r.strange(err, s) != "":
		return verdict.Refuse, verdict.WeakOrUnsupported
	case ok && !library.DigestMatches(blob, s.Claims.Digest):
		return verdict.Refuse, verdict.WrongDigest
	case ok:
		return verdict.Refuse, verdict.WrongIdentity
	case failure.Is[signature.InvalidSignatureError](err):
		return verdict.Refuse, verdict.WrongKey
	}
	return verdict.Refuse, verdict.WeakOrUnsupported // no annotation, another payload: the library reads no more of it
}

// sigstoreType is the media type of the only attachments that the library reads.
const sigstoreType = "application/vnd.dev.cosign.simplesigning.v1+json"

// strange says what a sigstore attachment is that is no container signature, whoever made it; "" if it may be one.
func (r *Requirement) strange(err error, s signatures.Signature) string {
	if s.Sigstore.MIMEType != sigstoreType {
		return fmt.Sprintf("an attachment of type %q is no container signature: runtimes read %s only", s.Sigstore.MIMEType,
			sigstoreType)
	}
	invalid, ok := errors.AsType[signature.InvalidSignatureError](err)
	keysOnly := r.Fulcio == nil && r.PKI == nil && !r.Rekor().Given()
	switch {
	case !ok:
		return ""
	// The library has no types for these. It reads the payload after it has verified the signature.
	case strings.HasPrefix(invalid.Error(), "base64 decoding"):
		return "the attachment has no signature in base64: " + invalid.Error()
	case keysOnly && !strings.HasPrefix(invalid.Error(), "cryptographic signature verification failed"):
		return "an accepted key made the signature, but what it signed is no container signature: " + invalid.Error()
	}
	return ""
}

// conclude fills in the answer on one signature; err is the library's.
func (r *Requirement) conclude(s *verdict.Signature, own signatures.Signature, im Image, err error) {
	if err == nil {
		s.Answer, s.Reason = verdict.Accept, ""
		primary, known := r.GPG.ByID[own.Claims.Signer]
		if !known && len(r.GPG.Primary) == 1 {
			s.Signer = r.GPG.Primary[0]
		}
		if known && own.Simple != nil && !strings.HasSuffix(primary, own.Claims.Signer) {
			s.Message = "made by subkey " + own.Claims.Signer
		}
		return
	}
	s.Answer, s.Reason = r.reason(err, own, im.Manifest)
	switch {
	case s.Reason == verdict.WrongIdentity:
		name := "a directory, which has no docker reference"
		named := im.Logical.DockerReference()
		if named != nil {
			name = named.String()
		}
		s.Message = fmt.Sprintf("signed as %s, which %s does not accept for %s", orUnknown(s.Reference), r.Identity(), name)
		if want := expected(r.Identity(), named); want != "" && want != name {
			s.Message += "; it accepts " + want
		}
	case s.Reason == verdict.WrongDigest:
		s.Message = fmt.Sprintf("signed for %s, the image is %s", orUnknown(s.Digest), im.Digest)
	case own.Simple != nil:
		s.Message = mechanism.Signature{
			Claims: own.Claims, Signer: s.Signer, Keys: r.GPG,
			Source: r.keySource(),
		}.Explain(s.Reason, err)
	case s.Reason == verdict.WrongKey:
		s.Message = fmt.Sprintf("no accepted key or certificate made the signature: %v", err)
	case s.Reason == verdict.WeakOrUnsupported:
		s.Message = cmp.Or(r.strange(err, own), "no usable container signature: "+mechanism.Text(err))
	}
}

func orUnknown(s string) string { return cmp.Or(s, "(not said)") }
