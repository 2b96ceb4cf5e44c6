package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"

	"github.com/nodetrust/nodetrust/internal/verify/library"
	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/types"
)

// Complete returns un, whose manifest is blob and has this digest, with its sigstore attachments. The library takes
// attachments from sources of its own only, so an image with attachments becomes a directory, whose reference isn't the
// image's.
func (s *Source) Complete(ctx context.Context, un *image.UnparsedImage, blob []byte,
	d digest.Digest,
) (*image.UnparsedImage, error) {
	attached, err := s.attachments(ctx, d)
	if err != nil || len(attached) == 0 {
		return un, s.fail(err)
	}
	src, err := s.inDir(ctx, blob, d, attached)
	if err != nil {
		return un, s.fail(err)
	}
	return image.UnparsedInstance(src, nil), nil
}

// inDir makes a directory of an image with all its signatures.
func (s *Source) inDir(ctx context.Context, blob []byte, d digest.Digest, attached []library.Attachment,
) (types.ImageSource, error) {
	simple, err := s.simple(ctx, d)
	if err != nil {
		return nil, err
	}
	files := slices.Clone(simple)
	for _, a := range attached {
		b, err := a.File()
		if err != nil {
			return nil, err
		}
		files = append(files, b)
	}
	ref, err := library.WriteDir(s.image.Temp, blob, files)
	if err != nil {
		return nil, err
	}
	s.dir = ref.StringWithinTransport()
	return ref.NewImageSource(ctx, &s.image.Sys)
}

// attachments reads the sigstore attachments of a manifest, if registries.d has runtimes look for them.
func (s *Source) attachments(ctx context.Context, d digest.Digest) ([]library.Attachment, error) {
	if known, ok := s.attached[d]; ok {
		return known, nil
	}
	if _, _, on := s.image.Registries.Lookup(library.Scopes(s.physical)); !on {
		return nil, nil
	}
	var out []library.Attachment
	blob, mimeType, err := s.readManifest(as(ctx, AttachedList), library.AttachmentTag(d.String()))
	if err == nil {
		out, err = s.layers(ctx, blob, mimeType)
	} else if missing, ok := errors.AsType[*statusError](err); ok && missing.unknownManifest() {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	if s.attached == nil {
		s.attached = map[digest.Digest][]library.Attachment{}
	}
	s.attached[d] = out
	return out, nil
}

// layers reads what an attachment's manifest lists.
func (s *Source) layers(ctx context.Context, blob []byte, mimeType string) (out []library.Attachment, err error) {
	if mimeType != "application/vnd.oci.image.manifest.v1+json" {
		return nil, irregular("attachments of type %q", mimeType)
	}
	m, err := manifest.OCI1FromManifest(blob)
	if err != nil || len(m.Layers) > s.image.MaxSignatures {
		return nil, irregular("attachments that are none")
	}
	size := 0
	for _, l := range m.Layers {
		if l.Digest.Validate() != nil || !l.Digest.Algorithm().Available() || l.Size > int64(s.image.MaxSize) {
			return nil, irregular("an attachment of another kind")
		}
		payload, _, err := s.api(as(ctx, AttachedBlob), "blobs/"+l.Digest.String(), s.image.MaxSize, http.Header{})
		if err != nil {
			return nil, err
		}
		if l.Digest.Algorithm().FromBytes(payload) != l.Digest {
			return nil, irregular("an attachment with another digest")
		}
		if size += len(payload); size > maxList {
			return nil, irregular("more than %d bytes of attachments", maxList)
		}
		out = append(out, library.Attachment{MIMEType: l.MediaType, Payload: payload, Annotations: l.Annotations})
	}
	return out, nil
}

// CountSimple returns the number of simple signatures that a manifest has at the lookaside.
func (s *Source) CountSimple(ctx context.Context, d digest.Digest) (int, error) {
	sigs, err := s.simple(ctx, d)
	return len(sigs), err
}

// CountAttached returns the number of sigstore signatures that a manifest lists, as far as runtimes would look for any.
func (s *Source) CountAttached(ctx context.Context, d digest.Digest) (int, error) {
	if _, _, on := s.image.Registries.Lookup(library.Scopes(s.physical)); !on {
		return 0, nil
	}
	blob, _, err := s.readManifest(as(ctx, AttachedList), library.AttachmentTag(d.String()))
	if err != nil {
		return 0, err
	}
	m, err := manifest.OCI1FromManifest(blob)
	if err != nil {
		return 0, err
	}
	return len(m.Layers), nil
}

// unknownManifest reports whether the answer is a 404 that the library surely takes for "no such manifest".
func (e *statusError) unknownManifest() bool {
	var body refusal
	return e.status == http.StatusNotFound && json.Unmarshal(e.body, &body) == nil &&
		len(body.Errors) == 1 && body.Errors[0].Code == "MANIFEST_UNKNOWN"
}
