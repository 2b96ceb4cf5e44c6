// Package hostlimit bounds the requests to each HTTP host: how many are in flight, none while the host asks for a
// pause, and none twice.
package hostlimit

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Hosts bounds the requests in flight to each host, and holds requests back from hosts that asked for a pause.
type Hosts struct {
	perHost int

	mu    sync.Mutex
	hosts map[string]*Host
}

// Host is one HTTP host.
type Host struct {
	name  string
	slots chan struct{} // one for each request in flight

	mu    sync.Mutex
	until time.Time // not to be asked before
}

// New bounds the requests in flight to perHost for each host.
func New(perHost int) *Hosts {
	return &Hosts{perHost: perHost, hosts: map[string]*Host{}}
}

// PerHost returns the bound on the requests in flight to one host.
func (p *Hosts) PerHost() int { return p.perHost }

// Host returns the host of that name, with its port.
func (p *Hosts) Host(name string) *Host {
	p.mu.Lock()
	defer p.mu.Unlock()
	h, ok := p.hosts[name]
	if !ok {
		h = &Host{name: name, slots: make(chan struct{}, p.perHost)}
		p.hosts[name] = h
	}
	return h
}

// ThrottledError says that a host asked for a pause that is longer than the time left.
type ThrottledError struct {
	host string
	wait time.Duration
}

func (e *ThrottledError) Error() string {
	return fmt.Sprintf("%s asks to wait for %s", e.host, e.wait.Round(time.Second))
}

// Acquire waits for a place among the requests to the host, and until it may be asked. release gives the place back.
func (h *Host) Acquire(ctx context.Context) (release func(), err error) {
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

// pause returns how long the host is still to be left alone.
func (h *Host) pause() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Until(h.until)
}

func (h *Host) wait(ctx context.Context) error {
	d := h.pause()
	if d <= 0 {
		return nil
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < d {
		return &ThrottledError{h.name, d}
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

// leave holds requests to the host back for a while.
func (h *Host) leave(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if until := time.Now().Add(d); until.After(h.until) {
		h.until = until
	}
}

// Transport makes requests without a body through Hosts, redirected ones among them. After an answer that says "later"
// (a 429, or a 503 with Retry-After) it asks again within the request's deadline.
type Transport struct {
	Hosts *Hosts
	Base  http.RoundTripper
}

// Throttled requests are made again after these times, unless the answer says when.
const (
	firstBackoff = time.Second
	lastBackoff  = time.Minute
	mostAttempts = 6
)

// RoundTrip makes a request. An error of type *ThrottledError says that the host can't be asked in time.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	h := t.Hosts.Host(req.URL.Host)
	backoff := firstBackoff
	for attempt := 1; ; attempt++ {
		release, err := h.Acquire(req.Context())
		if err != nil {
			return nil, err
		}
		res, err := t.Base.RoundTrip(req)
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
			return nil, &ThrottledError{h.name, wait}
		}
	}
}

// retryAfter returns how long an answer asks to wait, as whole seconds or a date: at least a second, so that a host
// with a wrong clock is not asked in a loop.
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
