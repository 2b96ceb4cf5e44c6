package verify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/oci/layout"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/explain"
	"github.com/nodetrust/nodetrust/internal/verify/failure"
	"github.com/nodetrust/nodetrust/internal/verify/fetch"
	"github.com/nodetrust/nodetrust/internal/verify/library"
	"github.com/nodetrust/nodetrust/internal/verify/locate"
	"github.com/nodetrust/nodetrust/internal/verify/secondlook"
	"github.com/nodetrust/nodetrust/internal/verify/signatures"
	"github.com/nodetrust/nodetrust/internal/verify/traffic"
)

// Limits in bytes on what is received for one image, whatever a server sends; beyond them the answer is unknown.
const (
	// MaxReceived is for all of one evaluation.
	MaxReceived = 32 << 20
	// ahead is what the kernel takes in before anybody reads: with so much more than the library's own limits, those come
	// first.
	ahead = 8 << 20
	// maxAnswer is for one answer: a manifest of the library's largest size, and its headers.
	maxAnswer = maxManifest + ahead
	// maxManifests is for all until the manifest is read: those of an index and of its instance, tokens, redirects, and
	// the error pages of mirrors, of which the library keeps several copies.
	maxManifests = 2*maxManifest + 2<<20
	// maxSignatureRest is for what comes with signatures that are within their limits, and the kernel's part.
	maxSignatureRest = 4 << 20
	// maxLayerHead is for the answer to a request for a layer until the layer may be read, which has limits of its own.
	// The kernel takes in some MiB ahead.
	maxLayerHead = 16 << 20
)

// withBudget gives ctx a budget unless it has one.
func withBudget(ctx context.Context) context.Context {
	if traffic.HasBudget(ctx) {
		return ctx
	}
	return traffic.WithBudget(ctx, traffic.NewBudget(MaxReceived))
}

// watch has the library's requests seen and bounded, for the manifest to begin with.
func (e *evaluation) watch(ctx context.Context) context.Context {
	ctx, e.requests = traffic.Watch(traffic.Logins(withBudget(ctx), e.secrets.AddAuthorization), &e.sys)
	e.requests.BoundEach(maxAnswer)
	e.requests.Bound("manifests", 0, maxManifests)
	return ctx
}

// boundSignatures bounds what is read of signatures from now on. Redirects, tokens, headers and error pages take some
// more than the signatures themselves.
func (e *evaluation) boundSignatures() {
	e.requests.Bound("signatures", 4*e.maxSignatures+64, int64(e.maxSignatures)*int64(e.maxSize)+maxSignatureRest)
}

// orTooMuch is err, or what ended the library's requests if they were ended: that they received too much.
func (e *evaluation) orTooMuch(err error) error {
	if err == nil || e.requests == nil {
		return err
	}
	if many := e.requests.TooMuch(); many != nil && (failure.TimedOut(err) || failure.Is[*traffic.TooMuchError](err)) {
		return many
	}
	return err
}

// checkLocal bounds what the library reads of an image on this machine, which it would read whole, and refuses pipes.
func (e *evaluation) checkLocal() error {
	switch {
	case e.target.Dir != "":
		version := filepath.Join(e.target.Dir, "version")
		if err := signatures.CheckFile(version, 1<<10); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return signatures.CheckFile(filepath.Join(e.target.Dir, "manifest.json"), maxManifest)
	case e.target.Layout != "":
		return e.checkLayout()
	}
	return nil
}

// checkLayout also compares the manifest with its digest in index.json: the library reads the file of that name,
// whatever is inside.
func (e *evaluation) checkLayout() error {
	if err := signatures.CheckFile(filepath.Join(e.target.Layout, "index.json"), maxManifest); err != nil {
		return err
	}
	d, err := layout.LoadManifestDescriptor(e.target.Content)
	if err != nil {
		return err
	}
	if err := e.checkInstance(d.Digest); err != nil {
		return err
	}
	blob, err := os.ReadFile(e.target.Blob(d.Digest))
	if err != nil {
		return err
	}
	if err := e.refusedForm(blob, d.Digest.String()); err != nil {
		return err
	}
	if _, err := library.Digest(blob); err != nil {
		return err
	}
	if !library.DigestMatches(blob, d.Digest.String()) {
		return failure.NotFound("%s holds another manifest than its name says", e.target.Blob(d.Digest))
	}
	return nil
}

