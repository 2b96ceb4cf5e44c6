package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/docker/distribution/registry/client/auth/challenge"
	"go.podman.io/image/v5/docker/reference"

	"github.com/nodetrust/nodetrust/internal/verify/failure"
	"github.com/nodetrust/nodetrust/internal/verify/hostlimit"
	"github.com/nodetrust/nodetrust/internal/verify/traffic"
)

// Limits in bytes. The library takes a manifest of up to 4 MiB and 128 signatures; so much is rare, and a fetcher reads
// many images at a time: larger images are left to the library.
const (
	maxTokenSize = 256 << 10
	maxHeader    = 256 << 10
	maxManifest  = 256 << 10
	maxError     = 64 << 10
	// maxList is for all signatures of an image at one place.
	maxList = 256 << 10
	// libraryList is how many signatures at a lookaside make the library give up: it doesn't ask whether there is one
	// more.
	libraryList = 128
)

// registry is one registry with the TLS settings that hold for it, and the lookasides that are asked with these.
type registry struct {
	// identity names the registry together with its TLS settings. Answers are shared by clients of the same identity only:
	// another client trusts other servers, or presents other certificates.
	identity string

	host      string // to connect to
	insecure  bool   // HTTP may be tried, certificates aren't checked
	client    *http.Client
	transport *http.Transport // of the client
	pings     hostlimit.Shared[pong]
	tokens    hostlimit.Shared[token]

	mu     sync.Mutex
	failed time.Time // when a ping last failed
}

// pong is what a registry says of itself when it is pinged.
type pong struct {
	scheme     string
	challenges []challenge.Challenge
}

type token struct {
	value   string
	expires time.Time
}

// checkRedirect follows no redirect from https to http, and not more than the library does.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if last := via[len(via)-1]; last.URL.Scheme == "https" && req.URL.Scheme != "https" {
		return irregular("redirect from https to %s", req.URL.Scheme)
	}
	if len(via) >= 10 {
		return irregular("more than 10 redirects")
	}
	return nil
}

// statusError is an HTTP status other than 200.
type statusError struct {
	status int
	body   []byte // its beginning
}

func (e *statusError) Error() string { return fmt.Sprintf("HTTP status %d", e.status) }

// get reads an answer with status 200, of at most limit bytes.
func (r *registry) get(ctx context.Context, u string, limit int, header http.Header) ([]byte, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, "", err
	}
	req.Header = header
	res, err := r.client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		body, err := io.ReadAll(traffic.Body(ctx, io.LimitReader(res.Body, maxError+1)))
		if len(body) > maxError {
			traffic.TooLarge(ctx)
		}
		note(ctx, 0, body, err)
		return nil, "", errors.Join(&statusError{res.StatusCode, body}, err)
	}
	body, err := io.ReadAll(traffic.Body(ctx, io.LimitReader(res.Body, int64(limit)+1)))
	if err == nil && len(body) > limit {
		err = irregular("more than %d bytes", limit)
		traffic.TooLarge(ctx)
	}
	note(ctx, len(body), nil, err)
	if err != nil {
		return nil, "", err
	}
	return body, res.Header.Get("Content-Type"), nil
}

// pingPause is how long a registry that didn't answer is left alone.
const pingPause = 10 * time.Second

// ping asks the registry for scheme and challenges, once for all images.
func (r *registry) ping(ctx context.Context, agent string) (pong, error) {
	return r.pings.Do(ctx, "", func() (pong, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if time.Since(r.failed) < pingPause {
			return pong{}, irregular("the registry didn't answer")
		}
		p, err := r.pingScheme(ctx, "https", agent)
		if err != nil && r.insecure && !failure.Is[*hostlimit.ThrottledError](err) {
			p, err = r.pingScheme(ctx, "http", agent)
		}
		if err != nil && ctx.Err() == nil {
			r.failed = time.Now()
		}
		return p, err
	})
}

func (r *registry) pingScheme(ctx context.Context, scheme, agent string) (pong, error) {
	req, err := http.NewRequestWithContext(as(ctx, Ping), http.MethodGet, scheme+"://"+r.host+"/v2/", nil)
	if err != nil {
		return pong{}, err
	}
	req.Header = apiHeader(agent)
	res, err := r.client.Do(req)
	if err != nil {
		return pong{}, err
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode != http.StatusOK && res.StatusCode != http.StatusUnauthorized:
		return pong{}, &statusError{status: res.StatusCode}
	case res.Header.Get("X-Registry-Supports-Signatures") == "1":
		return pong{}, irregular("the registry serves signatures itself")
	}
	return pong{scheme: scheme, challenges: challenge.ResponseChallenges(res)}, nil
}

func apiHeader(agent string) http.Header {
	return http.Header{"Docker-Distribution-Api-Version": {"registry/2.0"}, "User-Agent": {agent}}
}

// Host returns the host to connect to for a reference.
func Host(named reference.Named) string {
	if d := reference.Domain(named); d != "docker.io" {
		return d
	}
	return "registry-1.docker.io"
}
