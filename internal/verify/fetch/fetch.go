// Package fetch reads manifests and signatures of many images, over connections and with tokens that all share. It does
// what the image library does where nothing unusual happens; the unusual is left to the library.
package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/docker/config"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/pkg/tlsclientconfig"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/hostfs"
	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/verify/failure"
	"github.com/nodetrust/nodetrust/internal/verify/hostlimit"
	"github.com/nodetrust/nodetrust/internal/verify/library"
)

// irregularError says that an image can't be read in the simple way that a fetcher knows. The error decides nothing:
// the library is to read the image then, and the errors of the library count.
type irregularError struct{ error }

func irregular(format string, args ...any) error { return &irregularError{fmt.Errorf(format, args...)} }

// Fetcher reads images. It may be used by several goroutines. It knows registries, mirrors, bearer and basic
// authentication and web lookasides.
type Fetcher struct {
	hosts *hostlimit.Hosts
	// impatient is true if "later" (429) is taken for an answer.
	impatient bool

	mu         sync.Mutex
	registries map[string]*registry
	// lists are the signatures at a lookaside, by the identity of the registry whose client asked, URL and digest.
	lists hostlimit.Shared[[][]byte]
}

// New makes a fetcher with at most perHost requests in flight to one host. Close it after use.
func New(perHost int) *Fetcher {
	f := &Fetcher{hosts: hostlimit.New(perHost), registries: map[string]*registry{}}
	f.lists.Room = 16 << 20
	f.lists.Size = func(sigs [][]byte) (n int) {
		for _, s := range sigs {
			n += len(s)
		}
		return n
	}
	return f
}

// One makes a fetcher for one image. Like the library, the fetcher doesn't wait for a host that says "later": the
// library has to deal with that answer. Close the fetcher after use.
func One() *Fetcher {
	f := New(1)
	f.impatient = true
	return f
}

// Hosts returns the limits of the hosts that are asked.
func (f *Fetcher) Hosts() *hostlimit.Hosts { return f.hosts }

// Close ends the connections.
func (f *Fetcher) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.registries {
		r.transport.CloseIdleConnections()
	}
}

// Image is what is to be read, and how.
type Image struct {
	Ref types.ImageReference
	Sys types.SystemContext
	// Registries say where signatures are, on a host with this root directory.
	Registries registriesd.Config
	Host       hostfs.Root
	// Temp is a directory for what the library reads from files only.
	Temp string
	// MaxSignatures and MaxSize (of one, in bytes) bound what is read.
	MaxSignatures, MaxSize int
}

// Open reads the image's manifest from the place that a runtime would read it from. An error is a
// *hostlimit.ThrottledError or says that the library is to try.
func (f *Fetcher) Open(ctx context.Context, im Image) (*Source, error) {
	named := im.Ref.DockerReference()
	if named == nil {
		return nil, irregular("no image of a registry")
	}
	sources := []sysregistriesv2.PullSource{{Reference: named}}
	switch found, err := sysregistriesv2.FindRegistry(&im.Sys, named.Name()); {
	case err != nil:
		return nil, irregular("registries.conf: %w", err)
	case found != nil:
		if sources, err = found.PullSourcesFromReference(named); err != nil || found.Blocked {
			return nil, irregular("registries.conf blocks the image")
		}
	}
	for i, s := range sources {
		src, err := f.openAt(ctx, im, s)
		if err == nil || i+1 == len(sources) || ctx.Err() != nil || !goesOn(err) {
			return src, err
		}
	}
	return nil, irregular("no place to read the image from")
}

// goesOn reports whether the library goes on to the next place with this error. The library does so with all errors,
// but may see none where a fetcher sees one: where an answer is unusual, and where the library asks again after a
// 429.
func goesOn(err error) bool {
	status, refused := errors.AsType[*statusError](err)
	return !failure.Is[*irregularError](err) && !failure.Is[*hostlimit.ThrottledError](err) &&
		(!refused || status.status != http.StatusTooManyRequests)
}

func (f *Fetcher) openAt(ctx context.Context, im Image, s sysregistriesv2.PullSource) (*Source, error) {
	if s.Endpoint.NamespaceProxy != "" {
		return nil, irregular("a registry proxy")
	}
	physical, err := docker.NewReference(s.Reference)
	if err != nil {
		return nil, err
	}
	found, err := sysregistriesv2.FindRegistry(&im.Sys, s.Reference.Name())
	if err != nil || found != nil && found.Blocked {
		return nil, irregular("registries.conf blocks the mirror")
	}
	base, _, _ := im.Registries.Lookup(library.Scopes(physical))
	if _, err := url.Parse(base); err != nil {
		return nil, irregular("lookaside: %w", err)
	}
	src := &Source{fetcher: f, image: im, physical: physical}
	sys := im.Sys
	if reference.Domain(s.Reference) != reference.Domain(im.Ref.DockerReference()) {
		sys.DockerAuthConfig = nil // meant for the image's own registry
	}
	if src.auth, err = config.GetCredentialsForRef(&sys, s.Reference); err != nil {
		return nil, irregular("credentials: %w", err)
	}
	if src.registry, err = f.registry(&sys, s); err != nil {
		return nil, err
	}
	wanted := ""
	switch r := s.Reference.(type) {
	case reference.Canonical:
		wanted = r.Digest().String()
	case reference.NamedTagged:
		wanted = r.Tag()
	}
	src.manifest, src.mime, err = src.readManifest(as(ctx, Manifest), wanted)
	return src, err
}

// registry returns the registry of a place to pull from, with a transport made as the library makes one.
func (f *Fetcher) registry(sys *types.SystemContext, s sysregistriesv2.PullSource) (*registry, error) {
	domain, insecure := reference.Domain(s.Reference), s.Endpoint.Insecure
	if sys.DockerInsecureSkipTLSVerify != types.OptionalBoolUndefined {
		insecure = sys.DockerInsecureSkipTLSVerify == types.OptionalBoolTrue
	}
	certs := sys.DockerCertPath
	switch {
	case certs != "":
	case sys.DockerPerHostCertDirPath != "":
		certs = filepath.Join(sys.DockerPerHostCertDirPath, domain)
	default:
		return nil, irregular("certificates of nobody knows where")
	}
	identity := fmt.Sprintf("%s %t %q", domain, insecure, certs)
	f.mu.Lock()
	defer f.mu.Unlock()
	if r, ok := f.registries[identity]; ok {
		return r, nil
	}
	conf := &tls.Config{
		InsecureSkipVerify: insecure, //nolint:gosec // what registries.conf or the caller asks for
		CipherSuites: []uint16{ // the library's
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		},
	}
	if err := tlsclientconfig.SetupCertificates(certs, conf); err != nil {
		return nil, irregular("certificates: %w", err)
	}
	tr := tlsclientconfig.NewTransport()
	tr.TLSClientConfig, tr.MaxResponseHeaderBytes = conf, maxHeader
	tr.MaxIdleConnsPerHost = f.hosts.PerHost()
	r := &registry{identity: identity, host: Host(s.Reference), insecure: insecure, transport: tr}
	r.client = &http.Client{Transport: recorder{tr}, CheckRedirect: checkRedirect}
	if !f.impatient {
		r.client.Transport = &hostlimit.Transport{Hosts: f.hosts, Base: recorder{tr}}
	}
	r.tokens.Valid = func(t token) bool { return time.Now().Before(t.expires) }
	f.registries[identity] = r
	return r, nil
}
