// Package locate reads IMAGE arguments, and finds where manifest and signatures of an image lie: in a registry and its
// mirrors, in a directory, or in the storage of a host.
package locate

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/directory"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/oci/layout"
	"go.podman.io/image/v5/types"
)

// Image is what an IMAGE argument names, and the name it is judged under.
type Image struct {
	// Name is the argument without docker://.
	Name string
	// Content is where manifest and signatures are read. Logical is the reference whose scope and identity count. The two
	// differ for local content that is judged as a docker reference.
	Content, Logical types.ImageReference
	// Dir is the directory of a dir: image, and Layout that of an oci: image.
	Dir, Layout string
	// StoredID is the ID of an image that is judged as it is stored. Dir is a copy then.
	StoredID string
	// Instance is the digest of the instance that is judged, or AnyInstance; "" leaves the choice to the platform.
	Instance digest.Digest
	// Unread says why an image in the storage can't be read; nil for all other images.
	Unread error

	stored string // name or ID of a containers-storage: image
	as     string // reference that a containers-storage: image is judged as; "" if the caller named none
}

// AnyInstance is a value for Image.WithInstance.
const AnyInstance = "any"

// Local reports whether the content is on this machine, so that neither registry nor lookaside are asked.
func (i Image) Local() bool { return i.Dir != "" || i.Layout != "" }

// Stored reports whether the image is still to be found in the storage of a host.
func (i Image) Stored() bool { return i.stored != "" }

// LogicalName returns the docker reference that identities are compared with; "" if there is none.
func (i Image) LogicalName() string {
	if named := i.Logical.DockerReference(); named != nil {
		return named.String()
	}
	return ""
}

// Blob returns the file of a manifest in an OCI layout.
func (i Image) Blob(d digest.Digest) string {
	return filepath.Join(i.Layout, "blobs", d.Algorithm().String(), d.Encoded())
}

// Parse reads an IMAGE argument: docker://REF or REF; dir:PATH, oci:PATH[:NAME|:@N] or containers-storage:NAME-OR-ID.
func Parse(image string) (Image, error) {
	i := Image{Name: strings.TrimPrefix(image, "docker://")}
	var err error
	transport, rest, found := strings.Cut(image, ":")
	if !found {
		transport = ""
	}
	switch transport {
	case "dir":
		if i.Dir = rest; rest == "" {
			return i, fmt.Errorf("image %q: dir: needs a path", image)
		}
		i.Content, err = directory.NewReference(rest)
	case "oci":
		if i.Layout, _, _ = strings.Cut(rest, ":"); i.Layout == "" {
			return i, fmt.Errorf("image %q: oci: needs a path", image)
		}
		i.Content, err = layout.ParseReference(rest)
	case "oci-archive", "docker-archive", "docker-daemon", "ostree", "sif":
		return i, fmt.Errorf("image %q: transport %s is not supported; use docker://REFERENCE, dir:PATH, oci:PATH or containers-storage:NAME", image, transport)
	case "containers-storage":
		i.stored = rest
		if i.Content, err = parseStored(rest); err != nil {
			return i, fmt.Errorf("image %q: must be the name of an image or its ID: %w", image, err)
		}
	default:
		i.Content, err = parseDocker(i.Name)
	}
	if err != nil {
		return i, fmt.Errorf("image %q: %w", image, err)
	}
	i.Logical = i.Content
	return i, nil
}

// As returns a dir:, oci: or containers-storage: image that is judged as this docker reference; "" leaves the image as
// it is.
func (i Image) As(reference string) (Image, error) {
	if reference == "" {
		return i, nil
	}
	if !i.Local() && i.stored == "" {
		return i, errors.New("a docker image is judged as itself: another reference goes with dir:PATH and oci:PATH only")
	}
	ref, err := parseDocker(strings.TrimPrefix(reference, "docker://"))
	if err != nil {
		return i, fmt.Errorf("reference %q: %w", reference, err)
	}
	if i.stored != "" {
		i.as = reference
	} else {
		i.Logical = ref
	}
	return i, nil
}

// WithInstance returns a multi-arch image of which the instance with this digest is judged, whatever its platform; ""
// leaves the choice to the platform. AnyInstance is the platform's instance if there is one, else the first: for a
// caller that reads all of them.
func (i Image) WithInstance(instance string) (Image, error) {
	if instance != "" && instance != AnyInstance {
		if _, err := digest.Parse(instance); err != nil {
			return i, fmt.Errorf("instance %q: %w", instance, err)
		}
	}
	i.Instance = digest.Digest(instance)
	return i, nil
}

// Canonical completes a docker reference as podman and CRI-O do: the host docker.io, the tag latest; of a tag together
// with a digest the tag is dropped. Two references with the same canonical form are judged, and pulled, as the same. An
// error means that the text is no docker reference; a docker:// in front is none, and an image ID is none either.
func Canonical(image string) (string, error) {
	// The library takes sha256:HEX for an image named sha256.
	if digest.Digest(image).Validate() == nil {
		return "", errors.New("is the ID of an image, not a reference")
	}
	ref, err := parseDocker(image)
	if err != nil {
		return "", err
	}
	return ref.DockerReference().String(), nil
}

// parseDocker reads a reference as podman and CRI-O do: of a tag together with a digest the tag is dropped.
func parseDocker(s string) (types.ImageReference, error) {
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return nil, err
	}
	_, tagged := named.(reference.Tagged)
	if digested, ok := named.(reference.Digested); ok && tagged {
		if named, err = reference.WithDigest(reference.TrimNamed(named), digested.Digest()); err != nil {
			return nil, err
		}
	}
	return docker.NewReference(reference.TagNameOnly(named))
}
