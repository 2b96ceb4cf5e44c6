package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/outside"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/explain"
	"github.com/nodetrust/nodetrust/internal/verify/failure"
	"github.com/nodetrust/nodetrust/internal/verify/fetch"
	"github.com/nodetrust/nodetrust/internal/verify/library"
	"github.com/nodetrust/nodetrust/internal/verify/mechanism"
	"github.com/nodetrust/nodetrust/internal/verify/requirement"
	"github.com/nodetrust/nodetrust/internal/verify/signatures"
	"github.com/nodetrust/nodetrust/internal/verify/traffic"
)

// evaluation is one image under one policy.
type evaluation struct {
	settings
	policy  *Policy
	target  Image
	section *requirement.Section
	// settled is true if the policy refuses the image whatever it is: reading the image can't change the answer.
	settled bool
	v       verdict.Verdict
	// secrets are the logins that were used.
	secrets outside.Secrets

	// requests are those of the library, and trace those of all readers, with what came of them.
	requests *traffic.Requests
	trace    explain.Requests
	// fetched is the image as a fetcher read it, whose requests are in log; nil if the library is to read the image. Then
	// refusal is where the fetcher's reading ended, if by an error status, and beside asks for more.
	fetched, beside *fetch.Source
	log             *fetch.Log
	refusal         *fetch.Request
	// explaining is how many of the fetcher's requests had been made when the verdict was there; 0: it isn't explained.
	explaining int
	// physical is the place that served the manifest, and index the bytes of the image index that the instance was chosen
	// from; nil if there is none.
	physical types.ImageReference
	index    []byte
	// served is true when the registry serves signatures itself, so that no lookaside is asked.
	served bool
}

// evaluation of an image. An error says that the image can't be judged by that name.
func (j *Judge) evaluation(image Image) (*evaluation, error) {
	target, judged, err := image.InStorage(j.policy.Host, j.policy.Temp)
	if err != nil {
		return nil, err
	}
	e := &evaluation{settings: j.settings, policy: j.policy, target: target, secrets: outside.NewSecrets()}
	e.secrets.Add(j.logins...)
	if e.section, err = j.policy.Section(target.Logical); err != nil {
		return nil, err
	}
	scope := e.section.Scope
	e.v = verdict.Verdict{Image: target.Name, Judged: judged, Mechanism: mechanism.Name, Scope: &scope}
	if target.Logical.DockerReference() != nil {
		e.v.Lookaside = e.lookaside(target.Logical)
	}
	for _, r := range e.section.Requirements {
		e.v.Requirements = append(e.v.Requirements, r.New())
	}
	e.settle()
	return e, nil
}

// lookaside returns where signatures of ref are looked up, as the host sees it, without the password that the URL may
// hold.
func (e *evaluation) lookaside(ref types.ImageReference) *verdict.Lookaside {
	at, file := library.Lookaside(e.policy.Registries, ref)
	return &verdict.Lookaside{URL: registriesd.WithoutPassword(at), File: file}
}

// clone is e before anything was read.
func (e *evaluation) clone() *evaluation {
	c := *e
	c.v.Requirements = slices.Clone(e.v.Requirements)
	return &c
}

// judge reads the image and evaluates the requirements. It returns when it has an answer or, soon after the end of ctx,
// without: what then is still under way changes nothing of e.
func (e *evaluation) judge(ctx context.Context) {
	if ctx.Err() != nil {
		e.stop(verdict.Timeout, "no time left")
		return
	}
	own := e.clone()
	run, ended := library.Within(ctx, library.Grace, func() *evaluation { own.evaluate(withBudget(ctx)); return own })
	if ended {
		*e = *run
		return
	}
	e.policy.Late.Store(true)
	if e.fetched != nil {
		e.fetched = &fetch.Source{} // the other is still read from
	}
	e.stop(verdict.Timeout, "no answer in time")
}

// evaluate is judge, whatever time it takes. The order is that of a pull: manifest, instance, policy, signatures.
func (e *evaluation) evaluate(ctx context.Context) {
	if err := e.target.Unread; err != nil {
		e.stop(failure.Manifest(err), "%v", err)
		return
	}
	if err := e.checkLocal(); err != nil {
		e.withoutLocal(err)
		return
	}
	if !e.usableLookaside() {
		return
	}
	for _, r := range e.section.Requirements {
		e.policy.Keyrings.Warm(r.RingData)
	}
	e.requests = &traffic.Requests{}
	if e.fetched == nil {
		ctx = e.watch(ctx)
	} else {
		ctx = traffic.Logins(ctx, e.secrets.AddAuthorization)
	}
	defer e.requests.Close()
	src, physical := e.source(ctx)
	if src == nil {
		return
	}
	defer src.Close()
	un, blob, mime, err := e.manifest(ctx, src)
	err = e.orTooMuch(err)
	e.trace.Manifest(e.requests.Since(0), physical, err, &e.v)
	if err != nil {
		e.withoutManifest(err)
		return
	}
	e.physical = physical
	if physical != nil {
		e.v.Lookaside = e.lookaside(physical)
	}

	before := len(e.requests.Since(0))
	e.boundSignatures()
	found, err := e.signatures(ctx, un)
	e.trace.Signatures(e.requests.Since(before), e.place(), found, err)
	if err != nil {
		e.withoutSignatures(err)
		return
	}
	im := requirement.Image{
		Unparsed: un, Logical: e.target.Logical, Manifest: blob, Digest: e.v.Digest, Scope: e.section.Scope,
	}
	for i, r := range e.section.Requirements {
		e.policy.Evaluate(ctx, im, r, found, &e.v.Requirements[i])
	}
	e.conclude()
	e.lookAgain(blob, mime, found)
	e.explainAbsence(ctx, src, found)
}

