package verify

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/docker/distribution/registry/client/auth/challenge"
	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/directory"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/pkg/docker/config"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/pkg/tlsclientconfig"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/verify/hostfs"
	"github.com/nodetrust/nodetrust/verify/polite"
	"github.com/nodetrust/nodetrust/verify/registriesd"
)

// irregularError says that an image can't be read in the simple way that a fetcher knows. It decides nothing: the library
// is to read the image then, and its errors are those that count.
type irregularError struct{ error }

func irregular(format string, args ...any) error { return &irregularError{fmt.Errorf(format, args...)} }

// maxTokenSize bounds what a token server answers, in bytes.
const maxTokenSize = 1 << 20

// fetcher reads manifests and signatures as the library does where nothing unusual happens, but over connections and with
// tokens that are used for many images. It knows registries, mirrors, bearer and basic authentication and web lookasides.
type fetcher struct {
	hosts *polite.Hosts

	mu         sync.Mutex
	registries map[string]*registry
	// lists are the signatures at a lookaside, by URL and digest.
	lists polite.Shared[[][]byte]
}

// registry is one registry with the TLS settings that hold for it, and the lookasides that are asked with these.
type registry struct {
	host   string // to connect to
	plain  bool   // HTTP may be tried, certificates aren't checked
	client *http.Client
	pings  polite.Shared[pong]
	tokens polite.Shared[token]

	mu     sync.Mutex
	failed time.Time // when a ping last failed
}

// pong is what a registry says of itself.
type pong struct {
	scheme     string
	challenges []challenge.Challenge
}

type token struct {
	value   string
	expires time.Time
}

func newFetcher(perHost int) *fetcher {
	f := &fetcher{hosts: polite.New(perHost), registries: map[string]*registry{}}
	f.lists.Room = 32 << 20
	f.lists.Size = func(sigs [][]byte) (n int) {
		for _, s := range sigs {
			n += len(s)
		}
		return n
	}
	return f
}

func (f *fetcher) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.registries {
		r.client.CloseIdleConnections()
	}
}

// fetchedSource is an image as a fetcher reads it, for one evaluation.
type fetchedSource struct {
	fetcher  *fetcher
	registry *registry
	e        *evaluation
	physical types.ImageReference
	manifest []byte
	mime     string
	auth     types.DockerAuthConfig
	attached map[digest.Digest][]sigstore // that were read
	dir      string                       // of the image with its attachments; "" if there is none

	// err is the first error. The evaluation that it happened in is worth nothing.
	err error
}

// open reads the image's manifest from the place that a runtime would read it from. An error is a *polite.ThrottledError or says
// that the library is to try.
func (f *fetcher) open(ctx context.Context, e *evaluation) (*fetchedSource, error) {
	named := e.target.content.DockerReference()
	if e.target.local() || named == nil {
		return nil, irregular("no image of a registry")
	}
	sources := []sysregistriesv2.PullSource{{Reference: named}}
	switch found, err := sysregistriesv2.FindRegistry(&e.sys, named.Name()); {
	case err != nil:
		return nil, irregular("registries.conf: %w", err)
	case found != nil:
		if sources, err = found.PullSourcesFromReference(named); err != nil || found.Blocked {
			return nil, irregular("registries.conf blocks the image")
		}
	}
	for i, s := range sources {
		src, err := f.openAt(ctx, e, s)
		var missing *statusError
		if err == nil || i+1 == len(sources) || !errors.As(err, &missing) || missing.status != http.StatusNotFound {
			return src, err
		}
	}
	return nil, irregular("no place to read the image from")
}

