package verify

import (
	"errors"
	"fmt"

	"go.podman.io/image/v5/manifest"

	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/failure"
	"github.com/nodetrust/nodetrust/internal/verify/secondlook"
	"github.com/nodetrust/nodetrust/internal/verify/signatures"
)

// withoutLocal ends the evaluation for want of an image on this machine: err is what checkLocal found.
func (e *evaluation) withoutLocal(err error) {
	if form, ok := errors.AsType[*secondlook.Finding](err); ok {
		e.refuseForm(form)
		return
	}
	e.stop(failure.Manifest(err), "reading image: %v", err)
}

// withoutManifest ends the evaluation for want of a manifest: err is why there is none that can be judged.
func (e *evaluation) withoutManifest(err error) {
	if form, ok := errors.AsType[*secondlook.Finding](err); ok {
		e.refuseForm(form)
		return
	}
	if known, ok := errors.AsType[*failure.Error](err); ok && known.Reason == verdict.ImageNotFound {
		e.stop(known.Reason, "%v", err)
		return
	}
	reason, text := e.manifestReason(err)
	e.stop(reason, "reading manifest: %s", text)
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
	e.answerSettled()
	e.answerSigned(verdict.Refuse, reason, f.Message)
}

// answerSigned gives the requirements that want a signature, and the image, this answer.
func (e *evaluation) answerSigned(a verdict.Answer, r verdict.Reason, message string) {
	for i, q := range e.section.Requirements {
		if policy.VerifiesSignatures(q.Type) {
			e.v.Requirements[i].Answer, e.v.Requirements[i].Reason = a, r
		}
	}
	e.set(a, r, message)
}

// lookAgain takes an accept back that a second look at the same bytes doesn't come to. It never makes one.
func (e *evaluation) lookAgain(blob []byte, mime string, found []signatures.Signature) {
	if e.v.Answer != verdict.Accept {
		return
	}
	takeBack := func(reason verdict.Reason, message string) {
		e.v.Hint = ""
		e.answerSigned(verdict.Unknown, reason, message)
	}
	if err := runtimeTakes(blob, mime); err != nil {
		takeBack(verdict.ManifestUnreadable, fmt.Sprintf("the policy accepts, and no runtime can use the manifest: %v", err))
		return
	}
	f := secondlook.At(e.evidence(blob, mime, found))
	switch {
	case f == nil:
	case f.Kind == secondlook.Forged || f.Kind == secondlook.Outdated:
		e.refuseForm(f)
	case f.Kind == secondlook.Unusable:
		takeBack(verdict.ManifestUnreadable, f.Message)
	default:
		takeBack(verdict.Disagreement, f.Message)
	}
}

// runtimeTakes reports why a runtime that has pulled the manifest would go no further with it: the image library
// reads it after the policy has accepted it.
func runtimeTakes(blob []byte, mime string) error {
	if manifest.MIMETypeIsMultiImage(mime) {
		return errors.New("the index names another index")
	}
	_, err := manifest.FromBlob(blob, manifest.NormalizedMIMEType(mime))
	return err
}

// evidence is what the second look is shown: of each requirement that wants a signature those that were accepted.
func (e *evaluation) evidence(blob []byte, mime string, found []signatures.Signature) secondlook.Image {
	im := secondlook.Image{
		Manifest: blob, MediaType: mime, Digest: e.v.Digest, Index: e.index, Asked: e.target.LogicalName(),
	}
	for i, r := range e.section.Requirements {
		if !policy.VerifiesSignatures(r.Type) {
			continue
		}
		d := secondlook.Demand{Identity: identityForSecondLook(r.Identity()), Keys: r.GPG.ByID, Verifiers: r.Verifiers}
		for j, s := range r.Own(found) {
			switch {
			case e.v.Requirements[i].Signatures[j].Answer != verdict.Accept:
			case s.Simple != nil:
				d.Accepted = append(d.Accepted, secondlook.Signature{Message: s.Simple})
			default:
				d.Accepted = append(d.Accepted, secondlook.Signature{
					Payload:     s.Sigstore.Payload,
					Signature:   s.Sigstore.Annotations["dev.cosignproject.cosign/signature"],
					Certificate: s.Sigstore.Annotations["dev.sigstore.cosign/certificate"],
				})
			}
		}
		im.Demands = append(im.Demands, d)
	}
	return im
}

func identityForSecondLook(id policy.Identity) secondlook.Identity {
	return secondlook.Identity{
		Type: id.Type, Reference: id.DockerReference, Repository: id.DockerRepository, Prefix: id.Prefix,
		SignedPrefix: id.SignedPrefix,
	}
}