// checkInstance is checkLocal for an instance of a manifest list.
func (e *evaluation) checkInstance(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return err
	}
	name := filepath.Join(e.target.Dir, d.Encoded()+".manifest.json")
	if e.target.Layout != "" {
		name = e.target.Blob(d)
	}
	return signatures.CheckFile(name, maxManifest)
}

// usableLookaside is false if registries.d gives the image a lookaside that is no URL, wherever the image is read:
// the library parses the lookaside before it asks anybody, so that every pull fails. The verdict says so then, unless
// the policy has refused the image already.
func (e *evaluation) usableLookaside() bool {
	if e.target.Local() {
		return true
	}
	places := e.target.Places(&e.sys)
	if len(places) == 0 {
		places = []types.ImageReference{e.target.Content}
	}
	var bad error
	for _, ref := range places {
		base, file, _ := e.policy.Registries.Lookup(library.Scopes(ref))
		if _, err := url.Parse(base); err == nil {
			return true
		}
		bad = fmt.Errorf("lookaside %q of %s is no URL", registriesd.WithoutPassword(base), file)
	}
	e.stop(verdict.RegistriesDInvalid, "%v: a runtime can pull no image of this scope", bad)
	return false
}

// source opens the image, and names the place that served the manifest if that is known. Nil: the verdict says why not.
func (e *evaluation) source(ctx context.Context) (src types.ImageSource, physical types.ImageReference) {
	if e.fetched != nil {
		return e.fetched, e.fetched.Physical()
	}
	places := e.target.Places(&e.sys)
	hosts := e.target.Hosts(places)
	before := traffic.Throttled(hosts)
	src, err := e.target.Content.NewImageSource(ctx, &e.sys)
	if err == nil {
		return src, locate.Chosen(places, e.requests.Since(0))
	}
	err = e.orTooMuch(e.policy.Registries.Redact(err))
	reason, text := e.manifestReason(err)
	if reason == verdict.Timeout && traffic.Throttled(hosts) > before {
		reason, text = verdict.RateLimited, "the registry answered 429 until the time was over"
		err = errors.New(text)
	}
	e.trace.Manifest(e.requests.Since(0), nil, err, &e.v)
	e.stop(reason, "reading manifest: %s", text)
	return nil, nil
}

