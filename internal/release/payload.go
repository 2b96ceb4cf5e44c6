package release

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/nodetrust/nodetrust/internal/ref"
	"github.com/nodetrust/nodetrust/internal/verdict"
	"github.com/nodetrust/nodetrust/internal/verify"
	"github.com/nodetrust/nodetrust/internal/verify/locate"
)

// referencesFile lists the images of a release, inside the release image.
const referencesFile = "release-manifests/image-references"

// Limits of what is read of a release image. The list is in the uppermost layer, which has some MiB.
const (
	maxPacked     = 1 << 30
	maxUnpacked   = 4 << 30
	maxLayers     = 10
	maxReferences = 4 << 20
	maxImages     = 2000
)

// Image is one image of a release's payload.
type Image struct {
	Name string `json:"name"`
	// Image is repository@digest.
	Image  string `json:"image"`
	Digest string `json:"digest"`
}

type payload struct {
	name   string
	images []Image
}

// readPayload reads the list from the release image: as for a runtime, from the uppermost layer that has the file.
func readPayload(ctx context.Context, c *verify.Content) (payload, error) {
	for n := c.Layers() - 1; n >= 0 && n >= c.Layers()-maxLayers; n-- {
		b, found, err := fromLayer(ctx, c, n)
		if err != nil {
			return payload{}, err
		}
		if found {
			return parseReferences(b)
		}
	}
	return payload{}, noRelease("it holds no %s", referencesFile)
}

func noRelease(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &verify.ContentError{Reason: verdict.ImageNotFound, Err: fmt.Errorf("the image is no release image: %w", err)}
}

func notSignature(format string, args ...any) error {
	return &verify.ContentError{Reason: verdict.LookasideNotSignature, Err: fmt.Errorf(format, args...)}
}

func fromLayer(ctx context.Context, c *verify.Content, n int) (data []byte, found bool, err error) {
	layer, err := c.Layer(ctx, n, maxPacked, maxUnpacked)
	if err != nil {
		return nil, false, err
	}
	defer layer.Close()
	data, found, err = search(layer)
	if err == nil {
		// Only the end of a layer proves its digest.
		_, err = io.Copy(io.Discard, layer)
	}
	switch {
	case err == nil:
		return data, found, nil
	case ctx.Err() != nil:
		err = &verify.ContentError{Reason: verdict.Timeout, Err: ctx.Err()}
	default:
		err = &verify.ContentError{Reason: reasonOf(err, verdict.RegistryUnreachable), Err: err}
	}
	return nil, false, fmt.Errorf("reading the release image: %w", err)
}

// search reads one layer. A file that this layer removes is not found, whatever lower layers have.
func search(layer io.Reader) (data []byte, found bool, err error) {
	hidden := false
	for archive := tar.NewReader(layer); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, false, err
		}
		switch strings.TrimPrefix(path.Clean("/"+h.Name), "/") {
		case referencesFile:
			if h.Typeflag != tar.TypeReg {
				return nil, false, noRelease("%s is no regular file", referencesFile)
			}
			if h.Size > maxReferences {
				return nil, false, noRelease("%s is larger than %d bytes", referencesFile, maxReferences)
			}
			if data, err = io.ReadAll(archive); err != nil {
				return nil, false, err
			}
			found = true
		case "release-manifests":
			if h.Typeflag != tar.TypeDir {
				return nil, false, noRelease("release-manifests is no directory")
			}
		case ".wh.release-manifests", "release-manifests/.wh.image-references", "release-manifests/.wh..wh..opq",
			".wh..wh..opq":
			hidden = true
		}
	}
	if hidden && !found {
		return nil, false, noRelease("%s was removed from it", referencesFile)
	}
	return data, found, nil
}

// parseReferences reads the list, an ImageStream. It accepts digests only: a signature can't vouch for a tag.
func parseReferences(b []byte) (payload, error) {
	var stream struct {
		Kind     string `json:"kind"`
		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
		Spec struct {
			Tags []struct {
				Name string `json:"name"`
				From struct {
					Kind string `json:"kind"`
					Name string `json:"name"`
				} `json:"from"`
			} `json:"tags"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(b, &stream); err != nil {
		return payload{}, noRelease("parsing %s: %w", referencesFile, err)
	}
	tags := stream.Spec.Tags
	switch {
	case stream.Kind != "ImageStream":
		return payload{}, noRelease("%s is a %q, no ImageStream", referencesFile, stream.Kind)
	case len(tags) == 0 || len(tags) > maxImages:
		return payload{}, noRelease("%s has %d images", referencesFile, len(tags))
	}
	p := payload{name: stream.Metadata.Name}
	for _, t := range tags {
		d := ref.Digest(t.From.Name)
		parsed, err := digest.Parse(d)
		if t.From.Kind != "DockerImage" || err != nil || parsed.Algorithm() != digest.SHA256 {
			return payload{}, noRelease("%s: %q is not named by digest", referencesFile, t.Name)
		}
		name, err := locate.Canonical(t.From.Name)
		if err != nil {
			return payload{}, noRelease("%s: %q: %w", referencesFile, t.Name, err)
		}
		p.images = append(p.images, Image{Name: t.Name, Image: name, Digest: d})
	}
	slices.SortFunc(p.images, func(a, b Image) int { return strings.Compare(a.Name, b.Name) })
	return p, nil
}
