package verify

import (
	"bufio"
	"bytes"
	"compress/gzip"
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

	"github.com/nodetrust/nodetrust/internal/verdict"
)

// ContentError says why an image, a layer or signatures could not be read. It says nothing of what a policy thinks of
// them.
type ContentError struct {
	// Reason is one of an unknown.
	Reason verdict.Reason
	Err    error
}

func (e *ContentError) Error() string { return e.Err.Error() }
func (e *ContentError) Unwrap() error { return e.Err }

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
		return nil, &ContentError{localReason(err), err}
	}
	ctx = e.watch(ctx)
	src, _ := e.source(ctx)
	if src == nil {
		e.requests.Close()
		return nil, &ContentError{e.v.Reason, e.discreet(errors.New(e.v.Message))}
	}
	c := &Content{e: e, src: src}
	if err := e.orTooMuch(c.open(ctx)); err != nil {
		c.Close()
		return nil, &ContentError{contentReason(err), e.discreet(err)}
	}
	return c, nil
}

func contentReason(err error) verdict.Reason {
	var missing *notThereError
	var form *formError
	if errors.As(err, &form) {
		return verdict.ManifestUnreadable
	}
	if errors.As(err, &missing) {
		return verdict.ImageNotFound
	}
	return registryReason(err)
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
	if named := c.e.target.logical.DockerReference(); named != nil {
		c.Repository = reference.TrimNamed(named).Name()
	}
	blob, mime, err := readManifest(ctx, un)
	if err != nil {
		return err
	}
	// The library compares with the digest of the instance, or of the reference; a tag has none.
	if !digestMatches(blob, c.Instance) {
		return &notThereError{fmt.Errorf("the manifest found is not the %s asked for", c.Instance)}
	}
	m, err := manifest.FromBlob(blob, manifest.NormalizedMIMEType(mime))
	if err != nil {
		return &unusableError{err}
	}
	c.layers = m.LayerInfos()
	return nil
}

// Close ends the reading.
func (c *Content) Close() error {
	c.e.requests.Close()
	return c.src.Close()
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
	body, _, err := c.src.GetBlob(c.e.under(ctx), info.BlobInfo, none.NoCache)
	c.e.requests.OnlyEach(0)
	if err = c.e.orTooMuch(err); err != nil {
		return nil, &ContentError{registryReason(err), fmt.Errorf("reading layer %s: %w", info.Digest, c.e.discreet(err))}
	}
	l := &layer{want: info.Digest, verifier: info.Digest.Verifier(), body: body}
	l.stored = &limited{r: io.TeeReader(body, l.verifier), left: packed, what: "layer " + info.Digest.String()}
	stream, err := gunzip(l.stored)
	if err != nil {
		body.Close()
		return nil, &ContentError{contentReason(err), fmt.Errorf("unpacking layer %s: %w", info.Digest, err)}
	}
	l.unpacked = &limited{r: stream, left: unpacked, what: "unpacked layer " + info.Digest.String()}
	return l, nil
}

// gunzip reads a stream that is packed by gzip, or not at all. The image library's own unpacking would bring in all
// of its storage; other formats are rare, and none that a release image has.
func gunzip(r io.Reader) (io.Reader, error) {
	in := bufio.NewReader(r)
	head, err := in.Peek(4)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, err
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzip.NewReader(in)
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return nil, errors.New("it is packed by zstd, which is not read here")
	}
	return in, nil
}

// layer is a layer that is being read.
type layer struct {
	want             digest.Digest
	verifier         digest.Verifier
	body             io.Closer
	stored, unpacked io.Reader
}

func (l *layer) Read(p []byte) (int, error) {
	n, err := l.unpacked.Read(p)
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	// What a decompressor leaves unread is part of the blob too.
	if _, err := io.Copy(io.Discard, l.stored); err != nil {
		return n, err
	}
	if !l.verifier.Verified() {
		return n, fmt.Errorf("layer %s has another content than its digest says", l.want)
	}
	return n, io.EOF
}