func (f *fetcher) openAt(ctx context.Context, e *evaluation, s sysregistriesv2.PullSource) (*fetchedSource, error) {
	if s.Endpoint.NamespaceProxy != "" {
		return nil, irregular("a registry proxy")
	}
	physical, err := docker.NewReference(s.Reference)
	if err != nil {
		return nil, err
	}
	found, err := sysregistriesv2.FindRegistry(&e.sys, s.Reference.Name())
	if err != nil || found != nil && found.Blocked {
		return nil, irregular("registries.conf blocks the mirror")
	}
	base, _, _ := e.policy.registries.Lookup(physical)
	if _, err := url.Parse(base); err != nil {
		return nil, irregular("lookaside: %w", err)
	}
	src := &fetchedSource{fetcher: f, e: e, physical: physical}
	sys := e.sys
	if reference.Domain(s.Reference) != reference.Domain(e.target.content.DockerReference()) {
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
	src.manifest, src.mime, err = src.readManifest(ctx, wanted)
	return src, err
}

// registry returns the registry of a place to pull from. Its transport is made as the library makes one.
func (f *fetcher) registry(sys *types.SystemContext, s sysregistriesv2.PullSource) (*registry, error) {
	domain, plain := reference.Domain(s.Reference), s.Endpoint.Insecure
	if sys.DockerInsecureSkipTLSVerify != types.OptionalBoolUndefined {
		plain = sys.DockerInsecureSkipTLSVerify == types.OptionalBoolTrue
	}
	key := fmt.Sprintf("%s %t", domain, plain)
	f.mu.Lock()
	defer f.mu.Unlock()
	if r, ok := f.registries[key]; ok {
		return r, nil
	}
	certs := sys.DockerCertPath
	switch {
	case certs != "":
	case sys.DockerPerHostCertDirPath != "":
		certs = filepath.Join(sys.DockerPerHostCertDirPath, domain)
	default:
		return nil, irregular("certificates of nobody knows where")
	}
	conf := &tls.Config{
		InsecureSkipVerify: plain, //nolint:gosec // what registries.conf or the caller asks for
		CipherSuites: []uint16{ // the library's
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		},
	}
	if err := tlsclientconfig.SetupCertificates(certs, conf); err != nil {
		return nil, irregular("certificates: %w", err)
	}
	tr := tlsclientconfig.NewTransport()
	tr.TLSClientConfig = conf
	tr.MaxIdleConnsPerHost = f.hosts.PerHost()
	r := &registry{host: registryHost(s.Reference), plain: plain}
	r.client = &http.Client{Transport: &polite.Transport{Hosts: f.hosts, Base: tr}, CheckRedirect: checkRedirect}
	r.tokens.Valid = func(t token) bool { return time.Now().Before(t.expires) }
	f.registries[key] = r
	return r, nil
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

// statusError is an HTTP status that was not hoped for.
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
		body, err := io.ReadAll(io.LimitReader(res.Body, 4<<10))
		return nil, "", errors.Join(&statusError{res.StatusCode, body}, err)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, int64(limit)+1))
	switch {
	case err != nil:
		return nil, "", err
	case len(body) > limit:
		return nil, "", irregular("more than %d bytes", limit)
	}
	return body, res.Header.Get("Content-Type"), nil
}

// pingPause is how long a registry that didn't answer is left alone.
const pingPause = 10 * time.Second

// ping asks the registry what it is: once for all images.
func (r *registry) ping(ctx context.Context, agent string) (pong, error) {
	return r.pings.Do(ctx, "", func() (pong, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if time.Since(r.failed) < pingPause {
			return pong{}, irregular("the registry didn't answer")
		}
		p, err := r.pingScheme(ctx, "https", agent)
		var throttled *polite.ThrottledError
		if err != nil && r.plain && !errors.As(err, &throttled) {
			p, err = r.pingScheme(ctx, "http", agent)
		}
		if err != nil && ctx.Err() == nil {
			r.failed = time.Now()
		}
		return p, err
	})
}

func (r *registry) pingScheme(ctx context.Context, scheme, agent string) (pong, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+r.host+"/v2/", nil)
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

// api reads a path of the registry's API, authenticated as the registry wants it. what names the manifest or blob.
func (s *fetchedSource) api(ctx context.Context, what string, limit int, header http.Header) ([]byte, string, error) {
	r, agent := s.registry, s.e.sys.DockerRegistryUserAgent
	p, err := r.ping(ctx, agent)
	if err != nil {
		return nil, "", err
	}
	for k, v := range apiHeader(agent) {
		header[k] = v
	}
	auth, err := s.authorization(ctx, p)
	if err != nil {
		return nil, "", err
	}
	if auth != "" {
		header.Set("Authorization", auth)
	}
	repo := reference.Path(s.physical.DockerReference())
	return r.get(ctx, fmt.Sprintf("%s://%s/v2/%s/%s", p.scheme, r.host, repo, what), limit, header)
}

