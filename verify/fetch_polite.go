package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// politeHosts bound the requests in flight to each host, and keep from asking hosts that want to be left alone.
type politeHosts struct {
	perHost int

	mu    sync.Mutex
	hosts map[string]*politeHost
}

type politeHost struct {
	name  string
	slots chan struct{} // one for each request in flight

	mu    sync.Mutex
	until time.Time // not to be asked before
}

func newPoliteHosts(perHost int) *politeHosts {
	return &politeHosts{perHost: perHost, hosts: map[string]*politeHost{}}
}

func (p *politeHosts) host(name string) *politeHost {
	p.mu.Lock()
	defer p.mu.Unlock()
	h, ok := p.hosts[name]
	if !ok {
		h = &politeHost{name: name, slots: make(chan struct{}, p.perHost)}
		p.hosts[name] = h
	}
	return h
}

// throttledError says that a host wants to be left alone for longer than there is time.
type throttledError struct {
	host string
	wait time.Duration
}

func (e *throttledError) Error() string {
	return fmt.Sprintf("%s asks to wait for %s", e.host, e.wait.Round(time.Second))
}

// acquire waits for a place among the requests to the host, and until it may be asked. release gives the place back.
func (h *politeHost) acquire(ctx context.Context) (release func(), err error) {
	for {
		if err := h.wait(ctx); err != nil {
			return nil, err
		}
		select {
		case h.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if h.pause() <= 0 {
			return sync.OnceFunc(func() { <-h.slots }), nil
		}
		<-h.slots
	}
}

// pause is how long the host wants to be left alone.
func (h *politeHost) pause() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Until(h.until)
}

func (h *politeHost) wait(ctx context.Context) error {
	d := h.pause()
	if d <= 0 {
		return nil
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < d {
		return &throttledError{h.name, d}
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// leave keeps from asking the host for a while.
func (h *politeHost) leave(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if until := time.Now().Add(d); until.After(h.until) {
		h.until = until
	}
}

// politeTransport makes requests without a body through politeHosts, redirected ones among them. Answers that say "later"
// are waited for within the request's deadline: 429 always, 503 if it says when.
type politeTransport struct {
	hosts *politeHosts
	base  http.RoundTripper
}

// Throttled requests are made again after these times, unless the answer says when.
const (
	firstBackoff = time.Second
	lastBackoff  = time.Minute
	mostAttempts = 6
)

func (t *politeTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	h := t.hosts.host(req.URL.Host)
	backoff := firstBackoff
	for attempt := 1; ; attempt++ {
		release, err := h.acquire(req.Context())
		if err != nil {
			return nil, err
		}
		res, err := t.base.RoundTrip(req)
		if err != nil {
			release()
			return nil, err
		}
		wait, asked := retryAfter(res, time.Now())
		if res.StatusCode != http.StatusTooManyRequests && (res.StatusCode != http.StatusServiceUnavailable || !asked) {
			res.Body = &releasingBody{res.Body, release}
			return res, nil
		}
		_, _ = io.CopyN(io.Discard, res.Body, 4<<10) // so that the connection can be used again
		res.Body.Close()
		release()
		if !asked {
			wait = backoff
			backoff = min(2*backoff, lastBackoff)
		}
		h.leave(wait)
		if attempt == mostAttempts {
			return nil, &throttledError{h.name, wait}
		}
	}
}

// retryAfter is how long an answer asks to wait: whole seconds or a date. At least a second, so that a host that is wrong
// about the time is not asked in a loop.
func retryAfter(res *http.Response, now time.Time) (time.Duration, bool) {
	v := res.Header.Get("Retry-After")
	if n, err := strconv.ParseInt(v, 10, 32); err == nil && n >= 0 {
		return max(time.Duration(n)*time.Second, time.Second), true
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(at.Sub(now), time.Second), true
	}
	return 0, false
}

// releasingBody gives the place of a request back when its answer has been read.
type releasingBody struct {
	io.ReadCloser
	release func()
}

func (b *releasingBody) Close() error {
	defer b.release()
	return b.ReadCloser.Close()
}

// shared is what was asked for once for many. Errors are shared with those who wait meanwhile, but not remembered.
type shared[V any] struct {
	// valid is false for a value that is to be asked for again; nil: all stay.
	valid func(V) bool
	// size is how many bytes a value takes; nil: it doesn't matter. Values beyond room bytes are not remembered.
	size func(V) int
	room int

	mu    sync.Mutex
	calls map[string]*sharedCall[V]
}

type sharedCall[V any] struct {
	done  chan struct{}
	value V
	err   error
}

// do returns the value for key, which ask gets if nobody did.
func (s *shared[V]) do(ctx context.Context, key string, ask func() (V, error)) (V, error) {
	for {
		s.mu.Lock()
		if s.calls == nil {
			s.calls = map[string]*sharedCall[V]{}
		}
		c, ok := s.calls[key]
		if !ok {
			c = &sharedCall[V]{done: make(chan struct{})}
			s.calls[key] = c
		}
		s.mu.Unlock()
		if !ok {
			if c.value, c.err = ask(); c.err != nil || !s.fits(c.value) {
				s.forget(key, c)
			}
			close(c.done)
			return c.value, c.err
		}
		select {
		case <-c.done:
		case <-ctx.Done():
			return c.value, ctx.Err()
		}
		switch {
		case c.err == nil && (s.valid == nil || s.valid(c.value)):
			return c.value, nil
		case c.err == nil:
			s.forget(key, c)
		case !errors.Is(c.err, context.Canceled) && !errors.Is(c.err, context.DeadlineExceeded):
			return c.value, c.err
		}
		// Whoever asked ran out of time; that is not to be ours.
	}
}

// fits takes room for a value.
func (s *shared[V]) fits(v V) bool {
	if s.size == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.size(v)
	if n > s.room {
		return false
	}
	s.room -= n
	return true
}

func (s *shared[V]) forget(key string, c *sharedCall[V]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls[key] == c {
		delete(s.calls, key)
	}
}
