// Package traffic sees what the image library asks of the network, of which it tells nothing, and keeps it within bounds.
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

// Requests sees every HTTP request that the library makes for one image, redirects among them: the library doesn't tell
// which mirror it took and where it looked for signatures. It is asked for a proxy before each request, and so can also
// keep the next one from being made: the library itself would read up to 4 MiB each of any number of signatures. The zero
// value sees none.
type Requests struct {
	next func(*url.URL) (*url.URL, error) // proxy of the request

	mu    sync.Mutex
	urls  []*url.URL
	conns map[net.Conn]*counter
	// gone is what was received on connections that are closed.
	gone int64
	// limit bounds what is received until the next request (0: nothing), most the requests; base is what had been received
	// when the limit was set.
	limit, base int64
	most        int
}

// TooMuchError says that the library asked for more than it was allowed to.
type TooMuchError struct{ error }

// Watch has the library's requests under the returned context and with sys seen. Close it after the last one.
func Watch(ctx context.Context, sys *types.SystemContext) (context.Context, *Requests) {
	r := &Requests{next: sys.DockerProxy, conns: map[net.Conn]*counter{}}
	if r.next == nil {
		r.next = func(u *url.URL) (*url.URL, error) { return http.ProxyFromEnvironment(&http.Request{URL: u}) }
	}
	sys.DockerProxy = r.proxy
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: r.connected}), r
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
	if r.limit > 0 {
		if got := r.received() - r.base; got > r.limit {
			return &TooMuchError{fmt.Errorf("%d bytes of signatures so far, and no end", got)}
		}
		if len(r.urls) >= r.most {
			return &TooMuchError{fmt.Errorf("no end of signatures")}
		}
	}
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
	if c := newCounter(conn); c != nil {
		r.conns[conn] = c
	}
}

// received is how many bytes have come in. The caller holds the lock.
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

// Bound keeps the library from making more than this many further requests, and any after it has received that many bytes.
func (r *Requests) Bound(requests int, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limit, r.base, r.most = bytes, r.received(), len(r.urls)+requests
}

// Close ends the counting.
func (r *Requests) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
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