// authorization is the value of the header, "" if the registry asks for none.
func (s *fetchedSource) authorization(ctx context.Context, p pong) (string, error) {
	if len(p.challenges) == 0 {
		return "", nil
	}
	c := p.challenges[0]
	switch {
	case c.Scheme == "basic" && len(p.challenges) == 1:
		req := http.Request{Header: http.Header{}}
		req.SetBasicAuth(s.auth.Username, s.auth.Password)
		return req.Header.Get("Authorization"), nil
	case c.Scheme != "bearer" || len(p.challenges) != 1 || s.auth.IdentityToken != "":
		return "", irregular("authentication of another kind")
	}
	scope := "repository:" + reference.Path(s.physical.DockerReference()) + ":pull"
	t, err := s.registry.tokens.Do(ctx, scope+" "+s.auth.Username, func() (token, error) { return s.token(ctx, p, c, scope) })
	return "Bearer " + t.value, err
}

// token asks the token server that a challenge names.
func (s *fetchedSource) token(ctx context.Context, p pong, c challenge.Challenge, scope string) (token, error) {
	u, err := url.Parse(c.Parameters["realm"])
	if err != nil || u.Host == "" || p.scheme == "https" && u.Scheme != "https" {
		return token{}, irregular("a token server that is no https URL")
	}
	q := u.Query()
	if s.auth.Username != "" {
		q.Add("account", s.auth.Username)
	}
	if service := c.Parameters["service"]; service != "" {
		q.Add("service", service)
	}
	q.Add("scope", scope)
	u.RawQuery = q.Encode()
	header := http.Header{"User-Agent": {s.e.sys.DockerRegistryUserAgent}}
	if s.auth.Username != "" && s.auth.Password != "" {
		req := http.Request{Header: header}
		req.SetBasicAuth(s.auth.Username, s.auth.Password)
	}
	asked := time.Now()
	body, _, err := s.registry.get(ctx, u.String(), maxTokenSize, header)
	if err != nil {
		return token{}, err
	}
	var answer struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return token{}, irregular("reading token: %w", err)
	}
	if answer.Token == "" {
		answer.Token = answer.AccessToken
	}
	const least = 60 // seconds, as the library and the protocol have it
	life := time.Duration(min(max(answer.ExpiresIn, least), 24*60*60)) * time.Second
	// Whoever uses it may wait for a place at the host first.
	return token{answer.Token, asked.Add(life - 10*time.Second)}, nil
}

func (s *fetchedSource) readManifest(ctx context.Context, tagOrDigest string) ([]byte, string, error) {
	header := http.Header{"Accept": manifest.DefaultRequestedManifestMIMETypes}
	blob, contentType, err := s.api(ctx, "manifests/"+tagOrDigest, maxManifest, header)
	if err != nil {
		return nil, "", err
	}
	if contentType != "" {
		if contentType, _, err = mime.ParseMediaType(contentType); err != nil {
			contentType = ""
		}
	}
	return blob, contentType, nil
}

// beside asks the registry for something of the repository that explains a verdict. What goes wrong changes nothing.
func (s *fetchedSource) beside(ctx context.Context, path ...string) (status int, body []byte, err error) {
	body, _, err = s.api(ctx, strings.Join(path, "/"), maxAttached, http.Header{"Accept": {acceptAttached}})
	var other *statusError
	switch {
	case errors.As(err, &other):
		return other.status, other.body, nil
	case err != nil:
		return 0, nil, err
	}
	return http.StatusOK, body, nil
}

// fail remembers that something went other than expected.
func (s *fetchedSource) fail(err error) error {
	if err != nil && s.err == nil {
		s.err = err
	}
	return err
}

func (s *fetchedSource) Reference() types.ImageReference { return s.e.target.content }
func (s *fetchedSource) HasThreadSafeGetBlob() bool      { return false }

// Close removes the image's directory, if there is one.
func (s *fetchedSource) Close() error {
	if s.dir == "" {
		return nil
	}
	return os.RemoveAll(s.dir)
}

