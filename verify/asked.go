package verify

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/verify/fetch"
)

// Asked is a request that judging an image took, and what came of it.
type Asked struct {
	// URL has neither query nor credentials.
	URL string `json:"url"`
	// Answer is in words; an HTTP status where it is known. The library tells of none: what it made of the answer is what
	// is told of its requests.
	Answer string `json:"answer"`
	// After is true for requests that were made after the verdict, only to explain it.
	After bool `json:"after,omitempty"`
}

// tellManifest says what came of the requests so far, those for the manifest: err is why there is none.
func (e *evaluation) tellManifest(physical types.ImageReference, err error) {
	urls := e.requests.Since(0)
	for i, u := range urls {
		e.asked = append(e.asked, Asked{URL: plain(u), Answer: e.manifestAnswer(urls, i, physical, err)})
	}
}

func (e *evaluation) manifestAnswer(urls []*url.URL, i int, physical types.ImageReference, err error) string {
	u, last := urls[i], i == len(urls)-1
	repeated := !last && urls[i+1].String() == u.String()
	switch {
	case last && err != nil:
		return "failed: " + brief(err)
	case repeated:
		return "asked again"
	case u.Path == "/v2/" && !last && u.Scheme == "https" && urls[i+1].Path == "/v2/" && urls[i+1].Host == u.Host:
		return "failed; plain HTTP is next, because the registry is configured as insecure"
	case u.Path == "/v2/" && (last || urls[i+1].Path == "/v2/"):
		return "failed"
	case u.Path == "/v2/":
		return "is a registry"
	case !strings.Contains(u.Path, "/manifests/"):
		return "answered"
	}
	if physical != nil && physical.DockerReference() != nil {
		named := physical.DockerReference()
		if u.Host != fetch.Host(named) || !strings.HasPrefix(u.Path, "/v2/"+reference.Path(named)+"/manifests/") {
			return "failed: not taken from here"
		}
	}
	if e.v.Index != "" && !strings.HasSuffix(u.Path, "/"+e.v.Digest) {
		return "image index " + e.v.Index
	}
	return "manifest " + e.v.Digest
}

// tellSignatures says what came of the requests for signatures: all are those that were read, err is why not all could be.
func (e *evaluation) tellSignatures(urls []*url.URL, all []sig, err error) {
	n := 0
	for i, u := range urls {
		a := Asked{URL: plain(u), Answer: "answered"}
		last := i == len(urls)-1
		file := isSignatureFile(u)
		switch {
		case last && err != nil:
			a.Answer = "failed: " + brief(err)
		case !last && redirected(u, urls[i+1]):
			a.Answer = "redirected"
		case file && n < len(all) && all[n].attachment == 0:
			n++
			a.Answer = fmt.Sprintf("a signature, %d bytes", all[n-1].size())
		case file && err == nil:
			a.Answer = "404: no more"
			if n == 0 {
				a.Answer = "404: there is none"
			}
		case strings.HasPrefix(u.Path, "/extensions/v2/"):
			a.Answer = fmt.Sprintf("%d signatures", countSimple(all))
		case strings.HasSuffix(u.Path, ".sig"):
			a.Answer = "404: nothing attached"
			if slices.ContainsFunc(all, func(s sig) bool { return s.attachment > 0 }) {
				a.Answer = "attached signatures"
			}
		case strings.Contains(u.Path, "/blobs/"):
			a.Answer = "an attached signature"
		}
		e.asked = append(e.asked, a)
	}
	// A file: lookaside needs no request.
	if l := e.v.Lookaside; l != nil && !e.target.local() && !e.extension && strings.HasPrefix(l.URL, "file:") {
		base := fmt.Sprintf("%s@%s/signature-", l.URL, strings.Replace(e.v.Digest, ":", "=", 1))
		for _, s := range all {
			if s.attachment == 0 {
				n++
				e.asked = append(e.asked, Asked{URL: fmt.Sprint(base, n), Answer: fmt.Sprintf("a signature, %d bytes", s.size())})
			}
		}
		a := Asked{URL: fmt.Sprint(base, n+1), Answer: "not there: no more"}
		switch {
		case err != nil:
			a.Answer = "failed: " + brief(err)
		case n == 0:
			a.Answer = "not there"
		}
		e.asked = append(e.asked, a)
	}
}

// redirected guesses from the names: signature files of one place are asked for one after the other.
func redirected(u, next *url.URL) bool {
	if !isSignatureFile(u) || strings.HasSuffix(next.Path, ".sig") || strings.HasPrefix(next.Path, "/v2/") {
		return false
	}
	return u.Host != next.Host && path.Base(u.Path) == path.Base(next.Path) || !isSignatureFile(next)
}

func isSignatureFile(u *url.URL) bool { return strings.HasPrefix(path.Base(u.Path), "signature-") }

// brief is an error without the URL, which stands beside it.
func brief(err error) string {
	var status docker.UnexpectedHTTPStatusError
	var urlError *url.Error
	switch {
	case errors.As(err, &status):
		return status.Error()
	case errors.As(err, &urlError):
		return urlError.Err.Error()
	}
	return err.Error()
}

func countSimple(all []sig) (n int) {
	for _, s := range all {
		if s.attachment == 0 {
			n++
		}
	}
	return n
}

func plain(u *url.URL) string {
	c := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	return c.String()
}
