package verify

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/fetch"
	"github.com/nodetrust/nodetrust/internal/verify/hostlimit"
)

// DefaultPerHost is how many requests to one host a Session has in flight at most, unless told otherwise.
const DefaultPerHost = 16

// SessionOptions say how a Session treats the hosts that it asks.
type SessionOptions struct {
	// PerHost bounds the requests in flight to one registry or lookaside host; 0 is DefaultPerHost.
	PerHost int
}

// Session judges many images under one policy: each is fetched and judged once, and connections, tokens and keyrings
// are used for all of them. It may be used by several goroutines, as many as the caller likes: those that have to
// wait for a host cost little. Close it after use.
//
// Its answers are those of Image: where reading an image goes as it should, the session hands what it read to the same
// evaluation; on anything else it lets the image library read the image.
type Session struct {
	policy  *Policy
	options Options
	fetcher *fetch.Fetcher
	// verdicts by reference.
	verdicts hostlimit.Shared[verdict.Verdict]
	heavy    chan struct{} // holds one while an image is judged that many bytes are received for

	mu       sync.Mutex
	admitted map[string]chan struct{} // by registry: a place for each image that is being judged
}

// NewSession starts a session. The policy must stay open until the session is closed.
func NewSession(p *Policy, o Options, s SessionOptions) *Session {
	return &Session{
		policy: p, options: o, fetcher: fetch.New(cmp.Or(max(s.PerHost, 0), DefaultPerHost)),
		admitted: map[string]chan struct{}{},
		heavy:    make(chan struct{}, 1),
	}
}

// Close ends the session's connections.
func (s *Session) Close() error {
	s.fetcher.Close()
	return nil
}

// Image judges one image as the function Image does. Options.Timeout counts from when the image's registry may be
// asked. Nothing in the verdict may be changed: others get the same one.
func (s *Session) Image(ctx context.Context, image string) (verdict.Verdict, error) {
	if strings.HasPrefix(image, storagePrefix) {
		return Image(ctx, image, s.policy, s.options)
	}
	t, err := parseTarget(image, s.options.As)
	if err != nil {
		return verdict.Verdict{}, err
	}
	if t.local() {
		return Image(ctx, image, s.policy, s.options)
	}
	named := t.content.DockerReference()
	v, err := s.verdicts.Do(ctx, named.String(), func() (verdict.Verdict, error) {
		leave, err := s.admit(ctx, fetch.Host(named))
		if err != nil {
			return verdict.Verdict{}, err
		}
		defer leave()
		v, err := s.bounded(ctx, image)
		if err == nil && ctx.Err() != nil && v.Reason == verdict.Timeout {
			err = &interruptedError{v, ctx.Err()}
		}
		return v, err
	})
	var interrupted *interruptedError
	switch {
	case errors.As(err, &interrupted):
		v, err = interrupted.verdict, nil
	case err != nil && ctx.Err() != nil: // it was never this image's turn
		e, err := newEvaluation(image, s.policy, s.options)
		if err != nil {
			return verdict.Verdict{}, err
		}
		e.stop(verdict.Timeout, "interrupted")
		return e.finish(ctx, Options{}), nil
	}
	v.Image = t.name
	return v, err
}

// interruptedError keeps a verdict that the end of its caller's context made from being taken for others.
type interruptedError struct {
	verdict verdict.Verdict
	error
}

func (e *interruptedError) Unwrap() error { return e.error }

// admit waits until an image of the registry may be judged. There are twice as many as requests in flight, so that
// there are always some at the registry, the lookaside and gpg each.
func (s *Session) admit(ctx context.Context, host string) (leave func(), err error) {
	s.mu.Lock()
	places, ok := s.admitted[host]
	if !ok {
		places = make(chan struct{}, 2*s.fetcher.Hosts().PerHost())
		s.admitted[host] = places
	}
	s.mu.Unlock()
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *Session) judge(ctx context.Context, image string) (verdict.Verdict, error) {
	if s.options.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.options.Timeout)
		defer cancel()
	}
	e, err := newEvaluation(image, s.policy, s.options)
	if err != nil {
		return verdict.Verdict{}, err
	}
	ctx, cancel := e.bound(ctx)
	defer cancel()
	unread := e.clone()
	err = e.fetch(ctx, s.fetcher)
	if v, ok := e.throttled(ctx, err, s.options); ok {
		return v, nil
	}
	if err == nil && !e.askLibrary() {
		return e.finish(ctx, s.options), nil
	}
	return s.byLibrary(ctx, unread, e)
}

// image is what a fetcher is to read.
func (e *evaluation) image() fetch.Image {
	return fetch.Image{
		Ref: e.target.content, Sys: e.sys, Registries: e.policy.registries, Host: e.policy.host, Temp: e.policy.tmp,
		MaxSignatures: e.maxSignatures, MaxSize: e.maxSize,
	}
}

// askLibrary is true for a verdict that says more of how the image was read than of the image.
func (e *evaluation) askLibrary() bool {
	return e.v.Answer == verdict.Unknown && e.v.Reason != verdict.KeyMissing && e.v.Reason != verdict.MechanismCannotTell
}

// throttled is the verdict when a host asked to wait for longer than there is time. The library isn't asked then: it
// would not wait.
func (e *evaluation) throttled(ctx context.Context, err error, o Options) (verdict.Verdict, bool) {
	var t *hostlimit.ThrottledError
	if !errors.As(err, &t) {
		return verdict.Verdict{}, false
	}
	if e.fetched == nil || e.v.Message == "" {
		e.stop(verdict.RateLimited, "reading manifest: %v", t)
		return e.finish(ctx, o), true
	}
	for i := range e.v.Requirements {
		if q := &e.v.Requirements[i]; q.Answer == verdict.Unknown && q.Reason != verdict.KeyMissing {
			q.Reason = verdict.RateLimited
		}
	}
	if e.askLibrary() {
		e.v.Reason = verdict.RateLimited
	}
	return e.finish(ctx, o), true
}

// byLibrary has the library read the image, after a fetcher has read for first. It takes a place at each host that may
// be asked, in one order for all.
func (s *Session) byLibrary(ctx context.Context, e, first *evaluation) (verdict.Verdict, error) {
	sources := e.pullSources()
	hosts := e.hosts(sources)
	for _, ref := range append(sources, e.target.content) {
		if u, err := url.Parse(e.lookaside(ref).URL); err == nil && u.Host != "" {
			hosts = append(hosts, u.Host)
		}
	}
	slices.Sort(hosts)
	for _, h := range slices.Compact(hosts) {
		leave, err := s.fetcher.Hosts().Host(h).Acquire(ctx)
		if v, ok := e.throttled(ctx, err, s.options); ok {
			return v, nil
		}
		if err != nil {
			break // the time is over: the library will say so
		}
		defer leave()
	}
	e.byLibrary(ctx, first)
	return e.finish(ctx, s.options), nil
}
