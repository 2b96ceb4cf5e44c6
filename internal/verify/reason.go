package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/distribution/registry/api/errcode"
	v2 "github.com/docker/distribution/registry/api/v2"
	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/signature"

	"github.com/nodetrust/nodetrust/internal/openpgp"
	"github.com/nodetrust/nodetrust/internal/openpgp/key"
	"github.com/nodetrust/nodetrust/internal/policy"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/fetch"
	"github.com/nodetrust/nodetrust/internal/verify/mechanism"
)

// signatureReason says why the library didn't accept one simple signature of an image with this manifest. By the type
// of err, and only where that leaves several causes by what the signature claims: the library compares the digest and
// then the identity after the cryptographic check, so at that point the claims are proven.
func signatureReason(err error, c openpgp.Claims, keys key.Index, manifestBlob []byte) (verdict.Answer,
	verdict.Reason,
) {
	var requirement signature.PolicyRequirementError
	if errors.As(err, &requirement) && requirement != mechanism.ErrNoKey && !timedOut(err) {
		if !digestMatches(manifestBlob, c.Digest) {
			return verdict.Refuse, verdict.WrongDigest
		}
		return verdict.Refuse, verdict.WrongIdentity
	}
	return mechanism.Reason(err, c, keys)
}

func digestMatches(manifestBlob []byte, d string) bool {
	parsed, err := digest.Parse(d)
	if err != nil {
		return false
	}
	ok, err := guarded(func() (bool, error) { return manifest.MatchesDigest(manifestBlob, parsed) })
	return err == nil && ok
}

func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// The library keeps the status of an answer whose body isn't the registry protocol's JSON in a private type.
var statusInText = regexp.MustCompile(`StatusCode: ([0-9]{3})`)

// registryReason says why a manifest couldn't be read.
func registryReason(err error) verdict.Reason {
	if timedOut(err) {
		return verdict.Timeout
	}
	var unusable *unusableError
	if errors.As(err, &unusable) {
		return verdict.ManifestUnreadable
	}
	if errors.Is(err, fs.ErrNotExist) {
		return verdict.ImageNotFound
	}
	if r := httpReason(err); r != "" {
		return r
	}
	// the library parses it before it asks the registry
	if strings.Contains(err.Error(), "Invalid signature storage URL") {
		return verdict.LookasideUnreachable
	}
	return verdict.RegistryUnreachable
}

// httpReason reads what a registry answered; "" if it didn't answer.
func httpReason(err error) verdict.Reason {
	var unauthorized docker.ErrUnauthorizedForCredentials
	var status docker.UnexpectedHTTPStatusError
	var code errcode.ErrorCoder
	switch {
	case errors.Is(err, docker.ErrTooManyRequests):
		return verdict.RateLimited
	case errors.As(err, &unauthorized):
		return verdict.Unauthorized
	case errors.As(err, &status):
		return statusReason(status.StatusCode)
	case errors.As(err, &code):
		switch code.ErrorCode() {
		case errcode.ErrorCodeUnauthorized, errcode.ErrorCodeDenied:
			return verdict.Unauthorized
		case errcode.ErrorCodeTooManyRequests:
			return verdict.RateLimited
		case v2.ErrorCodeManifestUnknown, v2.ErrorCodeNameUnknown, v2.ErrorCodeNameInvalid:
			return verdict.ImageNotFound
		}
		if saysNotFound(err) {
			return verdict.ImageNotFound
		}
		return verdict.RegistryRefused // the library reads codes of a 4xx only
	}
	if m := statusInText.FindStringSubmatch(err.Error()); m != nil {
		if status, err := strconv.Atoi(m[1]); err == nil {
			return statusReason(status)
		}
	}
	return ""
}

// saysNotFound is true for a code that the registry protocol doesn't know, in words that the library itself takes for
// "no such manifest".
func saysNotFound(err error) bool {
	var e errcode.Error
	return errors.As(err, &e) && e.ErrorCode() == errcode.ErrorCodeUnknown &&
		strings.Contains(strings.ToLower(e.Message), "not found")
}

// statusReason says what the error status of a registry means.
func statusReason(status int) verdict.Reason {
	switch {
	case status == 401, status == 403:
		return verdict.Unauthorized
	case status == 404:
		return verdict.ImageNotFound
	case status == 429:
		return verdict.RateLimited
	case status >= 400 && status < 500:
		return verdict.RegistryRefused
	}
	return verdict.RegistryUnreachable
}

