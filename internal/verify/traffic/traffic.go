// Package traffic sees the requests of the image library, which the library doesn't tell, and keeps them within bounds.
package traffic

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"

	"go.podman.io/image/v5/types"
)

// Requests sees every HTTP request that the library makes for one image, redirects among them: the library doesn't
// tell which mirror it took and where it looked for signatures. The library asks for a proxy before each request, so
// Requests can keep the next one from being made: the library itself would read up to 4 MiB each of any number of
// signatures. The zero value sees no request.
type Requests struct {
	next func(*url.URL) (*url.URL, error) // proxy of the request

	mu    sync.Mutex
	urls  []*url.URL
	conns map[net.Conn]*counter
	// gone is the number of bytes received on connections that are closed.
	gone int64
	// limit bounds the bytes received of something (0: no bound), most the requests for it (0: no bound); base is what
	// had been received when the limit was set.
	limit, base int64
	most        int
	what        string
	// each bounds the bytes received for one request (0: no bound); last is what had been received when it was made.
	each, last int64
	// budget is that of the evaluation, of which spent is what was received here.
	budget  *Budget
	spent   int64
	memory  *memory
	tooMuch error
	cancel  []context.CancelCauseFunc // of the contexts that requests are made under
	start   func()                    // has it looked how much came in; until quit is closed
	quit    chan struct{}
}

// TooMuchError says that the library asked for more than it was allowed to, or that there is more than is read.
type TooMuchError struct{ error }

// TooMuch returns a *TooMuchError with this text.
func TooMuch(format string, args ...any) error { return &TooMuchError{fmt.Errorf(format, args...)} }

// Watch sees the library's requests under the returned context and with sys. When the requests receive more than Bound,
// BoundEach or the context's Budget allow, the returned context ends, and with it the transfer. Close the Requests
// after the last one; Close ends the context too.
func Watch(ctx context.Context, sys *types.SystemContext) (context.Context, *Requests) {
	r := &Requests{next: sys.DockerProxy, conns: map[net.Conn]*counter{}, budget: budgetOf(ctx), quit: make(chan struct{})}
	others := int64(0)
	if r.budget != nil {
		others = r.budget.Others
	}
	r.memory = watchMemory(others)
	if r.next == nil {
		r.next = func(u *url.URL) (*url.URL, error) { return http.ProxyFromEnvironment(&http.Request{URL: u}) }
	}
	r.start = sync.OnceFunc(func() { go r.look() })
	sys.DockerProxy = r.proxy
	return r.Under(ctx), r
}

// Under returns ctx as Watch does, for requests that are made later with the same sys.
func (r *Requests) Under(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cancel = append(r.cancel, cancel)
	if r.tooMuch != nil {
		cancel(r.tooMuch)
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: r.connected})
}

// Logins calls seen with every Authorization header that is sent under the returned context, to whomever.
func Logins(ctx context.Context, seen func(header string)) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaderField: func(key string, values []string) {
		if strings.EqualFold(key, "Authorization") || strings.EqualFold(key, "Proxy-Authorization") {
			for _, v := range values {
				seen(v)
			}
		}
	}})
}

func (r *Requests) proxy(u *url.URL) (*url.URL, error) {
	if err := r.request(u); err != nil {
		return nil, err
	}
	return r.next(u)
}

func (r *Requests) request(u *url.URL) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.check(); r.tooMuch != nil {
		return r.tooMuch
	}
	if r.most > 0 && len(r.urls) >= r.most {
		r.tooMuch = TooMuch("no end of %s", r.what)
		return r.tooMuch
	}
	r.last = r.spent
	r.urls = append(r.urls, u)
	return nil
}

func (r *Requests) connected(info httptrace.GotConnInfo) {
	conn := info.Conn
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.conns[conn]; ok {
		return
	}
	r.start()
	if c := newCounter(conn); c != nil {
		r.conns[conn] = c
	}
}

// received returns how many bytes have come in. The caller holds the lock.
func (r *Requests) received() int64 {
	n := r.gone
	for conn, c := range r.conns {
		got := c.received()
		n += got
		if raw, ok := conn.(syscall.Conn); ok {
			if rc, err := raw.SyscallConn(); err == nil && rc.Control(func(uintptr) {}) == nil {
				continue
			}
		}
		r.gone += got
		c.close()
		delete(r.conns, conn)
	}
	return n
}

// Bound keeps the library from making more than this many further requests for something, and from receiving more than
// that many bytes of it: a transfer that goes beyond is ended. Zero requests or bytes are no bound.
func (r *Requests) Bound(what string, requests int, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.what, r.limit, r.base, r.most = what, bytes, r.received(), 0
	if requests > 0 {
		r.most = len(r.urls) + requests
	}
}

// Close ends the counting, and requests that are still under way.
func (r *Requests) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, cancel := range r.cancel {
		cancel(nil)
	}
	if r.cancel = nil; r.quit != nil {
		close(r.quit)
		r.quit = nil
	}
	for conn, c := range r.conns {
		c.close()
		delete(r.conns, conn)
	}
}

// Since returns the requests made so far, but for the first n.
func (r *Requests) Since(n int) []*url.URL {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.urls[n:])
}