// GetManifest returns the image's manifest, or that of an instance.
func (s *fetchedSource) GetManifest(ctx context.Context, instance *digest.Digest) ([]byte, string, error) {
	if instance == nil {
		return s.manifest, s.mime, nil
	}
	if err := instance.Validate(); err != nil {
		return nil, "", s.fail(err)
	}
	blob, mime, err := s.readManifest(ctx, instance.String())
	return blob, mime, s.fail(err)
}

// GetSignatures returns the simple signatures of the image or of an instance.
func (s *fetchedSource) GetSignatures(ctx context.Context, instance *digest.Digest) ([][]byte, error) {
	sigs, err := s.signatures(ctx, instance)
	return sigs, s.fail(err)
}

func (s *fetchedSource) signatures(ctx context.Context, instance *digest.Digest) ([][]byte, error) {
	d, err := s.digest(instance)
	if err != nil {
		return nil, err
	}
	if attached, err := s.attachments(ctx, d); err != nil || len(attached) > 0 {
		return nil, errors.Join(irregular("sigstore attachments where complete wasn't asked for them"), err)
	}
	return s.simple(ctx, d)
}

// simple returns the signatures at the lookaside.
func (s *fetchedSource) simple(ctx context.Context, d digest.Digest) ([][]byte, error) {
	at := s.e.lookaside(s.physical).URL
	return s.fetcher.lists.Do(ctx, at+"@"+d.String(), func() ([][]byte, error) { return s.lookaside(ctx, at, d) })
}

// digest is the one that signatures are looked up by.
func (s *fetchedSource) digest(instance *digest.Digest) (digest.Digest, error) {
	if instance != nil {
		return *instance, instance.Validate()
	}
	if named, ok := s.physical.DockerReference().(reference.Canonical); ok && named.Digest().Algorithm() == digest.Canonical {
		return named.Digest(), nil
	}
	return manifest.Digest(s.manifest)
}

// lookaside reads all signatures of a manifest, to the one that isn't there.
func (s *fetchedSource) lookaside(ctx context.Context, at string, d digest.Digest) ([][]byte, error) {
	base, err := url.Parse(registriesd.OnThisMachine(s.e.policy.host, at))
	if err != nil {
		return nil, irregular("lookaside: %w", err)
	}
	var sigs [][]byte
	for i := 1; ; i++ {
		u := *base
		u.Path = fmt.Sprintf("%s@%s=%s/signature-%d", base.Path, d.Algorithm(), d.Encoded(), i)
		blob, err := s.signature(ctx, &u)
		var missing *statusError
		switch {
		case errors.Is(err, os.ErrNotExist), errors.As(err, &missing) && missing.status == http.StatusNotFound:
			return sigs, nil
		case err != nil:
			return nil, err
		case i > s.e.maxSignatures || !startsLikeSimple(blob):
			return nil, irregular("signatures of another kind")
		}
		sigs = append(sigs, blob)
	}
}

// startsLikeSimple is true for what the library takes for a simple signature without looking further: its first OpenPGP
// packet is compressed data, a one-pass signature or a signature.
func startsLikeSimple(blob []byte) bool {
	if len(blob) == 0 {
		return false
	}
	switch blob[0] {
	case 0xa0, 0xa1, 0xa2, 0xa3, 0xc8, 0x90, 0x91, 0x92, 0xc4, 0x88, 0x89, 0x8a, 0x8b, 0xc2:
		return true
	}
	return false
}

func (s *fetchedSource) signature(ctx context.Context, u *url.URL) ([]byte, error) {
	switch u.Scheme {
	case "http", "https":
		blob, _, err := s.registry.get(ctx, u.String(), s.e.maxSize, http.Header{})
		return blob, err
	case "file":
		return hostfs.ThisMachine.ReadFile(u.Path, int64(s.e.maxSize))
	}
	return nil, irregular("lookaside with scheme %q", u.Scheme)
}

