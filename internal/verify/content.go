package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/pkg/blobinfocache/none"
	"go.podman.io/image/v5/types"

	"github.com/nodetrust/nodetrust/internal/outside"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify/failure"
	"github.com/nodetrust/nodetrust/internal/verify/layer"
	"github.com/nodetrust/nodetrust/internal/verify/library"
	"github.com/nodetrust/nodetrust/internal/verify/traffic"
)

// ContentError says why an image, a layer or signatures could not be read; its Reason is one of an unknown. It says
// nothing of what a policy thinks of them.
type ContentError = failure.Error

// Content is an image as it was read from where a runtime would read it. Close it after use.
type Content struct {
	// Digest is that of what was asked for: of the manifest or, for a multi-arch image, of its index.
	Digest string
	// Instance is the manifest digest of the platform's instance; Digest if there is but one.
	Instance string
	// Repository is the image's without tag and digest; "" for local content that isn't judged as a docker reference.
	Repository string

	e      *evaluation
	src    types.ImageSource
	layers []manifest.LayerInfo
}

// Open reads the manifest of an image, and of what it is an index of, that of the platform's instance; both have the
// digests that name them. An error of type *ContentError means that the image could not be read, any other that it
// can't be by that name. Options.Timeout is the caller's business: it is not applied.
func (j *Judge) Open(ctx context.Context, image Image) (*Content, error) {
	e, err := j.evaluation(image)
	if err != nil {
		return nil, err
	}
	e.settled = false // the policy's answer says nothing of whether the image can be read
	if err := e.checkLocal(); err != nil {
		return nil, &ContentError{Reason: failure.Manifest(err), Err: err}
	}
	ctx = e.watch(ctx)
	src, _ := e.source(ctx)
	if src == nil {
		e.requests.Close()
		return nil, &ContentError{Reason: e.v.Reason, Err: redacted(e.secrets, errors.New(e.v.Message))}
	}
	c := &Content{e: e, src: src}
	if err := c.open(ctx); err != nil {
		c.Close()
		return nil, c.unread("", err)
	}
	return c, nil
}

// unread returns a *ContentError: err is why something could not be read, and doing, unless "", what was done.
func (c *Content) unread(doing string, err error) error {
	err = c.e.orTooMuch(err)
	reason := failure.Manifest(err)
	if err = redacted(c.e.secrets, err); doing != "" {
		err = fmt.Errorf("%s: %w", doing, err)
	}
	return &ContentError{Reason: reason, Err: err}
}

func (c *Content) open(ctx context.Context) error {
	un, err := c.e.instance(ctx, c.src)
	if err != nil {
		return err
	}
	c.Instance, c.Digest = c.e.v.Digest, c.e.v.Digest
	if c.e.v.Index != "" {
		c.Digest = c.e.v.Index
	}
	if named := c.e.target.Logical.DockerReference(); named != nil {
		c.Repository = reference.TrimNamed(named).Name()
	}
	blob, mime, err := manifestOf(ctx, un, c.Instance)
	if err != nil {
		return err
	}
	m, err := manifest.FromBlob(blob, manifest.NormalizedMIMEType(mime))
	if err != nil {
		return failure.Unusable(err)
	}
	c.layers = m.LayerInfos()
	return nil
}

// manifestOf returns the manifest with this digest. The library compares with the digest of the instance, or of the
// reference; a tag has none.
func manifestOf(ctx context.Context, un *image.UnparsedImage, digest string) (blob []byte, mime string, err error) {
	blob, mime, err = library.Manifest(ctx, un)
	if err == nil && !library.DigestMatches(blob, digest) {
		err = failure.NotFound("the manifest found is not the %s asked for", digest)
	}
	return blob, mime, err
}

// Close ends the reading.
func (c *Content) Close() error {
	c.e.requests.Close()
	return c.src.Close()
}

// under is ctx for requests that are made after those of Open.
func (c *Content) under(ctx context.Context) context.Context {
	return c.e.requests.Under(traffic.Logins(ctx, c.e.secrets.AddAuthorization))
}

// Layers is the number of the image's layers, the lowest first.
func (c *Content) Layers() int { return len(c.layers) }

// Layer opens a layer as a tar stream: reading it to io.EOF proves that it has the digest that the manifest names,
// which until then is not known. Of the layer as it is stored at most packed bytes are read, and of the stream at
// most unpacked.
func (c *Content) Layer(ctx context.Context, n int, packed, unpacked int64) (io.ReadCloser, error) {
	info := c.layers[n]
	if err := info.Digest.Validate(); err != nil {
		return nil, err
	}
	c.e.requests.OnlyEach(maxLayerHead)
	body, _, err := c.src.GetBlob(c.under(ctx), info.BlobInfo, none.NoCache)
	c.e.requests.OnlyEach(0)
	if err != nil {
		return nil, c.unread("reading layer "+info.Digest.String(), err)
	}
	l, err := layer.Open(body, info.Digest, packed, unpacked)
	if err != nil {
		return nil, &ContentError{Reason: failure.Manifest(err), Err: err}
	}
	return l, nil
}

