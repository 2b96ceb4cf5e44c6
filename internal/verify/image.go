// Package verify judges an image under a policy.json as the runtimes of a node would: with the image library that
// podman and CRI-O use. Its answers are a health check, never an admission: only the runtime that pulls decides.
package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/outside"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/fetch"
	"github.com/nodetrust/nodetrust/internal/verify/library"
	"github.com/nodetrust/nodetrust/internal/verify/mechanism"
	"github.com/nodetrust/nodetrust/internal/verify/traffic"
)

// Limits on what is read for one image; beyond them the answer is unknown. The library itself reads at most 4 MiB of
// a manifest.
const (
	MaxSignatures    = 128
	MaxSignatureSize = 64 << 10
	maxManifest      = 4 << 20
	// LibrarySignatureSize is the library's own limit; that of their number is MaxSignatures.
	LibrarySignatureSize = 4 << 20
)

// evaluation is one image under one policy.
type evaluation struct {
	settings
	policy *Policy
	target Image
	v      verdict.Verdict
	sec    *section
	// extension is true when the registry serves signatures itself, so that the lookaside is not asked.
	extension bool
	requests  *traffic.Requests
	// asked are the requests that were made, with what came of them; physical is the place that served the manifest.
	asked    []Asked
	physical types.ImageReference
	// fetched is the image as a fetcher read it, whose requests are in log; nil if the library is to read it. Then
	// refusal is where the fetcher's reading ended, if by an error status, and beside asks for more.
	fetched, beside *fetch.Source
	log             *fetch.Log
	refusal         *fetch.Request
	// explaining is how many of the fetcher's requests had been made when the verdict was there; 0: it isn't explained.
	explaining int
	// settled is true if the policy refuses the image whatever it is: reading the image can't change the answer.
	settled bool
	// secrets are the logins that were used.
	secrets outside.Secrets
	// index holds the bytes of the image index that the instance was chosen from; nil if there is none.
	index []byte
}

