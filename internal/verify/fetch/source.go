package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/docker/distribution/registry/client/auth/challenge"
	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/hostfs"
	"github.com/nodetrust/nodetrust/internal/openpgp"
	"github.com/nodetrust/nodetrust/internal/verify/library"
)

// Source is an image as a fetcher reads it, for one evaluation. Close it after use.
type Source struct {
	fetcher  *Fetcher
	registry *registry
	image    Image
	physical types.ImageReference
	manifest []byte
	mime     string
	auth     types.DockerAuthConfig
	attached map[digest.Digest][]library.Attachment // that were read
	dir      string                                 // of the image with its attachments; "" if there is none

	err error // the first one
}

// api reads a path of the registry's API below the repository, authenticated as the registry wants it.
func (s *Source) api(ctx context.Context, what string, limit int, header http.Header) ([]byte, string, error) {
	r, agent := s.registry, s.image.Sys.DockerRegistryUserAgent
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

// authorization returns the value of the header, "" if the registry asks for none.
func (s *Source) authorization(ctx context.Context, p pong) (string, error) {
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
	t, err := s.registry.tokens.Do(ctx, scope+" "+s.auth.Username,
		func() (token, error) { return s.token(ctx, p, c, scope) })
	return "Bearer " + t.value, err
}

// token asks the token server that a challenge names.
func (s *Source) token(ctx context.Context, p pong, c challenge.Challenge, scope string) (token, error) {
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
	header := http.Header{"User-Agent": {s.image.Sys.DockerRegistryUserAgent}}
	if s.auth.Username != "" && s.auth.Password != "" {
		req := http.Request{Header: header}
		req.SetBasicAuth(s.auth.Username, s.auth.Password)
	}
	asked := time.Now()
	body, _, err := s.registry.get(as(ctx, Token), u.String(), maxTokenSize, header)
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
	// A user of the token may wait for a place at the host first.
	return token{answer.Token, asked.Add(life - 10*time.Second)}, nil
}

func (s *Source) readManifest(ctx context.Context, tagOrDigest string) ([]byte, string, error) {
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

// Get asks the registry for a path of the repository, of at most limit bytes, and returns status and body that were
// answered.
func (s *Source) Get(ctx context.Context, limit int, accept, path string) (status int, body []byte, err error) {
	body, _, err = s.api(as(ctx, Other), path, limit, http.Header{"Accept": {accept}})
	if other, ok := errors.AsType[*statusError](err); ok {
		return other.status, other.body, nil
	}
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, body, nil
}

// Err returns the first error. After an error the verdict on the image is worth nothing.
func (s *Source) Err() error { return s.err }

// Physical returns the place that served the manifest.
func (s *Source) Physical() types.ImageReference { return s.physical }

// Manifest returns the manifest of the image, or of its index.
func (s *Source) Manifest() []byte { return s.manifest }

// fail returns err, and remembers the first one for Err.
func (s *Source) fail(err error) error {
	if err != nil && s.err == nil {
		s.err = err
	}
	return err
}

// Reference is the image's.
func (s *Source) Reference() types.ImageReference { return s.image.Ref }

// HasThreadSafeGetBlob is there for the interface.
func (s *Source) HasThreadSafeGetBlob() bool { return false }

// Close removes the image's directory, if there is one.
func (s *Source) Close() error {
	if s.dir == "" {
		return nil
	}
	return os.RemoveAll(s.dir)
}

// GetManifest returns the image's manifest, or that of an instance.
func (s *Source) GetManifest(ctx context.Context, instance *digest.Digest) ([]byte, string, error) {
	if instance == nil {
		return s.manifest, s.mime, nil
	}
	if err := instance.Validate(); err != nil {
		return nil, "", s.fail(err)
	}
	blob, mime, err := s.readManifest(as(ctx, Manifest), instance.String())
	return blob, mime, s.fail(err)
}

// GetSignatures returns the simple signatures of the image or of an instance.
func (s *Source) GetSignatures(ctx context.Context, instance *digest.Digest) ([][]byte, error) {
	sigs, err := s.signatures(ctx, instance)
	return sigs, s.fail(err)
}

func (s *Source) signatures(ctx context.Context, instance *digest.Digest) ([][]byte, error) {
	d, err := s.digest(instance)
	if err != nil {
		return nil, err
	}
	if attached, err := s.attachments(ctx, d); err != nil || len(attached) > 0 {
		return nil, errors.Join(irregular("sigstore attachments where complete wasn't asked for them"), err)
	}
	return s.simple(ctx, d)
}

// simple returns the signatures at the lookaside. The lookaside is asked with the TLS settings of the image's registry,
// so the answer is shared with images of registries with the same settings only.
func (s *Source) simple(ctx context.Context, d digest.Digest) ([][]byte, error) {
	at, _ := library.Lookaside(s.image.Registries, s.physical)
	return s.fetcher.lists.Do(ctx, s.registry.identity+" "+at+"@"+d.String(),
		func() ([][]byte, error) { return s.lookaside(ctx, at, d) })
}

// digest returns the digest that signatures are looked up by.
func (s *Source) digest(instance *digest.Digest) (digest.Digest, error) {
	if instance != nil {
		return *instance, instance.Validate()
	}
	if named, ok := s.physical.DockerReference().(reference.Canonical); ok &&
		named.Digest().Algorithm() == digest.Canonical {
		return named.Digest(), nil
	}
	return manifest.Digest(s.manifest)
}

// lookaside reads all signatures of a manifest, to the one that isn't there.
func (s *Source) lookaside(ctx context.Context, at string, d digest.Digest) ([][]byte, error) {
	base, err := url.Parse(s.image.Host.URL(at))
	if err != nil {
		return nil, irregular("lookaside: %w", err)
	}
	if base.Scheme != "file" && base.Host == "" {
		return nil, irregular("lookaside without a host")
	}
	var sigs [][]byte
	size := 0
	for i := 1; ; i++ {
		u := *base
		u.Path = fmt.Sprintf("%s@%s=%s/signature-%d", base.Path, d.Algorithm(), d.Encoded(), i)
		blob, err := s.signature(ctx, &u)
		refused, ok := errors.AsType[*statusError](err)
		if errors.Is(err, os.ErrNotExist) || ok && refused.status == http.StatusNotFound {
			return sigs, nil
		}
		if err != nil {
			return nil, err
		}
		if m, err := openpgp.MessageIn(blob); i > s.image.MaxSignatures || err != nil || len(m) != len(blob) {
			err := irregular("no simple signature, or too many of them")
			note(ctx, len(blob), nil, err)
			return nil, err
		}
		if size += len(blob); size > maxList {
			return nil, irregular("more than %d bytes of signatures", maxList)
		}
		if sigs = append(sigs, blob); len(sigs) == libraryList {
			return nil, irregular("%d signatures, with which the library gives up", libraryList)
		}
	}
}

func (s *Source) signature(ctx context.Context, u *url.URL) ([]byte, error) {
	switch u.Scheme {
	case "http", "https":
		blob, _, err := s.registry.get(as(ctx, Signature), u.String(), s.image.MaxSize, http.Header{})
		return blob, err
	case "file":
		return hostfs.ThisMachine.ReadFile(u.Path, int64(s.image.MaxSize))
	}
	return nil, irregular("lookaside with scheme %q", u.Scheme)
}

// GetBlob is there for the interface: layers are of no interest.
func (s *Source) GetBlob(context.Context, types.BlobInfo, types.BlobInfoCache) (io.ReadCloser, int64, error) {
	return nil, 0, errors.New("no layers here")
}

// LayerInfosForCopy is there for the interface.
func (s *Source) LayerInfosForCopy(context.Context, *digest.Digest) ([]types.BlobInfo, error) {
	return nil, nil
}