// manifest reads the manifest of the image or of its instance, which un is.
func (e *evaluation) manifest(ctx context.Context, src types.ImageSource) (un *image.UnparsedImage, blob []byte,
	mime string, err error,
) {
	if un, err = e.instance(ctx, src); err != nil {
		return nil, nil, "", err
	}
	if blob, mime, err = library.Manifest(ctx, un); err != nil {
		return nil, nil, "", e.whatWasRead(ctx, src, err)
	}
	if e.fetched != nil {
		un, err = e.fetched.Complete(ctx, un, blob, digest.Digest(e.v.Digest))
	}
	return un, blob, mime, err
}

// withoutSignatures ends the evaluation for want of signatures: err is why they could not be read. A requirement that
// refuses whatever the signatures are stands; all others can't be told.
func (e *evaluation) withoutSignatures(err error) {
	reason := failure.Lookaside(err)
	for i := range e.v.Requirements {
		e.v.Requirements[i].Answer, e.v.Requirements[i].Reason = verdict.Unknown, reason
	}
	e.answerSettled()
	e.conclude()
	if e.v.Answer == verdict.Refuse || e.v.Reason == verdict.KeyMissing {
		return
	}
	if strings.Contains(err.Error(), "starting with binary 0x3c") {
		err = fmt.Errorf("%w ('<': a web page, no signature)", err)
	}
	what := "reading signatures: %v"
	if e.v.Answer == verdict.Accept {
		what = "the policy accepts, but runtimes read signatures before they pull: %v"
	}
	e.set(verdict.Unknown, reason, fmt.Sprintf(what, err))
	if reason == verdict.AttachmentsUnreadable {
		e.v.Hint = e.attachmentsHint(err)
	}
	if e.served && reason != verdict.Timeout {
		e.v.Hint = "the registry sends X-Registry-Supports-Signatures: 1, so runtimes ask it for signatures and no lookaside: it must serve them at /extensions/v2/, or not send the header"
	}
}

// attachmentsHint is what helps where attachments can't be read: without them no requirement of a sigstore signature
// can hold.
func (e *evaluation) attachmentsHint(err error) string {
	tag := library.AttachmentTag(e.v.Digest)
	if failure.Is[*traffic.TooMuchError](err) {
		return fmt.Sprintf("the tag %s must hold signatures only, at most %d of %d bytes each", tag, e.maxSignatures,
			e.maxSize)
	}
	if slices.ContainsFunc(e.section.Requirements, func(r *requirement.Requirement) bool {
		return r.Type == policy.SigstoreSigned
	}) {
		return "give the right to read the tag " + tag +
			", which holds the signatures: runtimes read it before they pull, and the policy demands one"
	}
	return explain.Hint(verdict.AttachmentsUnreadable)
}

// explainAbsence says why there is no signature where one was looked for, as far as that can be told: the verdict
// stays. found are the signatures that were read, of whatever kind.
func (e *evaluation) explainAbsence(ctx context.Context, src types.ImageSource, found []signatures.Signature) {
	i := slices.IndexFunc(e.v.Requirements, func(q verdict.Requirement) bool { return q.Reason == verdict.NoSignature })
	if e.v.Reason != verdict.NoSignature || i < 0 {
		return
	}
	if e.log != nil {
		e.explaining = len(e.log.Requests())
	}
	a := explain.Absence{
		Place: e.place(), Configuration: e.policy.Configuration, Found: found,
		GPG:      e.section.Requirements[i].Type == policy.SignedBy,
		Physical: e.target.Content, Registry: e.fetched,
	}
	if e.physical != nil {
		a.Physical = e.physical
	}
	if a.Registry == nil {
		a.Registry = e.beside
	}
	a.OnIndex = func(ctx context.Context) (int, error) { return e.onIndex(ctx, src, a.Registry, a.GPG) }
	e.v.Cause, e.v.Message, e.v.Hint = a.Explain(ctx)
}