func (l *layer) Close() error { return l.body.Close() }

// limited is an error when r has more than left bytes.
type limited struct {
	r    io.Reader
	left int64
	what string
}

func (b *limited) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, fmt.Errorf("%s is larger than is read", b.what)
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left+1)])
	b.left -= int64(n)
	if b.left < 0 {
		return n, fmt.Errorf("%s is larger than is read", b.what)
	}
	return n, err
}

// Signed is one manifest of an image with the signatures that a runtime would find for it.
type Signed struct {
	Digest   string
	Manifest []byte
	// Simple are GPG signatures, and Attached sigstore signatures in the form in which a dir: image has them.
	Simple, Attached [][]byte
}

// Manifests are the manifests of the image with their signatures: the index first if there is one, then all instances
// of it or, if all is false, the platform's.
func (c *Content) Manifests(ctx context.Context, all bool) ([]Signed, error) {
	ctx = c.e.under(ctx)
	blob, mime, err := c.src.GetManifest(ctx, nil)
	if err = c.e.orTooMuch(err); err != nil {
		return nil, &ContentError{registryReason(err), c.e.discreet(err)}
	}
	un := image.UnparsedInstance(c.src, nil)
	if !manifest.MIMETypeIsMultiImage(mime) {
		s, err := c.signed(ctx, un, c.Digest, blob)
		return []Signed{s}, err
	}
	list, err := manifest.ListFromBlob(blob, mime)
	if err != nil {
		return nil, &ContentError{registryReason(err), c.e.discreet(err)}
	}
	s, err := c.signed(ctx, un, c.Digest, blob)
	if err != nil {
		return nil, err
	}
	out := []Signed{s}
	instances := list.Instances()
	if !all {
		instances = []digest.Digest{digest.Digest(c.Instance)}
	}
	if len(instances) > maxInstances {
		return nil, &ContentError{verdict.RegistryUnreachable, fmt.Errorf("an index of more than %d images", maxInstances)}
	}
	for _, d := range instances {
		un := image.UnparsedInstance(c.src, &d)
		blob, _, err := readManifest(ctx, un)
		if err == nil && !digestMatches(blob, d.String()) {
			err = &notThereError{fmt.Errorf("the manifest found is not the %s asked for", d)}
		}
		if err = c.e.orTooMuch(err); err != nil {
			return nil, &ContentError{contentReason(err), fmt.Errorf("reading manifest: %w", c.e.discreet(err))}
		}
		s, err := c.signed(ctx, un, d.String(), blob)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
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

// maxInstances bounds the images of an index whose signatures are read.
const maxInstances = 64

func (c *Content) signed(ctx context.Context, un *image.UnparsedImage, d string, blob []byte) (Signed, error) {
	s := Signed{Digest: d, Manifest: blob}
	c.e.v.Digest = d
	c.e.boundSignatures()
	list, reason, err := c.e.signatures(ctx, un)
	c.e.requests.Bound("", 0, 0)
	if err != nil {
		return s, &ContentError{reason, fmt.Errorf("reading signatures: %w", c.e.discreet(err))}
	}
	for _, one := range list {
		if one.simple != nil {
			s.Simple = append(s.Simple, one.simple)
			continue
		}
		b, err := one.sigstore.File()
		if err != nil {
			return s, err
		}
		s.Attached = append(s.Attached, b)
	}
	return s, nil
}

// Places are the repositories, host and path, from which a runtime pulls the image, as registries.conf has it:
// mirrors first, the image's own last. Each is where signatures are looked up if that place serves the manifest.
func (p *Policy) Places(image Image) ([]string, error) {
	named := image.logical.DockerReference()
	if named == nil {
		return nil, fmt.Errorf("image %q: is no docker reference", image.name)
	}
	var out []string
	for _, ref := range pullSources(&p.sys, image.content) {
		out = append(out, ref.DockerReference().Name())
	}
	if len(out) == 0 {
		out = []string{named.Name()}
	}
	return out, nil
}
