package verify

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/secondlook"
)

// formError says that a manifest has a form in which no demanded signature can vouch for it.
type formError struct{ found *secondlook.Finding }

func (e *formError) Error() string { return e.found.Message }

// demandsSignature reports whether a requirement of the scope wants a signature.
func (e *evaluation) demandsSignature() bool {
	for _, r := range e.sec.requirements {
		if policy.VerifiesSignatures(r.Type) {
			return true
		}
	}
	return false
}

// refusedForm reports a manifest of schema 1 where the scope demands a signature, before the image library reads it.
// Without a signature of its own it must be the one of the digest asked for ("" is none): of other bytes nothing is
// known.
func (e *evaluation) refusedForm(blob []byte, asked string) error {
	f := secondlook.CheckForm(blob, e.demandsSignature())
	switch {
	case f == nil:
		return nil
	case f.Kind == secondlook.Outdated && asked != "" && !digestMatches(blob, asked):
		return &notThereError{fmt.Errorf("the manifest found is not the %s asked for", asked)}
	}
	return &formError{f}
}

// whatWasRead returns a formError if the instance that the image library couldn't read is of schema 1, else err.
func (e *evaluation) whatWasRead(ctx context.Context, src types.ImageSource, err error) error {
	if e.index == nil || timedOut(err) {
		return err
	}
	d := digest.Digest(e.v.Digest)
	blob, _, again := src.GetManifest(ctx, &d)
	if again != nil {
		return err
	}
	if form := e.refusedForm(blob, d.String()); form != nil {
		return form
	}
	if _, bad := digestOf(blob); bad != nil {
		return bad
	}
	if !digestMatches(blob, d.String()) {
		return &notThereError{fmt.Errorf("the manifest found is not the %s that the index names", d)}
	}
	return err
}

// withoutManifest ends the evaluation for want of a manifest: err is why there is none that can be judged.
func (e *evaluation) withoutManifest(err error) {
	var form *formError
	var missing *notThereError
	switch {
	case errors.As(err, &form):
		e.refuseForm(form.found)
	case errors.As(err, &missing):
		e.stop(verdict.ImageNotFound, "%v", err)
	default:
		reason, text := e.manifestReason(err)
		e.stop(reason, "reading manifest: %s", text)
	}
}

// withoutLocal ends the evaluation for want of an image on this machine: err is what checkLocal found.
func (e *evaluation) withoutLocal(err error) {
	var form *formError
	if errors.As(err, &form) {
		e.refuseForm(form.found)
		return
	}
	e.stop(localReason(err), "reading image: %v", err)
}

// refuseForm refuses the image for its form: no signature could help.
func (e *evaluation) refuseForm(f *secondlook.Finding) {
	if e.settled {
		return
	}
	reason := verdict.WeakOrUnsupported
	if f.Kind == secondlook.Forged {
		reason = verdict.ManifestForged
	}
	e.withoutSignatures()
	for i, r := range e.sec.requirements {
		if policy.VerifiesSignatures(r.Type) {
			e.v.Requirements[i].Answer, e.v.Requirements[i].Reason = verdict.Refuse, reason
		}
	}
	e.set(verdict.Refuse, reason, f.Message)
}

// lookAgain takes an accept back that a second look at the same bytes doesn't come to. It never makes one.
func (e *evaluation) lookAgain(blob []byte, mime string, signatures []sig) {
	if e.v.Answer != verdict.Accept {
		return
	}
	if err := e.runtimeTakes(blob, mime); err != nil {
		e.takeBack(verdict.Unknown, verdict.ManifestUnreadable,
			fmt.Sprintf("the policy accepts, and no runtime can use the manifest: %v", err))
		return
	}
	f := secondlook.At(e.evidence(blob, mime, signatures))
	switch {
	case f == nil:
	case f.Kind == secondlook.Forged || f.Kind == secondlook.Outdated:
		e.refuseForm(f)
	case f.Kind == secondlook.Unusable:
		e.takeBack(verdict.Unknown, verdict.ManifestUnreadable, f.Message)
	default:
		e.takeBack(verdict.Unknown, verdict.Disagreement, f.Message)
	}
}

// runtimeTakes reports why a runtime that has pulled the manifest would go no further with it: the image library
// reads it after the policy has accepted it.
func (e *evaluation) runtimeTakes(blob []byte, mime string) error {
	if manifest.MIMETypeIsMultiImage(mime) {
		return errors.New("the index names another index")
	}
	_, err := manifest.FromBlob(blob, manifest.NormalizedMIMEType(mime))
	return err
}

// takeBack replaces an accept, and that of the requirements that want a signature.
func (e *evaluation) takeBack(a verdict.Answer, r verdict.Reason, message string) {
	for i, q := range e.sec.requirements {
		if policy.VerifiesSignatures(q.Type) {
			e.v.Requirements[i].Answer, e.v.Requirements[i].Reason = a, r
		}
	}
	e.v.Hint = ""
	e.set(a, r, message)
}

// evidence is what the second look is shown.
func (e *evaluation) evidence(blob []byte, mime string, signatures []sig) secondlook.Image {
	im := secondlook.Image{Manifest: blob, MediaType: mime, Digest: e.v.Digest, Index: e.index}
	if named := e.target.logical.DockerReference(); named != nil {
		im.Asked = named.String()
	}
	for i, r := range e.sec.requirements {
		if policy.VerifiesSignatures(r.Type) {
			im.Demands = append(im.Demands, r.demand(e.v.Requirements[i], sigsFor(r, signatures)))
		}
	}
	return im
}

// demand is a requirement with the signatures that were accepted for it; own are those that out tells of, in the same
// order.
func (r *requirement) demand(out verdict.Requirement, own []sig) secondlook.Demand {
	d := secondlook.Demand{Identity: identityForSecondLook(r.Identity()), Keys: r.keys.ByID, Verifiers: r.verifiers}
	for j, s := range own {
		if out.Signatures[j].Answer != verdict.Accept {
			continue
		}
		if s.simple != nil {
			d.Accepted = append(d.Accepted, secondlook.Signature{Message: s.simple})
			continue
		}
		d.Accepted = append(d.Accepted, secondlook.Signature{
			Payload:     s.sigstore.Payload,
			Signature:   s.sigstore.Annotations["dev.cosignproject.cosign/signature"],
			Certificate: s.sigstore.Annotations["dev.sigstore.cosign/certificate"],
		})
	}
	return d
}

func identityForSecondLook(id policy.Identity) secondlook.Identity {
	return secondlook.Identity{
		Type: id.Type, Reference: id.DockerReference, Repository: id.DockerRepository, Prefix: id.Prefix,
		SignedPrefix: id.SignedPrefix,
	}
}
