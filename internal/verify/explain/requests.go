package explain

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/outside"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/failure"
	"github.com/nodetrust/nodetrust/internal/verify/fetch"
	"github.com/nodetrust/nodetrust/internal/verify/library"
	"github.com/nodetrust/nodetrust/internal/verify/locate"
	"github.com/nodetrust/nodetrust/internal/verify/signatures"
)

// Request is a request that judging an image took, and what came of it.
type Request struct {
	// URL has neither query nor credentials.
	URL string `json:"url"`
	// Status is the HTTP status that was received. 0: there was no answer, the request was none of HTTP, or the request
	// was one of the library's, which tells of none.
	Status int `json:"status,omitempty"`
	// Answer is in words.
	Answer string `json:"answer"`
	// After is true for requests that were made after the verdict, only to explain it.
	After bool `json:"after,omitempty"`
}

// ByLibrary is the answer to a request of which the library tells no more.
const ByLibrary = "asked by the image library"

// Requests are those that were made for one image, in order.
type Requests []Request

// Fetched adds the requests of a fetcher: first those that led to the verdict, then, behind all others, those from
// the index after on, which explain it. after is 0 if the verdict isn't explained. The first n requests are left out.
func (r *Requests) Fetched(all []fetch.Request, n, after int, v *verdict.Verdict) {
	var before, behind Requests
	found := 0
	for i := n; i < len(all); i++ {
		one := all[i]
		if one.Kind == fetch.Signature && one.Status == http.StatusOK {
			found++
		}
		q := Request{URL: plainURL(one.URL), Status: one.Status, Answer: answer(all, i, found, v)}
		if q.After = after > 0 && i >= after; q.After {
			behind = append(behind, q)
		} else {
			before = append(before, q)
		}
	}
	*r = slices.Concat(before, *r, behind)
}