// onIndex counts the signatures of the image's index, of the kind that is asked for and where runtimes would look for
// them. A fetcher is asked if there is one, else the library.
func (e *evaluation) onIndex(ctx context.Context, src types.ImageSource, registry *fetch.Source, gpg bool) (count int,
	err error,
) {
	switch {
	case registry != nil && gpg:
		return registry.CountSimple(ctx, digest.Digest(e.v.Index))
	case registry != nil:
		return registry.CountAttached(ctx, digest.Digest(e.v.Index))
	}
	before := len(e.requests.Since(0))
	list, err := image.UnparsedInstance(src, nil).UntrustedSignatures(ctx)
	e.trace.Library(e.requests.Since(before))
	for _, s := range list {
		if signatures.IsSimple(s) == gpg {
			count++
		}
	}
	return count, err
}

// settle gives the policy's own answer before anything is read: a refusal that no image and no signature could change.
func (e *evaluation) settle() {
	before := slices.Clone(e.v.Requirements)
	e.answerSettled()
	e.conclude()
	if e.settled = e.v.Answer == verdict.Refuse; !e.settled {
		e.v.Requirements, e.v.Outcome = before, verdict.Outcome{}
	}
}

// answerSettled answers the requirements whose answer doesn't hang on signatures.
func (e *evaluation) answerSettled() {
	for i, r := range e.section.Requirements {
		if answer, reason, settled := r.Settled(); settled {
			e.v.Requirements[i].Answer, e.v.Requirements[i].Reason = answer, reason
		}
	}
}

// offline is the verdict while neither registry nor lookaside are asked.
func (e *evaluation) offline() {
	for i := range e.v.Requirements {
		e.v.Requirements[i].Reason = verdict.NotAsked
	}
	e.answerSettled()
	e.conclude()
	switch {
	case e.v.Answer == verdict.Accept:
		e.set(verdict.Unknown, verdict.NotAsked, "the policy accepts every image of this scope; the image itself was not looked at (offline)")
		e.v.Hint = "without --offline the registry is asked, and the lookaside, without which runtimes can't pull"
	case e.v.Reason == verdict.NotAsked:
		e.v.Message = "registry and lookaside were not asked (offline)"
	}
	if !e.settled {
		e.usableLookaside()
	}
}

// conclude makes the image's verdict of its requirements': all must accept, one that refuses decides, else one that
// can't be told.
func (e *evaluation) conclude() {
	decided := verdict.Worst(e.v.Requirements, func(q verdict.Requirement) verdict.Answer { return q.Answer })
	if decided < 0 || e.v.Requirements[decided].Answer == verdict.Accept {
		message, hint := explain.Accepted(e.v.Requirements)
		if e.set(verdict.Accept, "", message); hint != "" {
			e.v.Hint = hint
		}
		return
	}
	q, r := e.v.Requirements[decided], e.section.Requirements[decided]
	message := r.Message
	if r.Reason == "" {
		message = explain.Refused(q, *e.v.Scope)
	}
	e.set(q.Answer, q.Reason, message)
	if q.Reason == verdict.KeyUnreadable && r.GPG.Version6() != "" {
		e.v.Hint = "name a file with the signer's key of version 4, as runtimes with gpg 2.2 refuse every image while they have only this one"
	}
	if q.Reason == verdict.WrongKey && slices.ContainsFunc(e.v.Requirements,
		func(q verdict.Requirement) bool { return q.Answer == verdict.Accept }) {
		e.v.Hint = "all entries of a scope must hold; where one of several signers is enough, put their keys into one entry (keyPaths)"
	}
}

func (e *evaluation) set(a verdict.Answer, r verdict.Reason, message string) {
	e.v.Answer, e.v.Reason, e.v.Message = a, r, message
}

// stop ends the evaluation: what was not judged yet is unknown for this reason, unless the policy has refused already.
func (e *evaluation) stop(r verdict.Reason, format string, args ...any) {
	for i := range e.v.Requirements {
		q := &e.v.Requirements[i]
		if q.Answer == verdict.Unknown && q.Reason == verdict.RegistryUnreachable {
			q.Reason = r
		}
	}
	if !e.settled {
		e.set(verdict.Unknown, r, fmt.Sprintf(format, args...))
	}
}

// finish completes the verdict by hints, and takes secrets out.
func (e *evaluation) finish(ctx context.Context) verdict.Verdict {
	v := &e.v
	if v.Reason == verdict.Timeout {
		v.Message = "interrupted"
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			v.Message = "no answer within the timeout"
			if e.timeout > 0 {
				v.Message += fmt.Sprintf(" of %s", e.timeout)
			}
		}
	}
	switch {
	case v.Hint != "":
	case v.Reason == verdict.RegistryUnreachable && e.requests != nil && e.requests.TooMuch() != nil:
		v.Hint = "ask who runs the registry: no manifest and no error page is that large, and runtimes would read all of it"
	case errors.Is(ctx.Err(), context.Canceled):
		v.Hint = "run it again"
	default:
		v.Hint = explain.Hint(v.Reason)
	}
	*v = explain.Redacted(*v, e.secrets)
	return *v
}