// complete returns un with the sigstore attachments that it has. The library takes these from sources of its own only, so
// an image that has some becomes a directory, whose reference isn't the image's.
func (s *fetchedSource) complete(ctx context.Context, un *image.UnparsedImage, blob []byte) (*image.UnparsedImage, error) {
	d := digest.Digest(s.e.v.Digest)
	attached, err := s.attachments(ctx, d)
	if err != nil || len(attached) == 0 {
		return un, s.fail(err)
	}
	simple, err := s.simple(ctx, d)
	if err != nil {
		return un, s.fail(err)
	}
	if s.dir, err = os.MkdirTemp(s.e.policy.tmp, "image-"); err != nil {
		return un, s.fail(err)
	}
	files := append([][]byte{}, simple...)
	for _, a := range attached {
		b, err := json.Marshal(a)
		if err != nil {
			return un, s.fail(err)
		}
		files = append(files, append([]byte("\x00sigstore-json\n"), b...))
	}
	err = os.WriteFile(filepath.Join(s.dir, "manifest.json"), blob, 0o600)
	for i, b := range files {
		err = errors.Join(err, os.WriteFile(filepath.Join(s.dir, fmt.Sprintf("signature-%d", i+1)), b, 0o600))
	}
	if err != nil {
		return un, s.fail(err)
	}
	ref, err := directory.NewReference(s.dir)
	if err != nil {
		return un, s.fail(err)
	}
	src, err := ref.NewImageSource(ctx, &s.e.sys)
	if err != nil {
		return un, s.fail(err)
	}
	return image.UnparsedInstance(src, nil), nil
}

// attachments reads the sigstore attachments of a manifest, if registries.d has runtimes look for them.
func (s *fetchedSource) attachments(ctx context.Context, d digest.Digest) ([]sigstore, error) {
	if known, ok := s.attached[d]; ok {
		return known, nil
	}
	if _, _, on := s.e.policy.registries.Lookup(s.physical); !on {
		return nil, nil
	}
	var out []sigstore
	blob, mimeType, err := s.readManifest(ctx, strings.Replace(d.String(), ":", "-", 1)+".sig")
	var missing *statusError
	switch {
	case errors.As(err, &missing) && missing.status == http.StatusNotFound && missing.unknownManifest():
	case err != nil:
		return nil, err
	default:
		if out, err = s.layers(ctx, blob, mimeType); err != nil {
			return nil, err
		}
	}
	if s.attached == nil {
		s.attached = map[digest.Digest][]sigstore{}
	}
	s.attached[d] = out
	return out, nil
}

// layers reads what an attachment's manifest lists.
func (s *fetchedSource) layers(ctx context.Context, blob []byte, mimeType string) (out []sigstore, err error) {
	if mimeType != "application/vnd.oci.image.manifest.v1+json" {
		return nil, irregular("attachments of type %q", mimeType)
	}
	m, err := manifest.OCI1FromManifest(blob)
	if err != nil || len(m.Layers) > s.e.maxSignatures {
		return nil, irregular("attachments that are none")
	}
	for _, l := range m.Layers {
		if l.Digest.Validate() != nil || !l.Digest.Algorithm().Available() || l.Size > int64(s.e.maxSize) {
			return nil, irregular("an attachment of another kind")
		}
		payload, _, err := s.api(ctx, "blobs/"+l.Digest.String(), s.e.maxSize, http.Header{})
		if err != nil {
			return nil, err
		}
		if l.Digest.Algorithm().FromBytes(payload) != l.Digest {
			return nil, irregular("an attachment with another digest")
		}
		out = append(out, sigstore{MIMEType: l.MediaType, Payload: payload, Annotations: l.Annotations})
	}
	return out, nil
}

// unknownManifest is true for a 404 that the library takes for "no such manifest", whatever else it may take for it.
func (e *statusError) unknownManifest() bool {
	var body struct {
		Errors []struct {
			Code string `json:"code"`
		} `json:"errors"`
	}
	return json.Unmarshal(e.body, &body) == nil && len(body.Errors) == 1 && body.Errors[0].Code == "MANIFEST_UNKNOWN"
}

// GetBlob is there for the interface: layers are of no interest.
func (s *fetchedSource) GetBlob(context.Context, types.BlobInfo, types.BlobInfoCache) (io.ReadCloser, int64, error) {
	return nil, 0, errors.New("no layers here")
}

// LayerInfosForCopy is there for the interface.
func (s *fetchedSource) LayerInfosForCopy(context.Context, *digest.Digest) ([]types.BlobInfo, error) {
	return nil, nil
}