// answer puts the answer to the i-th request into words; found is how many signatures the lookaside has sent so far.
func answer(all []fetch.Request, i, found int, v *verdict.Verdict) string {
	r := all[i]
	switch {
	case r.Status == 0:
		if i+1 < len(all) && r.Kind == fetch.Ping && r.URL.Scheme == "https" && all[i+1].Kind == fetch.Ping &&
			all[i+1].URL.Host == r.URL.Host {
			return "failed; plain HTTP is next, because the registry is configured as insecure"
		}
		return "failed: " + brief(r.Err)
	case r.Err != nil:
		return fmt.Sprintf("%d, then failed: %s", r.Status, brief(r.Err))
	}
	if text := meaning(r, found, v); text != "" {
		return fmt.Sprintf("%d: %s", r.Status, text)
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", r.Status, http.StatusText(r.Status)))
}

// meaning returns what a status means as the answer to a request; "" if the status says all.
func meaning(r fetch.Request, found int, v *verdict.Verdict) string {
	type answer struct {
		kind   fetch.Kind
		status int
	}
	switch (answer{r.Kind, r.Status}) {
	case answer{fetch.Ping, 200}, answer{fetch.Ping, 401}:
		return "is a registry"
	case answer{fetch.Token, 200}:
		return "a token"
	case answer{fetch.Manifest, 200}:
		return manifest(r.URL, v)
	case answer{fetch.AttachedList, 200}:
		return "attached signatures"
	case answer{fetch.AttachedList, 404}:
		return "nothing attached"
	case answer{fetch.AttachedBlob, 200}:
		return fmt.Sprintf("an attached signature, %d bytes", r.Size)
	case answer{fetch.Signature, 200}:
		return fmt.Sprintf("a signature, %d bytes", r.Size)
	case answer{fetch.Signature, 404}:
		if found > 0 {
			return "no more"
		}
		return "there is none"
	}
	if r.Status >= 300 && r.Status < 400 {
		return "redirected"
	}
	if r.Kind == fetch.Signature || r.Kind == fetch.Other {
		return ""
	}
	return r.Words()
}

// manifest names the manifest that was asked for at u.
func manifest(u *url.URL, v *verdict.Verdict) string {
	if v.Index != "" && !strings.HasSuffix(u.Path, "/"+v.Digest) {
		return "image index " + v.Index
	}
	return strings.TrimSpace("manifest " + v.Digest)
}

// Manifest adds the library's requests for a manifest: physical is the place that served the manifest, err is why there
// is none.
func (r *Requests) Manifest(urls []*url.URL, physical types.ImageReference, err error, v *verdict.Verdict) {
	r.library(urls, err, func(i int) string {
		u := urls[i]
		last := i == len(urls)-1 || urls[i+1].String() != u.String()
		if !last || physical == nil || physical.DockerReference() == nil ||
			!locate.ManifestOf(physical.DockerReference(), u) {
			return ByLibrary
		}
		return manifest(u, v)
	})
}

// Signatures adds where the library looked for signatures: all are those that were read, and err is why not all could
// be. A lookaside that is a directory takes no request: its files are listed.
func (r *Requests) Signatures(urls []*url.URL, p signatures.Place, all []signatures.Signature, err error) {
	if !p.Image.Local() && !p.Served && strings.HasPrefix(p.Lookaside, "file:") {
		unread := err
		if err != nil && failure.Lookaside(err) == verdict.AttachmentsUnreadable {
			unread = nil // of the attachments, not of the lookaside
		}
		r.files(p, unread)
	}
	r.library(urls, err, func(i int) string {
		if err != nil || !strings.HasPrefix(urls[i].Path, "/extensions/v2/") {
			return ByLibrary
		}
		n := 0
		for _, s := range all {
			if s.Simple != nil {
				n++
			}
		}
		return fmt.Sprintf("%d signatures", n)
	})
}

// Library adds requests that the library made to explain a verdict.
func (r *Requests) Library(urls []*url.URL) {
	for _, u := range urls {
		*r = append(*r, Request{URL: plainURL(u), Answer: ByLibrary, After: true})
	}
}

// library adds requests that the library made; err is what the last of them ended with.
func (r *Requests) library(urls []*url.URL, err error, answer func(int) string) {
	for i, u := range urls {
		q := Request{URL: plainURL(u)}
		if i == len(urls)-1 && err != nil {
			q.Status, q.Answer = statusOf(err), "failed: "+brief(err)
		} else {
			q.Answer = answer(i)
		}
		*r = append(*r, q)
	}
}

// files adds the files of a lookaside that is a directory.
func (r *Requests) files(p signatures.Place, err error) {
	for i := 0; ; i++ {
		q := Request{URL: library.SignatureURL(p.Lookaside, p.Digest, i+1)}
		st, missing := os.Stat(p.LookasideFile(i))
		there := missing == nil && i < p.Most
		switch {
		case there:
			q.Answer = fmt.Sprintf("a signature, %d bytes", st.Size())
		case err != nil:
			q.Answer = "failed: " + brief(err)
		case i == 0:
			q.Answer = "not there"
		default:
			q.Answer = "not there: no more"
		}
		if *r = append(*r, q); !there {
			return
		}
	}
}

// statusOf returns the HTTP status in the library's error for its last request; 0 if the error has none.
func statusOf(err error) int {
	if status, ok := errors.AsType[docker.UnexpectedHTTPStatusError](err); ok {
		return status.StatusCode
	}
	if errors.Is(err, docker.ErrTooManyRequests) {
		return http.StatusTooManyRequests
	}
	return 0
}

// brief is an error without the URL, which stands beside it.
func brief(err error) string {
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		err = refused.Err
	}
	if status, ok := errors.AsType[docker.UnexpectedHTTPStatusError](err); ok {
		err = status
	} else if at, ok := errors.AsType[*url.Error](err); ok {
		err = at.Err
	}
	return outside.Cut(err.Error(), outside.Most)
}

func plainURL(u *url.URL) string {
	c := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	return outside.Cut(c.String(), outside.MostName)
}

// RefusedError is the library's error in the words of who refused the request.
type RefusedError struct {
	Request *fetch.Request
	Err     error
}

func (e *RefusedError) Error() string { return Refusal(e.Request) }
func (e *RefusedError) Unwrap() error { return e.Err }

// Refusal tells of an error status, in the words of who sent it.
func Refusal(r *fetch.Request) string {
	s := fmt.Sprintf("%s answered HTTP status %d", plainURL(r.URL), r.Status)
	if words := cmp.Or(r.Words(), http.StatusText(r.Status)); words != "" {
		s += ": " + words
	}
	return s
}
