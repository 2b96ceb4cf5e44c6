package verify

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/outside"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/fetch"
)

// Asked is a request that judging an image took, and what came of it.
type Asked struct {
	// URL has neither query nor credentials.
	URL string `json:"url"`
	// Status is the HTTP status that was received. 0: there was no answer, the request was none of HTTP, or it was one
	// of the library's, which tells of none.
	Status int `json:"status,omitempty"`
	// Answer is in words.
	Answer string `json:"answer"`
	// After is true for requests that were made after the verdict, only to explain it.
	After bool `json:"after,omitempty"`
}

// tellFetched tells of the fetcher's requests but for the first n, and of what was asked to explain the verdict behind
// all others.
func (e *evaluation) tellFetched(n int) {
	var before, after []Asked
	signatures := 0
	all := e.log.Requests()
	for i := n; i < len(all); i++ {
		r := all[i]
		if r.Kind == fetch.Signature && r.Status == http.StatusOK {
			signatures++
		}
		a := Asked{URL: plain(r.URL), Status: r.Status, Answer: e.answerTo(all, i, signatures)}
		if e.explaining > 0 && i >= e.explaining {
			a.After = true
			after = append(after, a)
			continue
		}
		before = append(before, a)
	}
	e.asked = slices.Concat(before, e.asked, after)
}

// answerTo puts the answer to a request into words; signatures are how many the lookaside has sent so far.
func (e *evaluation) answerTo(all []fetch.Request, i, signatures int) string {
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
	meaning := e.meaning(r, signatures)
	if meaning == "" {
		return strings.TrimSpace(fmt.Sprintf("%d %s", r.Status, http.StatusText(r.Status)))
	}
	return fmt.Sprintf("%d: %s", r.Status, meaning)
}

// meaning is what a status means as the answer to a request; "" if just what it says.
func (e *evaluation) meaning(r fetch.Request, signatures int) string {
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
		if e.v.Index != "" && !strings.HasSuffix(r.URL.Path, "/"+e.v.Digest) {
			return "image index " + e.v.Index
		}
		return strings.TrimSpace("manifest " + e.v.Digest)
	case answer{fetch.AttachedList, 200}:
		return "attached signatures"
	case answer{fetch.AttachedList, 404}:
		return "nothing attached"
	case answer{fetch.AttachedBlob, 200}:
		return fmt.Sprintf("an attached signature, %d bytes", r.Size)
	case answer{fetch.Signature, 200}:
		return fmt.Sprintf("a signature, %d bytes", r.Size)
	case answer{fetch.Signature, 404}:
		if signatures > 0 {
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

// notTold is said of the library's requests.
const notTold = "asked by the image library"

// tellManifest tells of the library's requests so far, those for the manifest: err is why there is none.
func (e *evaluation) tellManifest(physical types.ImageReference, err error) {
	urls := e.requests.Since(0)
	e.tellLibrary(urls, err, func(i int) string {
		u := urls[i]
		last := i == len(urls)-1 || urls[i+1].String() != u.String()
		if !last || physical == nil || physical.DockerReference() == nil {
			return notTold
		}
		named := physical.DockerReference()
		switch {
		case u.Host != fetch.Host(named) || !strings.HasPrefix(u.Path, "/v2/"+reference.Path(named)+"/manifests/"):
			return notTold
		case e.v.Index != "" && !strings.HasSuffix(u.Path, "/"+e.v.Digest):
			return "image index " + e.v.Index
		}
		return "manifest " + e.v.Digest
	})
}

// tellLibrary tells of requests that the library made; err is what the last of them ended with.
func (e *evaluation) tellLibrary(urls []*url.URL, err error, answer func(int) string) {
	for i, u := range urls {
		a := Asked{URL: plain(u)}
		if i == len(urls)-1 && err != nil {
			a.Status, a.Answer = statusOf(err), "failed: "+brief(err)
		} else {
			a.Answer = answer(i)
		}
		e.asked = append(e.asked, a)
	}
}

// tellSignatures tells where signatures were looked for: all are those that were read, err is why not all could be.
func (e *evaluation) tellSignatures(urls []*url.URL, all []sig, reason verdict.Reason, err error) {
	e.tellFiles(reason, err)
	e.tellLibrary(urls, err, func(i int) string {
		if err == nil && strings.HasPrefix(urls[i].Path, "/extensions/v2/") {
			return fmt.Sprintf("%d signatures", len(slices.DeleteFunc(slices.Clone(all),
				func(s sig) bool { return s.simple == nil })))
		}
		return notTold
	})
}

// tellFiles tells of a lookaside that is a directory, which takes no request.
func (e *evaluation) tellFiles(reason verdict.Reason, err error) {
	l := e.v.Lookaside
	if l == nil || e.target.local() || e.extension || !strings.HasPrefix(l.URL, "file:") {
		return
	}
	if reason == verdict.AttachmentsUnreadable {
		err = nil // which is not the lookaside's
	}
	for i := 0; ; i++ {
		a := Asked{URL: fmt.Sprintf("%s@%s/signature-%d", l.URL, strings.Replace(e.v.Digest, ":", "=", 1), i+1)}
		st, missing := os.Stat(e.lookasideFile(i))
		if missing == nil && i < e.maxSignatures {
			a.Answer = fmt.Sprintf("a signature, %d bytes", st.Size())
			e.asked = append(e.asked, a)
			continue
		}
		switch {
		case err != nil:
			a.Answer = "failed: " + brief(err)
		case i == 0:
			a.Answer = "not there"
		default:
			a.Answer = "not there: no more"
		}
		e.asked = append(e.asked, a)
		return
	}
}

// statusOf is the HTTP status in the library's error for its last request; 0 if it doesn't say.
func statusOf(err error) int {
	var status docker.UnexpectedHTTPStatusError
	switch {
	case errors.As(err, &status):
		return status.StatusCode
	case errors.Is(err, docker.ErrTooManyRequests):
		return http.StatusTooManyRequests
	}
	return 0
}

// brief is an error without the URL, which stands beside it.
func brief(err error) string { return outside.Cut(inBrief(err), outside.Most) }

func inBrief(err error) string {
	var status docker.UnexpectedHTTPStatusError
	var urlError *url.Error
	var refused *refusedError
	switch {
	case errors.As(err, &refused):
		return brief(refused.err)
	case errors.As(err, &status):
		return status.Error()
	case errors.As(err, &urlError):
		return urlError.Err.Error()
	}
	return err.Error()
}

func plain(u *url.URL) string {
	c := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	return outside.Cut(c.String(), outside.MostName)
}
