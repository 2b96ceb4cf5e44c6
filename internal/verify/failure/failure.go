// Package failure names the reason of a verdict for an error: of the image library, of a fetcher, or of nodetrust. It
// decides by the type of the error, and by its text only where the library keeps the type to itself. It does no I/O.
package failure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/docker/distribution/registry/api/errcode"
	v2 "github.com/docker/distribution/registry/api/v2"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/oci/layout"

	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/secondlook"
)

// Error is an error whose reason is known.
type Error struct {
	Reason verdict.Reason
	Err    error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// NotFound returns an error which says that the image found is not the one that was asked for.
func NotFound(format string, args ...any) error {
	return &Error{verdict.ImageNotFound, fmt.Errorf(format, args...)}
}

// Unusable returns an error which says that no runtime could use the manifest.
func Unusable(err error) error { return &Error{verdict.ManifestUnreadable, err} }

// Is reports whether an error of the type T is in the chain of err.
func Is[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

// TimedOut reports whether the end of a context is in the chain of err.
func TimedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// Manifest returns the reason why a manifest or a layer could not be read.
func Manifest(err error) verdict.Reason {
	if known, ok := errors.AsType[*Error](err); ok {
		return known.Reason
	}
	switch {
	case Is[*secondlook.Finding](err):
		return verdict.ManifestUnreadable
	case TimedOut(err):
		return verdict.Timeout
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, layout.ErrMoreThanOneImage), Is[layout.ImageNotFoundError](err):
		return verdict.ImageNotFound
	}
	if r := answer(err); r != "" {
		return r
	}
	// The library parses the lookaside before it asks the registry.
	if strings.Contains(err.Error(), "Invalid signature storage URL") {
		return verdict.LookasideUnreachable
	}
	return verdict.RegistryUnreachable
}

// The library keeps the status of an answer whose body isn't the registry protocol's JSON in a private type.
var statusInText = regexp.MustCompile(`StatusCode: ([0-9]{3})`)

// answer returns the reason for what a registry answered; "" if the registry gave no answer.
func answer(err error) verdict.Reason {
	if errors.Is(err, docker.ErrTooManyRequests) {
		return verdict.RateLimited
	}
	if Is[docker.ErrUnauthorizedForCredentials](err) {
		return verdict.Unauthorized
	}
	if status, ok := errors.AsType[docker.UnexpectedHTTPStatusError](err); ok {
		return Status(status.StatusCode)
	}
	if code := errcode.ErrorCoder(nil); errors.As(err, &code) {
		return codeReason(code.ErrorCode(), err)
	}
	if m := statusInText.FindStringSubmatch(err.Error()); m != nil {
		status, _ := strconv.Atoi(m[1])
		return Status(status)
	}
	return ""
}

// codeReason returns the reason for a code of the registry protocol; the library reads codes of a 4xx only.
func codeReason(code errcode.ErrorCode, err error) verdict.Reason {
	switch code {
	case errcode.ErrorCodeUnauthorized, errcode.ErrorCodeDenied:
		return verdict.Unauthorized
	case errcode.ErrorCodeTooManyRequests:
		return verdict.RateLimited
	case v2.ErrorCodeManifestUnknown, v2.ErrorCodeNameUnknown, v2.ErrorCodeNameInvalid:
		return verdict.ImageNotFound
	}
	// The library takes a code that the protocol doesn't know for "no such manifest" by these words.
	e, ok := errors.AsType[errcode.Error](err)
	if ok && e.ErrorCode() == errcode.ErrorCodeUnknown && strings.Contains(strings.ToLower(e.Message), "not found") {
		return verdict.ImageNotFound
	}
	return verdict.RegistryRefused
}

// Status returns the reason for the error status of a registry.
func Status(status int) verdict.Reason {
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

// Lookaside returns the reason why the signatures of an image could not be read.
func Lookaside(err error) verdict.Reason {
	if known, ok := errors.AsType[*Error](err); ok {
		return known.Reason
	}
	if TimedOut(err) {
		return verdict.Timeout
	}
	if status, ok := errors.AsType[docker.UnexpectedHTTPStatusError](err); ok {
		switch status.StatusCode {
		case 401, 403:
			return verdict.LookasideForbidden
		case 429:
			return verdict.RateLimited
		}
		return verdict.LookasideUnreachable
	}
	code := errcode.ErrorCoder(nil)
	switch {
	case errors.Is(err, docker.ErrTooManyRequests):
		return verdict.RateLimited
	case errors.As(err, &code): // of a registry that serves signatures itself
		return answer(err)
	case errors.Is(err, fs.ErrPermission):
		return verdict.LookasideForbidden
	case Is[*url.Error](err), Is[net.Error](err), errors.Is(err, io.ErrUnexpectedEOF), Is[*fs.PathError](err):
		return verdict.LookasideUnreachable
	}
	// A registry that serves signatures itself.
	if r := answer(err); r == verdict.Unauthorized || r == verdict.RateLimited {
		return r
	}
	// The server answered, and the answer is no signature, or too much.
	return verdict.LookasideNotSignature
}