// instance returns what a runtime of the platform would take: the image itself, or the instance of a manifest list. It
// sets the digests of the verdict.
func (e *evaluation) instance(ctx context.Context, src types.ImageSource) (*image.UnparsedImage, error) {
	blob, mime, err := src.GetManifest(ctx, nil)
	if err != nil {
		return nil, err
	}
	wanted := digest.Digest("")
	if digested, ok := e.target.Logical.DockerReference().(reference.Digested); ok {
		wanted = digested.Digest()
	}
	if err := e.refusedForm(blob, wanted.String()); err != nil {
		return nil, err
	}
	d, err := library.Digest(blob)
	if err != nil {
		return nil, err
	}
	e.v.Digest = d.String()
	other := wanted != "" && !library.DigestMatches(blob, wanted.String())
	if !manifest.MIMETypeIsMultiImage(mime) {
		if other {
			return nil, failure.NotFound("the manifest found is %s, not the %s asked for", d, wanted)
		}
		return image.UnparsedInstance(src, nil), nil
	}
	list, err := manifest.ListFromBlob(blob, mime)
	if err != nil {
		return nil, failure.Unusable(err)
	}
	chosen, err := e.choose(list)
	if err != nil {
		return nil, failure.NotFound("choosing from the image index: %w", err)
	}
	if other {
		// Local content that holds an index may be judged as one of its instances.
		if !e.target.Local() || !slices.Contains(list.Instances(), wanted) {
			return nil, failure.NotFound("the image index found is %s, not the %s asked for", d, wanted)
		}
		chosen = wanted
	}
	if err := chosen.Validate(); err != nil {
		return nil, failure.Unusable(fmt.Errorf("the index names %.100q: %w", chosen, err))
	}
	if e.target.Local() {
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
	switch wanted := e.target.Instance; {
	case wanted == "":
	case wanted == locate.AnyInstance:
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

// refusedForm reports a manifest of schema 1 where the scope demands a signature, before the image library reads it.
// Without a signature of its own it must be the one of the digest asked for ("" is none): of other bytes nothing is
// known.
func (e *evaluation) refusedForm(blob []byte, asked string) error {
	f := secondlook.CheckForm(blob, e.section.DemandsSignature())
	switch {
	case f == nil:
		return nil
	case f.Kind == secondlook.Outdated && asked != "" && !library.DigestMatches(blob, asked):
		return failure.NotFound("the manifest found is not the %s asked for", asked)
	}
	return f
}

// whatWasRead returns a finding if the instance that the image library couldn't read is of schema 1, else err.
func (e *evaluation) whatWasRead(ctx context.Context, src types.ImageSource, err error) error {
	if e.index == nil || failure.TimedOut(err) {
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
	if _, bad := library.Digest(blob); bad != nil {
		return bad
	}
	if !library.DigestMatches(blob, d.String()) {
		return failure.NotFound("the manifest found is not the %s that the index names", d)
	}
	return err
}

// place is where the signatures of the manifest are.
func (e *evaluation) place() signatures.Place {
	p := signatures.Place{
		Image: e.target, Digest: e.v.Digest, Index: e.v.Index, Host: e.policy.Host, Served: e.served,
		Most: e.maxSignatures, Size: e.maxSize,
	}
	if e.v.Lookaside != nil {
		p.Lookaside = e.v.Lookaside.URL
	}
	return p
}

// signatures reads all signatures of an image, within the limits, and notes whether the registry serves them.
func (e *evaluation) signatures(ctx context.Context, un *image.UnparsedImage) ([]signatures.Signature, error) {
	if err := e.place().CheckFiles(); err != nil {
		return nil, err
	}
	before := len(e.requests.Since(0))
	list, err := un.UntrustedSignatures(ctx)
	urls := e.requests.Since(before)
	// A registry that sends X-Registry-Supports-Signatures is asked itself, and the lookaside isn't.
	e.served = slices.ContainsFunc(urls, func(u *url.URL) bool { return strings.HasPrefix(u.Path, "/extensions/v2/") })
	if err = e.orTooMuch(err); err != nil {
		return nil, e.unreadable(err, urls)
	}
	return signatures.Read(e.place(), list)
}

// unreadable says why signatures couldn't be read; urls are the library's requests for them. Attachments come last, so
// that after a request for them the attachments are what could not be read.
func (e *evaluation) unreadable(err error, urls []*url.URL) error {
	attached := e.askedAttachments(err, urls)
	if many, ok := errors.AsType[*traffic.TooMuchError](err); ok {
		return &failure.Error{Reason: signatures.TooMuch(attached), Err: many}
	}
	reason := failure.Lookaside(err)
	if reason == verdict.Timeout || reason == verdict.RateLimited || !attached {
		return &failure.Error{Reason: reason, Err: e.policy.Registries.Redact(err)}
	}
	if r := e.refused(urls); r != nil {
		err = &explain.RefusedError{Request: r, Err: err}
	}
	return &failure.Error{Reason: verdict.AttachmentsUnreadable, Err: fmt.Errorf("sigstore attachments: %w", err)}
}

// askedAttachments is true if the library asked for sigstore attachments, or failed to be let in for that.
func (e *evaluation) askedAttachments(err error, urls []*url.URL) bool {
	if e.target.Local() {
		return false
	}
	tag := library.AttachmentTag(e.v.Digest)
	return strings.Contains(err.Error(), "manifest "+tag+" in ") ||
		slices.ContainsFunc(urls, func(u *url.URL) bool { return strings.HasSuffix(u.Path, "/manifests/"+tag) })
}

// manifestReason says why a manifest couldn't be read, and puts it into words. A registry that refuses with a code that
// the library doesn't know is told by the status, if the fetcher got it.
func (e *evaluation) manifestReason(err error) (verdict.Reason, string) {
	reason := failure.Manifest(err)
	if reason == verdict.RegistryRefused {
		if r := e.refused(e.requests.Since(0)); r != nil {
			return failure.Status(r.Status), explain.Refusal(r)
		}
	}
	return reason, err.Error()
}

// refused is what the fetcher was answered where the library failed, at the last of these requests; nil if that isn't
// known.
func (e *evaluation) refused(urls []*url.URL) *fetch.Request {
	if e.refusal == nil || len(urls) == 0 || urls[len(urls)-1].String() != e.refusal.URL.String() {
		return nil
	}
	return e.refusal
}