// unasked is the verdict while neither registry nor lookaside are asked.
func (e *evaluation) unasked() {
	for i := range e.v.Requirements {
		e.v.Requirements[i].Reason = verdict.NotAsked
	}
	e.withoutSignatures()
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

// settle gives the policy's own answer before anything is read: a refusal that no image and no signature could change.
func (e *evaluation) settle() {
	before := slices.Clone(e.v.Requirements)
	e.withoutSignatures()
	e.conclude()
	if e.settled = e.v.Answer == verdict.Refuse; !e.settled {
		e.v.Requirements, e.v.Hint = before, ""
		e.set("", "", "")
	}
}

// evaluation of an image. An error says that the image can't be judged by that name.
func (j *Judge) evaluation(image Image) (*evaluation, error) {
	t, judged, err := j.policy.find(image)
	if err != nil {
		return nil, err
	}
	e := &evaluation{settings: j.settings, policy: j.policy, target: t, secrets: outside.NewSecrets()}
	e.secrets.Add(j.logins...)
	if e.sec, err = j.policy.section(t.logical); err != nil {
		return nil, err
	}
	scope := e.sec.scope
	e.v = verdict.Verdict{Image: t.name, Judged: judged, Mechanism: mechanism.Name, Scope: &scope}
	if t.logical.DockerReference() != nil {
		e.v.Lookaside = shown(e.lookaside(t.logical))
	}
	for _, r := range e.sec.requirements {
		out := verdict.Requirement{
			Type: r.Type, Keys: r.keyNames(), Identity: r.Identity().Type,
			Answer: verdict.Unknown, Reason: verdict.RegistryUnreachable,
		}
		e.v.Requirements = append(e.v.Requirements, out)
	}
	e.settle()
	return e, nil
}

// lookaside is where signatures of ref are looked up, as the host sees it.
func (e *evaluation) lookaside(ref types.ImageReference) *verdict.Lookaside {
	at, file := library.Lookaside(e.policy.registries, ref)
	return &verdict.Lookaside{URL: at, File: file}
}

// shown is a lookaside as verdicts have it: without the password that its URL may hold.
func shown(l *verdict.Lookaside) *verdict.Lookaside {
	l.URL = registriesd.WithoutPassword(l.URL)
	return l
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

func (e *evaluation) finish(ctx context.Context) verdict.Verdict {
	if e.v.Reason == verdict.Timeout {
		e.v.Message = "interrupted"
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			e.v.Message = fmt.Sprintf("no answer within the timeout of %s", e.timeout)
			if e.timeout == 0 {
				e.v.Message = "no answer within the timeout"
			}
		}
	}
	e.tooMuchHint()
	if e.v.Hint == "" && errors.Is(ctx.Err(), context.Canceled) {
		e.v.Hint = "run it again"
	}
	if e.v.Hint == "" {
		e.v.Hint = hint(e.v.Reason)
	}
	e.v = e.told(e.v)
	return e.v
}

// evaluate is judge, whatever time it takes. The order is that of a pull: manifest, instance, policy, signatures.
func (e *evaluation) evaluate(ctx context.Context) {
	if err := e.target.broken; err != nil {
		e.stop(localReason(err), "%v", err)
		return
	}
	if err := e.checkLocal(); err != nil {
		e.withoutLocal(err)
		return
	}
	if !e.usableLookaside() {
		return
	}
	for _, r := range e.sec.requirements {
		e.policy.keys.Warm(r.ringData)
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
	un, err := e.instance(ctx, src)
	if err = e.orTooMuch(err); err != nil {
		e.tellManifest(physical, err)
		e.withoutManifest(err)
		return
	}
	blob, mime, err := readManifest(ctx, un)
	if err != nil {
		err = e.whatWasRead(ctx, src, err)
	}
	if err == nil && e.fetched != nil {
		un, err = e.fetched.Complete(ctx, un, blob, digest.Digest(e.v.Digest))
	}
	err = e.orTooMuch(err)
	e.tellManifest(physical, err)
	if err != nil {
		e.withoutManifest(err)
		return
	}
	e.physical = physical
	if physical != nil {
		e.v.Lookaside = shown(e.lookaside(physical))
	}

	asked := len(e.requests.Since(0))
	e.boundSignatures()
	signatures, reason, err := e.signatures(ctx, un)
	e.tellSignatures(e.requests.Since(asked), signatures, reason, err)
	if err == nil {
		e.requirements(ctx, un, blob, signatures)
		e.conclude()
		e.lookAgain(blob, mime, signatures)
		e.explainNoSignature(ctx, src, physical, signatures)
		return
	}
	// A requirement that refuses whatever the signatures are stands; all others can't be told.
	for i := range e.v.Requirements {
		e.v.Requirements[i].Answer, e.v.Requirements[i].Reason = verdict.Unknown, reason
	}
	e.withoutSignatures()
	e.conclude()
	if e.v.Answer != verdict.Refuse && e.v.Reason != verdict.KeyMissing {
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
		if e.extension && reason != verdict.Timeout {
			e.v.Hint = "the registry sends X-Registry-Supports-Signatures: 1, so runtimes ask it for signatures and no lookaside: it must serve them at /extensions/v2/, or not send the header"
		}
	}
}

// source opens the image, and names the place that served the manifest if that is known. Nil: the verdict says why not.
func (e *evaluation) source(ctx context.Context) (src types.ImageSource, physical types.ImageReference) {
	if e.fetched != nil {
		return e.fetched, e.fetched.Physical()
	}
	pulled := e.pullSources()
	before := traffic.Throttled(e.hosts(pulled))
	src, err := e.target.content.NewImageSource(ctx, &e.sys)
	if err != nil {
		err = e.orTooMuch(e.policy.registries.Redact(err))
		reason, text := e.manifestReason(err)
		if reason == verdict.Timeout && traffic.Throttled(e.hosts(pulled)) > before {
			reason = verdict.RateLimited
			err = errors.New("the registry answered 429 until the time was over")
			text = err.Error()
		}
		e.tellManifest(nil, err)
		e.stop(reason, "reading manifest: %s", text)
		return nil, nil
	}
	return src, chosenSource(pulled, e.requests.Since(0))
}

// withoutSignatures answers the requirements whose answer doesn't hang on signatures.
func (e *evaluation) withoutSignatures() {
	for i, r := range e.sec.requirements {
		out := &e.v.Requirements[i]
		switch {
		case r.Type == policy.Reject:
			out.Answer, out.Reason = verdict.Refuse, verdict.RejectedByPolicy
		case r.Type == policy.InsecureAcceptAnything:
			out.Answer, out.Reason = verdict.Accept, ""
		case r.reason != "":
			out.Answer, out.Reason = answerOf(r.reason), r.reason
		}
	}
}

// answerOf a requirement that can't be evaluated because of its configuration.
func answerOf(r verdict.Reason) verdict.Answer {
	if r == verdict.KeyMissing {
		return verdict.Unknown
	}
	return verdict.Refuse
}

// notThereError says that what was found is not the image that was asked for.
type notThereError struct{ error }

// instance returns what a runtime of the platform would take: the image itself, or the instance of a manifest list. It
// sets the digests of the verdict.
func (e *evaluation) instance(ctx context.Context, src types.ImageSource) (*image.UnparsedImage, error) {
	blob, mime, err := src.GetManifest(ctx, nil)
	if err != nil {
		return nil, err
	}
	wanted, byDigest := e.target.logical.DockerReference().(reference.Digested)
	asked := ""
	if byDigest {
		asked = wanted.Digest().String()
	}
	if err := e.refusedForm(blob, asked); err != nil {
		return nil, err
	}
	d, err := digestOf(blob)
	if err != nil {
		return nil, err
	}
	e.v.Digest = d.String()
	un := image.UnparsedInstance(src, nil)
	if !manifest.MIMETypeIsMultiImage(mime) {
		if byDigest && !digestMatches(blob, wanted.Digest().String()) {
			return nil, &notThereError{fmt.Errorf("the manifest found is %s, not the %s asked for", d, wanted.Digest())}
		}
		return un, nil
	}
	list, err := manifest.ListFromBlob(blob, mime)
	if err != nil {
		return nil, &unusableError{err}
	}
	chosen, err := e.choose(list)
	if err != nil {
		return nil, &notThereError{fmt.Errorf("choosing from the image index: %w", err)}
	}
	if byDigest && !digestMatches(blob, wanted.Digest().String()) {
		// Local content that holds an index may be judged as one of its instances.
		if !e.target.local() || !slices.Contains(list.Instances(), wanted.Digest()) {
			return nil, &notThereError{fmt.Errorf("the image index found is %s, not the %s asked for", d, wanted.Digest())}
		}
		chosen = wanted.Digest()
	}
	if err := chosen.Validate(); err != nil {
		return nil, &unusableError{fmt.Errorf("the index names %.100q: %w", chosen, err)}
	}
	if e.target.local() {
		if err := e.checkInstance(chosen); err != nil {
			return nil, err
		}
	}
	e.v.Index, e.v.Digest, e.index = d.String(), chosen.String(), blob
	return image.UnparsedInstance(src, &chosen), nil
}

// choose returns the instance of an index that is judged.
func (e *evaluation) choose(list manifest.List) (digest.Digest, error) {
	all := list.Instances()
	chosen, err := list.ChooseInstance(&e.sys)
	switch wanted := e.target.instance; {
	case wanted == "":
	case wanted == AnyInstance:
		if err != nil && len(all) > 0 {
			return all[0], nil
		}
	case slices.Contains(all, wanted):
		return wanted, nil
	default:
		return "", fmt.Errorf("it names no %s", wanted)
	}
	return chosen, err
}

// judged is un under the reference whose scope and identity count.
func (e *evaluation) judged(un types.UnparsedImage) types.UnparsedImage {
	if un.Reference() == e.target.logical {
		return un
	}
	return image.UnparsedInstanceWithReference(un, e.target.logical)
}

// requirements evaluates all of them: the verdict says which of them hold.
func (e *evaluation) requirements(ctx context.Context, un *image.UnparsedImage, blob []byte, sigs []sig) {
	for i, r := range e.sec.requirements {
		out := &e.v.Requirements[i]
		own := sigsFor(r, sigs)
		out.Signatures = make([]verdict.Signature, len(own))
		for j, s := range own {
			out.Signatures[j] = s.report(r, e.sourceOf(s))
		}
		switch {
		case r.reason != "":
			out.Answer, out.Reason = answerOf(r.reason), r.reason
			for j := range out.Signatures {
				s := &out.Signatures[j]
				s.Answer, s.Reason, s.Message = out.Answer, out.Reason, r.message
			}
		case len(own) == 0:
			e.conclusion(out, r, e.allowed(ctx, e.judged(un), r), own, blob)
		case len(own) == 1:
			e.conclusion(out, r, e.signed(ctx, e.judged(un), r, own[0], blob), own, blob)
		default:
			e.each(ctx, out, r, own, blob)
		}
	}
}

// conclusion fills in what one evaluation of a requirement says: it is that of its only signature, if it has one.
func (e *evaluation) conclusion(out *verdict.Requirement, r *requirement, err error, own []sig, blob []byte) {
	switch {
	case err == nil:
		out.Answer, out.Reason = verdict.Accept, ""
	case r.Type == policy.Reject && isRequirementError(err):
		out.Answer, out.Reason = verdict.Refuse, verdict.RejectedByPolicy
	case len(own) == 0 && isRequirementError(err):
		out.Answer, out.Reason = verdict.Refuse, verdict.NoSignature
	case len(own) == 0:
		out.Answer, out.Reason = verdict.Unknown, verdict.MechanismCannotTell
		if timedOut(err) {
			out.Reason = verdict.Timeout
		}
	default:
		out.Answer, out.Reason = own[0].reason(err, r, blob)
	}
	if len(own) == 1 {
		e.concludeSignature(&out.Signatures[0], own[0], r, out.Answer, out.Reason, err)
	}
}

// each evaluates every signature alone: the library folds the reasons of several into one text. The requirement holds
// if one of them is accepted, as for the library.
func (e *evaluation) each(ctx context.Context, out *verdict.Requirement, r *requirement, own []sig, blob []byte) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, min(4, runtime.GOMAXPROCS(0)))
	for j := range own {
		wg.Add(1)
		slots <- struct{}{}
		go func() {
			defer func() { <-slots; wg.Done() }()
			err := ctx.Err()
			if err == nil {
				err = e.alone(ctx, r, own[j], blob)
			}
			answer, reason := verdict.Accept, verdict.Reason("")
			if err != nil {
				answer, reason = own[j].reason(err, r, blob)
			}
			e.concludeSignature(&out.Signatures[j], own[j], r, answer, reason, err)
		}()
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
func (e *evaluation) alone(ctx context.Context, r *requirement, own sig, blob []byte) error {
	src, err := own.open(e, blob)
	if err != nil {
		return err
	}
	defer src.Close()
	d := digest.Digest(e.v.Digest)
	if own.sigstore != nil { // a directory of its own, which knows no instances
		return e.allowed(ctx, image.UnparsedInstanceWithReference(image.UnparsedInstance(src, nil), e.target.logical), r)
	}
	return e.signed(ctx, image.UnparsedInstanceWithReference(image.UnparsedInstance(src, &d), e.target.logical),
		r, own, blob)
}

// allowed is the library's own word on one requirement. gpg doesn't know of contexts: when ctx ends first, gpg is given
// a moment to come to its end, so that its keyring is removed.
func (e *evaluation) allowed(ctx context.Context, un types.UnparsedImage, r *requirement) error {
	pc, err := signature.NewPolicyContext(e.policy.with(e.sec.scope, r.library))
	if err != nil {
		return err
	}
	defer mechanism.WithoutAgents(e.policy.keyrings)()
	done := make(chan error, 1)
	go func() {
		ok, err := pc.IsRunningImageAllowed(ctx, un)
		if err == nil && !ok { // never, by the library's documentation
			err = errors.New("not allowed")
		}
		done <- errors.Join(err, pc.Destroy())
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(grace / 2):
		e.policy.late.Store(true)
		return ctx.Err()
	}
}

func isRequirementError(err error) bool {
	var e signature.PolicyRequirementError
	return errors.As(err, &e)
}

// conclude makes the image's verdict of its requirements': all must accept, one that refuses decides, else one that
// can't be told.
func (e *evaluation) conclude() {
	decided := verdict.Worst(e.v.Requirements, func(q verdict.Requirement) verdict.Answer { return q.Answer })
	if decided < 0 || e.v.Requirements[decided].Answer == verdict.Accept {
		e.set(verdict.Accept, "", e.accepted())
		if slices.ContainsFunc(e.v.Requirements, onlySubkeys) {
			e.v.Hint = "have the primary key sign: it was a subkey that did, and image libraries before 5.37 (CRI-O up to 1.34, podman up to 5.6) refuse that"
		}
		return
	}
	q := e.v.Requirements[decided]
	e.set(q.Answer, q.Reason, e.message(q, e.sec.requirements[decided]))
	if q.Reason == verdict.KeyUnreadable && e.sec.requirements[decided].keys.Version6() != "" {
		e.v.Hint = "name a file with the signer's key of version 4, as runtimes with gpg 2.2 refuse every image while they have only this one"
	}
	if q.Reason == verdict.WrongKey && slices.ContainsFunc(e.v.Requirements,
		func(q verdict.Requirement) bool { return q.Answer == verdict.Accept }) {
		e.v.Hint = "all entries of a scope must hold; where one of several signers is enough, put their keys into one entry (keyPaths)"
	}
}

// onlySubkeys is true of a requirement that holds by no other signatures than those of subkeys, which are the
// accepted ones that have a message.
func onlySubkeys(q verdict.Requirement) bool {
	accepted := slices.DeleteFunc(slices.Clone(q.Signatures),
		func(s verdict.Signature) bool { return s.Answer != verdict.Accept })
	return len(accepted) > 0 && !slices.ContainsFunc(accepted, func(s verdict.Signature) bool { return s.Message == "" })
}

func (e *evaluation) accepted() string {
	var by []string
	for _, q := range e.v.Requirements {
		for _, s := range q.Signatures {
			signer := cmp.Or(s.Signer, "a sigstore signer that the policy names")
			if s.Answer == verdict.Accept && !slices.Contains(by, signer) {
				by = append(by, signer)
			}
		}
	}
	if len(by) == 0 {
		return "the policy accepts every image of this scope, signed or not"
	}
	return "signed by " + strings.Join(by, " and ")
}

// message says in a sentence why a requirement didn't accept.
func (e *evaluation) message(q verdict.Requirement, r *requirement) string {
	if r.reason != "" {
		return r.message
	}
	for _, s := range q.Signatures {
		if s.Reason == q.Reason && s.Message != "" {
			if n := len(q.Signatures); n > 1 && q.Reason != verdict.KeyUnreadable {
				return fmt.Sprintf("none of %d signatures is accepted; the nearest: %s", n, s.Message)
			}
			return s.Message
		}
	}
	switch q.Reason {
	case verdict.NoSignature:
		return "the image has no signature" // explainNoSignature says more
	case verdict.RejectedByPolicy:
		return "the policy refuses every image of scope " + scopeName(*e.v.Scope)
	}
	return string(q.Reason)
}

func scopeName(s verdict.Scope) string {
	switch s.Matched {
	case "default":
		return "default"
	case "transport-default":
		return s.Transport + `:""`
	}
	return s.Name
}