// manifestReason says why a manifest couldn't be read, and puts it into words. A registry that refuses with a code that
// the library doesn't know is told by the status, if the fetcher got it.
func (e *evaluation) manifestReason(err error) (verdict.Reason, string) {
	reason := registryReason(err)
	if reason != verdict.RegistryRefused {
		return reason, err.Error()
	}
	if r := e.refused(e.requests.Since(0)); r != nil {
		return statusReason(r.Status), answered(r)
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

// refusedError is the library's error in the words of who refused.
type refusedError struct {
	request *fetch.Request
	err     error
}

func (e *refusedError) Error() string { return answered(e.request) }
func (e *refusedError) Unwrap() error { return e.err }

// answered tells of an error status, in the words of who sent it.
func answered(r *fetch.Request) string {
	s := fmt.Sprintf("%s answered HTTP status %d", plain(r.URL), r.Status)
	if words := cmp.Or(r.Words(), http.StatusText(r.Status)); words != "" {
		s += ": " + words
	}
	return s
}

// unreadable says why signatures couldn't be read, and puts it into words; urls are the library's requests for them.
// Attachments come last, so after a request for them it is they that couldn't be.
func (e *evaluation) unreadable(err error, urls []*url.URL) (verdict.Reason, error) {
	reason := lookasideReason(err)
	if reason == verdict.Timeout || reason == verdict.RateLimited || !e.askedAttachments(err, urls) {
		return reason, e.policy.registries.Redact(err)
	}
	if r := e.refused(urls); r != nil {
		err = &refusedError{r, err}
	}
	return verdict.AttachmentsUnreadable, fmt.Errorf("sigstore attachments: %w", err)
}

// askedAttachments is true if the library asked for sigstore attachments, or failed to be let in for that.
func (e *evaluation) askedAttachments(err error, urls []*url.URL) bool {
	if e.target.local() {
		return false
	}
	tag := attachmentTag(e.v.Digest)
	return strings.Contains(err.Error(), "manifest "+tag+" in ") ||
		slices.ContainsFunc(urls, func(u *url.URL) bool { return strings.HasSuffix(u.Path, "/manifests/"+tag) })
}

// attachmentTag is where runtimes look for the sigstore signatures of a manifest.
func attachmentTag(digest string) string { return strings.Replace(digest, ":", "-", 1) + ".sig" }

// attachmentsHint is what helps where attachments can't be read: without them no requirement of a sigstore signature
// can hold.
func (e *evaluation) attachmentsHint(err error) string {
	var much *tooMuchError
	if errors.As(err, &much) {
		return fmt.Sprintf("the tag %s must hold signatures only, at most %d of %d bytes each", attachmentTag(e.v.Digest),
			e.maxSignatures, e.maxSize)
	}
	if slices.ContainsFunc(e.sec.requirements, func(r *requirement) bool { return r.Type == policy.SigstoreSigned }) {
		return "give the right to read the tag " + attachmentTag(e.v.Digest) +
			", which holds the signatures: runtimes read it before they pull, and the policy demands one"
	}
	return hint(verdict.AttachmentsUnreadable)
}

// lookasideReason says why the signatures of an image couldn't be read.
func lookasideReason(err error) verdict.Reason {
	var status docker.UnexpectedHTTPStatusError
	var code errcode.ErrorCoder
	var urlError *url.Error
	var netError net.Error
	switch {
	case timedOut(err):
		return verdict.Timeout
	case errors.As(err, &status):
		switch status.StatusCode {
		case 401, 403:
			return verdict.LookasideForbidden
		case 429:
			return verdict.RateLimited
		}
		return verdict.LookasideUnreachable
	case errors.Is(err, docker.ErrTooManyRequests):
		return verdict.RateLimited
	case errors.As(err, &code): // of a registry that serves signatures itself
		return httpReason(err)
	case errors.Is(err, fs.ErrPermission):
		return verdict.LookasideForbidden
	case errors.As(err, &urlError), errors.As(err, &netError), errors.Is(err, io.ErrUnexpectedEOF), isPathError(err):
		return verdict.LookasideUnreachable
	}
	// a registry that serves signatures itself
	if r := httpReason(err); r == verdict.Unauthorized || r == verdict.RateLimited {
		return r
	}
	// It answered, but what it sent is no signature, or too much.
	return verdict.LookasideNotSignature
}

func isPathError(err error) bool {
	var e *fs.PathError
	return errors.As(err, &e)
}

// nearest ranks the reasons why signatures weren't accepted by how far the evaluation came: the last is the one that
// tells most about what is missing for an accept.
var nearest = []verdict.Reason{
	verdict.WrongKey, verdict.WeakOrUnsupported, verdict.KeyUnreadable, verdict.KeyRevoked, verdict.KeyExpired,
	verdict.SignatureExpired,
	verdict.WrongDigest, verdict.WrongIdentity,
}

// hint is the next step.
func hint(r verdict.Reason) string {
	switch {
	case r != verdict.MechanismCannotTell:
	case mechanism.Missing() != "":
		return "install gpg, or put it into $PATH: nodetrust judges signatures with it, and so do runtimes"
	case mechanism.Name == "gpgme":
		return "see whether gpg works here: gpg --version"
	}
	return r.Hint()
}
