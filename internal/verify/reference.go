package verify

import (
	"errors"
	"fmt"
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
	name string // as asked for, without docker://
	// content is where manifest and signatures are read; logical is whose scope and identity count. They are the same
	// but for local content judged as a docker reference.
	content, logical types.ImageReference
	dir              string // of a dir: image
	layout           string // of an oci: image: the layout's directory
	stored           string // of a containers-storage: image: its name or ID, which a Policy finds on its host
	as               string // of a containers-storage: image: the reference that it is judged as, if that was said
	broken           error  // of an image in storage: why it can't be read
	storedID         string // of an image that is judged as it is stored; dir is a copy then
	instance         digest.Digest
}

// AnyInstance is for Image.WithInstance.
const AnyInstance = "any"

// local is true if the content is on this machine, so that neither registry nor lookaside are asked.
func (i Image) local() bool { return i.dir != "" || i.layout != "" }

// ParseImage reads an IMAGE argument: docker://REF or REF; dir:PATH, oci:PATH[:NAME|:@N] or
// containers-storage:NAME-OR-ID.
func ParseImage(image string) (Image, error) {
	i := Image{name: strings.TrimPrefix(image, "docker://")}
	if path, ok := strings.CutPrefix(image, "dir:"); ok {
		if path == "" {
			return i, fmt.Errorf("image %q: dir: needs a path", image)
		}
		ref, err := directory.NewReference(path)
		if err != nil {
			return i, fmt.Errorf("image %q: %w", image, err)
		}
		i.dir, i.content, i.logical = path, ref, ref
		return i, nil
	}
	if path, ok := strings.CutPrefix(image, "oci:"); ok {
		dir, _, _ := strings.Cut(path, ":")
		if dir == "" {
			return i, fmt.Errorf("image %q: oci: needs a path", image)
		}
		ref, err := layout.ParseReference(path)
		if err != nil {
			return i, fmt.Errorf("image %q: %w", image, err)
		}
		i.layout, i.content, i.logical = dir, ref, ref
		return i, nil
	}
	for _, transport := range []string{"oci-archive:", "docker-archive:", "docker-daemon:", "ostree:", "sif:"} {
		if strings.HasPrefix(image, transport) {
			return i, fmt.Errorf("image %q: transport %s is not supported; use docker://REFERENCE, dir:PATH, oci:PATH or containers-storage:NAME", image, strings.TrimSuffix(transport, ":"))
		}
	}
	if name, ok := strings.CutPrefix(image, storagePrefix); ok {
		ref, err := parseStored(name)
		if err != nil {
			return i, fmt.Errorf("image %q: must be the name of an image or its ID: %w", image, err)
		}
		i.stored, i.content, i.logical = name, ref, ref
		return i, nil
	}
	ref, err := parseDocker(i.name)
	if err != nil {
		return i, fmt.Errorf("image %q: %w", image, err)
	}
	i.content, i.logical = ref, ref
	return i, nil
}

// As returns a dir:, oci: or containers-storage: image that is judged as this docker reference; "" leaves it as it is.
func (i Image) As(reference string) (Image, error) {
	if reference == "" {
		return i, nil
	}
	if !i.local() && i.stored == "" {
		return i, errors.New("a docker image is judged as itself: another reference goes with dir:PATH and oci:PATH only")
	}
	ref, err := parseDocker(strings.TrimPrefix(reference, "docker://"))
	if err != nil {
		return i, fmt.Errorf("reference %q: %w", reference, err)
	}
	if i.stored != "" {
		i.as = reference
		return i, nil
	}
	i.logical = ref
	return i, nil
}

// WithInstance returns a multi-arch image of which the instance with this digest is judged, whatever its platform; ""
// leaves it to the platform. AnyInstance is the platform's if there is one, else the first: for a caller that reads all
// of them.
func (i Image) WithInstance(instance string) (Image, error) {
	if instance != "" && instance != AnyInstance {
		if _, err := digest.Parse(instance); err != nil {
			return i, fmt.Errorf("instance %q: %w", instance, err)
		}
	}
	i.instance = digest.Digest(instance)
	return i, nil
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
