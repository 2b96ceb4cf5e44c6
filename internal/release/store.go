package release

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/nodetrust/nodetrust/internal/bounded"
	"github.com/nodetrust/nodetrust/internal/hostfs"
	"github.com/nodetrust/nodetrust/internal/openpgp"
	"github.com/nodetrust/nodetrust/internal/registriesd"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify"
)

// DefaultStores are the stores of Red Hat's releases, in the Cluster Version Operator's order.
var DefaultStores = []string{
	"https://storage.googleapis.com/openshift-release/official/signatures/openshift/release",
	"https://mirror.openshift.com/pub/openshift-v4/signatures/openshift/release",
}

const (
	maxSignatures = 9 // the operator's
	getTimeout    = 10 * time.Second
	maxRedirects  = 5
)

// Blob is a signature as it was read.
type Blob struct {
	// Source is the URL, file or object it was read from.
	Source string
	Data   []byte
}

// Check returns a *verify.ContentError if the blob is no signature for readers: a web page, for example.
func (b Blob) Check() error {
	if _, err := openpgp.MessageIn(b.Data); err != nil {
		return notSignature("%s is no signature: %w", b.Source, err)
	}
	return nil
}

// Source holds signatures of release images by manifest digest.
type Source interface {
	// Signatures returns the signatures of a digest ("sha256:…"). With a *verify.ContentError there may be more.
	Signatures(ctx context.Context, digest string) ([]Blob, error)
}

// Store is a Source at a URL (http, https or file) or a path, in the Cluster Version Operator's layout:
// <store>/sha256=<hex>/signature-N, N from 1 to 9 until one is missing.
type Store struct {
	base   string // URL without trailing slash for http and https, else the directory
	web    bool
	client *http.Client
}

// OpenStore makes a Store of a URL or a path, without asking it.
func OpenStore(location string) (*Store, error) {
	u, err := url.Parse(location)
	shown := registriesd.WithoutPassword(location)
	switch {
	case err != nil:
		return nil, fmt.Errorf("store %q: is no URL", shown) // err would show a password in it
	case u.Scheme == "http" || u.Scheme == "https":
		if u.Host == "" {
			return nil, fmt.Errorf("store %q: names no host", shown)
		}
		return &Store{base: strings.TrimSuffix(location, "/"), web: true, client: &http.Client{CheckRedirect: followed}}, nil
	case u.Scheme == "file" && (u.Host != "" || !filepath.IsAbs(u.Path)):
		return nil, fmt.Errorf("store %q: must be file:///PATH", shown)
	case u.Scheme == "file":
		return &Store{base: u.Path}, nil
	case strings.Contains(location, "://"):
		return nil, fmt.Errorf("store %q: must be http, https, file or a path", shown)
	}
	path, err := filepath.Abs(location)
	if err != nil {
		return nil, err
	}
	return &Store{base: path}, nil
}

// followed allows few redirects, and none from https to http.
func followed(req *http.Request, via []*http.Request) error {
	switch {
	case len(via) >= maxRedirects:
		return errors.New("too many redirects")
	case via[0].URL.Scheme == "https" && req.URL.Scheme != "https":
		return errors.New("redirected from https to " + req.URL.Scheme)
	}
	return nil
}

// Signatures implements Source.
func (s *Store) Signatures(ctx context.Context, d string) ([]Blob, error) {
	parsed, err := digest.Parse(d)
	if err != nil {
		return nil, fmt.Errorf("digest %q: %w", d, err)
	}
	var out []Blob
	for n := 1; n <= maxSignatures; n++ {
		path := fmt.Sprintf("/%s=%s/signature-%d", parsed.Algorithm(), parsed.Encoded(), n)
		read := s.file
		if s.web {
			read = s.get
		}
		blob, err := read(ctx, s.base+path)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return out, err
		}
		out = append(out, blob)
	}
	return out, nil
}

func (s *Store) file(_ context.Context, path string) (Blob, error) {
	b, err := hostfs.ThisMachine.ReadFile(path, verify.MaxSignatureSize)
	switch {
	case err == nil:
		return Blob{Source: path, Data: b}, nil
	case errors.Is(err, fs.ErrNotExist):
		return Blob{}, err
	}
	reason := verdict.LookasideNotSignature
	switch {
	case errors.Is(err, fs.ErrPermission):
		reason = verdict.LookasideForbidden
	case errors.Is(err, io.ErrUnexpectedEOF):
		reason = verdict.LookasideUnreachable
	}
	return Blob{}, &verify.ContentError{Reason: reason, Err: fmt.Errorf("reading signature: %w", err)}
}

// get returns an fs.ErrNotExist error for a 404.
func (s *Store) get(ctx context.Context, address string) (Blob, error) {
	ctx, cancel := context.WithTimeout(ctx, getTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return Blob{}, &verify.ContentError{Reason: verdict.LookasideUnreachable, Err: err}
	}
	req.Header.Set("User-Agent", "nodetrust")
	fail := func(reason verdict.Reason, format string, args ...any) (Blob, error) {
		if ctx.Err() != nil {
			reason = verdict.Timeout
		}
		err := fmt.Errorf(format, args...)
		return Blob{}, &verify.ContentError{Reason: reason, Err: fmt.Errorf("reading %s: %w", req.URL.Redacted(), err)}
	}
	resp, err := s.client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok { // its text repeats the address
			err = u.Err
		}
		return fail(verdict.LookasideUnreachable, "%w", err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return Blob{}, fs.ErrNotExist
	case http.StatusUnauthorized, http.StatusForbidden:
		return fail(verdict.LookasideForbidden, "the store answered %s", resp.Status)
	case http.StatusTooManyRequests:
		return fail(verdict.RateLimited, "the store answered %s", resp.Status)
	default:
		return fail(verdict.LookasideUnreachable, "the store answered %s", resp.Status)
	}
	b, err := bounded.Read(resp.Body, verify.MaxSignatureSize)
	if large, ok := errors.AsType[*bounded.TooLargeError](err); ok {
		return fail(verdict.LookasideNotSignature, "more than %d bytes: that is no signature", large.Limit)
	}
	if err != nil {
		return fail(verdict.LookasideUnreachable, "%w", err)
	}
	return Blob{Source: req.URL.Redacted(), Data: b}, nil
}
