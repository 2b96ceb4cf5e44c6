package verify

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

	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/types"
)

// requests sees every HTTP request that the library makes for one image, redirects among them: the library doesn't tell
// which mirror it took and where it looked for signatures. It is asked for a proxy before each request, and so can also
// keep the next one from being made: the library itself would read up to 4 MiB each of any number of signatures.
type requests struct {
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

// watch has the library's requests under the returned context and with sys seen. Close it after the last one.
func watch(ctx context.Context, sys *types.SystemContext) (context.Context, *requests) {
	r := &requests{next: sys.DockerProxy, conns: map[net.Conn]*counter{}}
	if r.next == nil {
		r.next = func(u *url.URL) (*url.URL, error) { return http.ProxyFromEnvironment(&http.Request{URL: u}) }
	}
	sys.DockerProxy = r.proxy
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: r.connected}), r
}

func (r *requests) proxy(u *url.URL) (*url.URL, error) {
	if err := r.request(u); err != nil {
		return nil, err
	}
	return r.next(u)
}

func (r *requests) request(u *url.URL) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.limit > 0 {
		if got := r.received() - r.base; got > r.limit {
			return &tooMuchError{fmt.Errorf("%d bytes of signatures so far, and no end", got)}
		}
		if len(r.urls) >= r.most {
			return &tooMuchError{fmt.Errorf("no end of signatures")}
		}
	}
	r.urls = append(r.urls, u)
	return nil
}

func (r *requests) connected(info httptrace.GotConnInfo) {
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
func (r *requests) received() int64 {
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

// bound keeps the library from making more than this many further requests, and any after it has received that many bytes.
func (r *requests) bound(requests int, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limit, r.base, r.most = bytes, r.received(), len(r.urls)+requests
}

func (r *requests) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for conn, c := range r.conns {
		c.close()
		delete(r.conns, conn)
	}
}

// since returns the requests made so far, but for the first n.
func (r *requests) since(n int) []*url.URL {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.urls[n:])
}

// chosenSource is the one of several sources whose manifest was asked for last; nil if none was.
func chosenSource(sources []types.ImageReference, asked []*url.URL) types.ImageReference {
	if len(sources) == 1 {
		return sources[0]
	}
	for _, u := range slices.Backward(asked) {
		for _, s := range sources {
			named := s.DockerReference()
			if u.Host == registryHost(named) && strings.HasPrefix(u.Path, "/v2/"+reference.Path(named)+"/manifests/") {
				return s
			}
		}
	}
	return nil
}

// servedByRegistry is true if a registry that sends X-Registry-Supports-Signatures was asked for signatures itself; the
// lookaside isn't then.
func servedByRegistry(asked []*url.URL) bool {
	return slices.ContainsFunc(asked, func(u *url.URL) bool { return strings.HasPrefix(u.Path, "/extensions/v2/") })
}
