package verify

import (
	"context"
	"errors"

	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/traffic"
)

// Limits in bytes on what is received for one image, whatever a server sends; beyond them the answer is unknown.
const (
	// MaxReceived is for all of one evaluation.
	MaxReceived = 32 << 20
	// ahead is what the kernel takes in before it is read: with so much more than the library's own limits they come
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

// under is ctx for requests that are made after those under what watch returned.
func (e *evaluation) under(ctx context.Context) context.Context {
	return e.requests.Under(traffic.Logins(ctx, e.secrets.AddAuthorization))
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
	if many := e.requests.TooMuch(); many != nil && (timedOut(err) || isTooMuch(err)) {
		return many
	}
	return err
}

// tooMuchHint is for a registry that sent too much; the lookaside's has one already.
func (e *evaluation) tooMuchHint() {
	if e.v.Hint != "" || e.v.Reason != verdict.RegistryUnreachable || e.requests == nil || e.requests.TooMuch() == nil {
		return
	}
	e.v.Hint = "ask who runs the registry: no manifest and no error page is that large, and runtimes would read all of it"
}

// isTooMuch is true of an error that says that too much was received.
func isTooMuch(err error) bool {
	var many *traffic.TooMuchError
	return errors.As(err, &many)
}