// Signed is one manifest of an image with the signatures that a runtime would find for it.
type Signed struct {
	Digest   string
	Manifest []byte
	// Simple are GPG signatures, and Attached sigstore signatures in the form in which a dir: image has them.
	Simple, Attached [][]byte
}

// maxInstances bounds the images of an index whose signatures are read.
const maxInstances = 64

// Manifests are the manifests of the image with their signatures: the index first if there is one, then all instances
// of it or, if all is false, the platform's.
func (c *Content) Manifests(ctx context.Context, all bool) ([]Signed, error) {
	ctx = c.under(ctx)
	blob, mime, err := c.src.GetManifest(ctx, nil)
	if err != nil {
		return nil, c.unread("", err)
	}
	var instances []digest.Digest
	if manifest.MIMETypeIsMultiImage(mime) {
		list, err := manifest.ListFromBlob(blob, mime)
		if err != nil {
			return nil, c.unread("", err)
		}
		if instances = list.Instances(); !all {
			instances = []digest.Digest{digest.Digest(c.Instance)}
		}
	}
	s, err := c.signed(ctx, image.UnparsedInstance(c.src, nil), c.Digest, blob)
	if err != nil {
		return nil, err
	}
	out := []Signed{s}
	if len(instances) > maxInstances {
		return nil, &ContentError{
			Reason: verdict.RegistryUnreachable, Err: fmt.Errorf("an index of more than %d images", maxInstances),
		}
	}
	for _, d := range instances {
		un := image.UnparsedInstance(c.src, &d)
		blob, _, err := manifestOf(ctx, un, d.String())
		if err != nil {
			return nil, c.unread("reading manifest", err)
		}
		if s, err = c.signed(ctx, un, d.String(), blob); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func (c *Content) signed(ctx context.Context, un *image.UnparsedImage, d string, blob []byte) (Signed, error) {
	s := Signed{Digest: d, Manifest: blob}
	c.e.v.Digest = d
	c.e.boundSignatures()
	list, err := c.e.signatures(ctx, un)
	c.e.requests.Bound("", 0, 0)
	if err != nil {
		return s, &ContentError{
			Reason: failure.Lookaside(err), Err: fmt.Errorf("reading signatures: %w", redacted(c.e.secrets, err)),
		}
	}
	for _, one := range list {
		if one.Simple != nil {
			s.Simple = append(s.Simple, one.Simple)
			continue
		}
		b, err := one.Sigstore.File()
		if err != nil {
			return s, err
		}
		s.Attached = append(s.Attached, b)
	}
	return s, nil
}

// Instance is what an index names.
type Instance struct {
	Digest string
	// Platform is os/arch or os/arch/variant; "" if the index doesn't say it.
	Platform string
}

// Chosen is false for what no runtime chooses from an index unless it is told to: that of the platform
// "unknown/unknown", as builders name an image's attestations. An instance without platform is chosen where no other
// fits.
func (i Instance) Chosen() bool { return i.Platform != "unknown/unknown" }

// Instances are those that a manifest names which is an index; none if it is no index.
func Instances(blob []byte) ([]Instance, error) {
	mime := manifest.GuessMIMEType(blob)
	if !manifest.MIMETypeIsMultiImage(mime) {
		return nil, nil
	}
	if _, err := manifest.ListFromBlob(blob, mime); err != nil {
		return nil, err
	}
	var index struct {
		Manifests []struct {
			Digest   string `json:"digest"`
			Platform struct {
				OS           string `json:"os"`
				Architecture string `json:"architecture"`
				Variant      string `json:"variant"`
			} `json:"platform"`
		} `json:"manifests"`
	}
	if err := json.Unmarshal(blob, &index); err != nil {
		return nil, err
	}
	var out []Instance
	for _, m := range index.Manifests {
		i := Instance{Digest: m.Digest}
		if p := m.Platform; p.OS != "" || p.Architecture != "" {
			i.Platform = strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
		}
		out = append(out, i)
	}
	return out, nil
}

// Places are the repositories, host and path, from which a runtime pulls the image, as registries.conf has it:
// mirrors first, the image's own last. Each is where signatures are looked up if that place serves the manifest.
func (p *Policy) Places(image Image) ([]string, error) {
	named := image.Logical.DockerReference()
	if named == nil {
		return nil, fmt.Errorf("image %q: is no docker reference", image.Name)
	}
	var out []string
	for _, ref := range image.Places(&p.System) {
		out = append(out, ref.DockerReference().Name())
	}
	if len(out) == 0 {
		out = []string{named.Name()}
	}
	return out, nil
}

// redactedError is err with a text that is printable and tells none of the secrets.
type redactedError struct {
	text string
	err  error
}

func redacted(s outside.Secrets, err error) error { return &redactedError{s.Text(err.Error()), err} }

func (e *redactedError) Error() string { return e.text }
func (e *redactedError) Unwrap() error { return e.err }
